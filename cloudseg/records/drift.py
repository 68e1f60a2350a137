"""What the stage `drift` returns."""

from typing import Literal

from pydantic import Field

from cloudseg.records.base import Record

DriftMeasure = Literal["brightness", "cloud_fraction"]


class DriftWeek(Record):
    """One measure of the scenes of one sensor that were ingested in one week, beside that of the training scenes."""

    week: str = Field(description="ISO week of the ingest in UTC: '2026-W09'")
    sensor: str
    measure: DriftMeasure = Field(
        description="brightness: mean reflectance of a scene; cloud_fraction: of the champion's mask of a scene, "
        "compared with that of the label of a training scene"
    )
    scenes: int = Field(description="scenes of the week with this measure")
    median: float
    low: float = Field(description="10th percentile")
    high: float = Field(description="90th percentile")
    reference_scenes: int = Field(description="training scenes of this sensor with this measure")
    reference_median: float | None
    reference_low: float | None = Field(description="10th percentile")
    reference_high: float | None = Field(description="90th percentile")
    psi: float | None = Field(description="None: too few scenes, here or in the training snapshot")
    psi_limit: float | None = Field(description="the limit, or what samples of these sizes reach by chance, if larger")
    past: bool = Field(description="whether the PSI exceeds its limit")


class CloudPlace(Record):
    """A place whose masks are nearly always overcast, or nearly always clear, where those of its region are not."""

    place: str
    kind: Literal["always cloud", "never cloud"]
    masks: int
    share: float = Field(description="of the masks that are overcast, or clear")
    mean: float = Field(description="mean cloud fraction of the masks of the place")
    region_masks: int = Field(description="masks of the other places of its region")
    region_mean: float = Field(description="their mean cloud fraction")


class DriftRecord(Record):
    """How new scenes and masks differ from the training scenes of the champion."""

    weights_id: str | None = Field(description="the champion; None: there is none yet")
    model_version: int | None
    snapshot_id: str | None = Field(description="its training snapshot; None for imported weights")
    limit: float = Field(description="PSI above which a week has drifted")
    past_limit: list[str] = Field(description="one sentence for each sensor and measure that is past its limit now")
    notes: list[str] = Field(description="what could not be compared, and why")
    weeks: list[DriftWeek] = Field(description="newest week first, then by sensor and measure")
    places: list[CloudPlace] = Field(description="places to look at; no alarm: some places are like that")
    measured: int = Field(0, description="scenes whose brightness this call measured")
    unmeasured: int = Field(0, description="scenes whose brightness is still to be measured")
