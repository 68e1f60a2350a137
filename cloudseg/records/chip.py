"""Chips, as the manifest of a snapshot lists them."""

from pydantic import Field

from cloudseg.records.base import Json, Record
from cloudseg.records.rows import Split


class Chip(Record):
    """A window cut out with its label: row `index` of its shard."""

    chip_id: str
    scene_id: str
    label_id: str = Field(description="the newest of the labels that were overlaid; chip_id is a hash over all")
    place: str
    split: Split
    shard: int
    index: int
    row_off: int = Field(description="in working pixels of the scene")
    col_off: int
    height: int = Field(description="pixels inside the scene; the rest of the chip is padding, labeled 255")
    width: int
    cloud_fraction: float
    labelled_fraction: float
    tags: Json
