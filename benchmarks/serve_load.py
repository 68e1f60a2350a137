"""`cloudseg serve` under load: tile readers and searchers at once, over a catalog with a million masks.

`python -m benchmarks.serve_load [--masks N] [--url URL] [--folder FOLDER] [--seconds S]`, with `--help` for the rest.

The rows are those of `benchmarks.catalog_scale`; a few dozen scenes and masks more are real rasters, for the tiles.
Without a URL the catalog is a SQLite file. A URL names an empty database of PostgreSQL, with PostGIS for the geometry;
it is left filled. A folder that was filled before is used again with `--folder`, and so is a filled database.

The server is the command itself, in a process of its own, on loopback. Each client sends its next request as soon as it
has the answer (a closed loop), so the median latency of a kind is about the number of its clients divided by the
requests of all of them in a second. Client and server share the machine.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil
from rasterio.transform import Affine
from rio_tiler.constants import WEB_MERCATOR_TMS
from shapely import to_wkb
from sqlalchemy import func, select

from benchmarks import catalog_scale
from cloudseg import keys
from cloudseg.bands import MASK_CLEAR, MASK_CLOUD
from cloudseg.catalog import Catalog, model_rows, scene_rows
from cloudseg.catalog import tables as t
from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.raster.footprint import footprint_bounds, footprint_of
from cloudseg.raster.style import COLORS
from cloudseg.records import Mask, Scene, StoredObject
from cloudseg.storage import LocalStore

PICTURED: Final = 24
"""Scenes with real rasters."""
SIZE: Final = 1024
RESOLUTION_M: Final = 10.0
NORTH_M: Final = 7_200_000
"""Northing of the real rasters, at 65° north: the other rows reach to 62°, and have no files."""
_TIMEOUT_S: Final = 60.0
_STEPS: Final = 5
"""Pages that a searcher follows."""


@dataclass
class Kind:
    """What was measured of one kind of request."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Picture:
    """A mask with rasters, and tiles that it reaches into."""

    scene_id: str
    mask_id: str
    tiles: list[tuple[int, int, int]]


# --- catalog and store ------------------------------------------------------------------------------------------------


def fill(catalog: Catalog, store: LocalStore, masks: int) -> None:
    """Fill an empty catalog with `masks` masks and their scenes; the rasters of `PICTURED` of them are real."""
    catalog.upgrade()
    with catalog.read() as db:
        found = db.execute(select(func.count()).select_from(t.mask)).scalar_one()
    began = time.perf_counter()
    if found:
        print(f"{found} masks are there already", flush=True)
    else:
        catalog_scale.fill(catalog, masks - PICTURED)
    if list_pictures(catalog):
        return
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="cloudseg-load-") as folder:
        made = [_pictured(store, Path(folder), i, rng) for i in range(PICTURED)]
    with catalog.begin() as db:
        for scene, mask in made:
            scene_rows.add_scene(db, scene)
            model_rows.add_mask(db, mask)
    print(
        f"{catalog.engine.dialect.name}: filled with {masks} masks in {time.perf_counter() - began:.0f} s", flush=True
    )


def list_pictures(catalog: Catalog) -> list[Picture]:
    """Return the masks that have rasters, with three zooms of tiles each."""
    statement = select(t.scene, t.mask.c.mask_id).join(t.mask).where(t.scene.c.name.like("picture%"))
    with catalog.read() as db:
        rows = db.execute(statement).all()
    return [
        Picture(
            row.scene_id,
            row.mask_id,
            [
                (tile.z, tile.x, tile.y)
                for tile in WEB_MERCATOR_TMS.tiles(
                    row.min_lon + 1e-3, row.min_lat + 1e-3, row.max_lon - 1e-3, row.max_lat - 1e-3, [11, 13, 14]
                )
            ],
        )
        for row in rows
    ]


