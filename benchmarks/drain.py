"""Workers that draw scenes, of which a million wait, from one PostgreSQL.

`python -m benchmarks.drain --url postgresql+psycopg://…`, an empty database; with `--help` for what can be chosen.

Drawing a mask is simulated by a pause (`--mask-ms`) and its row: what is measured is the catalog. Each worker is a
process that does what `cloudseg predict --drain` does with the catalog (`cloudseg.catalog.lease_rows`), its own
connection included: draw, publish the row of the mask, release, and a page of scenes where none is free. One scene in
ten has its mask before the beginning, so that pages pass over some.

Printed for each number of workers: draws a second, the time of one draw (median, 95 %), tuples that the server fetched
for a draw (`pg_stat_database`; all statements of the workers), CPU time of the workers, and the ratio of the draws a
second to those of the first line; then the bytes of the tables and indexes by row.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, cast, event, func, insert, literal, select, text

from benchmarks import catalog_scale as scale
from cloudseg.catalog import Catalog, lease_rows, model_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.lease_rows import Waiting, Wanted
from cloudseg.records import Mask

WANTED: Final = Wanted("w-next", bands=["red"])
MASKED: Final = 10
"""One scene in so many has its mask before the beginning."""
_STORED: Final = {"key": "k", "sha256": "s", "size": 1}
_COUNTERS: Final = "SELECT tup_fetched, tup_returned FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True)
class Worked:
    """What one worker did."""

    drawn: list[str]
    seconds: list[float]
    """Time of each draw."""
    cpu_s: float


def fill(catalog: Catalog, count: int) -> None:
    """Fill an empty catalog with scenes, masks of earlier weights, and new weights with a few masks."""
    scale.fill(catalog, count)
    with catalog.begin() as db:
        metadata = {"bands": ["red"], "threshold": 0.5, "architecture": "SimpleUNet", "recipe_name": "nightly"}
        values: dict[str, Any] = {
            "weights_id": WANTED.weights_id,
            "version": 3,
            "architecture": "SimpleUNet",
            "companions": {},
            "metadata": metadata,
            "created_at": scale.FIRST_DAY,
            **_STORED,
        }
        db.execute(insert(t.weights), values)
        number = func.substr(t.scene.c.scene_id, 4)
        row = [
            "mk-next-" + number,
            t.scene.c.scene_id,
            literal(WANTED.weights_id),
            *map(literal, (0.5, 0.3, 1.0, "k", "s")),
            literal(1, BigInteger),
            literal({}, t.mask.c.companions.type),
            t.scene.c.created_at,
        ]
        names = ["mask_id", "scene_id", "weights_id", "threshold", "cloud_fraction", "valid_fraction"]
        names += ["key", "sha256", "size", "companions", "created_at"]
        some = select(*row).where(cast(number, BigInteger) % MASKED == 0)
        db.execute(insert(t.mask).from_select(names, some))
    with catalog.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def work(url: str, name: str, seconds: float, mask_s: float, gate: Any, results: Any) -> None:
    """Draw and publish until the time is over."""
    catalog, after = Catalog(url, connections=1), None
    with catalog.read() as db:  # connected before the beginning
        db.execute(text("SELECT 1"))
    gate.wait()
    drawn, times, began = list[str](), list[float](), time.perf_counter()
    cpu = _cpu_s()
    while time.perf_counter() - began < seconds:
        at = time.perf_counter()
        scene_id, after = _draw(catalog, name, after)
        times.append(time.perf_counter() - at)
        if scene_id is None:
            break
        time.sleep(mask_s)
        drawn.append(scene_id)
        with catalog.begin() as db:
            model_rows.add_mask(db, _mask(scene_id))
        with catalog.begin() as db:
            lease_rows.release(db, WANTED, name, [scene_id])
    results.put(Worked(drawn, times, _cpu_s() - cpu))
    catalog.engine.dispose()


def _draw(catalog: Catalog, name: str, after: Waiting | None) -> tuple[str | None, Waiting | None]:
    while True:
        with catalog.begin() as db:
            drawn = lease_rows.draw(db, WANTED, name)
        if drawn is not None and drawn.has_mask:  # of a page that was read before another worker was done with it
            with catalog.begin() as db:
                lease_rows.release(db, WANTED, name, [drawn.scene_id])
            continue
        if drawn is not None:
            return drawn.scene_id, after
        with catalog.read() as db:
            page = lease_rows.find_waiting(db, WANTED, after=after)
        if not page:
            return None, after
        with catalog.begin() as db:
            lease_rows.add_waiting(db, WANTED, page)
        after = page[-1]


def _mask(scene_id: str) -> Mask:
    return Mask(
        mask_id=f"mk-next-{scene_id[3:]}",
        scene_id=scene_id,
        weights_id=WANTED.weights_id,
        threshold=0.5,
        cloud_fraction=0.3,
        valid_fraction=1.0,
        companions={},
        created_at=scale.FIRST_DAY + timedelta(days=1),
        **_STORED,
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(catalog: Catalog, workers: int, seconds: float, mask_s: float) -> tuple[float, str]:
    """Let so many workers draw for a time; return draws a second, and a line."""
    url = catalog.engine.url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.drain"])
    gate, results = context.Barrier(workers + 1), context.Queue()
    processes = [
        context.Process(target=work, args=(url, f"worker {number}", seconds, mask_s, gate, results))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    before = _counters(catalog)
    gate.wait()
    began = time.perf_counter()
    done: list[Worked] = [results.get() for _ in processes]
    took = time.perf_counter() - began
    for process in processes:
        process.join()
    fetched, returned = (later - earlier for later, earlier in zip(_counters(catalog), before, strict=True))
    drawn = [scene_id for each in done for scene_id in each.drawn]
    if len(set(drawn)) != len(drawn):
        raise RuntimeError(f"{len(drawn) - len(set(drawn))} scenes were drawn twice")
    times = sorted(1000 * second for each in done for second in each.seconds)
    rate = len(drawn) / took
    each_draw = [
        f"median {statistics.median(times):.2f} ms",
        f"95 % {times[int(0.95 * len(times))]:.2f} ms",
        f"longest {times[-1]:.0f} ms",
        f"tuples fetched {fetched / len(drawn):.1f}, returned {returned / len(drawn):.1f}",
        f"{1000 * sum(each.cpu_s for each in done) / len(drawn):.2f} ms of CPU in the workers",
    ]
    line = f"{workers} workers: {len(drawn)} scenes, {rate:.0f} draws/s; each: {', '.join(each_draw)}"
    return rate, line


def _counters(catalog: Catalog) -> tuple[int, int]:
    time.sleep(1.5)  # a session sends its counters at most once a second
    with catalog.begin() as db:
        db.execute(text("SELECT pg_stat_clear_snapshot()"))
        found = db.execute(text(_COUNTERS)).one()
    return int(found[0]), int(found[1])


def sizes(db: Connection) -> list[str]:
    """Return the bytes of scene, mask and prediction_lease by row, and of each of their indexes."""
    lines = []
    for table in ("scene", "mask", "prediction_lease"):
        rows = max(1, db.execute(select(func.count()).select_from(t.metadata.tables[table])).scalar_one())
        heap = db.execute(text("SELECT pg_table_size(:name)"), {"name": table}).scalar_one()
        lines.append(f"{table}: {rows} rows, {heap / rows:.0f} bytes a row")
        found = text(
            "SELECT indexrelname, pg_relation_size(indexrelid) FROM pg_stat_user_indexes WHERE relname = :name"
        )
        lines += [f"  {name}: {size / rows:.0f}" for name, size in sorted(db.execute(found, {"name": table}))]
    return lines


def main() -> None:
    """Fill the catalog, draw, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="an empty database of PostgreSQL; it is left filled")
    parser.add_argument("--scenes", type=int, default=1_000_000, help="default 1 000 000")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8], help="default 1 2 4 8")
    parser.add_argument("--seconds", type=float, default=30, help="for each number of workers (default 30)")
    parser.add_argument("--mask-ms", type=float, default=0, help="pause for each scene (default 0)")
    options = parser.parse_args()
    catalog = Catalog(options.url)
    catalog.upgrade()
    began = time.perf_counter()
    fill(catalog, options.scenes)
    print(f"{options.scenes} scenes, one in {MASKED} masked, in {time.perf_counter() - began:.0f} s", flush=True)
    rates: list[float] = []
    for workers in options.workers:
        rate, line = measure(catalog, workers, options.seconds, options.mask_ms / 1000)
        rates.append(rate)
        print(f"{line}; x{rate / rates[0]:.2f}", flush=True)
    for name, search in {
        "plan of a draw": lambda db: lease_rows.draw(db, WANTED, "plan"),
        "plan of a page": lambda db: lease_rows.find_waiting(db, WANTED),
    }.items():
        print(name)
        for planned in plan(catalog, search):
            print(f"    {planned[:150]}")
    with catalog.begin() as db:
        page = lease_rows.find_waiting(db, WANTED, most=10_000)
        lease_rows.add_waiting(db, WANTED, page)
    with catalog.read() as db:
        print("\n".join(sizes(db)))
    catalog.engine.dispose()


def plan(catalog: Catalog, search: Callable[[Connection], object]) -> list[str]:
    """Return the plan of a search's first statement, which may lock rows."""
    asked: list[tuple[str, Any]] = []

    def remember(_: Any, __: Any, statement: str, parameters: Any, *rest: Any) -> None:
        asked.append((statement, parameters))

    with catalog.begin() as db:
        event.listen(catalog.engine, "before_cursor_execute", remember)
        search(db)
        event.remove(catalog.engine, "before_cursor_execute", remember)
        statement, parameters = asked[0]
        how = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF)"
        return [str(row[0]) for row in db.exec_driver_sql(f"{how} {statement}", parameters)]


if __name__ == "__main__":
    main()
