"""Filters: the database's answer is that of plain Python over the same rows, on every database."""

import random
import re
from datetime import UTC, datetime, timedelta

import pytest
import rows
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import box, to_wkb
from sqlalchemy import column, create_engine, literal, select
from sqlalchemy.dialects import postgresql

from cloudseg.catalog import Catalog, model_rows, scene_rows
from cloudseg.catalog import mask_query as mq
from cloudseg.catalog import mask_search as ms
from cloudseg.catalog import tables as t
from cloudseg.catalog.item_filter import MAX_DEPTH, Field, build_condition, build_filter
from cloudseg.catalog.sql_text import Like
from cloudseg.errors import InputError

PLACES = ["mgrs:31UDQ", "mgrs:31udq", "wrs2:1", "a%b", "a_b", "a\\b", "x[y]z", "x*z", "x?z", "é", "Z", ""]
SENSORS = ["sentinel-2-l1c", "landsat-8", "Landsat-9"]
NUMBERS = [0, 5, 12.5, 25, 50, 99.9, 100, 1, 2, 10.0, 30.0]
TIMES = [rows.START + timedelta(days=n, seconds=s) for n in range(0, 12, 3) for s in (-1, 0, 1)]
BOXES = [(0, 0, 10, 10), (5, 5, 6, 6), (-180, -90, 180, 90), (175, -20, -175, -10), (40, 40, 41, 41), (9, 9, 9, 9)]
COUNT = 60


def _everything() -> list[tuple]:
    """Return scenes and masks with the values of their fields, random but always the same."""
    chance = random.Random(7)  # noqa: S311
    found = []
    for i in range(COUNT):
        west, south = chance.uniform(-20, 20), chance.uniform(-20, 20)
        shape, bounds = box(west, south, west + 2, south + 2), (west, south, west + 2, south + 2)
        if i % 20 == 1:
            shape = shapely.MultiPolygon([box(179, -18, 180, -17), box(-180, -18, -179, -17)])
            bounds = (179.0, -18.0, -179.0, -17.0)
        if i % 3 == 2:  # its bounds reach where it does not
            west, south = (30.0, 30.0) if i == 2 else (west, south)
            shape = shapely.Polygon([(west, south), (west + 2, south), (west, south + 2)])
            bounds = (west, south, west + 2, south + 2)
        scene = rows.scene(
            i,
            footprint_wkb=to_wkb(shape),
            **dict(zip(("min_lon", "min_lat", "max_lon", "max_lat"), bounds, strict=True)),
            place=chance.choice(PLACES),
            sensor=chance.choice(SENSORS),
            acquired_at=chance.choice([*TIMES, None]),
            resolution_m=chance.choice([10.0, 30.0, None]),
            valid_fraction=chance.choice([0.0, 0.5, 1.0]),
        )
        common = {
            "datetime": scene.acquired_at,
            "cloudseg:place": scene.place,
            "cloudseg:sensor": scene.sensor,
            "gsd": scene.resolution_m,
            "geometry": shape,
            "cloudseg:scene_id": scene.scene_id,
        }
        of_scene = {
            "id": scene.scene_id,
            "created": scene.created_at,
            "collection": "scenes",
            "cloudseg:valid_fraction": scene.valid_fraction,
            **common,
        }
        found.append((scene, of_scene))
        for by in (1, 2)[: chance.randint(0, 2)]:
            mask = rows.mask(1000 * by + i, of=i, by=by)
            radiometry = ("inside", "outside", "unknown")[i % 3]
            mask = mask.model_copy(update={"cloud_fraction": chance.choice(NUMBERS) / 100, "radiometry": radiometry})
            of_mask = {
                "id": mask.mask_id,
                "created": mask.created_at,
                "collection": "masks",
                "cloudseg:valid_fraction": mask.valid_fraction,
                "eo:cloud_cover": round(100 * mask.cloud_fraction, 4),
                "cloudseg:model_version": by,
                "cloudseg:weights_id": mask.weights_id,
                "cloudseg:radiometry": radiometry,
                **common,
            }
            found.append((mask, of_mask))
    return found


EVERYTHING = _everything()


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    with catalog.begin() as db:
        for number in (1, 2):
            model_rows.add_weights(db, rows.weights(number))
        for row, values in EVERYTHING:
            (scene_rows.add_scene if values["collection"] == "scenes" else model_rows.add_mask)(db, row)
    return catalog


# --- the same logic in plain Python -----------------------------------------------------------------------------------


def _python(node, row: dict) -> bool | None:
    """Return the value of a filter in three-valued logic; written from the standard, not from the code under test."""
    if isinstance(node, bool):
        return node
    op, args = node["op"], node["args"]
    if op == "not":
        inner = _python(args[0], row)
        return None if inner is None else not inner
    if op in ("and", "or"):
        values = [_python(part, row) for part in args]
        if (op == "or") in values:
            return op == "or"
        return None if None in values else op == "and"
    return _leaf(op, args, row)


