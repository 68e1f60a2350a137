"""The classes of a published mask after cleaning, ready for whoever draws polygons or writes a raster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rasterio.transform import Affine

from cloudseg.catalog.mask_query import Found
from cloudseg.errors import DataError, StateError
from cloudseg.raster.clean import UInt8, cleaned_classes
from cloudseg.raster.cleaning import Cleaning
from cloudseg.raster.components import Advance
from cloudseg.raster.ground import Ground, measure_ground
from cloudseg.records import Mask, Scene, StoredObject, Weights
from cloudseg.scratch import scratch_directory
from cloudseg.storage import Store, whole_object


@dataclass(frozen=True)
class CleanedMask:
    """A mask whose classes are in memory, or mapped."""

    mask: Mask
    scene: Scene
    weights: Weights
    crs: str
    transform: Affine
    ground: Ground
    classes: UInt8
    """`(row, col)`."""
    tags: dict[str, str]
    """Settings of the cleaning."""
    source: StoredObject
    """What the classes were read from: the mask, or the probability."""


@contextmanager
def cleaned_mask(store: Store, found: Found, cleaning: Cleaning, advance: Advance) -> Iterator[CleanedMask]:
    """Yield a mask after cleaning. All reads of the store are done when it is yielded.

    Args:
        store: holds the mask.
        found: the mask with its scene and weights.
        cleaning: what to do.
        advance: called with the number of rows that are done.

    Raises:
        StateError: the mask has no probability, which another threshold needs.
        DataError: pixels of the mask cannot be measured on the ground.
        StoreError: the mask is missing or damaged, the store does not answer, or the disk is full.
    """
    mask, scene, weights = found.mask, found.scene, found.weights
    if mask is None or weights is None or scene.crs is None:
        raise DataError("not a mask with a georeference", subject=found.id)
    source = _source(mask, cleaning)
    transform = Affine(*scene.transform)
    ground = measure_ground(transform, scene.crs, scene.height, scene.width)
    with scratch_directory("export") as folder:
        with whole_object(store, source, f"mask {mask.mask_id}") as path:
            classes = cleaned_classes(path, ground, cleaning, folder, advance)
        tags = cleaning.tags(mask.threshold)
        yield CleanedMask(mask, scene, weights, scene.crs, transform, ground, classes, tags, source)


def _source(mask: Mask, cleaning: Cleaning) -> StoredObject:
    if cleaning.threshold is None:
        return StoredObject(key=mask.key, sha256=mask.sha256, size=mask.size)
    if "probability" not in mask.companions:
        raise StateError(
            "the mask has no probability, so it has no other threshold",
            subject=mask.mask_id,
            next_step="Export it without --threshold.",
        )
    return StoredObject.model_validate(mask.companions["probability"])
