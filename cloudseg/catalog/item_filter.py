"""A CQL2 filter (OGC 21-065r2, as JSON) over named fields, as a condition of SQL.

Basic CQL2 (clause 6: and, or, not, comparisons, isNull), the advanced comparisons `like`, `between` and `in`,
`s_intersects` with a geometry or a box, and the temporal functions that compare a moment. Everything else is refused: a
filter is bounded in size and depth and names only the fields that a caller lists. Values are bound, never part of the
statement.

The database compares the bounds of a geometry, and `Filter.holds` the geometry itself, so that SQLite, PostgreSQL and
PostGIS give the same answers.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, NoReturn

import shapely
from shapely.geometry.base import BaseGeometry
from sqlalchemy import Boolean, ColumnElement, Double, and_, false, literal, not_, or_, true, type_coerce

from cloudseg.catalog.search_area import area_of_box, area_of_geometry, check_vertices
from cloudseg.catalog.sql_text import ESCAPE, MAX_WILD, UNSTORABLE, InCodeOrder, Like
from cloudseg.catalog.tables import Utc
from cloudseg.errors import InputError

FieldType = Literal["text", "number", "time", "geometry"]
MAX_NODES: Final = 100
"""Operators of one filter; each becomes a condition of the statement."""
MAX_DEPTH: Final = 20
"""Operators within each other."""
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
_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "t_before": "t_after", "t_after": "t_before"}
_OF_TIMES: Final = ("t_before", "t_after", "t_equals", "t_intersects", "t_disjoint", "t_during")
OPERATORS: Final = ("and", "or", "not", *_COMPARE, "isNull", "like", "between", "in", "s_intersects", *_OF_TIMES)


@dataclass(frozen=True)
class Field:
    """What a name of a filter or of a sort order stands for."""

    type: FieldType
    column: ColumnElement[Any]
    nullable: bool = False
    overlaps: Callable[[BaseGeometry], ColumnElement[bool]] | None = None
    """Of a geometry (WKB): the condition that its bounds touch those of an area."""


Fields = Mapping[str, Field]


@dataclass(frozen=True)
class _Plain:
    """A part that the database decides."""

    condition: ColumnElement[bool]


@dataclass(frozen=True)
class _Touches:
    """Whether a geometry touches an area; its bounds decide only that it does not."""

    area: BaseGeometry
    of: Field


@dataclass(frozen=True)
class _Logic:
    op: Literal["and", "or", "not"]
    parts: "tuple[_Node, ...]"


_Node = _Plain | _Touches | _Logic


@dataclass(frozen=True)
class Filter:
    """A filter that was checked."""

    root: _Node
    condition: ColumnElement[bool]
    """True for every row for which the filter is true; the reverse holds unless the filter `is_spatial`."""
    columns: Sequence[ColumnElement[Any]] = ()
    """What `holds` reads of a row; none unless the filter `is_spatial`."""

    @property
    def is_spatial(self) -> bool:
        """Whether `holds` must decide."""
        return not isinstance(self.root, _Plain)

    def holds(self, row: Mapping[Any, Any], geometry: bytes | None) -> bool:
        """Return whether the filter is true for a row.

        Args:
            row: it was selected with `columns`.
            geometry: of the row, as WKB; needed if the filter `is_spatial`.
        """
        if not self.is_spatial:
            return True
        values = iter([row[column.name] for column in self.columns])
        return _value_of(self.root, values, None if geometry is None else shapely.from_wkb(geometry)) is True


def build_filter(node: Any, fields: Fields) -> Filter:
    """Return a CQL2 JSON filter as conditions.

    Args:
        node: the filter, as parsed JSON.
        fields: the names that it may use.

    Raises:
        InputError: the filter uses what is not supported, names another field, compares a field with a value of another
            type, or is too long or too deep.
    """
    root = _Builder(fields).condition(node)
    if isinstance(root, _Plain):
        return Filter(root, root.condition)
    columns = [
        type_coerce(condition, Boolean()).label(f"filter_{number}")
        for number, condition in enumerate(_conditions(root))
    ]
    return Filter(root, _bound(root, most=True), columns)


def build_condition(node: Any, fields: Fields) -> ColumnElement[bool]:
    """Return the condition of a filter; of geometries only the bounds are compared. See `build_filter`."""
    return build_filter(node, fields).condition


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


def _conditions(node: _Node) -> Iterator[ColumnElement[bool]]:
    """Yield the parts of a spatial filter that the database decides, in the order of `_value_of`."""
    if isinstance(node, _Plain):
        yield node.condition
    elif isinstance(node, _Logic):
        for part in node.parts:
            yield from _conditions(part)


def _bound(node: _Node, *, most: bool) -> ColumnElement[bool]:
    """Return a condition of SQL that is true at least (`most`) or at most where the node is."""
    if isinstance(node, _Plain):
        return node.condition
    if isinstance(node, _Touches):
        return node.of.overlaps(node.area) if most and node.of.overlaps else true() if most else false()
    if node.op == "not":
        return not_(_bound(node.parts[0], most=not most))
    return (and_ if node.op == "and" else or_)(*(_bound(part, most=most) for part in node.parts))


def _value_of(node: _Node, decided: Iterator[Any], geometry: BaseGeometry | None) -> bool | None:
    """Return the value of a node for a row in the logic of SQL, None: unknown."""
    if isinstance(node, _Plain):
        value = next(decided)
        return None if value is None else bool(value)
    if isinstance(node, _Touches):
        return None if geometry is None else bool(node.area.intersects(geometry))
    values = [_value_of(part, decided, geometry) for part in node.parts]
    if node.op == "not":
        return None if values[0] is None else not values[0]
    decisive = node.op == "or"
    if decisive in values:
        return decisive
    return None if None in values else not decisive


class _Builder:
    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._nodes = 0
        self._vertices = 0

    def condition(self, node: Any, depth: int = 1) -> _Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            _refuse("the filter is too long", f"more than {MAX_NODES} operators", f"at most {MAX_NODES}")
        if depth > MAX_DEPTH:
            _refuse("the filter is too deep", f"more than {MAX_DEPTH} levels", f"at most {MAX_DEPTH}")
        if isinstance(node, bool):
            return _Plain(true() if node else false())
        if not isinstance(node, dict) or not isinstance(node.get("args"), list):
            _refuse("not a CQL2 filter", node, '{"op": …, "args": […]}')
        op, args = str(node.get("op")).lower(), node["args"]
        if op in ("and", "or"):
            if len(args) < 2:
                _refuse(f"{op} needs two conditions", len(args), 2)
            return _combine("and" if op == "and" else "or", [self.condition(part, depth + 1) for part in args])
        if op == "not":
            return _combine("not", [self.condition(_only(op, args, 1)[0], depth + 1)])
        if op == "s_intersects":
            return self._spatial(args)
        return _Plain(self._comparison(op, args))

    def _comparison(self, op: str, args: list[Any]) -> ColumnElement[bool]:
        if op == "isnull":
            return self._field(_only(op, args, 1)[0]).column.is_(None)
        if op in _COMPARE:
            tested, value, op = self._sides(op, args)
            left = tested.column if op in ("=", "<>") else _ordered(tested)
            found: ColumnElement[bool] = _COMPARE[op](left, _value(tested, value))
            return found
        if op == "between":
            name, low, high = _only(op, args, 3)
            tested = self._field(name)
            return _ordered(tested).between(_value(tested, low), _value(tested, high))
        if op == "in":
            name, values = _only(op, args, 2)
            tested = self._field(name)
            if not isinstance(values, list) or not 0 < len(values) <= MAX_VALUES:
                _refuse("not a list of values", values, f"1 to {MAX_VALUES} values")
            return tested.column.in_([_value(tested, value) for value in values])
        if op == "like":
            name, pattern = _only(op, args, 2)
            return Like(self._field(name, "text").column, _pattern(pattern))
        if op in _OF_TIMES:
            tested, value, op = self._sides(op, args, "time")
            return _temporal(op, tested.column, value)
        _refuse("the filter uses an operator that is not supported", op, ", ".join(OPERATORS))

    def _spatial(self, args: list[Any]) -> _Touches:
        tested, value, _ = self._sides("s_intersects", args, "geometry")
        if isinstance(value, dict) and set(value) == {"bbox"}:
            area = _box(value["bbox"])
        elif isinstance(value, dict):
            area = area_of_geometry(value, "filter")
        else:
            _refuse("s_intersects needs a geometry", value, "GeoJSON, or a box")
        self._vertices += shapely.get_num_coordinates(area)
        check_vertices(self._vertices, "filter")
        shapely.prepare(area)
        return _Touches(area, tested)

    def _sides(self, op: str, args: list[Any], of: FieldType | None = None) -> tuple[Field, Any, str]:
        """Return the field, the value and the operator of a comparison, turned so that the field comes first."""
        left, right = _only(op, args, 2)
        if not _is_property(left):
            if op == "t_during":
                _refuse("t_during begins with the name of a field", left, '{"property": …}')
            left, right, op = right, left, _MIRRORED.get(op, op)
        return self._field(left, of), right, op

    def _field(self, node: Any, of: FieldType | None = None) -> Field:
        if not _is_property(node):
            _refuse("a comparison needs the name of a field", node, '{"property": …}')
        name = str(node["property"]).removeprefix("properties.")
        found = self._fields.get(name)
        if found is None:
            _refuse("the filter names a field that is not queryable", name, ", ".join(sorted(self._fields)))
        if of is not None and found.type != of:
            _refuse("the operator does not fit the field", f"{name}, a {found.type}", f"a field that is a {of}")
        return found


def _combine(op: Literal["and", "or", "not"], parts: list[_Node]) -> _Node:
    conditions = [part.condition for part in parts if isinstance(part, _Plain)]
    if len(conditions) < len(parts):
        return _Logic(op, tuple(parts))
    return _Plain(not_(conditions[0]) if op == "not" else (and_ if op == "and" else or_)(*conditions))


def _ordered(tested: Field) -> ColumnElement[Any]:
    return InCodeOrder(tested.column) if tested.type == "text" else tested.column


def _temporal(op: str, column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    """Return a comparison of a moment with a moment or an interval (OGC 21-065r2, 7.8), None: an open end."""
    since, until = _interval(value)
    if op == "t_equals":
        if since is None or since != until:
            _refuse("t_equals compares with one time", value, '{"timestamp": …}')
        return column == literal(since, Utc)
    if op in ("t_before", "t_after"):
        edge = since if op == "t_before" else until
        if edge is None:
            _refuse(f"{op} needs an end that is not open", value, '{"timestamp": …}')
        return column < literal(edge, Utc) if op == "t_before" else column > literal(edge, Utc)
    above, below = (">", "<") if op == "t_during" else (">=", "<=")
    ends = [(above, since), (below, until)]
    within = and_(*(_COMPARE[sign](column, literal(end, Utc)) for sign, end in ends if end is not None))
    return not_(within) if op == "t_disjoint" else within


def _interval(value: Any) -> tuple[datetime | None, datetime | None]:
    if not (isinstance(value, dict) and set(value) == {"interval"}):
        moment = _moment(value)
        return moment, moment
    ends = value["interval"]
    if not isinstance(ends, list) or len(ends) != 2:
        _refuse("not an interval", ends, "two times")
    since, until = (None if end == ".." else _moment(end) for end in ends)
    if (since is None and until is None) or (since and until and since > until):
        _refuse("not an interval", ends, "a beginning before the end, one of which may be `..`")
    return since, until


def _moment(value: Any) -> datetime:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("timestamp", "date"):
        value = next(iter(value.values()))
    if not isinstance(value, str):
        _refuse("the field is compared with a value of another type", value, "a time")
    return parse_time(value)


def _box(values: Any) -> BaseGeometry:
    if not isinstance(values, list) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        _refuse("not a box", values, "four or six numbers")
    return area_of_box(values)


def _pattern(value: Any) -> str:
    text = _text(value)
    plain = text.replace(ESCAPE * 2, "")
    if plain.endswith(ESCAPE) or plain.replace(f"{ESCAPE}%", "").count("%") > MAX_WILD:
        _refuse("not a pattern", text, f"at most {MAX_WILD} `%`, and a letter after each backslash")
    return text


def _is_property(node: Any) -> bool:
    return isinstance(node, dict) and set(node) == {"property"}


def _only(op: str, args: list[Any], count: int) -> list[Any]:
    if op == "between" and len(args) == 2 and isinstance(args[1], list):
        args = [args[0], *args[1]]
    if len(args) != count:
        _refuse(f"{op} has another number of arguments", len(args), count)
    return args


def _value(tested: Field, value: Any) -> Any:
    """Return a literal as a bound value of the field's type."""
    if tested.type == "time":
        return literal(_moment(value), Utc)
    if tested.type == "number":
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or abs(value) > 1e15 or not math.isfinite(value):
            _refuse("the field is compared with a value of another type", value, "a number")
        return literal(value, Double())  # an integer column would round 2.5
    if tested.type == "geometry":
        _refuse("a geometry is compared with s_intersects only", value, "s_intersects, or isNull")
    return _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or UNSTORABLE.search(value):
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
