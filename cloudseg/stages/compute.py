"""Chooses the device of a stage that computes, with the threads that the settings allow. Imports torch when called."""

import logging
from typing import TYPE_CHECKING, Literal

from cloudseg.errors import SettingsError
from cloudseg.runtime import Runtime

if TYPE_CHECKING:
    from cloudseg.model.device import Device

log = logging.getLogger(__name__)


def open_device(runtime: Runtime, *, precision: Literal["auto", "fp32", "bf16"] = "auto") -> "Device":
    """Choose the device, log the choice and its reason.

    Raises SettingsError where torch is not installed (the core works without it) or the wanted device is absent.
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
    device = choose_device(runtime.settings.device, precision, runtime.settings.threads, runtime.settings.int8)
    set_up(device)
    log.info("device: %s, because %s", device.kind, device.reason)
    return device
