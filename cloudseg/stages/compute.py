"""Choose the device of a stage that computes. Torch is imported when it is called."""

from typing import TYPE_CHECKING, Literal

from cloudseg.api.device import open_device as open_device_of
from cloudseg.runtime import Runtime

if TYPE_CHECKING:
    from cloudseg.model.device import Device


def open_device(runtime: Runtime, *, precision: Literal["auto", "fp32", "bf16"] = "auto") -> "Device":
    """Choose the device and set up torch for it, with the threads of the settings; log the choice and its reason.

    Raises:
        SettingsError: torch is not installed (the core works without it), or the device of the settings is missing.
    """
    return open_device_of(runtime.settings, precision=precision)
