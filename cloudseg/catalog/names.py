"""From what people type to ids: `v31`, `champion`, names of scenes and files, the first digits of an id.

The one place that does so. Every stage that takes an id asks here, so a name works in each command, form and call.
What is stored and what a record holds are whole ids. SQLite and PostgreSQL answer the same.

An unknown name ends in an error that suggests what was meant (difflib, docs.python.org/3/library/difflib.html) from a
bounded part of the catalog: the newest rows, and those that begin like it.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, FromClause, Table, and_, or_, select, true

from cloudseg.catalog import model_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.session import WHERE_LISTED
from cloudseg.catalog.sql_text import Like, literal_pattern
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.records import Weights

CHAMPION: Final = "champion"
"""Name of the weights in use."""
VERSION: Final = re.compile(r"v(\d{1,9})")
Kind = Literal["weights", "scene", "mask", "label", "run", "snapshot", "verdict", "quarantine", "removal"]
_SHOWN: Final = 8
"""Candidates in a message."""
_SUGGESTED: Final = 3
"""Suggestions in a message: the default of `difflib.get_close_matches`."""
_COMPARED: Final = 500
"""Newest rows that are compared with an unknown name, some 20 ms of work; as many that begin like it."""
_COMPLETED: Final = 50
"""Suggestions of a tab completion."""
_LONGEST: Final = 500
"""Characters of a name; longer ones are not looked up."""
_SHORT: Final = 8


class Choice(NamedTuple):
    """What can be typed, and what it is."""

    text: str
    help: str = ""


@dataclass(frozen=True)
class _Looked:
    """How rows of a kind are called."""

    table: Table
    prefix: str
    """What ids begin with; shorter text is not the beginning of an id."""
    plural: str
    named: str | None = None
    """Column with a name that people see; it need not be unique."""
    by: str | None = None
    """Column by which rows are called, if not the primary key; it need not be unique."""

    @property
    def id(self) -> Column[Any]:
        """The column of the id."""
        return next(iter(self.table.primary_key.columns)) if self.by is None else self.table.c[self.by]


_KINDS: Final[dict[Kind, _Looked]] = {
    "weights": _Looked(t.weights, "w-", "weights"),
    "scene": _Looked(t.scene, "sc-", "scenes", named="name"),
    "mask": _Looked(t.mask, "mk-", "masks"),
    "label": _Looked(t.label, "lb-", "labels"),
    "run": _Looked(t.run, "", "runs"),
    "snapshot": _Looked(t.snapshot, "sn-", "snapshots"),
    "verdict": _Looked(t.verdict, "ve-", "verdicts"),
    "quarantine": _Looked(t.quarantine, "qu-", "entries of the quarantine", named="name"),
    # By the scene's id, because nothing else of the scene is known any more; there are several if one was lifted.
    "removal": _Looked(t.removal, "sc-", "removed scenes", by="scene_id"),
}
_WORDS: Final[dict[Kind, str]] = {"quarantine": "entry of the quarantine", "removal": "removed scene"}
_WITHOUT_SCENE: Final = (t.scene, t.removal)
"""Tables with a `scene_id` whose rows belong to no other row of `scene`."""
_WHOLE_ID: Final = re.compile(r"[a-z]{1,3}-[0-9a-f]{20}")


def get_weights(db: Connection, name: str) -> Weights:
    """Return the weights of an id, of the beginning of one, of a version (`v31`), or the `champion`.

    Raises:
        NotInCatalog: there are none; the message suggests others.
        InputError: several ids begin like this.
    """
    return model_rows.get_weights(db, get_id(db, "weights", name))


def get_id(db: Connection, kind: Kind, name: str) -> str:
    """Return the one id that is meant: the id itself, the id of this name, or the one id that begins like this.

    Weights are also meant by a version (`v31`) and by `champion`.

    Raises:
        NotInCatalog: there is none; the message suggests others.
        InputError: the name or the beginning is not unique; the message lists the candidates.
    """
    if kind == "weights" and (weights_id := _weights_of(db, name)):
        return weights_id
    found = list_ids(db, kind, name)
    if len(found) > 1:
        raise InputError(
            f"several {_KINDS[kind].plural} have this name",
            subject=name,
            found=_listed([Choice(one) for one in found]),
            next_step="Name one by its id.",
        )
    return found[0]


def list_ids(db: Connection, kind: Kind, name: str) -> list[str]:
    """Return every id of a name, newest first, or the one id that begins like this; at least one.

    Raises:
        NotInCatalog: there is none; the message suggests others.
        InputError: several ids begin like this.
    """
    looked = _KINDS[kind]
    if not _can_be_asked(name):
        raise _unknown(kind, name, [])
    if db.execute(select(looked.id).where(looked.id == name)).first():
        return [name]
    if looked.named is not None:
        of_name = select(looked.id).where(looked.table.c[looked.named] == name)
        if found := list(db.execute(of_name.order_by(looked.table.c.created_at.desc(), looked.id)).scalars()):
            return found
    begin = list_beginning(db, kind, name)
    if len(begin) > 1:
        raise InputError(
            f"several {looked.plural} begin like this",
            subject=name,
            found=_listed(begin),
            next_step="Write more of the id.",
        )
    if not begin:
        raise _unknown(kind, name, suggest(db, kind, name))
    return [begin[0].text]


def list_beginning(db: Connection, kind: Kind, name: str) -> list[Choice]:
    """Return the rows whose id begins like this, each once, newest first: as many as a message shows, and one more."""
    if not name.startswith(_KINDS[kind].prefix):
        return []
    found = _beginning(db, kind, name) if kind == "removal" else _beginning(db, kind, name, limit=_SHOWN + 1)
    return list({choice.text: choice for choice in found}.values())


def list_quarantine_ids(db: Connection, asked: Sequence[str]) -> list[str]:
    """Return the ids of entries of the quarantine, each once: every entry of a file's name, or the one of an id.

    A whole id is returned as it is: its entry may have been released before.

    Raises:
        NotInCatalog: there is none of a name; the message suggests others.
        InputError: several ids begin like this.
    """
    found = ([name] if is_whole_id(name) else list_ids(db, "quarantine", name) for name in asked)
    return list(dict.fromkeys(quarantine_id for ids in found for quarantine_id in ids))


def is_whole_id(name: str) -> bool:
    """Return whether text has the form of a whole id, known or not."""
    return _WHOLE_ID.fullmatch(name) is not None


def suggest(db: Connection, kind: Kind, name: str) -> list[str]:
    """Return what may have been meant by a name that does not exist, best first, at most three."""
    if kind == "weights" and name.isascii() and name.isdigit():
        known = _weights_of(db, f"v{name}") if len(name) < 10 else None
        return [f"v{name}"] if known else []
    looked = _KINDS[kind]
    near = list(dict.fromkeys(choice.text for choice in [*_newest(db, kind), *_beginning(db, kind, name[:_SHORT])]))
    if kind in ("mask", "label"):
        near = [*_of_scene(db, looked.table, name), *near]
    # Two ids have a third of their letters in common by chance: only long matches mean something there.
    cutoff = 0.6 if len(name) <= _SHORT else 0.75
    small = {text.lower(): text for text in reversed(near)}
    found = difflib.get_close_matches(name.lower(), small, _SUGGESTED, cutoff)
    return [small[text] for text in found] or _of_scene(db, looked.table, name)


def complete(db: Connection, kind: Kind, text: str) -> list[Choice]:
    """Return what a text may become: names and ids that begin like it, newest first, at most 50 of each."""
    if text and not _can_be_asked(text):
        return []
    named = _KINDS[kind].named
    choices = _versions(db) if kind == "weights" else []
    choices += _beginning(db, kind, text, column=named) if named is not None else []
    choices += _beginning(db, kind, text) if text or not choices else []
    found: dict[str, Choice] = {}
    for choice in choices:
        if choice.text.startswith(text):
            found.setdefault(choice.text, choice)
    return list(found.values())


def _weights_of(db: Connection, name: str) -> str | None:
    """Return the id of weights that are called by version or as the champion.

    Raises:
        NotInCatalog: there is no champion yet.
    """
    if name == CHAMPION:
        promotion = model_rows.find_champion(db)
        if promotion is None:
            raise NotInCatalog(
                "there is no champion yet",
                subject=CHAMPION,
                next_step="Run `cloudseg retrain`, or name weights: `cloudseg models` lists them.",
            )
        return promotion.weights_id
    version = VERSION.fullmatch(name)
    if version is None:
        return None
    return db.execute(select(t.weights.c.weights_id).where(t.weights.c.version == int(version[1]))).scalar()


def _can_be_asked(name: str) -> bool:
    """Return whether a database can compare with a text: PostgreSQL refuses NUL, both refuse lone surrogates."""
    return 0 < len(name) <= _LONGEST and "\0" not in name and not any("\ud800" <= one <= "\udfff" for one in name)


def _beginning(
    db: Connection, kind: Kind, text: str, *, column: str | None = None, limit: int = _COMPLETED
) -> list[Choice]:
    """Return the rows whose id, or other column, begins with a text, newest first."""
    looked = _KINDS[kind]
    wanted = looked.id if column is None else looked.table.c[column]
    return _choices(db, looked, wanted, [Like(wanted, literal_pattern(text) + "%")] if text else [], limit)


def _newest(db: Connection, kind: Kind) -> list[Choice]:
    """Return names and ids of the newest rows."""
    looked = _KINDS[kind]
    columns = [looked.id] if looked.named is None else [looked.table.c[looked.named], looked.id]
    found = [choice for column in columns for choice in _choices(db, looked, column, [], _COMPARED)]
    return [*_versions(db), Choice(CHAMPION), *found] if kind == "weights" else found


def _versions(db: Connection) -> list[Choice]:
    """Return the newest versions of weights, and the name of the champion's."""
    champion = model_rows.find_champion(db)
    w = t.weights.c
    rows = db.execute(select(w.version, w.weights_id).order_by(w.version.desc()).limit(_COMPLETED))
    versions = [Choice(f"v{row.version}", row.weights_id) for row in rows]
    return [*([Choice(CHAMPION, champion.weights_id)] if champion else []), *versions]


