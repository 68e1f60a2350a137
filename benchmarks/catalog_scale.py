"""A catalog with a million scenes and masks.

`python -m benchmarks.catalog_scale`, with `--help` for what can be chosen.

Without a URL it fills a SQLite file in a temporary folder. A URL names an empty database of PostgreSQL, with PostGIS
for the geometry; it is left filled. Rows are made by the database itself, on 20 000 tiles and 1096 days, with ids in
random order like hashes. Each stage runs in a separate process, whose peak memory is printed. `--store` names a folder
that gets an empty file for every object (five for a masked scene; it is left filled too): with it, maintenance is
measured as well.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from shapely import box, to_wkb
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    cast,
    event,
    func,
    insert,
    literal,
    select,
    text,
    type_coerce,
)

from cloudseg.catalog import Catalog, model_rows, scene_rows, scene_search
from cloudseg.catalog import tables as t
from cloudseg.catalog.lineage import lineage_of_mask
from cloudseg.records import MaintainRecord
from cloudseg.stages import maintain, plan_drain
from cloudseg.stages.references import find_named, iter_named
from cloudseg.storage import LocalStore, Store

LONG_AFTER: Final = "2100-01-01T00:00:00Z"
"""All files are old then, so that maintenance queries a row of each."""
CHAMPION: Final = "w-champion"
FORMER: Final = "w-former"
FIRST_DAY: Final = datetime(2023, 1, 1, 10, 30, tzinfo=UTC)
DAYS: Final = 1096
TILES: Final = 20_000
WAITING: Final = 2000
"""One scene in so many has no mask of the champion, only one of the previous weights."""
LABELED: Final = 5000
_ASKED: Final = 100
"""Keys in one query; maintenance queries up to 1000 at a time."""
_SCRAMBLE: Final = 611_953
"""A prime: i · prime modulo n is a permutation of 0 … n - 1 unless n is a multiple of it."""

_COVERS: Final = 10_007
"""Different cloud fractions, evenly spread."""

JUNE: Final = {"since": datetime(2024, 6, 1, tzinfo=UTC), "until": datetime(2024, 7, 1, tzinfo=UTC)}
BOX: Final = {"west": 2.0, "south": 48.0, "east": 4.0, "north": 50.0}
FEW_CLOUDS: Final = {"op": "<", "args": [{"property": "eo:cloud_cover"}, 5]}
OF_CHAMPION: Final = {"op": "=", "args": [{"property": "cloudseg:model_version"}, 2]}
TOUCHING: Final = (
    "SELECT mask_id, scene_name, cloud_fraction, model_version FROM published_mask "
    "WHERE acquired_at >= :since AND acquired_at < :until "
    "AND min_lon <= :east AND max_lon >= :west AND min_lat <= :north AND max_lat >= :south"
)
TOUCHING_GEOMETRY: Final = (
    "SELECT mask_id, scene_name, cloud_fraction, model_version FROM gis.masks "
    "WHERE acquired_at >= :since AND acquired_at < :until "
    "AND ST_Intersects(footprint, ST_MakeEnvelope(:west, :south, :east, :north, 4326))"
)

_metadata = MetaData()
_tile = Table(
    "benchmark_tile",
    _metadata,
    Column("i", Integer, primary_key=True),
    Column("place", Text),
    Column("footprint_wkb", LargeBinary),
    *(Column(name, t.scene.c[name].type) for name in ("min_lon", "min_lat", "max_lon", "max_lat")),
    prefixes=["TEMPORARY"],
)
_day = Table(
    "benchmark_day", _metadata, Column("i", Integer, primary_key=True), Column("at", t.Utc), prefixes=["TEMPORARY"]
)


@dataclass(frozen=True)
class Answer:
    """Result and times of one query."""

    query: str
    rows: int
    seconds: list[float]
    plan: list[str]


def fill(catalog: Catalog, count: int) -> None:
    """Fill an empty, upgraded catalog with `count` scenes and masks, a snapshot of labels and two weights."""
    with catalog.begin() as db:
        if db.dialect.name == "sqlite":  # the indexes are filled in random order: a small cache is written many times
            db.exec_driver_sql("PRAGMA cache_size = -1000000")
        _metadata.create_all(db)
        db.execute(insert(_tile), [_tile_row(i) for i in range(min(TILES, count))])
        db.execute(insert(_day), [{"i": i, "at": FIRST_DAY + timedelta(days=i)} for i in range(DAYS)])
        _add_scenes(db, count)
        _add_models(db, min(LABELED, count // 2))
        _add_masks(db)
        _metadata.drop_all(db)
    if catalog.engine.dialect.name == "postgresql":  # what the server's autovacuum does after such a load
        with catalog.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def run_queries(catalog: Catalog, store: Store, turns: int) -> list[Answer]:
    """Run every query `turns` times after once to warm up, and get its plan."""
    with catalog.read() as db:
        one = db.execute(select(t.mask.c.mask_id).where(t.mask.c.weights_id == CHAMPION).limit(1)).scalar_one()
        name = db.execute(select(t.scene.c.name).limit(1)).scalar_one()
        of_scenes, of_masks = (
            db.execute(select(table.c.key).limit(_ASKED)).scalars().all() for table in (t.scene, t.mask)
        )
    queries: dict[str, Callable[[Connection], Sequence[Any]]] = {
        "new scenes without a mask of the champion": lambda db: scene_rows.list_scenes_without_mask(db, CHAMPION),
        "masks that touch this box in June": lambda db: _touching(db, TOUCHING),
        "lineage of one mask": lambda db: lineage_of_mask(db, one)["labels"],
        "how many scenes have no mask of the champion": lambda db: [scene_rows.count_scenes_without_mask(db, CHAMPION)],
        "which of 100 scenes' objects a row names": lambda db: sorted(find_named(db, store, of_scenes)),
        "which of 100 masks' objects a row names": lambda db: sorted(find_named(db, store, of_masks)),
        "the 20 newest masks of the weights before": lambda db: model_rows.list_masks(db, weights_id=FORMER, limit=20),
        "the 20 newest masks": lambda db: model_rows.list_masks(db, limit=20),
        "the 20 newest scenes": lambda db: scene_rows.list_scenes(db, limit=20),
        "the scenes of a name": lambda db: scene_search.find_scenes_by_name(db, [name]),
    }
    if _has_geometry(catalog):
        queries["masks that touch this box in June, by geometry"] = lambda db: _touching(db, TOUCHING_GEOMETRY)
    return [_run_query(catalog, name, query, turns) for name, query in queries.items()]


def _touching(db: Connection, statement: str) -> Sequence[Any]:
    # Through the type of the column: SQLite keeps times as text.
    times = [bindparam(name, type_=t.Utc()) for name in JUNE]
    return db.execute(text(statement).bindparams(*times), {**JUNE, **BOX}).all()


def _run_query(catalog: Catalog, name: str, query: Callable[[Connection], Sequence[Any]], turns: int) -> Answer:
    seconds = []
    for _ in range(turns + 1):
        with catalog.read() as db:
            began = time.perf_counter()
            rows = query(db)
            seconds.append(time.perf_counter() - began)
    return Answer(name, len(rows), seconds[1:], plan(catalog, query))


def plan(
    catalog: Catalog, query: Callable[[Connection], object], *, analyze: bool = True, every: bool = False
) -> list[str]:
    """Return the plan of a query's first statement, or of every one, one line each."""
    asked: list[tuple[str, Any]] = []

    def remember(_: Any, __: Any, statement: str, parameters: Any, *rest: Any) -> None:
        asked.append((statement, parameters))

    event.listen(catalog.engine, "before_cursor_execute", remember)
    with catalog.read() as db:
        asked.clear()  # without the statements that open the transaction
        query(db)
        event.remove(catalog.engine, "before_cursor_execute", remember)
        sqlite = db.dialect.name == "sqlite"
        how = (
            "EXPLAIN QUERY PLAN"
            if sqlite
            else f"EXPLAIN ({'ANALYZE, ' if analyze else ''}COSTS OFF, TIMING OFF, SUMMARY OFF)"
        )
        return [
            str(row[3] if sqlite else row[0])
            for statement, parameters in (asked if every else asked[:1])
            for row in db.exec_driver_sql(f"{how} {statement}", parameters)
        ]


