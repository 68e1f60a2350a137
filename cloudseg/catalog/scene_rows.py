"""Scenes, labels, places and quarantine."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, exists, func, select

from cloudseg.catalog import tables as t
from cloudseg.catalog.label_rows import is_accepted, list_accepted
from cloudseg.catalog.session import fetch, fetch_one, get_by, insert, now
from cloudseg.records import Label, LabelEvent, LabelState, Place, Quarantined, Scene, Split

_PAGE = 1000
"""Values in one statement; SQLite allows 32 766 (sqlite.org/limits.html)."""


class WaitingScene(NamedTuple):
    """A scene without a mask: only part of its row, so that a list of a million is small."""

    scene_id: str
    name: str


def add_scene(db: Connection, scene: Scene) -> bool:
    """Add a scene; return False if the catalog already has the same source bytes."""
    return insert(db, t.scene, scene)


def get_scene(db: Connection, scene_id: str) -> Scene:
    """Return a scene.

    Raises:
        NotInCatalog: there is no such row.
    """
    return get_by(db, Scene, t.scene, "scene_id", scene_id)


def find_scene(db: Connection, scene_id: str) -> Scene | None:
    """Return a scene or None."""
    return fetch_one(db, Scene, select(t.scene).where(t.scene.c.scene_id == scene_id))


def find_scene_by_source(db: Connection, source_sha256: str) -> Scene | None:
    """Return the scene of these source bytes, or None."""
    return fetch_one(db, Scene, select(t.scene).where(t.scene.c.source_sha256 == source_sha256))


def find_known(db: Connection, scene_ids: Sequence[str]) -> set[str]:
    """Return those of the ids that a scene has."""
    found = set[str]()
    for at in range(0, len(scene_ids), _PAGE):
        asked = scene_ids[at : at + _PAGE]
        found.update(db.execute(select(t.scene.c.scene_id).where(t.scene.c.scene_id.in_(asked))).scalars())
    return found


def list_scenes_named(db: Connection, name: str) -> list[Scene]:
    """List the scenes of exactly this name, newest first."""
    named = select(t.scene).where(t.scene.c.name == name)
    return fetch(db, Scene, named.order_by(t.scene.c.created_at.desc(), t.scene.c.scene_id))


def list_scenes(db: Connection, *, such: Sequence[ColumnElement[bool]] = (), limit: int | None = None) -> list[Scene]:
    """List scenes, all or such as `scene_search.such_scenes` says, newest first."""
    return fetch(
        db, Scene, select(t.scene).where(*such).order_by(t.scene.c.created_at.desc(), t.scene.c.scene_id).limit(limit)
    )


def count_scenes(db: Connection) -> int:
    """Count scenes."""
    return db.execute(select(func.count()).select_from(t.scene)).scalar_one()


def list_scenes_without_mask(
    db: Connection,
    weights_id: str,
    *,
    bands: Collection[str] = (),
    cleaning: str | None = None,
) -> list[WaitingScene]:
    """List publishable scenes that these weights have not masked and that have all these bands, oldest first.

    Args:
        db: the catalog.
        weights_id: the weights.
        bands: bands that a scene must have.
        cleaning: only a mask that was cleaned just so (`Mask.cleaning`) counts; None: any.
    """
    # The ids first: indexes suffice for those, and only the rows of waiting scenes are read.
    waiting = select(t.scene.c.scene_id, t.scene.c.name).where(
        t.scene.c.scene_id.in_(_without_mask(weights_id, cleaning))
    )
    waiting = waiting.where(*(has_band(db, band) for band in sorted(bands)))
    rows = db.execute(waiting.order_by(t.scene.c.created_at, t.scene.c.scene_id))
    return [WaitingScene(row.scene_id, row.name) for row in rows]


def count_scenes_without_mask(db: Connection, weights_id: str) -> int:
    """Count publishable scenes that these weights have not masked."""
    return db.execute(select(func.count()).select_from(_without_mask(weights_id).subquery())).scalar_one()


def list_never_masked(db: Connection, bands: Collection[str], until: datetime) -> list[WaitingScene]:
    """List publishable scenes without a mask of any weights that have all these bands, oldest first.

    Args:
        db: the catalog.
        bands: bands that a scene must have.
        until: only scenes that were ingested at this moment or before.
    """
    scene = t.scene.c
    waiting = (
        select(scene.scene_id, scene.name)
        .where(scene.publishable, scene.created_at <= until)
        .where(~exists(t.mask.c.scene_id).where(t.mask.c.scene_id == scene.scene_id))
        .where(*(has_band(db, band) for band in sorted(bands)))
    )
    rows = db.execute(waiting.order_by(scene.created_at, scene.scene_id))
    return [WaitingScene(row.scene_id, row.name) for row in rows]


def has_band(db: Connection, band: str) -> ColumnElement[bool]:
    """Return the condition that a scene has a band; `scene.bands` is a JSON list."""
    elements = func.json_each if db.dialect.name == "sqlite" else func.json_array_elements_text
    element = elements(t.scene.c.bands).table_valued("value")
    return exists().where(element.c.value == band)


def _without_mask(weights_id: str, cleaning: str | None = None) -> Select[tuple[str]]:
    """Return the query for the ids of publishable scenes that these weights have not masked."""
    any_scene = t.scene.alias("any_scene")
    such = [] if cleaning is None else [t.mask.c.cleaning == cleaning]
    # One column, not all as `exists()` selects: SQLite would read the row of the mask for those.
    has_mask = exists(t.mask.c.scene_id).where(
        and_(t.mask.c.scene_id == any_scene.c.scene_id, t.mask.c.weights_id == weights_id, *such)
    )
    return select(any_scene.c.scene_id).where(any_scene.c.publishable, ~has_mask)


def add_label(
    db: Connection, label: Label, *, state: LabelState = "accepted", actor: str = "ingest", reason: str = ""
) -> Label | None:
    """Add a label with its first event as the next version of its scene; return None if it exists.

    `label.version` is overwritten. If another transaction took that version first, the next one is tried.

    Args:
        db: a transaction that writes.
        label: the label.
        state: its first state.
        actor: who decided that.
        reason: why.
    """
    while fetch_one(db, Label, select(t.label).where(t.label.c.label_id == label.label_id)) is None:
        newest = db.execute(select(func.max(t.label.c.version)).where(t.label.c.scene_id == label.scene_id)).scalar()
        numbered = label.model_copy(update={"version": (newest or 0) + 1})
        if insert(db, t.label, numbered):
            first = {"sequence": 1, "state": state, "actor": actor, "reason": reason, "created_at": label.created_at}
            insert(db, t.label_event, LabelEvent.model_validate({"label_id": label.label_id, **first}))
            return numbered
    return None


def get_label(db: Connection, label_id: str) -> Label:
    """Return a label.

    Raises:
        NotInCatalog: there is no such row.
    """
    return get_by(db, Label, t.label, "label_id", label_id)


def find_label(db: Connection, label_id: str) -> Label | None:
    """Return a label or None."""
    return fetch_one(db, Label, select(t.label).where(t.label.c.label_id == label_id))


def list_newest_labels(db: Connection) -> list[Label]:
    """List the newest accepted label of every labeled scene, by label id."""
    return sorted((labels[-1] for labels in list_accepted(db).values()), key=lambda label: label.label_id)


def count_labeled_scenes(db: Connection) -> int:
    """Count the scenes that have an accepted label."""
    accepted = is_accepted(t.label.c.label_id)
    return db.execute(select(func.count(t.label.c.scene_id.distinct())).where(accepted)).scalar_one()


def decide_places(db: Connection, splits: dict[str, Split]) -> dict[str, Split]:
    """Write the split of places that have none yet and return the split of all; a split is never changed."""
    for place, split in sorted(splits.items()):
        insert(db, t.place, Place(place=place, split=split, decided_at=now()))
    return {row.place: row.split for row in fetch(db, Place, select(t.place)) if row.place in splits}


def add_quarantined(db: Connection, entry: Quarantined) -> bool:
    """Add an entry; return False if the same bytes at the same address were quarantined before."""
    return insert(db, t.quarantine, entry)


def list_quarantined(db: Connection, *, limit: int | None = None) -> list[Quarantined]:
    """List the quarantine, newest first."""
    return fetch(
        db,
        Quarantined,
        select(t.quarantine).order_by(t.quarantine.c.created_at.desc(), t.quarantine.c.quarantine_id).limit(limit),
    )


def find_quarantined(db: Connection, quarantine_id: str) -> Quarantined | None:
    """Return an entry of the quarantine or None."""
    return fetch_one(db, Quarantined, select(t.quarantine).where(t.quarantine.c.quarantine_id == quarantine_id))


def is_source_quarantined(db: Connection, source_uri: str) -> bool:
    """Return whether a file is quarantined."""
    return db.execute(select(exists().where(t.quarantine.c.source_uri == source_uri))).scalar_one()


def release_source(db: Connection, source_uri: str) -> int:
    """Delete the entries of a file that has since become readable; return how many there were."""
    return db.execute(delete(t.quarantine).where(t.quarantine.c.source_uri == source_uri)).rowcount
