"""Read a part of the store every night and compare checksums, and remember which part was read when.

An object belongs to one of `parts` parts by the hash of its key, so parts are about equally large and an object stays
in its part. The part that was read longest ago is next: after `parts` nights every object was read, and a night that
was missed is made up for.
"""

import hashlib
import logging
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Final

from pydantic import Field, ValidationError
from sqlalchemy import func, select

from cloudseg.catalog import Catalog
from cloudseg.catalog import tables as t
from cloudseg.catalog.session import now
from cloudseg.errors import ObjectCorrupt, ObjectMissing
from cloudseg.keys import VERIFICATION, canonical_json
from cloudseg.records import Json, Record
from cloudseg.storage import Store

_log = logging.getLogger(__name__)
DEFAULT_PARTS: Final = 30
"""A month: a tape or disk archive is usually scrubbed as often (zpool-scrub(8) recommends weekly to monthly)."""
MOST_PARTS: Final = 366
_LATE: Final = 2
"""Rounds after which a part counts as overdue."""
_MOST_DAMAGED: Final = 1000
_NAMED: Final = 3
"""Damaged objects that a message names."""


class Verification(Record):
    """What is known about the bytes in the store; kept in the store as `maintenance/verification.json`."""

    parts: int = Field(DEFAULT_PARTS, ge=1, le=MOST_PARTS)
    read_on: dict[int, date] = Field(default_factory=dict, description="when each part was last read as a whole")
    damaged: dict[str, str | None] = Field(
        default_factory=dict, description="keys that were missing or damaged, with the checksum of their row"
    )

    def next_part(self, day: date) -> int:
        """Return the part for a night: the same for the same day, else the one that was read longest ago."""
        for part, read_on in sorted(self.read_on.items()):
            if read_on == day:
                return part
        return min(range(self.parts), key=lambda part: (self.read_on.get(part, date.min), part))

    def read(self, part: int | None, day: date, damaged: Mapping[str, str | None]) -> "Verification":
        """Return what is known after a part was read, every part for None."""
        read = range(self.parts) if part is None else [part]
        kept = dict(sorted(damaged.items())[:_MOST_DAMAGED])
        return Verification(parts=self.parts, read_on=self.read_on | dict.fromkeys(read, day), damaged=kept)


def part_of(key: str, parts: int) -> int:
    """Return the part of a key, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % parts


def load_verification(store: Store, parts: int | None = None) -> Verification:
    """Return what is known, nothing if it cannot be read or is about another number of parts.

    Args:
        store: the store.
        parts: into how many parts the store is divided now; None: as it was.
    """
    try:
        found = Verification.model_validate_json(store.get(VERIFICATION))
    except ObjectMissing:
        return Verification(parts=parts or DEFAULT_PARTS)
    except (ObjectCorrupt, ValidationError) as error:
        _log.warning("%s is damaged, so every part counts as unread: %s", VERIFICATION, str(error).replace("\n", " "))
        return Verification(parts=parts or DEFAULT_PARTS)
    if parts in (None, found.parts):
        return found
    return Verification(parts=parts, damaged=found.damaged)


def save_verification(store: Store, verification: Verification) -> None:
    """Replace what is known. Of two maintenances at once the later one wins; what the other read is read again."""
    store.replace(VERIFICATION, canonical_json(_as_json(verification)))


def _as_json(verification: Verification) -> Json:
    plain = verification.as_json()
    return plain | {"read_on": {str(part): day for part, day in plain["read_on"].items()}}


def describe_verification(store: Store, catalog: Catalog, today: datetime | None = None) -> tuple[str, bool]:
    """Return in words when the store was last read as a whole and what is damaged, and whether that is a reason to act.

    Args:
        store: the store.
        catalog: its rows say since when there are objects.
        today: None is now.
    """
    found, moment = load_verification(store), today or now()
    words, overdue = _when(found, catalog, moment)
    if found.damaged:
        names = ", ".join(sorted(found.damaged)[:_NAMED]) + (" ..." if len(found.damaged) > _NAMED else "")
        words += (
            f"; {len(found.damaged)} objects were missing or damaged when they were last read: {names}. "
            "Restore them from a backup, then run `cloudseg maintain --verify --apply`"
        )
    return words, overdue or bool(found.damaged)


def _when(found: Verification, catalog: Catalog, moment: datetime) -> tuple[str, bool]:
    late = moment.date() - timedelta(days=_LATE * found.parts)
    unread = found.parts - len(found.read_on)
    if not found.read_on:
        return _never(catalog, moment, late)
    oldest = min(found.read_on.values())
    if unread:
        with catalog.read() as db:
            first = db.execute(select(func.min(t.scene.c.created_at))).scalar()
        overdue = first is not None and first.date() < late
        words = f"{len(found.read_on)} of {found.parts} parts of the store were read and compared since {oldest}"
    else:
        overdue = oldest < late
        words = f"every object was read and compared with its checksum on {oldest} or later"
    if overdue:
        words += "; overdue: unpause the DAG cloudseg_maintain, or run `cloudseg maintain --verify --apply`"
    return words, overdue


def _never(catalog: Catalog, moment: datetime, late: date) -> tuple[str, bool]:
    with catalog.read() as db:
        first = db.execute(select(func.min(t.scene.c.created_at))).scalar()
    if first is None or first.date() >= late:
        return "the store was not read as a whole yet; the DAG cloudseg_maintain reads a part every night", False
    return (
        f"the store was never read as a whole although it has objects since {first.date()}; overdue: unpause the DAG "
        "cloudseg_maintain, or run `cloudseg maintain --verify --apply`",
        True,
    )