def _leaf(op: str, args: list, row: dict) -> bool | None:
    left, *rest = [_operand(arg, row) for arg in args]
    if op == "isNull":
        return left is None
    if left is None or any(value is None for value in rest):
        return None
    if op == "s_intersects":
        return left.intersects(rest[0])
    if op == "like":
        return _like(left, rest[0])
    if op == "in":
        return left in rest[0]
    if op == "between":
        return rest[0] <= left <= rest[1]
    if op.startswith("t_"):
        return _temporal(op, left, rest[0] if isinstance(rest[0], tuple) else (rest[0], rest[0]))
    right = rest[0]
    return {
        "=": left == right,
        "<>": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[op]


def _operand(arg, row: dict):
    if isinstance(arg, list):
        return [_operand(each, row) for each in arg]
    if not isinstance(arg, dict):
        return arg
    if "property" in arg:
        return row.get(arg["property"])
    if "timestamp" in arg:
        return datetime.fromisoformat(arg["timestamp"])
    if "interval" in arg:
        return tuple(None if end == ".." else datetime.fromisoformat(end) for end in arg["interval"])
    if "bbox" in arg:
        west, south, east, north = arg["bbox"]
        if west <= east:
            return box(west, south, east, north)
        return shapely.MultiPolygon([box(west, south, 180, north), box(-180, south, east, north)])
    return shapely.geometry.shape(arg)


def _like(value: str, pattern: str) -> bool:
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    wild = {"%": ".*", "_": "."}
    return bool(re.fullmatch("".join(wild.get(part) or re.escape(part[-1]) for part in parts), value, re.DOTALL))


def _temporal(op: str, moment: datetime, span: tuple) -> bool:
    since, until = span[0] or datetime(1, 1, 1, tzinfo=UTC), span[1] or datetime(9999, 1, 1, tzinfo=UTC)
    return {
        "t_before": moment < since,
        "t_after": moment > until,
        "t_equals": moment == since == until,
        "t_intersects": since <= moment <= until,
        "t_disjoint": not since <= moment <= until,
        "t_during": since < moment < until,
    }[op]


# --- random filters ---------------------------------------------------------------------------------------------------


def _property(name: str) -> dict:
    return {"property": name}


def _stamp(moment: datetime) -> dict:
    return {"timestamp": moment.isoformat()}


TEXTS = st.sampled_from(
    ["cloudseg:place", "cloudseg:sensor", "collection", "id", "cloudseg:weights_id", "cloudseg:radiometry"]
)
VALUES = st.one_of(st.sampled_from([*PLACES, *SENSORS, "masks", "scenes", "w-1", "' OR 1=1 --"]), st.text(max_size=3))
VALUES = VALUES.filter(lambda value: "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value))
FIGURES = st.sampled_from(["eo:cloud_cover", "gsd", "cloudseg:model_version", "cloudseg:valid_fraction"])
NUMBER = st.sampled_from([*NUMBERS, 1.5, -1])
MOMENTS = st.sampled_from(["datetime", "created"])
MOMENT = st.sampled_from(TIMES)
SIGN = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
PATTERN = st.lists(
    st.sampled_from(["%", "_", "a", "b", "mgrs", ":", "31U", "\\%", "\\_", "\\\\", "*", "?", "[", "]", "x", "é", "L"]),
    max_size=5,
).map("".join)


@st.composite
def _interval(draw) -> dict:
    since, until = sorted([draw(MOMENT), draw(MOMENT)])
    ends = draw(st.sampled_from([(since, until), (since, None), (None, until)]))
    return {"interval": [end.isoformat() if end else ".." for end in ends]}


def _op(op: str, *args) -> dict:
    return {"op": op, "args": list(args)}


GEOMETRY = st.one_of(
    st.sampled_from(BOXES).map(lambda numbers: {"bbox": list(numbers)}),
    st.sampled_from(BOXES[:3]).map(lambda numbers: shapely.geometry.mapping(box(*numbers))),
    st.just({"type": "Point", "coordinates": [1.0, 1.0]}),
    st.just({"type": "Polygon", "coordinates": [[[0, 0], [20, 0], [0, 20], [0, 0]]]}),
)
LEAVES = st.one_of(
    st.builds(lambda op, name, value: _op(op, _property(name), value), SIGN, TEXTS, VALUES),
    st.builds(lambda op, name, value: _op(op, _property(name), value), SIGN, FIGURES, NUMBER),
    st.builds(lambda op, name, value: _op(op, _property(name), _stamp(value)), SIGN, MOMENTS, MOMENT),
    st.builds(lambda name, a, b: _op("between", _property(name), a, b), FIGURES, NUMBER, NUMBER),
    st.builds(lambda name, a, b: _op("between", _property(name), a, b), TEXTS, VALUES, VALUES),
    st.builds(lambda name, values: _op("in", _property(name), values), TEXTS, st.lists(VALUES, min_size=1, max_size=3)),
    st.builds(lambda name, pattern: _op("like", _property(name), pattern), TEXTS, PATTERN),
    st.builds(lambda name: _op("isNull", _property(name)), st.one_of(TEXTS, FIGURES, MOMENTS, st.just("geometry"))),
    st.builds(lambda area: _op("s_intersects", _property("geometry"), area), GEOMETRY),
    st.builds(
        lambda op, name, value: _op(op, _property(name), _stamp(value)),
        st.sampled_from(["t_before", "t_after", "t_equals", "t_intersects", "t_disjoint"]),
        MOMENTS,
        MOMENT,
    ),
    st.builds(
        lambda op, name, span: _op(op, _property(name), span),
        st.sampled_from(["t_intersects", "t_disjoint", "t_during"]),
        MOMENTS,
        _interval(),
    ),
    st.booleans(),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda node: _op("not", node)),
        st.builds(
            lambda op, parts: _op(op, *parts), st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)
        ),
    ),
    max_leaves=6,
)


