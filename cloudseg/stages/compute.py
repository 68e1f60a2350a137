"""What a stage that computes opens first: its device, the model of others. Imported when they are asked for."""

from typing import TYPE_CHECKING, Literal

from cloudseg.api.device import open_device as open_device_of
from cloudseg.errors import SettingsError
from cloudseg.runtime import Runtime

if TYPE_CHECKING:
    from cloudseg.model.device import Device
    from cloudseg.teacher import Teacher


def open_device(
    runtime: Runtime, *, precision: Literal["auto", "fp32", "bf16"] = "auto", predicts: bool = False
) -> "Device":
    """Choose the device and set up torch for it, with the threads of the settings; log the choice and its reason.

    Args:
        runtime: its settings.
        precision: of torch.
        predicts: whether published weights predict on it and nothing else: with int8 torch is not imported.

    Raises:
        SettingsError: torch is needed and not installed (the core works without it), or the device of the settings is
            missing.
    """
    return open_device_of(runtime.settings, precision=precision, predicts=predicts)


def open_opinion(runtime: Runtime) -> "Teacher | None":
    """Open the model of the second opinion; None where CLOUDSEG_SECOND_OPINION is off.

    Raises:
        SettingsError: it is on, and its extra is not installed.
    """
    if not runtime.settings.second_opinion:
        return None
    from cloudseg.teacher import open_teacher

    try:
        return open_teacher(runtime.threads)
    except SettingsError as error:
        raise SettingsError(
            "evaluations ask for a second opinion, and its model is not installed",
            subject="CLOUDSEG_SECOND_OPINION",
            found=error.found,
            expected=error.subject,
            next_step=f"{error.next_step} Or unset CLOUDSEG_SECOND_OPINION.",
        ) from error
