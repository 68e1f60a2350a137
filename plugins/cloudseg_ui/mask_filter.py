"""The filter form of the page of masks: what a person typed, as a query of the catalog's search and in words."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, Field
from sqlalchemy import Connection

from cloudseg.catalog import names
from cloudseg.catalog.mask_query import NEWEST_FIRST, Query, SortKey
from cloudseg.catalog.times import parse_interval
from cloudseg.errors import InputError
from cloudseg.records import Json, Weights

_CLOUD: Final = "eo:cloud_cover"
"""Field of the search: percent of the valid pixels, with four decimals."""
_NEWEST_MADE_FIRST: Final = (SortKey("created", descending=True),)
Typed = Annotated[str, Field(max_length=100)]


class MaskFilter(BaseModel):
    """What was typed; nothing typed finds all masks. Dates are `2024-06-01`, and `2024-06` and `2024` too."""

    place: Typed = ""
    name: Typed = ""
    since: Typed = ""
    until: Typed = ""
    cloud_from: Typed = ""
    cloud_to: Typed = ""
    model: Typed = ""
    state: Literal["", "waiting"] = ""
    """waiting: scenes without a mask by the model, by the champion where none is given."""


def interval_of(since: str, until: str) -> tuple[datetime | None, datetime | None]:
    """Return the first and the last moment of two fields with dates, None for an empty one.

    Raises:
        InputError: one is no date, month or year, or the first is after the last.
    """
    since, until = since.strip(), until.strip()
    return parse_interval(f"{since or '..'}/{until or '..'}") if since or until else (None, None)


class Wanted(NamedTuple):
    """A filter that was understood."""

    query: Query
    words: list[str]
    """One condition each."""
    waits_for: Weights | None = None
    """The model whose mask the scenes lack; None: masks are listed."""


def understand(db: Connection, typed: MaskFilter) -> Wanted:
    """Return the query of a filter and its conditions in words.

    Raises:
        InputError: a value cannot be read, or does not go with another one.
        NotInCatalog: there is no such model.
    """
    place, name = typed.place.strip(), typed.name.strip()
    since, until = interval_of(typed.since, typed.until)
    least, most = _percent(typed.cloud_from, "cloud from"), _percent(typed.cloud_to, "cloud to")
    if least is not None and most is not None and least > most:
        raise InputError("the range of cloud ends before it begins", subject="cloud", found=f"{least:g} to {most:g} %")
    model = _model(db, typed)
    waits = typed.state == "waiting"
    if waits and not (least is None and most is None):
        raise InputError(
            "a scene without a mask has no cloud fraction",
            subject="cloud",
            next_step="Clear the range of cloud, or look for masks that are made.",
        )
    query = Query(
        kinds=("scenes",) if waits else ("masks",),
        name=f"*{name}*" if name else None,
        place=f"*{place}*" if place else None,
        since=since,
        until=until,
        undated=since is None and until is None,
        weights_id=model.weights_id if model and not waits else None,
        without_mask_of=model.weights_id if model and waits else None,
        any_model=True,
        where=_of_cloud(least, most),
        # Of acquisitions the index begins with their time, so that only those of the interval are read.
        sort=_NEWEST_MADE_FIRST if since is None and until is None else NEWEST_FIRST,
    )
    words = list(_in_words(typed, place, name, least, most, None if waits else model))
    return Wanted(query, words, model if waits else None)


def _percent(text: str, subject: str) -> float | None:
    plain = text.strip().removesuffix("%").strip()
    if not plain:
        return None
    try:
        value = float(plain)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:  # nor is it NaN
        raise InputError("not a fraction of cloud", subject=subject, found=text, expected="percent, 0 to 100")
    return value


def _model(db: Connection, typed: MaskFilter) -> Weights | None:
    name = typed.model.strip() or ("champion" if typed.state == "waiting" else "")
    return names.get_weights(db, f"v{name}" if name.isdecimal() else name) if name else None


def _of_cloud(least: float | None, most: float | None) -> Json | None:
    """Return the range as a filter in CQL2 JSON."""
    bounds = [
        {"op": op, "args": [{"property": _CLOUD}, value]}
        for op, value in ((">=", least), ("<=", most))
        if value is not None
    ]
    return {"op": "and", "args": bounds} if len(bounds) > 1 else next(iter(bounds), None)


def _in_words(
    typed: MaskFilter, place: str, name: str, least: float | None, most: float | None, model: Weights | None
) -> Iterator[str]:
    if place:
        yield f"place contains “{place}”"
    if name:
        yield f"scene name contains “{name}”"
    if span := _span(typed.since.strip(), typed.until.strip(), ("on or after", "on or before")):
        yield f"acquired {span}"
    if span := _span(_text(least), _text(most), ("at least", "at most")):
        yield f"cloud {span} %"
    if model is not None:
        yield f"made by model v{model.version}"


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _span(first: str, last: str, alone: tuple[str, str]) -> str:
    if first and last:
        return f"{first} to {last}"
    return f"{alone[0]} {first}" if first else f"{alone[1]} {last}" if last else ""