def _pictured(store: LocalStore, folder: Path, i: int, rng: np.random.Generator) -> tuple[Scene, Mask]:
    crs, transform = f"EPSG:{32631 + i % 8}", Affine(RESOLUTION_M, 0, 400_000 + 2000 * i, 0, -RESOLUTION_M, NORTH_M)
    rows, cols = np.mgrid[:SIZE, :SIZE]
    cloud = (rows - 512) ** 2 + (cols - 300 - 20 * i) ** 2 < 300**2
    pixels = (800 + 5000 * cloud + rng.integers(0, 400, (4, SIZE, SIZE))).astype(np.uint16)
    steps = np.clip(25 + 200 * cloud + rng.integers(-20, 20, cloud.shape), 0, 250).astype(np.uint8)
    colors = {value: (*COLORS[value], 255) for value in (MASK_CLEAR, MASK_CLOUD)}

    def put(key: Callable[[str], str], array: Any, nodata: int, colormap: Any = None) -> StoredObject:
        tiled, out = folder / "tiled.tif", folder / "out.tif"
        names = ["red", "green", "blue", "nir"][: len(array)]
        with create_tiled(
            tiled,
            height=SIZE,
            width=SIZE,
            count=len(array),
            dtype=str(array.dtype),
            crs=crs,
            transform=transform,
            nodata=nodata,
            descriptions=names,
            colormap=colormap,
        ) as dataset:
            dataset.write(array)
        write_cog(out, tiled, resampling="mode" if colormap else "average", tags={})
        data = out.read_bytes()
        return store.put(key(keys.sha256_of(data)), data)

    def put_mask(name: str, array: Any, colormap: Any = None) -> StoredObject:
        return put(lambda sha: keys.mask(catalog_scale.CHAMPION, scene_id, name, sha), array[None], 255, colormap)

    scene_id = f"sc-picture{i:03d}"
    footprint = footprint_of(np.ones((SIZE, SIZE), bool), transform, crs)
    bounds = dict(zip(("min_lon", "min_lat", "max_lon", "max_lat"), footprint_bounds(footprint), strict=True))
    at = catalog_scale.FIRST_DAY + timedelta(days=40 * i)
    scene = Scene(
        scene_id=scene_id,
        name=f"picture_{i:03d}",
        layout="safe",
        sensor="sentinel-2-l1c",
        radiometry="benchmark",
        acquired_at=at,
        place=f"picture:{i}",
        crs=crs,
        transform=list(transform)[:6],
        height=SIZE,
        width=SIZE,
        resolution_m=RESOLUTION_M,
        bands=["red", "green", "blue", "nir"],
        footprint_wkb=to_wkb(footprint),
        **bounds,
        valid_fraction=1.0,
        publishable=True,
        source_uri=f"file:///in/picture_{i}.tif",
        source_sha256=keys.sha256_of(f"picture {i}".encode()),
        **put(keys.scene, pixels, 0).model_dump(),
        tags={},
        created_at=at,
    )
    mask = Mask(
        mask_id=f"mk-picture{i:03d}",
        scene_id=scene_id,
        weights_id=catalog_scale.CHAMPION,
        threshold=0.5,
        cloud_fraction=float(cloud.mean()),
        valid_fraction=1.0,
        **put_mask("mask.tif", cloud.astype(np.uint8), colors).model_dump(),
        companions={"probability": put_mask("probability.tif", steps).model_dump()},
        created_at=at,
    )
    return scene, mask


# --- server -----------------------------------------------------------------------------------------------------------


@contextmanager
def serving(catalog: Catalog, store: LocalStore, code: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run `cloudseg serve` on a free port; yield its address and its process.

    Args:
        catalog: what it serves.
        store: what it serves.
        code: a checkout of cloudseg.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSEG_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudseg", "serve", "--port", "0"],
        env={
            **kept,
            "PYTHONPATH": str(code),
            "CLOUDSEG_CATALOG_URL": catalog.engine.url.render_as_string(hide_password=False),
            "CLOUDSEG_STORE_URL": str(store.root),
            "CLOUDSEG_SERVE_REQUESTS_PER_MINUTE": "0",
        },
        stderr=subprocess.PIPE,
        text=True,
        cwd=code,
    )
    assert process.stderr is not None  # noqa: S101
    log = Path(tempfile.gettempdir()) / f"cloudseg-serve-load-{process.pid}.log"
    try:
        for line in process.stderr:
            if found := re.search(r"serving (http://\S+?)/ ", line):
                break
        else:
            raise RuntimeError("the server ended before it listened")
        # The rest of its log goes to a file, so that the pipe never fills.
        copier = subprocess.Popen(["tee", str(log)], stdin=process.stderr, stdout=subprocess.DEVNULL)
        yield found[1], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()
        copier.wait(30)
        print(f"log of the server: {log}, {log.stat().st_size} bytes")


