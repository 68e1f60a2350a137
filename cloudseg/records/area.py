"""Statistics of areas, and composites: what the stages for analysts return."""

from typing import Literal

from pydantic import AwareDatetime, Field

from cloudseg.records.base import Json, Record


class AreaRow(Record):
    """One polygon under one mask. Shares are of areas, with partly covered pixels counted by their covered part."""

    area: str = Field(description="name of the polygon: its name column, or its feature id")
    feature_id: int = Field(description="of the polygon in its file")
    date: str | None = Field(description="day of the acquisition in UTC, 'YYYY-MM-DD'; None: unknown")
    cloud_fraction: float | None = Field(description="cloud of the valid part; None: no pixel is valid")
    covered_fraction: float = Field(description="part of the polygon that the grid of the scene covers")
    no_data_fraction: float = Field(description="part of the covered part without data")
    area_m2: float = Field(description="the whole polygon on the WGS 84 ellipsoid")
    valid_m2: float
    cloud_m2: float
    sensor: str
    scene_id: str
    scene_name: str
    acquired_at: AwareDatetime | None
    mask_id: str
    weights_id: str
    model_version: int


class AreaDateRow(Record):
    """One polygon on one day, from all scenes of that day; where they overlap, the ground counts once."""

    area: str = Field(description="name of the polygon: its name column, or its feature id")
    feature_id: int = Field(description="of the polygon in its file")
    date: str | None = Field(
        description="day of the acquisitions in UTC; None: unknown, such scenes are not put together"
    )
    cloud_fraction: float | None = Field(description="cloud of the valid part; None: no pixel is valid")
    valid_fraction: float = Field(description="part of the polygon that was observed")
    area_m2: float = Field(description="the whole polygon on the WGS 84 ellipsoid")
    valid_m2: float
    cloud_m2: float
    masks: int = Field(description="masks that were put together")
    mask_ids: str = Field(description="their ids, divided by blanks, in the order in which they count")


class StatsRecord(Record):
    """Cloud statistics of polygons."""

    by: Literal["scene", "date"] = Field(description="whether a row is a scene or a day")
    areas: int = Field(description="polygons in the file")
    masks: int = Field(description="masks that were read")
    count: int = Field(description="rows: one for each polygon and mask that meet, or polygon and day")
    rows: list[AreaRow] | list[AreaDateRow] = Field(description="empty if they were written to a file")
    uncovered: list[str] = Field(description="polygons that no mask covers")
    failed: Json = Field(description="mask id to why it could not be read; the other masks were")
    out: str | None = Field(None, description="the file with the rows")
    seconds: float


class CompositeRecord(Record):
    """A composite that was written."""

    out: str
    files: list[str] = Field(description="every file that was written, `out` last")
    method: str
    crs: str
    resolution_m: float
    height: int
    width: int
    bands: list[str]
    masks: list[str] = Field(description="mask ids, in the order of the scene index")
    filled_fraction: float = Field(description="pixels with a clear observation, of those inside the area")
    seconds: float
