"""Write a cleaned mask as a cloud-optimized GeoTIFF with its QGIS style."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cloudseg import __version__
from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.export.work import CleanedMask
from cloudseg.keys import slug
from cloudseg.raster.clean import write_classes
from cloudseg.raster.cog import write_cog
from cloudseg.raster.statistics import BandStatistics
from cloudseg.raster.style import MASK_STYLE, classes_qml

CLASSES: Final = "0 clear, 1 cloud, 255 no data"


def raster_name(mask: CleanedMask) -> str:
    """Return the name of the file: of the scene, for people, and of the mask, because names repeat."""
    return f"{slug(mask.scene.name)}_{mask.mask.mask_id}.tif"


def write_cleaned(mask: CleanedMask, folder: Path) -> None:
    """Write a mask and its style into a folder, each complete or not at all.

    The file has the tags of a published mask, with the settings of the cleaning and the checksum of its source.

    Args:
        mask: after cleaning.
        folder: an existing one.
    """
    out = folder / raster_name(mask)
    drawn, part = folder / f".{out.stem}.drawn", folder / f".{out.stem}.part"
    try:
        counts = write_classes(drawn, mask.classes, mask.crs, mask.transform)
        statistics = BandStatistics.from_counts(counts, MASK_NO_DATA)
        write_cog(
            part,
            drawn,
            resampling="mode",
            tags=_tags(mask, counts),
            band_tags=statistics.tags() if statistics else {},
        )
        style = folder / f".{out.stem}.style"
        style.write_text(classes_qml(MASK_STYLE), "utf-8")
        style.replace(out.with_suffix(".qml"))
        part.replace(out)
    finally:
        for left in (drawn, part):
            left.unlink(missing_ok=True)


def _tags(mask: CleanedMask, counts: npt.NDArray[np.int64]) -> dict[str, str]:
    pixels, valid = int(counts.sum()), int(counts.sum() - counts[MASK_NO_DATA])
    row, scene, weights = mask.mask, mask.scene, mask.weights
    return {
        "CLOUDSEG_MASK_ID": row.mask_id,
        "CLOUDSEG_SCENE_ID": scene.scene_id,
        "CLOUDSEG_SCENE_NAME": scene.name,
        "CLOUDSEG_MODEL_VERSION": str(weights.version),
        "CLOUDSEG_WEIGHTS_ID": weights.weights_id,
        "CLOUDSEG_SOURCE_SHA256": mask.source.sha256,
        "CLOUDSEG_CLEANED": "yes",  # so that nobody takes it for a label (`cloudseg.ingest.label_tags`)
        **mask.tags,
        "CLOUDSEG_CLOUD_FRACTION": f"{counts[MASK_CLOUD] / valid if valid else 0:.6f}",
        "CLOUDSEG_VALID_FRACTION": f"{valid / pixels:.6f}",
        "CLOUDSEG_CLASSES": CLASSES,
        "CLOUDSEG_SOFTWARE": f"cloudseg {__version__}",
    }