def _has_geometry(catalog: Catalog) -> bool:
    if catalog.engine.dialect.name != "postgresql":
        return False
    with catalog.read() as db:
        return db.execute(text("SELECT to_regclass('gis.masks') IS NOT NULL")).scalar_one() is True


# --- rows -------------------------------------------------------------------------------------------------------------


def _tile_row(i: int) -> dict[str, Any]:
    """Return the i-th of tiles of 1.2°, 2° or 1° apart, from 180° west and 50° south on."""
    west, south = i % 180 * 2 - 180.0, i // 180 - 50.0
    east, north = west + 1.2, south + 1.2
    corners = {"min_lon": west, "min_lat": south, "max_lon": east, "max_lat": north}
    return {"i": i, "place": f"tile:{i}", "footprint_wkb": to_wkb(box(west, south, east, north)), **corners}


def _add_scenes(db: Connection, count: int) -> None:
    i = select(literal(0, BigInteger).label("i")).cte("numbers", recursive=True)
    i = i.union_all(select(i.c.i + 1).where(i.c.i < count - 1))
    number = cast(10_000_000 + i.c.i * _SCRAMBLE % count, Text)
    key = "scenes/" + func.substr(number, 7, 2) + "/" + number + ".tif"
    values: dict[str, Any] = {
        "scene_id": "sc-" + number,
        "name": "scene_" + number,
        "layout": literal("safe"),
        "sensor": literal("sentinel-2-l1c"),
        "radiometry": literal("metadata"),
        "acquired_at": _day.c.at,
        "place": _tile.c.place,
        "crs": literal("EPSG:32631"),
        "transform": literal([10.0, 0.0, 400_000.0, 0.0, -10.0, 5_000_000.0], JSON),
        "height": literal(10_980),
        "width": literal(10_980),
        "resolution_m": literal(10.0),
        "bands": literal(["red", "green", "blue"], JSON),
        "footprint_wkb": _tile.c.footprint_wkb,
        "min_lon": _tile.c.min_lon,
        "min_lat": _tile.c.min_lat,
        "max_lon": _tile.c.max_lon,
        "max_lat": _tile.c.max_lat,
        "valid_fraction": literal(1.0),
        "publishable": literal(True, Boolean),
        "source_uri": "file:///in/" + number,
        "source_sha256": "source " + number,
        "key": key,
        "sha256": "sha " + number,
        "size": literal(200_000_000),
        "tags": literal({"biome": "forest"}, JSON),
        "created_at": _day.c.at,
    }
    joined = i.join(_tile, _tile.c.i == i.c.i % min(TILES, count)).join(_day, _day.c.i == i.c.i * 37 % DAYS)
    db.execute(insert(t.scene).from_select(list(values), select(*values.values()).select_from(joined)))


