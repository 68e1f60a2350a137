"""What a composite is made from and how, the files it becomes, and the tags that say so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, get_args

from shapely.geometry.base import BaseGeometry

from cloudseg import __version__
from cloudseg.gis.composite_grid import Grid
from cloudseg.gis.mask_of_scene import MaskOfScene
from cloudseg.raster.cog import BLOCK_SIZE
from cloudseg.records import utc_iso

Method = Literal["clearest", "median"]
METHODS: Final[tuple[str, ...]] = get_args(Method)


@dataclass(frozen=True)
class Plan:
    """What to compose, and how."""

    grid: Grid
    masks: Sequence[MaskOfScene]
    """In the order of the scene index, each with a time of acquisition."""
    bands: Sequence[str]
    method: Method
    target: datetime
    """The wanted time of the clearest pixel."""
    buffer_m: float = 0.0
    """Pixels at most this far from cloud or no data do not count as clear."""
    cap_m: float = 1000.0
    """Distances to cloud beyond this are as good as this."""
    meters_per_day: float = 10.0
    """Distance to cloud that a day farther from the wanted time has to bring."""
    inside: BaseGeometry | None = None
    """Polygons in the CRS of the grid; pixels whose center is outside have no data. None: the whole grid."""
    block: int = 2 * BLOCK_SIZE
    """Side of a window in pixels."""

    @property
    def halo(self) -> int:
        """Pixels around a window in which cloud can matter."""
        reach = max(self.cap_m, self.buffer_m) if self.method == "clearest" else self.buffer_m
        return math.ceil(reach / self.grid.resolution_m)


def output_files(out: Path, method: str) -> dict[str, Path]:
    """Return the files of a composite: `bands`, `count`, and `scene` if scenes are chosen."""
    names = ("count", "scene") if method == "clearest" else ("count",)
    return {"bands": out} | {name: out.with_suffix(f".{name}.tif") for name in names}


def plan_tags(plan: Plan) -> dict[str, str]:
    """Return the provenance of a composite, without a time of writing, so that the same input gives the same bytes."""
    masks = plan.masks
    tags = {
        "COMPOSITE_METHOD": plan.method,
        "MASK_IDS": " ".join(mask.mask_id for mask in masks),
        "SCENE_IDS": " ".join(mask.scene_id for mask in masks),
        "WEIGHTS_IDS": " ".join(sorted({mask.weights_id for mask in masks})),
        "ACQUIRED": " ".join(utc_iso(mask.acquired_at) for mask in masks if mask.acquired_at is not None),
        "BUFFER_M": f"{plan.buffer_m:g}",
        "SOFTWARE": f"cloudseg {__version__}",
    }
    if plan.method == "clearest":
        tags |= {
            "TARGET_TIME": utc_iso(plan.target),
            "DISTANCE_CAP_M": f"{plan.cap_m:g}",
            "METERS_PER_DAY": f"{plan.meters_per_day:g}",
        }
    return {f"CLOUDSEG_{name}": value for name, value in tags.items()}
