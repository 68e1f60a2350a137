"""Read published masks with programs that know nothing of cloudseg. About half a minute.

    python examples/gis_tour.py [HOME] [--qgis python3] [--picture mask.png]

HOME is a CLOUDSEG_HOME with published masks, of `make demo` for instance; by default that of the environment. Needs the
extras `gis` and `serve`, and DuckDB and GeoPandas. Nothing in HOME is changed. One line for each client says what it
has found. `--qgis` names a Python with PyQGIS (Debian's package `python3-qgis`; `make qgis` unpacks one in
`.qgis/python3`): it opens the map's QGIS project of the cloudiest mask and draws it into a picture.
"""

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy as np
import odc.stac
import pystac
import pystac_client
import rasterio
from pystac_client.warnings import PystacClientWarning

from cloudseg.settings import Settings


def say(client: str, text: str) -> None:
    """Print one line."""
    print(f"{client:<14} {text}", flush=True)


def static_catalog(root: Path) -> list[pystac.Item]:
    """Walk the catalog in the store, without any service; return the masks in use, the cloudiest first."""
    with warnings.catch_warnings():
        # A static catalog declares no conformance classes; pystac-client says so, and reads it all the same.
        warnings.simplefilter("ignore", PystacClientWarning)
        return _walk(pystac_client.Client.open(str(root / "catalog.json")))


def _walk(catalog: pystac_client.Client) -> list[pystac.Item]:
    masks = [
        item for item in catalog.get_child("masks").get_items(recursive=True) if not item.properties.get("deprecated")
    ]
    names = ", ".join(child.id for child in catalog.get_children())
    say("pystac-client", f"collections {names}; {len(masks)} masks in use")
    return sorted(masks, key=lambda item: -item.properties["eo:cloud_cover"])


def index(root: Path) -> None:
    """Query and draw the GeoParquet files of the catalog."""
    files = str(root / "masks" / "*" / "items.parquet")
    query = 'SELECT count(*), avg("eo:cloud_cover") FROM read_parquet(?, union_by_name = true) WHERE NOT deprecated'
    count, cover = duckdb.execute(query, [files]).fetchone()
    say("DuckDB", f"{count} masks, {cover:.1f} % cloud on average")
    months = sorted(root.glob("masks/*/items.parquet"))
    footprints = geopandas.read_parquet(months[0])
    area = footprints.to_crs("EPSG:6933").area.sum() / 1e6
    say("GeoPandas", f"{len(footprints)} footprints of {months[0].parent.name}, {area:.0f} km2, {footprints.crs.name}")


def image_where_clear(item: pystac.Item) -> None:
    """Load the mask and the image of its scene as one cube."""
    cube = odc.stac.load([item], bands=["mask", "red"], chunks={}).isel(time=0)
    clear = cube.red.where(cube.mask == 0)
    share = float((cube.mask == 1).sum() / (cube.mask != 255).sum())
    say("odc-stac", f"{item.id}: {share:.1%} cloud, mean red where clear {float(clear.mean()):.0f} x 0.0001")


def gdal_collection(items: list[pystac.Item], folder: Path) -> None:
    """Open items of one CRS as one raster with GDAL's STACIT driver."""
    code = items[0].properties["proj:code"]
    same = [item for item in items if item.properties["proj:code"] == code]
    listing = folder / "items.json"
    features = [item.to_dict(transform_hrefs=False) for item in same]
    for feature in features:
        feature["properties"]["proj:epsg"] = int(code.split(":")[1])  # GDAL before 3.11 knows no proj:code
    listing.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with rasterio.open(f'STACIT:"{listing}":asset=mask') as dataset:
        first = dataset.read(1, out_shape=(min(512, dataset.height), min(512, dataset.width)))
        found = sorted(int(value) for value in np.unique(first))
        say("GDAL STACIT", f"{len(same)} masks as {dataset.height} x {dataset.width} pixels of {code}, values {found}")


