"""The grid of pixels that are in no catalog, and which bands of them a model reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudseg.bands import BAND_NAMES
from cloudseg.errors import InputError


@dataclass(frozen=True)
class PixelGrid:
    """Where pixels are; a `cloudseg.predict.draw.Target`."""

    scene_id: str
    """Name in errors."""
    height: int
    width: int
    resolution_m: float | None
    crs: str | None = None
    transform: list[float] = field(default_factory=lambda: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Values:
    """What the numbers of an array mean; None: what is usual for their type."""

    scale: float | None
    """Reflectance = number × scale + offset."""
    offset: float | None
    nodata: float | None
    """Number of pixels without data."""


def check_bands(
    names: Sequence[str | None], wanted: Sequence[str], subject: str, *, optional: Sequence[str] = ()
) -> None:
    """Check that every band that a model needs is there once.

    Args:
        names: of the bands that are there, in their order; None for one without a name.
        wanted: what the model reads.
        subject: names the array or file in errors.
        optional: those of the wanted bands that may be missing.

    Raises:
        InputError: a band is missing or occurs twice; the message says what to type.
    """
    found = [name for name in names if name is not None]
    twice = sorted({name for name in found if found.count(name) > 1})
    missing = [name for name in wanted if name not in found and name not in optional]
    if not twice and not missing:
        return
    raise InputError(
        f"two bands have the name {', '.join(twice)}" if twice else f"the model reads {', '.join(missing)}",
        subject=subject,
        found=", ".join(name or "-" for name in names) or "no band names",
        expected=", ".join(f"{name} (optional)" if name in optional else name for name in wanted),
        next_step=f"Name the bands in their order: bands={list(wanted)!r}, --bands {','.join(wanted)} "
        f"(- for a band that is not wanted). Names: {', '.join(BAND_NAMES)}.",
    )


def check_resolution(resolution_m: float | None, working_resolution_m: float | None, subject: str) -> None:
    """Check that the size of a pixel is known where the model resamples.

    Raises:
        InputError: it is unknown, or not a length.
    """
    if resolution_m is not None and not 0 < resolution_m < float("inf"):
        raise InputError("not a pixel size", subject=subject, found=resolution_m, expected="meters, above 0")
    if resolution_m is None and working_resolution_m is not None:
        raise InputError(
            "the size of a pixel is unknown",
            subject=subject,
            expected=f"meters: this model works at {working_resolution_m:g} m and resamples finer pixels",
            next_step="Pass resolution_m=10 for pixels of 10 m (command line: --resolution 10).",
        )
