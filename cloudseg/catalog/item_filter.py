"""A CQL2 filter (OGC 21-065r2, as JSON) over named fields, as a condition of SQL.

Basic CQL2 (clause 6: and, or, not, comparisons, isNull), `between` and `in`. Everything else is refused: a filter is
bounded in size and names only the fields that a caller lists. `like` is not supported, because its rules of case and
escapes differ between databases.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, NoReturn

from sqlalchemy import ColumnElement, Double, and_, literal, not_, or_

from cloudseg.catalog.tables import Utc
from cloudseg.errors import InputError

FieldType = Literal["text", "number", "time"]
MAX_NODES: Final = 100
"""Operators of one filter; each becomes a condition of the statement."""
MAX_VALUES: Final = 200
"""Values of one `in`."""
_MAX_TEXT: Final = 500
_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "<>": "<>"}


@dataclass(frozen=True)
class Field:
    """What a name of a filter or of a sort order stands for."""

    type: FieldType
    column: ColumnElement[Any]
    nullable: bool = False


Fields = Mapping[str, Field]


def build_condition(node: Any, fields: Fields) -> ColumnElement[bool]:
    """Return the condition of a CQL2 JSON filter.

    Args:
        node: the filter, as parsed JSON.
        fields: the names that it may use.

    Raises:
        InputError: the filter is not basic CQL2 with advanced comparisons, names another field, compares a field with
            a value of another type, or is too long.
    """
    return _Builder(fields).condition(node)


def parse_time(text: object) -> datetime:
    """Return the moment of an RFC 3339 time, or of a date at midnight UTC.

    Raises:
        InputError: the text is neither.
    """
    try:
        moment = datetime.fromisoformat(str(text).upper())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InputError(
            "not a time",
            subject="datetime",
            found=str(text)[:60],
            expected="RFC 3339, such as 2024-06-01T10:30:00Z",
        ) from error


def is_storable(text: str) -> bool:
    """Return whether a database can compare a text: PostgreSQL holds no NUL, and none encodes a lone surrogate."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


class _Builder:
    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._nodes = 0

    def condition(self, node: Any) -> ColumnElement[bool]:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            _refuse("the filter is too long", f"more than {MAX_NODES} operators", f"at most {MAX_NODES}")
        if not isinstance(node, dict) or not isinstance(node.get("args"), list):
            _refuse("not a CQL2 filter", node, '{"op": …, "args": […]}')
        op, args = str(node.get("op")).lower(), node["args"]
        if op in ("and", "or"):
            if len(args) < 2:
                _refuse(f"{op} needs two conditions", len(args), 2)
            return (and_ if op == "and" else or_)(*map(self.condition, args))
        if op == "not":
            return not_(self.condition(_only(op, args, 1)[0]))
        if op == "isnull":
            return self._field(_only(op, args, 1)[0]).column.is_(None)
        return self._comparison(op, args)

    def _comparison(self, op: str, args: list[Any]) -> ColumnElement[bool]:
        if op in _COMPARE:
            left, right = _only(op, args, 2)
            if not _is_property(left):
                left, right, op = right, left, _MIRRORED[op]
            field = self._field(left)
            found: ColumnElement[bool] = _COMPARE[op](field.column, _value(field, right))
            return found
        if op == "between":
            tested, low, high = _only(op, args, 3)
            field = self._field(tested)
            return field.column.between(_value(field, low), _value(field, high))
        if op == "in":
            tested, values = _only(op, args, 2)
            field = self._field(tested)
            if not isinstance(values, list) or not 0 < len(values) <= MAX_VALUES:
                _refuse("not a list of values", values, f"1 to {MAX_VALUES} values")
            return field.column.in_([_value(field, value) for value in values])
        _refuse(
            "the filter uses an operator that is not supported",
            op,
            "and, or, not, =, <>, <, <=, >, >=, isNull, between, in",
        )

    def _field(self, node: Any) -> Field:
        if not _is_property(node):
            _refuse("a comparison needs the name of a field", node, '{"property": …}')
        name = str(node["property"]).removeprefix("properties.")
        if name not in self._fields:
            _refuse("the filter names a field that is not queryable", name, ", ".join(sorted(self._fields)))
        return self._fields[name]


def _is_property(node: Any) -> bool:
    return isinstance(node, dict) and set(node) == {"property"}


def _only(op: str, args: list[Any], count: int) -> list[Any]:
    if op == "between" and len(args) == 2 and isinstance(args[1], list):
        args = [args[0], *args[1]]
    if len(args) != count:
        _refuse(f"{op} has another number of arguments", len(args), count)
    return args


def _value(field: Field, value: Any) -> Any:
    """Return a literal as a bound value of the field's type."""
    if field.type == "time":
        if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("timestamp", "date"):
            value = next(iter(value.values()))
        if not isinstance(value, str):
            _refuse("the field is compared with a value of another type", value, "a time")
        return literal(parse_time(value), Utc)
    if field.type == "number":
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15:
            _refuse("the field is compared with a value of another type", value, "a number")
        return literal(value, Double())  # an integer column would round 2.5
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not is_storable(value):
        _refuse("the field is compared with a value of another type", value, f"a text of at most {_MAX_TEXT} letters")
    return value


def _refuse(what: str, found: object, expected: object) -> NoReturn:
    raise InputError(
        what,
        subject="filter",
        found=str(found)[:200],
        expected=expected,
        next_step="/stac/queryables lists the fields.",
    )
