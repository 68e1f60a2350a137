"""Compare a label with the published masks of its scene: a model must not learn from its own mask.

Runs in the sandboxed decoder process, on copies of masks that this service wrote.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD
from cloudseg.errors import BadLabel
from cloudseg.grid import iter_windows
from cloudseg.ingest.job import LabelJob, LabelTags
from cloudseg.ingest.untrusted import rasterio_window
from cloudseg.raster.read import open_raster

_WINDOW: Final = 1024


def corrected_mask(job: LabelJob, label: Path, tags: LabelTags) -> str | None:
    """Return the id of the published mask that was edited to make a label, None if the file names none.

    A label is a mask unchanged if both have the same class at every pixel, not labeled included. A mask of a single
    class proves nothing: of a scene without a cloud every right label looks like that. So such a one is refused only
    if the file's tags say that it is the mask.

    Args:
        job: Names the masks.
        label: The canonical label.
        tags: What the file says about itself.

    Raises:
        BadLabel: The label is a published mask, unchanged, or names one that the catalog does not have.
    """
    masks = {mask.mask_id: mask.path for mask in job.masks}
    if tags.mask_id is not None and tags.mask_id not in masks and tags.confirms != tags.mask_id:
        raise BadLabel(
            "the label was made from a published mask that is not known for its scene",
            subject=job.display_name,
            found=tags.mask_id,
            expected=", ".join(sorted(masks))[:200] or "no mask: the scene has none",
            next_step=_how_to_confirm(tags.mask_id),
        )
    for mask_id, path in masks.items():
        equal, classes = _compare(label, path)
        if equal and tags.confirms != mask_id and (len(classes) > 1 or tags.mask_id == mask_id):
            raise BadLabel(
                f"this is the published mask {mask_id} unchanged; the model would learn from itself",
                subject=job.display_name,
                found="the same class at every pixel",
                expected="a corrected mask",
                next_step=_how_to_confirm(mask_id),
            )
    return tags.mask_id if tags.mask_id in masks else None


def _how_to_confirm(mask_id: str) -> str:
    return (
        "Correct the mask before you save it. If a person has checked every pixel of it, set the tag "
        f"LABEL_CONFIRMS={mask_id} (GDAL: gdal_edit.py -mo)."
    )


def _compare(label: Path, mask: str) -> tuple[bool, set[int]]:
    """Return whether two canonical rasters have the same classes, and the classes that the first one has."""
    classes: set[int] = set()
    with open_raster(str(label)) as one, open_raster(mask) as other:
        if one.shape != other.shape:
            return False, classes
        for window in iter_windows(one.height, one.width, _WINDOW):
            found: Any = one.read(1, window=rasterio_window(window))
            if not np.array_equal(found, other.read(1, window=rasterio_window(window))):
                return False, classes
            classes |= {int(value) for value in np.unique(found)} & {MASK_CLEAR, MASK_CLOUD}
    return True, classes
