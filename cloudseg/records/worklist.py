"""A worklist: scenes and windows whose label would teach the model most."""

from typing import Literal

from pydantic import Field

from cloudseg.records.base import Json, Record

WorklistReason = Literal["label_audit", "label_error", "always_cloud", "disagreement", "uncertain", "requested"]
"""Why a scene is on the list; `cloudseg.worklist.scores` has the formulas and their sources."""


class WorklistWindow(Record):
    """A window of a proposed scene, in scene pixels."""

    row_off: int
    col_off: int
    height: int
    width: int
    score: float = Field(description="0 to 1; comparable within one reason only")


class WorklistItem(Record):
    """A scene to label."""

    rank: int = Field(description="1, 2, ... in the order in which to label")
    scene_id: str
    scene: str = Field(description="the provider's name")
    place: str
    sensor: str
    mask_id: str = Field(description="the mask that a correction would correct")
    reason: WorklistReason
    score: float = Field(description="of the best window; 0 for a scene that was requested")
    words: str = Field(description="the reason with its figures, for people")
    windows: list[WorklistWindow] = Field(description="best first")


class WorklistRecord(Record):
    """What to label next, best first."""

    worklist_id: str = Field(description="'wl-' and 20 hex digits over the weights and the items")
    weights_id: str | None = Field(description="whose masks were examined; None: there is no champion yet")
    challenger_id: str | None = Field(description="newest other weights with an evaluation; None: there are none")
    masked: int = Field(description="scenes with a mask of the weights")
    examined: int = Field(description="scenes that were read; the others did not fit into the budget of pixels")
    items: list[WorklistItem]
    failed: Json = Field(description="scene id to why its rasters could not be read; the other scenes were examined")
    second_opinion: Json | None = Field(
        None,
        description="a model of others, how many labeled scenes it masked, and the pooled IoU of its clouds with those "
        "of the masks and of the labels; None: it was not asked",
    )
    folder: str | None = Field(None, description="the folder for QGIS, if one was written")
    seconds: float
