"""What is done to the mask that a model draws: the settings of a cleaning, and how a row, a file and an item name them.

The pixels are cleaned in `cloudseg.raster.clean`. No raster is opened here.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Final

from cloudseg.errors import InputError
from cloudseg.keys import canonical_json
from cloudseg.raster.probability import STEPS
from cloudseg.records import Json

MOST_BUFFER_M: Final = 20_000.0
"""Widest buffer in meters: its cost grows with the number of rows that it spans."""
_LEAST: Final = 1 / STEPS
"""The lowest step of a probability that can be a threshold; 0 would make everything cloud."""


@dataclass(frozen=True)
class Cleaning:
    """What is done to a mask, in this order; the defaults leave it as it is."""

    threshold: float | None = None
    """Probability from which a pixel is cloud; None: that of the model."""
    min_area_m2: float = 0.0
    """Clouds smaller than this become clear."""
    min_hole_m2: float = 0.0
    """Clear areas smaller than this become cloud, unless no cloud touches them."""
    buffer_m: float = 0.0
    """Clear pixels whose center is at most this far from the center of a cloud pixel become cloud."""

    def check(self) -> None:
        """Raise InputError if a value is out of range."""
        if self.threshold is not None and not _LEAST <= self.threshold <= 1:
            raise InputError("not a threshold", subject="threshold", found=self.threshold, expected=f"{_LEAST} to 1")
        for name in ("min_area_m2", "min_hole_m2"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError("not an area", subject=name, found=value, expected="square meters, 0 or more")
        if not 0 <= self.buffer_m <= MOST_BUFFER_M:
            raise InputError(
                "not a width", subject="buffer_m", found=self.buffer_m, expected=f"meters, 0 to {MOST_BUFFER_M:.0f}"
            )

    @classmethod
    def parse(cls, text: str) -> "Cleaning":
        """Return the cleaning that `text` wrote."""
        return cls(**json.loads(text)) if text else cls()

    def of_model(self, threshold: float) -> "Cleaning":
        """Return the same for a model: its own threshold is none other."""
        return replace(self, threshold=None) if self.threshold == threshold else self

    @property
    def text(self) -> str:
        """What differs from the defaults, as canonical JSON; empty if nothing does. It is part of the id of a mask."""
        changed = {name: float(value) for name, value in asdict(self).items() if value}
        return canonical_json(changed).decode() if changed else ""

    @property
    def changes_areas(self) -> bool:
        """Whether more than the threshold is changed: then the size of a pixel on the ground must be known."""
        return bool(self.min_area_m2 or self.min_hole_m2 or self.buffer_m)

    @property
    def passes(self) -> int:
        """How often every row is passed, to count progress."""
        return 1 + sum(value > 0 for value in (self.min_area_m2, self.min_hole_m2, self.buffer_m))

    def tags(self, threshold: float) -> dict[str, str]:
        """Return the settings as text, by the names of tags of a mask.

        Args:
            threshold: of the model, which applies where no other is set.
        """
        return {
            "CLOUDSEG_THRESHOLD": repr(threshold if self.threshold is None else self.threshold),
            "CLOUDSEG_MODEL_THRESHOLD": repr(threshold),
            "CLOUDSEG_MIN_AREA_M2": f"{self.min_area_m2:.15g}",
            "CLOUDSEG_MIN_HOLE_M2": f"{self.min_hole_m2:.15g}",
            "CLOUDSEG_BUFFER_M": f"{self.buffer_m:.15g}",
        }

    def properties(self) -> Json:
        """Return the fields of a STAC item that say how a mask was cleaned, none for a mask as the model draws it.

        The threshold is `cloudseg:threshold` of every mask, and that of the model a property of the model's item.
        """
        if not self.text:
            return {}
        return {
            "cloudseg:cleaned": True,
            "cloudseg:min_area_m2": self.min_area_m2,
            "cloudseg:min_hole_m2": self.min_hole_m2,
            "cloudseg:buffer_m": self.buffer_m,
        }
