"""Composites are right by construction: clouds move between dates, and every pixel is known."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pyproj
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from rio_cogeo import cog_validate

from cloudseg import stages
from cloudseg.bands import NO_DATA
from cloudseg.catalog.mask_search import load_rows
from cloudseg.errors import DataError, InputError, ObjectCorrupt
from cloudseg.gis import composite
from cloudseg.gis.composite import compose, write_composite
from cloudseg.gis.composite_grid import Grid
from cloudseg.gis.mask_of_scene import MaskOfScene, mask_of
from cloudseg.gis.observations import clear_distance, observe, read_bands
from cloudseg.gis.plan import Plan
from cloudseg.grid import Window
from tests.gis.conftest import DAY, GRID, ZONE, GisWorld, classes

WHOLE = {"datetime": "2024-06"}


def lonlat_box(west: float, south: float, east: float, north: float, crs: str = ZONE) -> list[float]:
    """Return a box in degrees inside of a box in meters: its projection does not reach beyond."""
    to_lonlat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform
    corners = [to_lonlat(x, y) for x in (west, east) for y in (south, north)]
    lon, lat = sorted(corner[0] for corner in corners), sorted(corner[1] for corner in corners)
    return [lon[1], lat[1], lon[2], lat[2]]


def aoi_of(path: Path, geometry: Any, crs: str = ZONE) -> str:
    pyogrio.raw.write(
        path,
        np.array([shapely.to_wkb(geometry)], object),
        [np.array(["a"], object)],
        ["name"],
        geometry_type="Unknown",
        crs=crs,
    )
    return str(path)


def masks_of(world: GisWorld, mask_ids: list[str]) -> list[MaskOfScene]:
    with world.runtime.catalog.read() as db:
        return [mask_of(found) for found in load_rows(db, "masks", mask_ids)]


@pytest.fixture
def whole(tmp_path: Path) -> str:
    """Return a file with the square of the 100 × 100 pixels of GRID."""
    return aoi_of(tmp_path / "whole.gpkg", shapely.box(500_000, 4_998_000, 502_000, 5_000_000))


def read(path: Path | str) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def three_dates(world: GisWorld) -> list[Any]:
    """Add three scenes of 1000, 2000 and 3000 with clouds over rows 0-39, 30-69 and 60-99."""
    return [
        world.add(
            classes(cloud=[(slice(max(0, 30 * number), 30 * number + 40), slice(0, 100))]),
            when=DAY + timedelta(days=5 * number),
            values=1000 * (number + 1),
        )
        for number in range(3)
    ]


def test_the_clearest_pixel_is_the_farthest_from_cloud(world: GisWorld, whole: str, tmp_path: Path):
    masks = three_dates(world)
    out = tmp_path / "c.tif"
    record = stages.composite(str(out), aoi=whole, **WHOLE, meters_per_day=0)
    assert record.masks == [mask.mask_id for mask in masks]
    assert (record.crs, record.height, record.width, record.bands) == (ZONE, 100, 100, ["red", "green"])
    assert record.filled_fraction == 1
    cloud = np.array([[30 * number <= row < 30 * number + 40 for row in range(100)] for number in range(3)])
    rows = np.arange(100)
    distance = np.array(
        [np.abs(rows[:, None] - rows[cloud[number]]).min(axis=1) for number in range(3)]
    )  # to the nearest cloud
    edges = np.minimum(rows, 99 - rows) + 1  # outside of the scene is no data
    distance = np.minimum(distance, edges[None])
    best = distance.argmax(axis=0)
    ties = np.sort(distance, axis=0)[-1] == np.sort(distance, axis=0)[-2]
    found = read(out)
    middle = found[:, :, 50]
    assert (middle[0] == middle[1]).all()
    assert (middle[0] == 1000 * (best + 1))[~ties].all()
    assert (~ties).sum() > 50
    assert (read(out.with_suffix(".count.tif"))[0, :, 50] == (~cloud).sum(axis=0)).all()
    scene, day = read(out.with_suffix(".scene.tif"))
    assert (scene * 1000 == found[0]).all()
    days = (DAY - datetime(1970, 1, 1, tzinfo=UTC)).days
    assert (day == days + 5 * (scene - 1)).all()


def test_the_wanted_day_decides_where_cloud_is_far(world: GisWorld, whole: str, tmp_path: Path):
    """20 m a day against the distance to a cloud in the first scene; the second, 5 days off, is clear."""
    world.add(classes(cloud=[(slice(0, 100), slice(0, 10))]), when=DAY, values=1000)
    world.add(classes(), when=DAY + timedelta(days=5), values=2000)
    inner = slice(49, 51), slice(None)  # the edge of the scene is far
    out = tmp_path / "c.tif"
    stages.composite(str(out), aoi=whole, **WHOLE, date="2024-06-01T10:30:00Z", distance_cap_m=400, meters_per_day=20)
    row = read(out)[0][inner][0]
    # Column 9 is cloud, 9 + n is 20 n meters off, and 400 - 5 * 20 = 300 m are 15 columns: a tie, so the nearer day.
    assert (row[:10] == 2000).all()
    assert (row[10 + 4 : 24] == 2000).all()
    assert (row[24:80] == 1000).all()


def test_the_median_of_clear_pixels(world: GisWorld, whole: str, tmp_path: Path):
    rng = np.random.default_rng(4)
    values = rng.integers(1, 60_000, (4, 100, 100), dtype=np.uint16)
    drawn = rng.choice(np.array([0, 1, 255], np.uint8), (4, 100, 100), p=[0.6, 0.3, 0.1])
    for number in range(4):
        world.add(drawn[number], when=DAY + timedelta(days=number), values=values[number])
    out = tmp_path / "m.tif"
    record = stages.composite(str(out), aoi=whole, **WHOLE, method="median")
    clear = drawn == 0
    expected = np.zeros((100, 100))
    for row, col in np.ndindex(100, 100):
        seen = values[clear[:, row, col], row, col]
        expected[row, col] = np.floor(np.median(seen) + 0.5) if len(seen) else NO_DATA
    assert (read(out)[0] == expected).all()
    assert (read(out)[1] == expected).all()
    assert (read(out.with_suffix(".count.tif"))[0] == clear.sum(axis=0)).all()
    assert record.filled_fraction == clear.any(axis=0).mean()
    assert [Path(file).name for file in record.files] == ["m.count.tif", "m.tif"]


@pytest.mark.parametrize("method", ["clearest", "median"])
def test_a_buffer_around_cloud_is_not_clear(world: GisWorld, whole: str, tmp_path: Path, method: Any):
    world.add(classes(cloud=[(slice(50, 51), slice(50, 51))]), values=1000)
    out = tmp_path / "b.tif"
    stages.composite(str(out), aoi=whole, **WHOLE, method=method, buffer_m=60)
    rows, cols = np.mgrid[:100, :100]
    far = np.hypot(rows - 50, cols - 50) * 20 > 60
    inside = np.minimum.reduce([rows, cols, 99 - rows, 99 - cols]) * 20 + 20 > 60
    assert ((read(out)[0] == 1000) == (far & inside)).all()


@pytest.mark.parametrize("method", ["clearest", "median"])
def test_windows_equal_the_whole(world: GisWorld, method: Any):
    """Noise, another zone and another resolution, a halo that reaches over windows."""
    rng = np.random.default_rng(5)
    for number, (crs, x, side) in enumerate(
        [(ZONE, 500_000, 20), (ZONE, 500_007, 10), ("EPSG:32630", 499_600, 20), (ZONE, 499_000, 50)]
    ):
        noise = rng.choice(np.array([0, 1, 255], np.uint8), (700, 700), p=[0.99, 0.008, 0.002])
        y = 5_000_000
        if crs != ZONE:
            x, y = pyproj.Transformer.from_crs(ZONE, crs, always_xy=True).transform(x, y)
        world.add(
            noise,
            when=DAY + timedelta(days=number),
            crs=crs,
            transform=from_origin(x, y, side, side),
            values=rng.integers(1, 60_000, (700, 700)),
        )
    with world.runtime.catalog.read() as db:
        ids = [row[0] for row in db.exec_driver_sql("select mask_id from mask order by mask_id")]
    masks = masks_of(world, ids)
    grid = Grid(rasterio.CRS.from_string(ZONE), from_origin(499_500, 5_000_500, 20, 20), 640, 600)
    plan = Plan(grid, masks, ["red"], method, DAY, buffer_m=30, cap_m=300)
    observations = [observe(mask, grid) for mask in masks]
    whole = compose(world.runtime.store, plan, observations, Window(0, 0, 640, 600))
    assert (whole.count.max(), (whole.bands > 0).mean() > 0.3) == (4, True)
    assert set(np.unique(whole.scene)) == ({0, 1, 2, 3, 4} if method == "clearest" else {0})
    for row, col, height, width in ((0, 0, 200, 300), (64, 50, 333, 100), (350, 300, 290, 300), (100, 569, 1, 1)):
        part = compose(world.runtime.store, plan, observations, Window(row, col, height, width))
        rows, cols = slice(row, row + height), slice(col, col + width)
        assert (part.bands == whole.bands[:, rows, cols]).all()
        assert (part.count == whole.count[rows, cols]).all()
        assert (part.scene == whole.scene[rows, cols]).all()


def test_an_interpolated_scene_is_the_same_in_every_window(world: GisWorld):
    """Bilinear, from another UTM zone and another resolution."""
    values = np.random.default_rng(6).integers(1, 60_000, (700, 700))
    mask = world.add(classes(700), values=values)
    (found,) = masks_of(world, [mask.mask_id])
    x, y = pyproj.Transformer.from_crs(ZONE, "EPSG:32632", always_xy=True).transform(501_000, 4_999_000)
    grid = Grid(rasterio.CRS.from_epsg(32632), from_origin(round(x), round(y), 11, 11), 900, 900)
    seen = observe(found, grid)
    whole = read_bands(world.runtime.store, seen, grid, Window(0, 0, 900, 900), ["red"])
    assert (whole > 0).mean() > 0.9
    for row, col in ((0, 0), (97, 286), (301, 429), (555, 143), (805, 740)):
        part = read_bands(world.runtime.store, seen, grid, Window(row, col, 95, 160), ["red"])
        assert (part == whole[:, row : row + 95, col : col + 160]).all()


def test_the_stack_of_a_median_is_bounded(world: GisWorld, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(7)
    masks = [
        world.add(
            rng.choice(np.array([0, 1], np.uint8), (100, 100)), when=DAY + timedelta(days=number), values=number + 1
        )
        for number in range(3)
    ]
    found = masks_of(world, [mask.mask_id for mask in masks])
    grid = Grid(rasterio.CRS.from_string(ZONE), GRID, 100, 100)
    plan = Plan(grid, found, ["red", "green"], "median", DAY)
    seen = [observe(mask, grid) for mask in found]
    whole = compose(world.runtime.store, plan, seen, Window(0, 0, 100, 100))
    rows: list[int] = []
    median = composite._median

    def strip(store: Any, plan: Any, near: Any, window: Window) -> Any:
        rows.append(window.height)
        return median(store, plan, near, window)

    monkeypatch.setattr(composite, "_median", strip)
    monkeypatch.setattr(composite, "_STACK_VALUES", 3 * 2 * 100 * 30)
    strips = compose(world.runtime.store, plan, seen, Window(0, 0, 100, 100))
    assert rows == [30, 30, 30, 10]
    assert (strips.bands == whole.bands).all()
    assert (strips.count == whole.count).all()


def test_no_data_stays_no_data(world: GisWorld, whole: str, tmp_path: Path):
    """Where no date is clear, in every file; and outside of the polygon."""
    world.add(classes(no_data=[(slice(0, 20), slice(0, 100))]))
    world.add(classes(cloud=[(slice(0, 40), slice(0, 100))]), when=DAY + timedelta(days=1))
    triangle = shapely.Polygon([(500_000, 4_998_000), (502_000, 4_998_000), (500_000, 5_000_000)])
    out = tmp_path / "n.tif"
    record = stages.composite(str(out), aoi=aoi_of(tmp_path / "t.gpkg", triangle), **WHOLE)
    rows, cols = np.mgrid[:100, :100]
    inside = cols < rows  # by the centers of pixels
    on_edge = cols == rows
    bands, count, scene = (read(path) for path in (out, out.with_suffix(".count.tif"), out.with_suffix(".scene.tif")))
    for found in (bands[0], count[0], scene[0], scene[1]):
        assert (found[inside & (rows >= 20)] > 0).all()
        assert (found[(rows < 20) | (~inside & ~on_edge)] == 0).all()
    assert record.filled_fraction == pytest.approx(1 - 0.2**2, abs=0.02)
    with rasterio.open(out) as dataset:
        assert (dataset.nodata, dataset.scales) == (0, (0.0001, 0.0001))


def test_scenes_of_two_zones_and_a_bounding_box(world: GisWorld, tmp_path: Path):
    """The box lies across 6° east; each zone's scene has its own half, and both are placed where they are."""
    to_32 = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True)
    to_31 = pyproj.Transformer.from_crs("EPSG:4326", ZONE, always_xy=True)
    added = []
    for crs, transformer, value in ((ZONE, to_31, 1000), ("EPSG:32632", to_32, 2000), (ZONE, to_31, 1000)):
        x, y = transformer.transform(6.0, 45.0)
        grid = from_origin(round(x, -2) - 5000, round(y, -2) + 5000, 20, 20)
        mask = classes(500)
        centers = np.array([grid @ (col + 0.5, row + 0.5) for row, col in np.ndindex(500, 500)])
        lon, _ = transformer.transform(*centers.T, direction="INVERSE")
        mask[((lon < 6) if value == 2000 else (lon > 6)).reshape(500, 500)] = 255
        added.append(world.add(mask, crs=crs, transform=grid, values=value, when=DAY + timedelta(days=len(added))))
    out = tmp_path / "z.tif"
    record = stages.composite(str(out), bbox=[5.97, 44.98, 6.03, 45.02], **WHOLE)
    assert record.crs == ZONE  # two of three
    with rasterio.open(out) as dataset:
        for lon in (5.98, 5.999, 6.001, 6.02):
            ((value, _),) = dataset.sample([to_31.transform(lon, 45.0)])
            assert value == (1000 if lon < 6 else 2000), lon
        west, south, east, north = dataset.bounds
        assert (west % 20, north % 20) == (0, 0)
        corners = [to_31.transform(lon, lat) for lon in (5.97, 6.03) for lat in (44.98, 45.02)]
        assert all(west <= x <= east and south <= y <= north for x, y in corners)
    assert record.filled_fraction > 0.98
    other = stages.composite(str(tmp_path / "u.tif"), bbox=[5.97, 44.98, 6.03, 45.02], **WHOLE, crs="EPSG:32632")
    with rasterio.open(other.out) as dataset:
        ((value, _),) = dataset.sample([to_32.transform(5.98, 45.0)])
        assert value == 1000


