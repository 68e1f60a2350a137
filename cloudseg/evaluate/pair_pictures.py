"""Pictures of scenes that two models saw: RGB, label, masks of A and B, as the evaluations stored them. No torch."""

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD
from cloudseg.catalog import Catalog, scene_rows
from cloudseg.evaluate.model_comparison import Sides
from cloudseg.evaluate.panels import COLORS, SIDE, draw_classes, draw_colors, sheet_png
from cloudseg.evaluate.small_masks import read_small
from cloudseg.raster.read import decoded, open_raster
from cloudseg.raster.thumbnail import color_indexes
from cloudseg.records import Scene
from cloudseg.storage import Store

UInt8 = npt.NDArray[np.uint8]


def draw_pair(store: Store, catalog: Catalog, sides: Sides, scene_id: str) -> bytes | None:
    """Return a PNG with four panels, None if an evaluation kept no masks of this scene.

    In the panels of the masks, what the label says otherwise is colored: missed cloud blue, false cloud orange.

    Memory: four panels; the scene is read from its overviews, by ranges.

    Args:
        store: of evaluations and scenes.
        catalog: of the scene's row.
        sides: the models (`model_comparison.find_sides`).
        scene_id: a scene of both evaluations.

    Raises:
        NotInCatalog: there is no such scene.
        ObjectMissing: the store lacks the scene or the masks.
        ObjectCorrupt: bytes do not match their checksum, or the raster cannot be read.
    """
    of_a, of_b = (read_small(store, found, [scene_id]).get(scene_id) for found in (sides.of_a, sides.of_b))
    if of_a is None or of_b is None:
        return None
    with catalog.read() as db:
        scene = scene_rows.get_scene(db, scene_id)
    label = of_a[0]
    color = _read_color(store, scene, label.shape)
    return sheet_png([color, draw_classes(label), _draw_errors(*of_a), _draw_errors(*of_b)])


def _draw_errors(label: UInt8, mask: UInt8) -> UInt8:
    picture = draw_classes(mask)
    picture[(label == MASK_CLOUD) & (mask == MASK_CLEAR)] = COLORS["missed"]
    picture[(label == MASK_CLEAR) & (mask == MASK_CLOUD)] = COLORS["false"]
    return picture


def _read_color(store: Store, scene: Scene, shape: tuple[int, ...]) -> UInt8:
    """Return the scene `(row, col, 3)` in the proportions of its reduced masks, not larger than it is."""
    scale = min(SIDE / max(shape), max(scene.height, scene.width) / max(shape))
    height, width = (max(1, round(side * scale)) for side in shape)
    with open_raster(store.gdal_path(scene.key)) as pixels, decoded(pixels):
        dn = pixels.read(color_indexes(pixels), out_shape=(3, height, width), resampling=Resampling.average)
    return draw_colors(dn)
