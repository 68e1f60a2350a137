"""Choose the device that computes. Torch is imported when this is called."""

import logging
from typing import TYPE_CHECKING, Literal

from cloudseg.errors import SettingsError

if TYPE_CHECKING:
    from cloudseg.model.device import Device
    from cloudseg.settings import Settings

log = logging.getLogger(__name__)


def open_device(settings: "Settings", *, precision: Literal["auto", "fp32", "bf16"] = "auto") -> "Device":
    """Choose the device and set up torch for it, with the threads of the settings; log the choice and its reason.

    Raises:
        SettingsError: torch is not installed (the core works without it), or the device of the settings is missing.
    """
    try:
        from cloudseg.model.device import choose_device, set_up
    except ModuleNotFoundError as error:
        raise SettingsError(
            "this step needs torch",
            subject=str(error.name),
            found="not installed",
            next_step="Install the extra: pip install 'cloudseg[ml]'.",
        ) from error
    device = choose_device(settings.device, precision, settings.threads, settings.int8)
    set_up(device)
    log.info("device: %s (%s)", device.kind, device.reason)
    return device