def _choices(
    db: Connection, looked: _Looked, column: Column[Any], conditions: list[ColumnElement[bool]], limit: int
) -> list[Choice]:
    """Return the newest rows by one of their columns, each with what helps to tell it from others."""
    table, facts = looked.table, []
    if looked.named is not None and table.c[looked.named] is not column:
        facts.append(table.c[looked.named])
    if column is not looked.id and "place" in table.c:
        facts.append(table.c.place)
    source: FromClause = table
    if "scene_id" in table.c and table not in _WITHOUT_SCENE:
        source = table.join(t.scene, t.scene.c.scene_id == table.c.scene_id)
        facts.append(t.scene.c.name)
    if "version" in table.c:
        facts.append(table.c.version)
    statement = select(column.label("text"), *facts).select_from(source).where(and_(true(), *conditions))
    rows = db.execute(statement.order_by(table.c.created_at.desc(), looked.id).limit(limit))
    return [Choice(row.text, ", ".join(map(_word, row[1:]))) for row in rows]


def _word(fact: str | int) -> str:
    return f"v{fact}" if isinstance(fact, int) else fact


def _of_scene(db: Connection, table: Table, name: str) -> list[str]:
    """Return the newest masks or labels of the scene that a name is of."""
    if "scene_id" not in table.c or table in _WITHOUT_SCENE:
        return []
    id_column = next(iter(table.primary_key.columns))
    joined = table.join(t.scene, t.scene.c.scene_id == table.c.scene_id)
    of_scene = select(id_column).select_from(joined).where(or_(t.scene.c.name == name, t.scene.c.scene_id == name))
    return list(db.execute(of_scene.order_by(table.c.created_at.desc(), id_column).limit(_SUGGESTED)).scalars())


def _listed(candidates: list[Choice]) -> str:
    shown = [f"{one.text} ({one.help})" if one.help else one.text for one in candidates[:_SHOWN]]
    return ", ".join(shown) + (", …" if len(candidates) > _SHOWN else "")


def _unknown(kind: Kind, name: str, near: list[str]) -> NotInCatalog:
    meant = f"Did you mean {' or '.join(near)}? " if near else ""
    return NotInCatalog(
        f"no such {_WORDS.get(kind, kind)}", subject=name, next_step=f"{meant}{WHERE_LISTED.get(kind, '')}".strip()
    )