def test_a_coarser_composite_is_cloud_where_any_pixel_is(world: GisWorld, whole: str, tmp_path: Path):
    values = np.tile(np.array([[1000, 2000], [3000, 4000]]), (50, 50))
    world.add(classes(cloud=[(slice(50, 51), slice(50, 51))]), values=values)
    out = tmp_path / "r.tif"
    record = stages.composite(str(out), aoi=whole, **WHOLE, resolution_m=40)
    assert (record.height, record.width) == (50, 50)
    found = read(out)[0]
    assert found[25, 25] == 0
    found[25, 25] = 2500
    assert (found == 2500).all()


def test_the_files_are_cogs_with_provenance_and_the_same_bytes(world: GisWorld, whole: str, tmp_path: Path):
    masks = three_dates(world)
    outs = [tmp_path / name / "c.tif" for name in ("a", "b")]
    for out in outs:
        out.parent.mkdir()
        record = stages.composite(str(out), aoi=whole, **WHOLE, buffer_m=20)
    for file in record.files:
        assert Path(file).read_bytes() == (outs[0].parent / Path(file).name).read_bytes()
        valid, errors, warnings = cog_validate(file, strict=True)
        assert (valid, errors, warnings) == (True, [], [])
        with rasterio.open(file) as dataset:
            tags = dataset.tags()
            assert tags["CLOUDSEG_MASK_IDS"].split() == [mask.mask_id for mask in masks]
            assert tags["CLOUDSEG_SCENE_IDS"].split() == [mask.scene_id for mask in masks]
            assert (tags["CLOUDSEG_COMPOSITE_METHOD"], tags["CLOUDSEG_BUFFER_M"]) == ("clearest", "20")
            assert tags["CLOUDSEG_TARGET_TIME"].startswith("2024-06-16T00:00")
            assert tags["CLOUDSEG_WEIGHTS_IDS"] == "w-champion"
    assert sorted(path.name for path in outs[1].parent.iterdir()) == ["c.count.tif", "c.scene.tif", "c.tif"]


