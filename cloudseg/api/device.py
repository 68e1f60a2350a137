"""Choose the device that computes. Torch is imported when this is called, unless int8 does without it."""

import logging
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cloudseg.model.device import Device
    from cloudseg.settings import Settings

log = logging.getLogger(__name__)


def open_device(
    settings: "Settings", *, precision: Literal["auto", "fp32", "bf16"] = "auto", predicts: bool = False
) -> "Device":
    """Choose the device and set up torch for it, with the threads of the settings; log the choice and its reason.

    Args:
        settings: device, threads and int8.
        precision: of torch.
        predicts: whether published weights predict on it and nothing else: with int8 torch is not imported.

    Raises:
        SettingsError: torch is needed and not installed (the core works without it), or the device of the settings is
            missing.
    """
    from cloudseg.model.device import choose_device, choose_int8, set_up

    device = choose_int8(settings.device, settings.threads, settings.int8) if predicts else None
    if device is None:
        device = choose_device(settings.device, precision, settings.threads, settings.int8)
        set_up(device)
    log.info("device: %s (%s)", device.kind, device.reason)
    return device