def single_files(item: pystac.Item) -> None:
    """Read one mask as any program reads a cloud-optimized GeoTIFF."""
    with rasterio.open(item.assets["mask"].href) as dataset:
        classes = dataset.read(1, masked=True)
        say("rasterio", f"{dataset.width} x {dataset.height} {dataset.dtypes[0]}, {float(classes.mean()):.1%} cloud")


@contextmanager
def server(home: Path) -> Iterator[str]:
    """Run `cloudseg serve` on a free port and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cloudseg", "serve", "--port", str(port)]
    with subprocess.Popen(command, env=os.environ | {"CLOUDSEG_HOME": str(home), "CLOUDSEG_LOG_LEVEL": "ERROR"}) as run:
        try:
            yield wait_for(f"http://127.0.0.1:{port}")
        finally:
            run.terminate()


def wait_for(address: str) -> str:
    """Return the address when the server answers.

    Raises:
        TimeoutError: It does not within a minute.
    """
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return address
    raise TimeoutError(address)


def api_and_tiles(address: str, item: pystac.Item) -> None:
    """Search the STAC API and draw a tile."""
    api = pystac_client.Client.open(f"{address}/stac/")
    found = list(api.search(collections=["masks"], bbox=item.bbox, max_items=20).items())
    say("STAC API", f"{len(found)} masks touch the place of {item.id}")
    tiles: dict[str, Any] = json.load(urllib.request.urlopen(f"{address}/tiles/{item.id}/mask/tilejson.json"))
    lon, lat, zoom = tiles["center"]
    row, col = tile_of(lon, lat, int(zoom))
    url = tiles["tiles"][0].replace("{z}", str(int(zoom))).replace("{x}", str(col)).replace("{y}", str(row))
    with urllib.request.urlopen(url) as answer:
        say("XYZ tiles", f"{answer.headers['Content-Type']}, {len(answer.read())} bytes at zoom {int(zoom)}")


def qgis(address: str, item: pystac.Item, command: str, picture: Path) -> None:
    """Open the QGIS project of a mask as a desktop would, and draw it."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / f"{item.id}.qgs"
        with urllib.request.urlopen(f"{address}/qgis/{item.id}.qgs") as answer:
            project.write_bytes(answer.read())
        script = Path(__file__).with_name("qgis_picture.py")
        run = [*shlex.split(command), str(script), str(project), str(picture.resolve())]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr.strip()}")
    found = json.loads(done.stdout.splitlines()[-1])
    names = "; ".join(f"{layer['name']} ({', '.join(layer['legend']) or 'image'})" for layer in found["layers"])
    say("QGIS", f"{found['qgis']}, {found['crs']}: {names}; drawn in {picture}")


def tile_of(lon: float, lat: float, zoom: int) -> tuple[int, int]:
    """Return row and column of the Web Mercator tile of a point."""
    y = (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2
    return int(y * 2**zoom), int((lon + 180) / 360 * 2**zoom)


def main(home: Path, qgis_python: str | None, picture: Path) -> None:
    """Run every client."""
    root = home / "store" / "stac"
    if not (root / "catalog.json").exists():
        sys.exit(f"{root} has no catalog: publish masks (make demo), or run `cloudseg maintain --apply`")
    masks = static_catalog(root)
    if not masks:
        sys.exit(f"{root} lists no mask: publish masks first (make demo)")
    index(root)
    single_files(masks[0])
    image_where_clear(masks[0])
    with tempfile.TemporaryDirectory() as folder:
        gdal_collection(masks, Path(folder))
    with server(home) as address:
        api_and_tiles(address, masks[0])
        if qgis_python:
            qgis(address, masks[0], qgis_python, picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Read published masks with other programs.")
    parser.add_argument("home", nargs="?", type=Path, help="a CLOUDSEG_HOME; that of the environment if not given")
    parser.add_argument("--qgis", metavar="PYTHON", help="a Python with PyQGIS, to draw the mask in QGIS too")
    parser.add_argument("--picture", type=Path, default=Path("qgis.png"), help="what QGIS draws")
    given = parser.parse_args()
    main(given.home or Settings().home, given.qgis, given.picture)