def _add_models(db: Connection, labeled: int) -> None:
    stored = {"key": "k", "sha256": "s", "size": 1, "created_at": FIRST_DAY}
    db.execute(
        insert(t.snapshot),
        {
            "snapshot_id": "sn-1",
            "manifest_key": "k",
            "manifest_sha256": "s",
            "chip_size": 384,
            "bands": [],
            "working_resolution_m": None,
            "counts": {},
            "created_at": FIRST_DAY,
        },
    )
    db.execute(
        insert(t.run),
        {
            "run_id": "run-1",
            "snapshot_id": "sn-1",
            "recipe_name": "nightly",
            "recipe_hash": "h",
            "recipe": {},
            "seed": 1,
            "status": "finished",
            "device": "cpu",
            "device_reason": "no GPU",
            "created_at": FIRST_DAY,
        },
    )
    for version, (weights_id, run_id) in enumerate(((FORMER, None), (CHAMPION, "run-1")), start=1):
        db.execute(
            insert(t.weights),
            {
                "weights_id": weights_id,
                "version": version,
                "run_id": run_id,
                "snapshot_id": run_id and "sn-1",
                "architecture": "SimpleUNet",
                "companions": {},
                "metadata": {
                    "bands": ["red"],
                    "threshold": 0.5,
                    "architecture": "SimpleUNet",
                    "recipe_name": "nightly",
                },
                **stored,
            },
        )
        db.execute(
            insert(t.promotion),
            {
                "generation": version,
                "weights_id": weights_id,
                "action": "promote",
                "actor": "benchmark",
                "reason": "r",
                "created_at": FIRST_DAY,
            },
        )
    first = select(t.scene.c.scene_id).limit(labeled).subquery()
    label_id = "lb-" + func.substr(first.c.scene_id, 4)
    values: dict[str, Any] = {
        "label_id": label_id,
        "scene_id": first.c.scene_id,
        "version": literal(1),
        "source": literal("benchmark"),
        "class_mapping": literal({}, JSON),
        "cloud_fraction": literal(0.3),
        "labelled_fraction": literal(1.0),
        "source_uri": literal("u"),
        "source_sha256": literal("s"),
        "key": "labels/" + first.c.scene_id,
        "sha256": literal("s"),
        "size": literal(1),
        "created_at": literal(FIRST_DAY, t.Utc),
    }
    db.execute(insert(t.label).from_select(list(values), select(*values.values())))
    accepted = [
        t.label.c.label_id,
        literal(1),
        *map(literal, ("accepted", "benchmark", "r")),
        literal(FIRST_DAY, t.Utc),
    ]
    db.execute(insert(t.label_event).from_select(t.label_event.columns.keys(), select(*accepted)))
    frozen = select(literal("sn-1"), t.label.c.label_id, literal("train"))
    db.execute(insert(t.snapshot_label).from_select(["snapshot_id", "label_id", "split"], frozen))


