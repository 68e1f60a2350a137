"""What the static STAC catalog holds: members of each collection by month, and what summarizes a collection.

A month is that of the acquisition for scenes and masks, and of the registration for models and snapshots. Only scenes
that may be published and whose place is known are members.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import Column, ColumnElement, Connection, FromClause, Select, case, func, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.extent import training_extent
from cloudseg.catalog.session import fetch
from cloudseg.records import Mask, Scene, Snapshot, Weights

Collection = Literal["scenes", "masks", "models", "snapshots"]
COLLECTIONS: Final[tuple[Collection, ...]] = ("scenes", "masks", "models", "snapshots")
UNDATED: Final = "undated"
"""The month of scenes whose time is unknown."""
PAGE: Final = 500
"""Ids in one statement; SQLite allows 32 766 values (sqlite.org/limits.html)."""
_MASKED: Final = t.mask.join(t.scene).join(t.weights, t.weights.c.weights_id == t.mask.c.weights_id)
_PUBLISHED: Final = t.scene.c.publishable & t.scene.c.footprint_wkb.is_not(None)


@dataclass(frozen=True)
class MaskRef:
    """A mask as another item refers to it."""

    mask_id: str
    weights_id: str
    version: int


@dataclass(frozen=True)
class Family:
    """The masks of one scene, by the version of their model, and which of them readers should use."""

    masks: tuple[MaskRef, ...] = ()
    latest: MaskRef | None = None
    """The champion's mask; where it has none, that of the highest version."""
    variants: tuple[MaskRef, ...] = ()
    """Masks that were cleaned in another way than that of the same model in `masks`; readers see them by id only."""

    def neighbor(self, mask_id: str, step: int) -> MaskRef | None:
        """Return the mask by the next (1) or the previous (-1) version, or None; a variant has no neighbor."""
        own = next((number for number, ref in enumerate(self.masks) if ref.mask_id == mask_id), None)
        if own is None:
            return None
        at = own + step
        return self.masks[at] if 0 <= at < len(self.masks) else None


@dataclass(frozen=True)
class Member:
    """An item of a collection, with what decides its links."""

    item_id: str
    title: str
    family: tuple[str, ...]
    """Ids of the items of its family by version, then that of the latest."""


@dataclass(frozen=True)
class Overview:
    """What summarizes a collection."""

    count: int
    bounds: tuple[float, float, float, float] | None
    """West, south, east, north in degrees; -180 to 180 if a member crosses the antimeridian."""
    begins_at: datetime | None
    ends_at: datetime | None
    months: dict[str, int]
    sensors: list[str]
    versions: list[str]
    cloud_cover: tuple[float, float] | None
    """Smallest and largest, in percent."""


