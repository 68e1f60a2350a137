"""Compare a label with the published masks of its scene: a model must not learn from its own mask.

Runs in the sandboxed decoder process, on copies of masks that this service wrote.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.errors import BadLabel
from cloudseg.grid import Window
from cloudseg.ingest.job import LabelJob, LabelTags
from cloudseg.ingest.untrusted import rasterio_window
from cloudseg.raster.read import open_raster, read_valid

_CLASSES: Final = (MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA)


class MaskComparison:
    """Counts of the classes of a label and of each published mask, filled window by window."""

    def __init__(self, job: LabelJob, stack: ExitStack) -> None:
        """Open the masks.

        Args:
            job: Names the masks.
            stack: Closes them.
        """
        self._name = job.display_name
        self._masks = {mask.mask_id: stack.enter_context(open_raster(mask.path)) for mask in job.masks}
        self._scene = stack.enter_context(open_raster(job.scene)) if job.masks else None
        self._counts = {mask_id: np.zeros((3, 3), np.int64) for mask_id in self._masks}

    def add(self, window: Window, classes: npt.NDArray[np.uint8]) -> None:
        """Count the classes of a window of the label; where the scene has no data they are set to 255, as in a mask."""
        if self._scene is None:
            return
        classes[~read_valid(self._scene, window)] = MASK_NO_DATA
        for mask_id, mask in self._masks.items():
            published = mask.read(1, window=rasterio_window(window))
            self._counts[mask_id] += [
                [int(((published == m) & (classes == c)).sum()) for c in _CLASSES] for m in _CLASSES
            ]

    def corrected_mask(self, tags: LabelTags, *, is_drawn: bool) -> str | None:
        """Return the id of the published mask that was edited to make the label, None if the file names none.

        A label is a mask unchanged if nothing that it labels differs and each class that it has covers all of that
        class in the mask: the whole mask, or its cloud alone, as polygons made from it. A mask of a single class proves
        nothing: of a scene without a cloud every right label looks like that. So such a one is refused only if the
        file's tags say that it is the mask.

        Args:
            tags: What the file says about itself.
            is_drawn: Whether it holds polygons, which are no copy of a mask: one that is not known any more only leaves
                the label without its link.

        Raises:
            BadLabel: The label is a published mask, unchanged, or names one that the catalog does not have.
        """
        unknown = tags.mask_id if tags.mask_id not in self._masks else None
        if unknown is not None and not is_drawn and tags.confirms != unknown:
            raise BadLabel(
                "the label was made from a published mask that is not known for its scene",
                subject=self._name,
                found=unknown,
                expected=", ".join(sorted(self._masks))[:200] or "no mask: the scene has none",
                next_step=_how_to_confirm(unknown),
            )
        for mask_id, counts in self._counts.items():
            pixels = _Pixels(counts)
            suspected = pixels.is_copy() and (not pixels.is_uniform() or tags.mask_id == mask_id)
            if suspected and tags.confirms != mask_id:
                raise BadLabel(
                    f"this is the published mask {mask_id} unchanged; the model would learn from itself",
                    subject=self._name,
                    found="the same class at every labeled pixel",
                    expected="a corrected mask",
                    next_step=_how_to_confirm(mask_id),
                )
        return tags.mask_id if tags.mask_id in self._masks else None


def _how_to_confirm(mask_id: str) -> str:
    return (
        "Correct the mask before you save it. If a person has checked every pixel of it, set the tag "
        f"LABEL_CONFIRMS={mask_id} (GDAL: gdal_edit.py -mo)."
    )


@dataclass(frozen=True)
class _Pixels:
    """How many pixels have each pair of classes: rows are 0, 1, 255 of the mask, columns 0, 1, 255 of the label."""

    counts: npt.NDArray[np.int64]

    def is_copy(self) -> bool:
        """Return whether the label holds whole classes of the mask, and nothing else."""
        (clear, wrong_cloud, no_clear), (wrong_clear, cloud, no_cloud), outside = self.counts.tolist()
        differs = wrong_cloud or wrong_clear or outside[0] or outside[1]
        return not differs and not (clear and no_clear) and not (cloud and no_cloud)

    def is_uniform(self) -> bool:
        """Return whether the mask has a single class."""
        return not (self.counts[0].any() and self.counts[1].any())