def _peak_mib(process: psutil.Process) -> float:
    """Return the peak of a process's resident memory (proc(5), VmHWM)."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


# --- clients ----------------------------------------------------------------------------------------------------------


class Load:
    """Clients of both kinds, until a moment."""

    def __init__(self, client: httpx.AsyncClient, pictures: list[Picture], until: float) -> None:
        self._client, self._pictures, self._until = client, pictures, until
        self.kinds: dict[str, Kind] = {}

    async def get(self, kind: str, path: str, **parameters: Any) -> httpx.Response | None:
        """Send a request and note its time and status; None if there was no answer."""
        noted = self.kinds.setdefault(kind, Kind())
        began = time.perf_counter()
        try:
            answer = await self._client.get(path, params=parameters or None)
        except httpx.HTTPError as error:
            noted.statuses[type(error).__name__] += 1
            return None
        noted.seconds.append(time.perf_counter() - began)
        noted.statuses[str(answer.status_code)] += 1
        return answer

    async def read_tiles(self, rng: random.Random) -> None:
        """Read tiles of one mask after another, as a map does; one in eight is of a mosaic."""
        while time.monotonic() < self._until:
            picture = rng.choice(self._pictures)
            z, x, y = rng.choice(picture.tiles)
            layer = rng.choice(("mask", "mask", "probability", "image"))
            if rng.random() < 1 / 8:
                await self.get("mosaic tile", f"/mosaic/mask/{z}/{x}/{y}.png")
            else:
                await self.get(f"tile of {layer}", f"/tiles/{picture.mask_id}/{layer}/{z}/{x}/{y}.png")

    async def search(self, rng: random.Random) -> None:
        """Send searches of every kind, in random order."""
        searches: list[Callable[[random.Random], Awaitable[None]]] = [
            self._by_box,
            self._by_box_and_time,
            self._by_cover,
            self._by_order,
            self._by_pages,
            self._by_id,
            self._of_continent,
        ]
        while time.monotonic() < self._until:
            await rng.choice(searches)(rng)

    async def _by_box(self, rng: random.Random) -> None:
        await self.get("search: box", "/stac/search", collections="masks", bbox=_box(rng, 1.0))

    async def _of_continent(self, rng: random.Random) -> None:
        await self.get("search: continent", "/stac/search", collections="masks", bbox=_box(rng, 30.0))

    async def _by_box_and_time(self, rng: random.Random) -> None:
        await self.get(
            "search: box and month", "/stac/search", collections="masks", bbox=_box(rng, 3.0), datetime=_month(rng)
        )

    async def _by_cover(self, rng: random.Random) -> None:
        where = f"eo:cloud_cover < {rng.randint(1, 20)}"
        await self.get("search: cloud cover", "/stac/search", collections="masks", filter=where)

    async def _by_order(self, rng: random.Random) -> None:
        order = rng.choice(("+properties.eo:cloud_cover", "-properties.eo:cloud_cover"))
        await self.get("search: clearest first", "/stac/search", collections="masks", sortby=order)

    async def _by_pages(self, rng: random.Random) -> None:
        found = await self.get("search: page", "/stac/search", collections="masks", datetime=_month(rng), limit=50)
        for _ in range(_STEPS - 1):
            if found is None or found.status_code != 200:
                return
            following = [link["href"] for link in found.json()["links"] if link["rel"] == "next"]
            if not following:
                return
            found = await self.get("search: page", following[0])

    async def _by_id(self, rng: random.Random) -> None:
        picture = rng.choice(self._pictures)
        await self.get("item", f"/stac/collections/masks/items/{picture.mask_id}")
        await self.get("search: ids", "/stac/search", ids=f"{picture.mask_id},{picture.scene_id}")
        await self.get("collection", "/stac/collections/masks")


def _box(rng: random.Random, side: float) -> str:
    west, south = rng.uniform(-179, 179 - side), rng.uniform(-49, 58 - side)
    return f"{west:.4f},{south:.4f},{west + side:.4f},{south + side:.4f}"


def _month(rng: random.Random) -> str:
    first = catalog_scale.FIRST_DAY + timedelta(days=rng.randrange(catalog_scale.DAYS - 30))
    return f"{first:%Y-%m-%d}T00:00:00Z/{first + timedelta(days=30):%Y-%m-%d}T00:00:00Z"


async def put_load(
    address: str, pictures: list[Picture], *, readers: int, searchers: int, seconds: float, seed: int
) -> dict[str, Kind]:
    """Run the clients for some seconds and return what was measured."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=_TIMEOUT_S, limits=limits) as client:
        load = Load(client, pictures, time.monotonic() + seconds)
        tasks = [load.read_tiles(random.Random(seed + i)) for i in range(readers)]  # noqa: S311
        tasks += [load.search(random.Random(seed + 1000 + i)) for i in range(searchers)]  # noqa: S311
        await asyncio.gather(*tasks)
    return load.kinds


