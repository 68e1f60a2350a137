"""What a search of masks and scenes may ask for, and what it answers: conditions, fields, order, rows, pages.

`mask_search` runs a query, `mask_statements` makes its statements.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import shapely
from shapely.geometry.base import BaseGeometry
from sqlalchemy import ColumnElement, Double, and_, cast, false, literal, literal_column, or_

from cloudseg.catalog import tables as t
from cloudseg.catalog.item_filter import Field, Fields, FieldType
from cloudseg.catalog.planner import NotByIndex
from cloudseg.catalog.search_area import Box, boxes_of, check_vertices
from cloudseg.catalog.sql_text import check_wanted
from cloudseg.errors import InputError
from cloudseg.records import Mask, Scene, Weights

Kind = Literal["masks", "scenes"]
KINDS: Final[tuple[Kind, ...]] = ("masks", "scenes")
MAX_LIMIT: Final = 500
"""Rows of a page."""
MAX_IDS: Final = 500
MAX_SORT: Final = 3
MODEL_FIELDS: Final = frozenset({"cloudseg:model_version", "cloudseg:weights_id"})
"""A filter that names one of them says itself whose masks it wants."""
PUBLISHED: Final = and_(NotByIndex(t.scene.c.publishable), t.scene.c.footprint_wkb.is_not(None))
"""The condition that a scene is shown; nearly all are."""
CLOUD_COVER: Final[ColumnElement[float]] = literal_column(
    "CAST(ROUND(CAST(100 * mask.cloud_fraction AS NUMERIC), 4) AS DOUBLE PRECISION)", Double()
)
"""Percent with four decimals, as STAC items hold it: the expression of the indexes of migration 0008, word for word."""
_OF_MASKS_NUMBERS: Final = ("eo:cloud_cover", "cloudseg:model_version")
_OF_MASKS_TEXTS: Final = ("cloudseg:weights_id", "cloudseg:radiometry")


@dataclass(frozen=True)
class SortKey:
    """A field to sort by."""

    name: str
    descending: bool = False


NEWEST_FIRST: Final = (SortKey("datetime", descending=True),)
OLDEST_FIRST: Final = (SortKey("datetime"),)


@dataclass(frozen=True)
class Query:
    """What to search for; every condition must hold."""

    kinds: tuple[Kind, ...] = KINDS
    ids: tuple[str, ...] | None = None
    area: BaseGeometry | None = None
    """Lon/lat, within [-180, 180]: `area_of_box` splits a box at the antimeridian."""
    bounds_only: bool = False
    """Compare the bounds of scenes with those of the area, not the footprints, which are simplified."""
    since: datetime | None = None
    until: datetime | None = None
    """Inclusive, as in STAC. An undated scene was acquired at some time before it was ingested."""
    undated: bool = True
    """Find undated scenes too."""
    scene_ids: tuple[str, ...] | None = None
    """Masks of these scenes."""
    name: str | None = None
    """Name of the scene, in any case; `*` stands for any letters."""
    place: str | None = None
    """Place of the scene, as `name`."""
    without_mask_of: str | None = None
    """Only scenes that lack a mask by these weights; a mask is of no such scene."""
    weights_id: str | None = None
    """Masks by these weights. None: those that readers see, unless `ids` or `where` say which."""
    any_model: bool = False
    """Where nothing says which masks: all of them, not those that readers see."""
    as_of: datetime | None = None
    """Only what was stored at this moment, and whose masks readers saw then; None: now."""
    where: Any = None
    """A filter in CQL2 JSON over `fields_of`."""
    sort: tuple[SortKey, ...] = NEWEST_FIRST


@dataclass(frozen=True)
class Found:
    """A row of a page: a scene, or a mask with its scene and the weights that made it."""

    kind: Kind
    scene: Scene
    mask: Mask | None = None
    weights: Weights | None = None

    @property
    def id(self) -> str:
        """Id of the mask or of the scene."""
        return self.mask.mask_id if self.mask else self.scene.scene_id


@dataclass(frozen=True)
class Page:
    """Rows of a search, and where the next page begins (None: there is none)."""

    rows: list[Found] = field(default_factory=list)
    token: str | None = None


class Available(NamedTuple):
    """How many masks there are, and between which acquisitions."""

    masks: int
    first: datetime | None
    last: datetime | None


def check_query(query: Query) -> None:
    """Check that a query is not too large and that its order names known fields.

    Raises:
        InputError: it is, or does not.
    """
    if query.ids is not None and len(query.ids) > MAX_IDS:
        raise InputError("too many ids", subject="ids", found=len(query.ids), expected=f"at most {MAX_IDS}")
    if len(query.sort) > MAX_SORT:
        raise InputError("too many fields", subject="sortby", found=len(query.sort), expected=f"at most {MAX_SORT}")
    known = {name: found for name, found in fields_of("masks").items() if found.type != "geometry"}
    for key in query.sort:
        if key.name not in known:
            raise InputError(
                "cannot sort by this field", subject="sortby", found=key.name[:60], expected=", ".join(sorted(known))
            )
    for subject, text in (("name", query.name), ("place", query.place)):
        if text is not None:
            check_wanted(text, subject)
    if query.area is not None:
        check_vertices(shapely.get_num_coordinates(query.area), "intersects")


def fields_of(kind: Kind) -> Fields:
    """Return the fields that a filter and an order may name, of masks or of scenes."""
    scene = t.scene.c
    common = {
        "datetime": Field("time", scene.acquired_at, nullable=True),
        "cloudseg:place": Field("text", scene.place),
        "cloudseg:sensor": Field("text", scene.sensor),
        "gsd": Field("number", scene.resolution_m, nullable=True),
        "collection": Field("text", literal(kind)),
        "geometry": Field("geometry", scene.footprint_wkb, overlaps=overlaps_area),
    }
    if kind == "scenes":
        return {
            "id": Field("text", scene.scene_id),
            "created": Field("time", scene.created_at),
            "cloudseg:scene_id": Field("text", scene.scene_id),
            "cloudseg:valid_fraction": Field("number", scene.valid_fraction),
            **{name: Field("number", _nothing(Double()), nullable=True) for name in _OF_MASKS_NUMBERS},
            **{name: Field("text", _nothing(t.scene.c.place.type), nullable=True) for name in _OF_MASKS_TEXTS},
            **common,
        }
    mask = t.mask.c
    return {
        "id": Field("text", mask.mask_id),
        "created": Field("time", mask.created_at),
        "cloudseg:scene_id": Field("text", mask.scene_id),
        "cloudseg:valid_fraction": Field("number", mask.valid_fraction),
        "eo:cloud_cover": Field("number", CLOUD_COVER),
        "cloudseg:model_version": Field("number", t.weights.c.version),
        "cloudseg:weights_id": Field("text", mask.weights_id),
        "cloudseg:radiometry": Field("text", mask.radiometry),
        **common,
    }


def properties_of(node: Any) -> Iterator[str]:
    """Yield the names of the fields of a filter in CQL2 JSON."""
    if isinstance(node, dict):
        name = node.get("property")
        if isinstance(name, str):
            yield name.removeprefix("properties.")
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from properties_of(part)


def overlaps_area(area: BaseGeometry) -> ColumnElement[bool]:
    """Return the condition that the bounds of a scene touch those of an area."""
    return or_(false(), *(_overlaps(box) for box in boxes_of(area)))


def _overlaps(box: Box) -> ColumnElement[bool]:
    """Return the condition that the bounds of a scene touch a box that does not cross the antimeridian."""
    west, south, east, north = box
    scene = t.scene.c
    plain = and_(scene.min_lon <= east, scene.max_lon >= west)
    # A scene across 180° has max_lon < min_lon: it reaches from min_lon to 180 and from -180 to max_lon.
    across = and_(scene.max_lon < scene.min_lon, or_(scene.min_lon <= east, scene.max_lon >= west))
    return and_(scene.min_lat <= north, scene.max_lat >= south, or_(plain, across))


def _nothing(of: Any) -> ColumnElement[Any]:
    """Return NULL of a type: a scene has no value in the fields of masks."""
    return cast(None, of)


def order_of(query: Query) -> str:
    """Return the order of a query as text, for the token of a page."""
    return ",".join(f"{'-' if key.descending else '+'}{key.name}" for key in query.sort)


def types_of(query: Query) -> list[FieldType]:
    """Return the types of the fields that a query sorts by."""
    fields = fields_of("masks")
    return [fields[key.name].type for key in query.sort]
