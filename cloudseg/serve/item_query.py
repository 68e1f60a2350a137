"""Query extension of the STAC API, as a filter in CQL2 JSON. Older clients know only this one."""

from typing import Any, Final

from cloudseg.catalog.item_filter import Fields
from cloudseg.catalog.sql_text import ESCAPE
from cloudseg.errors import InputError
from cloudseg.records import Json

_COMPARE: Final = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_LIKE: Final = {"startsWith": "{}%", "endsWith": "%{}", "contains": "%{}%"}
OPERATORS: Final = (*_COMPARE, *_LIKE, "in")


def filter_of_query(query: Any, fields: Fields) -> Json | None:
    """Return the filter that a query means, None if it asks for nothing.

    Args:
        query: `{field: {operator: value}}`, as parsed JSON. A number may be a text: pystac-client sends those.
        fields: the names that it may use.

    Raises:
        InputError: it is no such object, or uses another operator.
    """
    if not isinstance(query, dict) or not all(isinstance(wanted, dict) and wanted for wanted in query.values()):
        raise InputError(
            "not a query",
            subject="query",
            found=str(query)[:100],
            expected='{"eo:cloud_cover": {"lt": 10}}',
            next_step="/stac/queryables lists the fields.",
        )
    parts = [
        _part(name, op, _number(value) if name in fields and fields[name].type == "number" else value)
        for name, wanted in query.items()
        for op, value in wanted.items()
    ]
    return {"op": "and", "args": parts} if len(parts) > 1 else parts[0] if parts else None


def both(one: Any, other: Any) -> Any:
    """Return the filter that two filters make together; None: there is none."""
    if one is None or other is None:
        return one if other is None else other
    return {"op": "and", "args": [one, other]}


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # refused with the others of another type


def _part(name: str, op: str, value: Any) -> Json:
    field = {"property": name}
    if op in _COMPARE:
        return {"op": _COMPARE[op], "args": [field, value]}
    if op in _LIKE and isinstance(value, str):
        for letter in (ESCAPE, "%", "_"):
            value = value.replace(letter, f"{ESCAPE}{letter}")
        return {"op": "like", "args": [field, _LIKE[op].replace("{}", value)]}
    if op == "in":
        return {"op": "in", "args": [field, value]}
    raise InputError(
        "the query uses an operator that is not supported",
        subject="query",
        found=f"{op}: {value}"[:100],
        expected=", ".join(OPERATORS),
    )