def test_a_failed_composite_leaves_nothing(world: GisWorld, whole: str, tmp_path: Path):
    bad = world.scene_of(three_dates(world)[2])
    path = Path(world.runtime.store.gdal_path(bad.key))
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-3000:] = b"\0" * 3000
    path.write_bytes(bytes(content))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ObjectCorrupt, match=bad.sha256):
        stages.composite(str(out / "c.tif"), aoi=whole, **WHOLE)
    assert list(out.iterdir()) == []


def test_unusable_arguments(world: GisWorld, whole: str, tmp_path: Path):
    masks = three_dates(world)
    world.add(classes(), when=DAY + timedelta(days=80), bands=("nir",))
    out = str(tmp_path / "c.tif")
    box = lonlat_box(500_000, 4_998_000, 502_000, 5_000_000)
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (InputError, "--bbox or --aoi", {"bbox": None}),
        (InputError, "--bbox or --aoi", {"aoi": whole}),
        (InputError, "not a bounding box", {"bbox": [3, 45, 4, 40]}),
        (InputError, "not a time interval", {"datetime": "June"}),
        (InputError, "not in meters", {"crs": "EPSG:4326"}),
        (InputError, "unknown CRS", {"crs": "EPSG:1"}),
        (InputError, "reaches over too many pixels", {"distance_cap_m": 30_000}),
        (InputError, "out of range", {"buffer_m": -1}),
        (InputError, "no such method", {"method": "mean"}),
        (InputError, "the output is a GeoTIFF", {"out": "c.png"}),
        (InputError, "the folder does not exist", {"out": str(tmp_path / "no/c.tif")}),
        (DataError, "a scene lacks bands", {"bands": ["red", "nir"]}),
        (DataError, "no band in common", {"datetime": "2024"}),
        (DataError, r"3 masks \(2024-06-01 to 2024-06-11\) in this time", {"bbox": [50, 5, 51, 6]}),
        (DataError, r"4 masks \(2024-06-01 to 2024-08-20\) at this place", {"datetime": "2023"}),
    ]
    for error, message, changed in cases:
        arguments = {"out": out, "bbox": box, "datetime": "2024-06"} | changed
        with pytest.raises(error, match=message):
            stages.composite(arguments.pop("out"), **arguments)
    assert len(masks) == 3
    stages.composite(out, bbox=box, **WHOLE)
    with pytest.raises(InputError, match="--overwrite"):
        stages.composite(out, bbox=box, **WHOLE)
    stages.composite(out, bbox=box, **WHOLE, overwrite=True)