def month_of(moment: datetime | None) -> str:
    """Return the month of an item of this time, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m") if moment else UNDATED


def _span(month: str) -> tuple[datetime, datetime]:
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    following = (
        first.replace(year=first.year + 1, month=1) if first.month == 12 else first.replace(month=first.month + 1)
    )
    return first, following


def _within(moment: Column[Any], month: str) -> ColumnElement[bool]:
    if month == UNDATED:
        return moment.is_(None)
    first, following = _span(month)
    return (moment >= first) & (moment < following)


def list_members(db: Connection, collection: Collection, month: str) -> list[Member]:
    """List the members of a month, by id."""
    if collection == "masks":
        return _list_masks(db, month)
    if collection == "scenes":
        return _list_scenes(db, month)
    if collection == "snapshots":
        s = t.snapshot.c
        found = db.execute(select(s.snapshot_id).where(_within(s.created_at, month)).order_by(s.snapshot_id))
        return [Member(item_id, f"Snapshot {item_id}", ()) for item_id in found.scalars()]
    models = find_models(db)
    ids = _family_ids(models)
    w = t.weights.c
    found = db.execute(select(w.weights_id).where(_within(w.created_at, month)).order_by(w.weights_id))
    versions = {ref.weights_id: ref.version for ref in models.masks}
    return [Member(item_id, f"Model version {versions[item_id]}", ids) for item_id in found.scalars()]


def _family_ids(family: Family) -> tuple[str, ...]:
    ids = (ref.mask_id for ref in (*family.masks, *family.variants))
    return (*ids, family.latest.mask_id if family.latest else "")


def _list_masks(db: Connection, month: str) -> list[Member]:
    s = t.scene.c
    families = _families(db, _within(s.acquired_at, month))
    names = {
        row.scene_id: row.name for row in db.execute(select(s.scene_id, s.name).where(_within(s.acquired_at, month)))
    }
    members = [
        Member(ref.mask_id, f"Cloud mask of {names[scene_id]} by model version {ref.version}", _family_ids(family))
        for scene_id, family in families.items()
        for ref in (*family.masks, *family.variants)
    ]
    return sorted(members, key=lambda member: member.item_id)


def _list_scenes(db: Connection, month: str) -> list[Member]:
    s = t.scene.c
    families = _families(db, _within(s.acquired_at, month))
    found = db.execute(select(s.scene_id, s.name).where(_PUBLISHED, _within(s.acquired_at, month)).order_by(s.scene_id))
    return [Member(row.scene_id, row.name, _family_ids(families.get(row.scene_id, Family()))) for row in found]


def find_families(db: Connection, scene_ids: Sequence[str]) -> dict[str, Family]:
    """Return the masks of scenes by scene id; at most PAGE scenes."""
    return _families(db, t.scene.c.scene_id.in_(scene_ids))


def _families(db: Connection, which: ColumnElement[bool]) -> dict[str, Family]:
    champion = _champion(db)
    m, w = t.mask.c, t.weights.c
    columns = (m.scene_id, m.mask_id, m.weights_id, w.version, m.is_variant)
    statement = select(*columns).select_from(_MASKED).where(which, _PUBLISHED)
    refs: dict[str, list[MaskRef]] = {}
    variants: dict[str, list[MaskRef]] = {}
    for row in db.execute(statement.order_by(m.scene_id, w.version, m.mask_id)):
        kind = variants if row.is_variant else refs
        kind.setdefault(row.scene_id, []).append(MaskRef(row.mask_id, row.weights_id, row.version))
    return {scene_id: _family(found, champion, tuple(variants.get(scene_id, ()))) for scene_id, found in refs.items()}


def _family(refs: list[MaskRef], champion: str | None, variants: tuple[MaskRef, ...] = ()) -> Family:
    latest = next((ref for ref in refs if ref.weights_id == champion), refs[-1] if refs else None)
    return Family(tuple(refs), latest, variants)


def _champion(db: Connection) -> str | None:
    p = t.promotion.c
    return db.execute(select(p.weights_id).order_by(p.generation.desc()).limit(1)).scalar()


def find_models(db: Connection) -> Family:
    """Return all models as one family, the champion the latest; `mask_id` is the id of the weights."""
    w = t.weights.c
    rows = db.execute(select(w.weights_id, w.version).order_by(w.version))
    return _family([MaskRef(row.weights_id, row.weights_id, row.version) for row in rows], _champion(db))


def months_of_models(db: Connection) -> dict[str, str]:
    """Return the month of each model by weights id."""
    return {
        row.weights_id: month_of(row.created_at)
        for row in db.execute(select(t.weights.c.weights_id, t.weights.c.created_at))
    }


def months_of_scenes(db: Connection, scene_ids: Sequence[str]) -> set[str]:
    """Return the months in which these scenes were acquired."""
    found = set[str]()
    for at in range(0, len(scene_ids), PAGE):
        asked = t.scene.c.scene_id.in_(scene_ids[at : at + PAGE])
        found.update(map(month_of, db.execute(select(t.scene.c.acquired_at).where(asked)).scalars()))
    return found


def get_scenes(db: Connection, scene_ids: Sequence[str]) -> dict[str, Scene]:
    """Return published scenes by id, at most PAGE; those that are not there are left out."""
    found = fetch(db, Scene, select(t.scene).where(t.scene.c.scene_id.in_(scene_ids), _PUBLISHED))
    return {scene.scene_id: scene for scene in found}


def get_masks(db: Connection, mask_ids: Sequence[str]) -> dict[str, Mask]:
    """Return masks by id, at most PAGE."""
    return {mask.mask_id: mask for mask in fetch(db, Mask, select(t.mask).where(t.mask.c.mask_id.in_(mask_ids)))}


def get_models(db: Connection, weights_ids: Sequence[str]) -> dict[str, Weights]:
    """Return weights by id, at most PAGE."""
    found = fetch(db, Weights, select(t.weights).where(t.weights.c.weights_id.in_(weights_ids)))
    return {weights.weights_id: weights for weights in found}


def get_snapshots(db: Connection, snapshot_ids: Sequence[str]) -> dict[str, Snapshot]:
    """Return snapshots by id, at most PAGE."""
    found = fetch(db, Snapshot, select(t.snapshot).where(t.snapshot.c.snapshot_id.in_(snapshot_ids)))
    return {snapshot.snapshot_id: snapshot for snapshot in found}


def overview(db: Connection, collection: Collection) -> Overview:
    """Return what summarizes a collection, from its rows."""
    if collection in ("models", "snapshots"):
        return _overview_of_few(db, collection)
    s, m = t.scene.c, t.mask.c
    source: FromClause = _MASKED if collection == "masks" else t.scene
    crosses = func.coalesce(func.max(case((s.max_lon < s.min_lon, 1), else_=0)), 0)
    figures = [
        func.count(),
        func.min(s.min_lon),
        func.min(s.min_lat),
        func.max(s.max_lon),
        func.max(s.max_lat),
        crosses,
        func.min(s.acquired_at),
        func.max(s.acquired_at),
    ]
    cover = [func.min(m.cloud_fraction), func.max(m.cloud_fraction)] if collection == "masks" else []
    row = db.execute(select(*figures, *cover).select_from(source).where(_PUBLISHED)).one()
    count, west, south, east, north, crossing, begins_at, ends_at, *covers = row
    bounds = None if west is None else (-180.0, south, 180.0, north) if crossing else (west, south, east, north)
    sensors = db.execute(select(s.sensor).select_from(source).where(_PUBLISHED).distinct().order_by(s.sensor)).scalars()
    versions = select(t.weights.c.version).select_from(source).distinct().order_by(t.weights.c.version)
    return Overview(
        count=count,
        bounds=bounds,
        begins_at=begins_at,
        ends_at=ends_at,
        months=_count_months(db, select(s.acquired_at).select_from(source).where(_PUBLISHED)),
        sensors=list(sensors),
        versions=[str(version) for version in db.execute(versions).scalars()] if collection == "masks" else [],
        cloud_cover=(100 * covers[0], 100 * covers[1]) if covers and covers[0] is not None else None,
    )


def _overview_of_few(db: Connection, collection: Collection) -> Overview:
    table = t.weights if collection == "models" else t.snapshot
    times = list(db.execute(select(table.c.created_at)).scalars())
    months: dict[str, int] = {}
    for moment in sorted(times):
        months[month_of(moment)] = months.get(month_of(moment), 0) + 1
    versions = [str(ref.version) for ref in find_models(db).masks] if collection == "models" else []
    return Overview(len(times), *_training_span(db), months, [], versions, None)


def _training_span(db: Connection) -> tuple[tuple[float, float, float, float] | None, datetime | None, datetime | None]:
    """Return bounds, begin and end of the training scenes of every snapshot."""
    extents = [
        training_extent(db, snapshot_id) for snapshot_id in db.execute(select(t.snapshot.c.snapshot_id)).scalars()
    ]
    boxes = [extent.bounds for extent in extents if extent.bounds]
    west, south, east, north = zip(*boxes, strict=True) if boxes else ((), (), (), ())
    begins = [extent.begins_at for extent in extents if extent.begins_at]
    ends = [extent.ends_at for extent in extents if extent.ends_at]
    bounds = (min(west), min(south), max(east), max(north)) if boxes else None
    return bounds, min(begins, default=None), max(ends, default=None)


def _count_months(db: Connection, moments: Select[Any]) -> dict[str, int]:
    """Count rows by month, in the order of the months; `undated` is the last."""
    (moment,) = moments.selected_columns
    text = (
        func.strftime("%Y-%m", moment)
        if db.dialect.name == "sqlite"
        else func.to_char(func.timezone("UTC", moment), "YYYY-MM")
    )
    rows = db.execute(moments.with_only_columns(text.label("month"), func.count().label("count")).group_by(text))
    return dict(sorted((row.month or UNDATED, row.count) for row in rows))