def _clients(arguments: str) -> None:
    """Run the clients in this process: the server's figures must not contain theirs."""
    given = json.loads(arguments)
    pictures = [Picture(one["scene_id"], one["mask_id"], [tuple(tile) for tile in one["tiles"]]) for one in given["p"]]
    kinds = asyncio.run(put_load(given["address"], pictures, **given["load"]))
    json.dump({name: [kind.seconds, kind.statuses] for name, kind in kinds.items()}, sys.stdout)


def print_figures(kinds: dict[str, Kind], seconds: float) -> None:
    """Print a line for each kind of request."""
    print(f"{'kind':24} {'requests':>8} {'1/s':>7} {'p50 ms':>8} {'p95 ms':>8} {'max ms':>8}  statuses")
    for name in sorted(kinds):
        kind = kinds[name]
        times = sorted(1000 * one for one in kind.seconds) or [float("nan")]
        p95 = statistics.quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else times[0]
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(kind.statuses.items()))
        print(
            f"{name:24} {len(times):8} {len(times) / seconds:7.1f} {statistics.median(times):8.0f} {p95:8.0f} "
            f"{times[-1]:8.0f}  {statuses}"
        )


def main() -> None:
    """Fill, serve, put load on the server and print."""
    if len(sys.argv) == 3 and sys.argv[1] == "clients":
        _clients(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=1_000_000, help="default 1 000 000")
    parser.add_argument("--url", help="a database of PostgreSQL instead of a SQLite file")
    parser.add_argument("--folder", type=Path, help="where the SQLite file and the store are kept (default: nowhere)")
    parser.add_argument("--seconds", type=float, default=40, help="default 40")
    parser.add_argument("--readers", type=int, default=50, help="tile readers at once (default 50)")
    parser.add_argument("--searchers", type=int, default=20, help="default 20")
    parser.add_argument("--code", type=Path, help="another checkout, whose server is measured; no upgrade is run then")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cloudseg-load-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        catalog = Catalog(options.url or f"sqlite:///{(folder / 'catalog.db').absolute()}")
        store = LocalStore((folder / "store").absolute())
        if options.code is None:
            fill(catalog, store, options.masks)
        pictures = list_pictures(catalog)
        with serving(catalog, store, options.code or Path(__file__).parents[1]) as (address, server):
            kinds, wall, cpu = _measure(address, server, pictures, options)
            print(
                f"{catalog.engine.dialect.name}, {options.readers} tile readers, {options.searchers} searchers, ",
                end="",
            )
            print(f"{wall:.0f} s; load average {os.getloadavg()[0]:.1f}")
            print_figures(kinds, wall)
            print(f"server: {cpu:.0f} s of CPU, peak {_peak_mib(server):.0f} MiB")
        catalog.engine.dispose()


def _measure(
    address: str, server: psutil.Process, pictures: list[Picture], options: argparse.Namespace
) -> tuple[dict[str, Kind], float, float]:
    given = {
        "address": address,
        "p": [{"scene_id": one.scene_id, "mask_id": one.mask_id, "tiles": one.tiles} for one in pictures],
        "load": {name: getattr(options, name) for name in ("readers", "searchers", "seconds", "seed")},
    }
    before, began = sum(server.cpu_times()[:2]), time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.serve_load", "clients", json.dumps(given)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    kinds = {name: Kind(seconds, Counter(statuses)) for name, (seconds, statuses) in found.items()}
    return kinds, time.perf_counter() - began, sum(server.cpu_times()[:2]) - before


if __name__ == "__main__":
    main()