def test_distances_have_a_cap_and_no_seam():
    drawn = np.zeros((9, 9), np.uint8)
    drawn[4, 4] = 1
    distance = clear_distance(drawn, 10, 25)
    assert (distance[4, 4], distance[4, 5], distance[4, 6], distance[4, 7]) == (0, 10, 20, 25)
    assert distance[5, 5] == pytest.approx(10 * 2**0.5)
    assert (clear_distance(np.zeros((3, 3), np.uint8), 10, 25) == 25).all()
    assert (clear_distance(np.full((3, 3), 255, np.uint8), 10, 25) == 0).all()


CHILD = """
import json, resource, sys
from cloudseg import stages
record = stages.composite(sys.argv[1], bbox=json.loads(sys.argv[2]), datetime="2024-06", method=sys.argv[3])
print(json.dumps({"pixels": record.height * record.width, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


@pytest.mark.parametrize("method", ["clearest", "median"])
def test_memory_does_not_grow_with_the_area(world: GisWorld, tmp_path: Path, method: str):
    """A mosaic of 16 tiles of 550 × 550 pixels needs hardly more than one of 4."""
    for row in range(4):
        for col in range(4):
            transform = from_origin(500_000 + 11_000 * col, 5_000_000 - 11_000 * row, 20, 20)
            world.add(classes(550, cloud=[(slice(0, 90), slice(0, 550))]), transform=transform)
    peaks = []
    for number, tiles in enumerate((2, 4)):
        side = 11_000 * tiles
        box = lonlat_box(500_000, 5_000_000 - side, 500_000 + side, 5_000_000)
        command = [sys.executable, "-c", CHILD, str(tmp_path / f"{number}.tif"), json.dumps(box), method]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(json.loads(done.stdout))
    small, large = peaks
    assert large["pixels"] > 3.5 * small["pixels"]
    # Twelve tiles more are 3.4 million pixels; their distances alone would be 16 bytes a pixel, the result is 4.
    assert (large["peak"] - small["peak"]) << 10 < 20 << 20


def test_progress_counts_windows(world: GisWorld, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    mask = world.add(classes())
    masks = masks_of(world, [mask.mask_id])
    grid = Grid(rasterio.CRS.from_string(ZONE), GRID, 100, 100)
    plan = Plan(grid, masks, ["red"], "clearest", DAY, block=64)
    report: Callable[..., None] = lambda done, total, *_: seen.append((done, total))  # noqa: E731
    write_composite(tmp_path / "p.tif", world.runtime.store, plan, tags={}, on_progress=report)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
