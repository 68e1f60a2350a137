"""The row of a scene in an evaluation: facts and counts. Free of torch, so that pages and the command line read it."""

from pydantic import Field

from cloudseg.evaluate.metrics import Counts
from cloudseg.records import Json, Record

CURVE_BINS = 100
"""Steps of the threshold curve."""


class LabelUse(Record):
    """A label that a scene was evaluated with."""

    label_id: str
    version: int


class SceneResult(Record):
    """Facts and counts of a scene: all that report and gate need, so that each scene is predicted once."""

    scene_id: str
    name: str
    place: str
    sensor: str
    source: str = Field(description="source of the label")
    tags: Json
    cloud_fraction: float = Field(description="of the labeled pixels")
    ground_reflectance: float | None = Field(
        description="median of the clear pixels' visible bands, None where all is cloud"
    )
    saturated_fraction: float = Field(description="labeled pixels near the scene's maximum in every visible band")
    counts: Counts
    variants: dict[str, tuple[int, int, int, int]] = Field(
        default_factory=dict,
        description="tp, fp, fn and tn by radiometry variant (`cloudseg.evaluate.radiometry`); empty in older "
        "evaluations and beyond the first scenes of a large split",
    )
    bright: Counts | None = Field(description="the brightness threshold's mask on the same pixels; only tp, fp, fn, tn")
    labels: list[LabelUse] = Field(
        default_factory=list, description="labels that the snapshot overlaid, oldest first; empty in older evaluations"
    )