def _found(db, where) -> set[str]:
    ids, token = set(), None
    while True:
        page = ms.search(db, mq.Query(where=where, **ANY_MODEL), limit=500, token=token)
        ids |= {row.id for row in page.rows}
        token = page.token
        if token is None:
            return ids


ANY_MODEL = {"any_model": True}


def _selected(db, where) -> set[str]:
    """Return the ids of the rows that a filter selects, without the pages of a search."""
    ids = set()
    for kind, source in (("masks", t.mask.join(t.scene).join(t.weights, WEIGHTS_OF_MASK)), ("scenes", t.scene)):
        fields = mq.fields_of(kind)
        found = build_filter(where, fields)
        columns = (fields["id"].column.label("id"), fields["geometry"].column.label("shape"), *found.columns)
        rows_ = db.execute(select(*columns).select_from(source).where(found.condition)).mappings()
        ids |= {row["id"] for row in rows_ if found.holds(row, row["shape"])}
    return ids


WEIGHTS_OF_MASK = t.weights.c.weights_id == t.mask.c.weights_id


def test_random_filters_select_what_python_selects(filled: Catalog):
    sizes = set()
    with filled.read() as db:

        @settings(
            max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(where=FILTERS)
        def check(where) -> None:
            expected = {values["id"] for _, values in EVERYTHING if _python(where, values) is True}
            assert _selected(db, where) == expected
            sizes.add(len(expected))

        check()
    assert len(sizes) > 20  # the filters are not all true or all false


def test_pages_of_a_search_are_filtered_in_the_same_way(filled: Catalog):
    near = _op("s_intersects", _property("geometry"), {"bbox": [-5, -5, 10, 10]})
    corner = _op("s_intersects", _property("geometry"), {"bbox": [31.9, 31.9, 32, 32]})  # of a triangle, outside of it
    late = _op("t_after", _property("datetime"), _stamp(TIMES[4]))
    with filled.read() as db:
        assert _found(db, corner) == set()
        assert _found(db, _op("not", corner)) == {values["id"] for _, values in EVERYTHING}
        for where in (near, _op("not", near), _op("or", near, late), _op("and", _op("not", near), _op("not", late))):
            expected = {values["id"] for _, values in EVERYTHING if _python(where, values) is True}
            assert 0 < len(expected) < len(EVERYTHING)
            assert _found(db, where) == expected


LIKE = [
    "mgrs:%",
    "MGRS%",
    "mgrs:31_DQ",
    "mgrs:31_dq",
    "a\\%b",
    "a\\_b",
    "a_b",
    "a\\\\b",
    "x[y]z",
    "x*z",
    "x?z",
    "%",
    "_",
    "",
]


@pytest.mark.parametrize("pattern", LIKE)
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_like_minds_case_and_escapes(catalog: Catalog, pattern: str):
    with catalog.read() as db:
        found = [place for place in PLACES if db.execute(select(Like(literal(place), pattern))).scalar_one()]
    assert found == [place for place in PLACES if _like(place, pattern)]


def test_text_is_ordered_by_code_points_whatever_the_language_of_the_database():
    named = {"place": Field("text", column("place"))}
    where = build_condition(_op("<", _property("place"), "x"), named)
    assert 'place COLLATE "C"' in str(where.compile(dialect=postgresql.dialect()))
    assert "COLLATE" not in str(where.compile(create_engine("sqlite://")))


def test_values_are_bound_and_never_part_of_the_statement():
    named = {"place": Field("text", column("place"))}
    hostile = "x'; DROP TABLE mask; --"
    for node in (
        _op("=", _property("place"), hostile),
        _op("like", _property("place"), hostile),
        _op("in", _property("place"), [hostile]),
        _op("between", _property("place"), hostile, hostile),
    ):
        for dialect in (postgresql.dialect(), create_engine("sqlite://").dialect):
            compiled = build_condition(node, named).compile(dialect=dialect)
            assert "DROP" not in str(compiled)
            assert any("DROP" in str(value) for value in compiled.params.values())


PLACE = _property("cloudseg:place")
AREA = _property("geometry")
DEEP: dict = _op("isNull", PLACE)
for _ in range(MAX_DEPTH):
    DEEP = _op("not", DEEP)
REFUSED = {
    "an unknown field": (_op("=", _property("source_uri"), "x"), "not queryable"),
    "two fields": (_op("=", PLACE, _property("id")), "another type"),
    "no field": (_op("=", 1, 1), "needs the name of a field"),
    "an unknown operator": (_op("s_within", AREA, {"bbox": [0, 0, 1, 1]}), "not supported"),
    "a function": (_op("casei", PLACE), "not supported"),
    "NaN": (_op("=", _property("gsd"), float("nan")), "another type"),
    "infinity": (_op("<", _property("gsd"), float("inf")), "another type"),
    "a huge number": (_op("<", _property("gsd"), 10**400), "another type"),
    "true for a number": (_op("=", _property("gsd"), True), "another type"),
    "a text for a number": (_op("=", _property("gsd"), "1"), "another type"),
    "a number for a text": (_op("like", PLACE, 1), "another type"),
    "NUL": (_op("=", PLACE, "a\0b"), "another type"),
    "half a pair": (_op("=", PLACE, "\ud800"), "another type"),
    "a pattern of a number": (_op("like", _property("gsd"), "1%"), "does not fit the field"),
    "an open escape": (_op("like", PLACE, "x\\"), "not a pattern"),
    "too many wildcards": (_op("like", PLACE, "%a" * 11), "not a pattern"),
    "too many values": (_op("in", PLACE, ["x"] * 201), "not a list"),
    "no values": (_op("in", PLACE, []), "not a list"),
    "too many operators": (_op("and", *[_op("isNull", PLACE)] * 200), "too long"),
    "too deep": (DEEP, "too deep"),
    "a comparison of geometries": (_op("=", AREA, {"type": "Point", "coordinates": [0, 0]}), "s_intersects"),
    "a text as geometry": (_op("s_intersects", AREA, "POINT(0 0)"), "needs a geometry"),
    "no geometry": (_op("s_intersects", AREA, {}), "not a GeoJSON geometry"),
    "beyond the Earth": (_op("s_intersects", AREA, {"type": "Point", "coordinates": [500, 0]}), "not a GeoJSON"),
    "a box of texts": (_op("s_intersects", AREA, {"bbox": ["0", 0, 1, 1]}), "not a box"),
    "a field that is no geometry": (_op("s_intersects", PLACE, {"bbox": [0, 0, 1, 1]}), "does not fit the field"),
    "too many vertices": (
        _op("s_intersects", AREA, {"type": "LineString", "coordinates": [[i / 100, i % 2] for i in range(6000)]}),
        "too detailed",
    ),
    "too many vertices in all": (
        _op(
            "or",
            *[_op("s_intersects", AREA, {"type": "LineString", "coordinates": [[i / 100, 0] for i in range(400)]})]
            * 20,
        ),
        "too detailed",
    ),
    "a moment that is none": (_op("t_before", _property("datetime"), {"timestamp": "yesterday"}), "not a time"),
    "an interval backwards": (
        _op("t_intersects", _property("datetime"), {"interval": ["2024-02-01", "2024-01-01"]}),
        "not an interval",
    ),
    "before an open end": (_op("t_before", _property("datetime"), {"interval": ["..", "2024-01-01"]}), "not open"),
    "a time and a number": (_op("=", _property("datetime"), 5), "another type"),
    "one condition": (_op("and", True), "two conditions"),
    "no filter": ([], "not a CQL2 filter"),
    "a text": ("eo:cloud_cover < 10", "not a CQL2 filter"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_with_what_found_and_expected(name: str):
    where, words = REFUSED[name]
    with pytest.raises(InputError, match=words) as refused:
        build_filter(where, mq.fields_of("masks"))
    assert refused.value.found not in (None, "")
    assert refused.value.expected


def test_a_page_of_a_filter_that_nothing_fits_ends(filled: Catalog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ms, "MAX_COMPARED", 10)
    corner = _op("not", _op("s_intersects", _property("geometry"), {"bbox": [-180, -90, 180, 90]}))
    with filled.read() as db:
        page = ms.search(db, mq.Query(where=corner, **ANY_MODEL), limit=5)
        assert page.rows == []
        assert page.token is not None
        assert _found(db, corner) == set()