def _add_masks(db: Connection) -> None:
    s = t.scene.c
    number = func.substr(s.scene_id, 4)
    waits = cast(number, Integer) % WAITING == 0
    for weights_id, which in ((CHAMPION, ~waits), (FORMER, waits)):
        folder = f"masks/{weights_id}/" + s.scene_id
        values: dict[str, Any] = {
            "mask_id": "mk-" + number,
            "scene_id": s.scene_id,
            "weights_id": literal(weights_id),
            "threshold": literal(0.5),
            "cloud_fraction": cast(number, BigInteger) * _SCRAMBLE % _COVERS / literal(float(_COVERS)),
            "valid_fraction": literal(1.0),
            "key": folder + "/mask.tif",
            "sha256": "sha " + number,
            "size": literal(1_000_000),
            "companions": _assets(db, folder),
            "created_at": s.created_at,
        }
        db.execute(insert(t.mask).from_select(list(values), select(*values.values()).where(which)))


def _assets(db: Connection, folder: ColumnElement[str]) -> ColumnElement[Any]:
    """Return the JSON of three assets of every row."""
    names = {"probability": "probability.tif", "thumbnail": "thumbnail.png", "item": "item.json"}
    parts = [
        literal(f'"{name}":{{"key":"') + folder + f'/{file}","sha256":"s","size":1}}' for name, file in names.items()
    ]
    written = literal("{") + parts[0] + "," + parts[1] + "," + parts[2] + "}"
    # SQLite keeps JSON as text, and its CAST would convert it to a number.
    return type_coerce(written, Text) if db.dialect.name == "sqlite" else cast(written, JSON)


# --- stages -----------------------------------------------------------------------------------------------------------


def measure(stage: Callable[..., object], catalog: Catalog, store: Path, **arguments: object) -> str:
    """Run a stage in a separate process; return its time and peak memory."""
    settings = {
        "CLOUDSEG_CATALOG_URL": catalog.engine.url.render_as_string(hide_password=False),
        "CLOUDSEG_STORE_URL": str(store),
    }
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, stage, settings, arguments).result()


def _measured(stage: Callable[..., object], settings: dict[str, str], arguments: dict[str, object]) -> str:
    os.environ.update(settings)
    before = _peak_mib()
    began, cpu = time.perf_counter(), time.process_time()
    result = stage(**arguments)
    times = f"{time.perf_counter() - began:.1f} s ({time.process_time() - cpu:.1f} s of CPU in its process)"
    size = f"{len(result)} workers" if isinstance(result, list) else ""
    if isinstance(result, MaintainRecord):
        size = f"{len(result.orphans)} orphans, {len(result.missing)} missing"
    return f"{size}, {times}, peak {_peak_mib():.0f} MiB, of which {before:.0f} MiB before it began"


def _peak_mib() -> float:
    # Not getrusage: its peak begins with that of the process that started this one.
    return float(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def make_files(catalog: Catalog, store: LocalStore) -> int:
    """Make an empty file for every object that a row names; return how many."""
    made = 0
    for key, _ in iter_named(catalog, store):
        path = store.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        made += 1
    return made


def main() -> None:
    """Fill the catalog, run the queries and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1_000_000, help="and as many masks (default 1 000 000)")
    parser.add_argument("--url", help="an empty database instead of a SQLite file")
    parser.add_argument("--turns", type=int, default=5, help="times that each query is run (default 5)")
    parser.add_argument(
        "--store", type=Path, help="a folder for an empty file of every object: measure maintenance too"
    )
    parser.add_argument("--plans", action="store_true", help="print the plans too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cloudseg-scale-") as folder:
        catalog = Catalog(options.url or f"sqlite:///{Path(folder) / 'catalog.db'}")
        catalog.upgrade()
        began, cpu = time.perf_counter(), time.process_time()
        fill(catalog, options.scenes)
        print(
            f"{catalog.engine.dialect.name}: {options.scenes} scenes and masks in {time.perf_counter() - began:.0f} s",
            end="",
        )
        print(f" ({time.process_time() - cpu:.0f} s of CPU in this process)")
        store = LocalStore(options.store or Path(folder) / "store")
        for answer in run_queries(catalog, store, options.turns):
            milliseconds = [1000 * s for s in answer.seconds]
            times = f"median {statistics.median(milliseconds):.1f} ms, best {min(milliseconds):.1f} ms"
            print(f"{answer.query}: {answer.rows} rows, {times}")
            for line in answer.plan if options.plans else ():
                print(f"    {line[:150]}", flush=True)
        for weights_id in (CHAMPION, FORMER):
            print(
                f"plan_drain of {weights_id}:",
                measure(plan_drain, catalog, store.root, workers=8, weights_id=weights_id),
                flush=True,
            )
        if options.store is not None:
            began = time.perf_counter()
            print(f"{make_files(catalog, store)} files in {time.perf_counter() - began:.0f} s", flush=True)
            print("maintain, a dry run:", measure(maintain, catalog, store.root, as_of=LONG_AFTER), flush=True)
        catalog.engine.dispose()


if __name__ == "__main__":
    main()
