"""What the values of a label raster mean: nodata, the mapping of its values to classes, and their conversion.

Runs in the sandboxed decoder process.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cloudseg.bands import MASK_NO_DATA
from cloudseg.errors import BadLabel
from cloudseg.ingest.class_mappings import BINARY, BINARY_255

MAX_CLASSES: Final = 32
"""A classification has few values; an image has thousands."""
_MAX_CODE: Final = 65_535
"""A nodata value beyond this (-3.4e38 is common) is not a class code."""
_FLOAT_TOLERANCE: Final = 1e-6
"""Relative; the nodata value is stored as text or as a double, which differs from a float pixel in the last digit."""

Mapping = dict[int, int]


def mark_nodata(pixels: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.bool_]:
    """Return which pixels are NaN or a nodata value that cannot be a class code, such as -3.4e38.

    A nodata value that can be a code is left to `choose_mapping`.
    """
    none = np.isnan(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, bool)
    if nodata is None or np.isnan(nodata) or _is_code(nodata):
        return none
    if pixels.dtype.kind != "f":
        return np.asarray(none | (pixels == nodata))
    with np.errstate(over="ignore", invalid="ignore"):
        return none | np.isclose(pixels.astype(np.float64), nodata, rtol=_FLOAT_TOLERANCE, atol=0)


def collect_values(blocks: Iterable[npt.NDArray[Any]], display_name: str) -> set[int]:
    """Return every value of a label.

    Args:
        blocks: The labeled pixels, one array after another.
        display_name: The file's name, for messages.

    Raises:
        BadLabel: The file is an image, not a classification.
    """
    found: set[int] = set()
    for pixels in blocks:
        values = _distinct(pixels)
        is_number = pixels.dtype.kind in "iuf"
        if not is_number or len(values) > MAX_CLASSES or not _are_integers(values):
            raise BadLabel(
                "the label is not a classification",
                subject=display_name,
                found=f"{len(values)} different values of type {pixels.dtype}"
                + (f": {', '.join(f'{value:g}' for value in values[:6])}" if is_number and len(values) else ""),
                expected=f"at most {MAX_CLASSES} integer values",
                next_step="Check that image and label are not swapped. A pixel that is not labeled must be 255 or the "
                "file's nodata value.",
            )
        found |= {int(value) for value in values}
    return found


def _distinct(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values in ascending order."""
    if pixels.dtype != np.uint8:
        return np.unique(pixels)
    present = np.zeros(256, bool)  # several times faster
    present[pixels] = True
    return np.flatnonzero(present).astype(np.uint8)


def choose_mapping(
    values: set[int],
    nodata: float | None,
    mappings: Sequence[Mapping],
    display_name: str,
    *,
    has_our_classes: bool = False,
) -> Mapping:
    """Return the first mapping that covers every value of a label; the nodata value maps to 255 unless it is covered.

    255 alone is ambiguous between "cloud" and "no label". Where both are possible, it means "no label" only if it is
    the file's nodata value, the file also has 1, or the file was made from a published mask.

    Args:
        values: Every value of the file.
        nodata: The file's nodata value.
        mappings: Source value to class, in order of preference. Several: no published format says what the values mean.
        display_name: The file's name, for messages.
        has_our_classes: Whether the file says that it was made from a published mask, whose 255 is "no label".

    Raises:
        BadLabel: No mapping covers every value, or a value is both a class and the nodata value.
    """
    for mapping in mappings:
        known = dict(mapping)
        if nodata is not None and _is_code(nodata):
            known.setdefault(int(nodata), MASK_NO_DATA)
        ambiguous = (
            mapping == BINARY.as_dict() and BINARY_255.as_dict() in mappings and 255 in values and 1 not in values
        )
        if values <= set(known) and not (ambiguous and nodata != 255 and not has_our_classes):
            if len(mappings) > 1:
                _check_nodata(known, values, nodata, display_name)
            return known
    raise BadLabel(
        "the label has values with unknown meaning",
        subject=display_name,
        found=", ".join(f"{value:g}" if abs(value) > _MAX_CODE else str(value) for value in sorted(values))[:200],
        expected=" or ".join("{" + ", ".join(map(str, sorted(mapping))) + "}" for mapping in mappings),
        next_step="Convert the label to 0 clear, 1 cloud, 255 none.",
    )


def to_classes(pixels: npt.NDArray[Any], mapping: Mapping) -> npt.NDArray[np.uint8]:
    """Return the class of every pixel: 0 clear, 1 cloud, 255 none."""
    classes = np.full(pixels.shape, MASK_NO_DATA, np.uint8)
    for value, target in mapping.items():
        classes[pixels == value] = target
    return classes


def _check_nodata(mapping: Mapping, values: set[int], nodata: float | None, display_name: str) -> None:
    """Refuse a value that means "clear" or "cloud" and that the file declares as nodata.

    QGIS's tool "Rasterize (vector to raster)" declares 0 by default, whether or not 0 is meant as clear.

    Raises:
        BadLabel: There is such a value.
    """
    if nodata is None or not _is_code(nodata) or int(nodata) not in values:
        return
    if mapping.get(int(nodata)) == MASK_NO_DATA:
        return
    name = "cloud" if mapping[int(nodata)] else "clear"
    raise BadLabel(
        f"the value {int(nodata)} means {name} and is also declared as nodata",
        subject=display_name,
        found=f"nodata {int(nodata)}",
        expected="255 as the nodata value, or none",
        next_step=f"If {int(nodata)} means {name}, remove the declaration (GDAL: gdal_edit.py -unsetnodata); if it "
        "means not labeled, write 255 there.",
    )


def _is_code(nodata: float) -> bool:
    return bool(abs(nodata) <= _MAX_CODE and nodata == int(nodata))


def _are_integers(values: npt.NDArray[Any]) -> bool:
    return bool(np.isfinite(values).all() and np.array_equal(values, np.rint(values)))
