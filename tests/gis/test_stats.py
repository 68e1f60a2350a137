"""Cloud statistics of polygons equal counts made in another way."""

import csv
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pyogrio.raw
import pyproj
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform_geom
from shapely.affinity import rotate
from shapely.geometry import MultiPolygon, Polygon, box, mapping, shape

from cloudseg import stages
from cloudseg.errors import DataError, InputError, NotInCatalog, StoreUnreachable
from cloudseg.gis import area_stats
from cloudseg.gis.table_file import write_rows
from tests.gis.conftest import DAY, GRID, ZONE, GisWorld, classes


def write(path: Path, shapes: Any, crs: str = ZONE, **columns: Any) -> str:
    """Write polygons with pyogrio in the format of the suffix; return the path."""
    columns = columns or {"name": [f"p{number}" for number in range(len(shapes))]}
    pyogrio.raw.write(
        path,
        np.array([shapely.to_wkb(polygon) for polygon in shapes], object),
        [np.array(values, object) for values in columns.values()],
        list(columns),
        geometry_type="Unknown",
        crs=crs,
    )
    return str(path)


def pixels(rows: slice, cols: slice, grid: Affine = GRID) -> Polygon:
    """Return the polygon along the edges of pixels."""
    (west, north), (east, south) = grid @ (cols.start, rows.start), grid @ (cols.stop, rows.stop)
    return box(west, south, east, north)


def supersampled(mask: np.ndarray, grid: Affine, polygon: Any, factor: int = 40) -> tuple[float, float, float]:
    """Count covered, valid and cloud pixels inside a polygon with many small pixels in each one."""
    small = grid @ Affine.scale(1 / factor)
    inside = rasterize([(mapping(polygon), 1)], np.multiply(mask.shape, factor).tolist(), transform=small)
    covered = inside.reshape(mask.shape[0], factor, mask.shape[1], factor).mean(axis=(1, 3))
    return covered.sum(), covered[mask != 255].sum(), covered[mask == 1].sum()


def geodesic(polygon: Any, crs: str = ZONE) -> float:
    lonlat = shape(transform_geom(crs, "EPSG:4326", mapping(shapely.segmentize(polygon, 500))))
    return abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(lonlat)[0])


def test_polygons_along_pixels_are_counted_exactly(world: GisWorld, tmp_path: Path):
    mask = world.add(classes(cloud=[(slice(10, 20), slice(10, 50))], no_data=[(slice(0, 100), slice(80, 100))]))
    quarter, edge = pixels(slice(10, 30), slice(30, 70)), pixels(slice(0, 10), slice(70, 90))
    record = stages.stats(write(tmp_path / "a.gpkg", [quarter, edge]))
    first, second = record.rows
    assert (first.area, first.date, first.mask_id) == ("p0", "2024-06-01", mask.mask_id)
    assert first.cloud_fraction == 200 / 800
    assert first.no_data_fraction == 0
    assert first.covered_fraction == pytest.approx(1, abs=1e-9)
    assert first.valid_m2 == pytest.approx(geodesic(quarter), rel=1e-6)
    assert first.cloud_m2 == pytest.approx(geodesic(quarter) / 4, rel=1e-6)
    assert (second.cloud_fraction, second.no_data_fraction) == (0, 0.5)
    assert (record.areas, record.masks, record.count, record.failed, record.uncovered) == (2, 1, 2, {}, [])


@pytest.mark.parametrize(
    "polygon",
    [
        rotate(pixels(slice(20, 60), slice(30, 75)), 33),
        pixels(slice(10, 90), slice(10, 90)) - rotate(pixels(slice(30, 60), slice(30, 60)), 17),
        MultiPolygon([rotate(pixels(slice(5, 30), slice(5, 30)), 40), rotate(pixels(slice(50, 95), slice(60, 90)), 9)]),
    ],
    ids=["turned", "hole", "parts"],
)
def test_partly_covered_pixels_count_by_their_part(world: GisWorld, tmp_path: Path, polygon: Any):
    rng = np.random.default_rng(1)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (100, 100), p=[0.5, 0.3, 0.2])
    world.add(mask)
    row = stages.stats(write(tmp_path / "a.fgb", [polygon])).rows[0]
    covered, valid, cloud = supersampled(mask, GRID, polygon)
    assert row.cloud_fraction == pytest.approx(cloud / valid, abs=2e-4)
    assert row.no_data_fraction == pytest.approx(1 - valid / covered, abs=2e-4)
    assert row.valid_m2 == pytest.approx(geodesic(polygon) * valid / covered, rel=5e-4)
    assert row.area_m2 == pytest.approx(geodesic(polygon), rel=1e-6)


def test_windows_do_not_change_the_count(world: GisWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(2)
    world.add(rng.choice(np.array([0, 1, 255], np.uint8), (100, 100)))
    aoi = write(tmp_path / "a.fgb", [rotate(pixels(slice(20, 80), slice(20, 80)), 12)])
    whole = stages.stats(aoi).rows[0]
    reads: list[int] = []
    read = rasterio.DatasetReader.read
    monkeypatch.setattr(area_stats, "_MOST_CELLS", 400)
    source = area_stats._source

    def counting(dataset: Any) -> Any:
        found = source(dataset)
        inner = found.read_window

        def read_window(x0: int, y0: int, nx: int, ny: int) -> Any:
            reads.append(nx * ny)
            return inner(x0, y0, nx, ny)

        found.read_window = read_window
        return found

    monkeypatch.setattr(area_stats, "_source", counting)
    parts = stages.stats(aoi).rows[0]
    assert read is rasterio.DatasetReader.read
    assert max(reads) <= 400
    assert parts.cloud_fraction == pytest.approx(whole.cloud_fraction, rel=1e-9)
    assert parts.valid_m2 == pytest.approx(whole.valid_m2, rel=1e-9)


def test_another_crs_and_a_rotated_grid(world: GisWorld, tmp_path: Path):
    """The polygon is projected with its edges cut, and a rotated grid is counted in its own pixels."""
    turned = GRID @ Affine.rotation(25)
    rng = np.random.default_rng(3)
    mask = rng.choice(np.array([0, 1], np.uint8), (100, 100))
    world.add(mask, transform=turned)
    outline = Polygon([turned @ corner for corner in ((20, 20), (80, 20), (80, 80), (20, 80))])
    lonlat = shape(transform_geom(ZONE, "EPSG:4326", mapping(shapely.segmentize(outline, 20))))
    row = stages.stats(write(tmp_path / "a.geojson", [lonlat], "EPSG:4326")).rows[0]
    assert row.cloud_fraction == pytest.approx(mask[20:80, 20:80].mean(), abs=2e-4)
    assert row.valid_m2 == pytest.approx(geodesic(outline), rel=1e-5)


def test_a_polygon_across_two_utm_zones(world: GisWorld, tmp_path: Path):
    """6° east is the border between zones 31 and 32; each scene covers a half of the polygon."""
    ground = box(5.99, 45.0, 6.01, 45.01)
    grids = {}
    for zone, west in (("EPSG:32631", 5.985), ("EPSG:32632", 6.0)):
        x, y = pyproj.Transformer.from_crs("EPSG:4326", zone, always_xy=True).transform(west, 45.02)
        grids[zone] = from_origin(round(x, -1), round(y, -1), 10, 10)
    west_mask = world.add(
        classes(400, cloud=[(slice(0, 400), slice(0, 400))]), crs="EPSG:32631", transform=grids["EPSG:32631"]
    )
    east_mask = world.add(
        classes(400), crs="EPSG:32632", transform=grids["EPSG:32632"], when=DAY + timedelta(minutes=1)
    )
    rows = {row.mask_id: row for row in stages.stats(write(tmp_path / "a.geojson", [ground], "EPSG:4326")).rows}
    assert rows[west_mask.mask_id].cloud_fraction == 1
    assert rows[east_mask.mask_id].cloud_fraction == 0
    for mask in (west_mask, east_mask):
        grid, shape_ = grids[world.scene_of(mask).crs], (400, 400)
        projected = shape(
            transform_geom("EPSG:4326", world.scene_of(mask).crs, mapping(shapely.segmentize(ground, 1e-4)))
        )
        covered, _, _ = supersampled(np.zeros(shape_, np.uint8), grid, projected, 10)
        part = rows[mask.mask_id].covered_fraction * projected.area / 100
        assert part == pytest.approx(covered, rel=1e-3)


@pytest.mark.parametrize(
    "ground",
    [box(179.9, -16.1, 180.1, -15.9), MultiPolygon([box(179.9, -16.1, 180, -15.9), box(-180, -16.1, -179.9, -15.9)])],
    ids=["beyond 180", "cut"],
)
def test_the_antimeridian(world: GisWorld, tmp_path: Path, ground: Any):
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True).transform(180, -16)
    grid = from_origin(round(x) - 30_000, round(y) + 30_000, 100, 100)
    mask = classes(600)
    centers = np.array([grid @ (col + 0.5, 300.5) for col in range(600)])
    lon, _ = pyproj.Transformer.from_crs("EPSG:32760", "EPSG:4326", always_xy=True).transform(*centers.T)
    mask[:, lon < 0] = 1  # cloud east of 180°
    world.add(mask, crs="EPSG:32760", transform=grid)
    world.add(classes(), when=DAY)  # in Europe
    (row,) = stages.stats(write(tmp_path / "a.geojson", [ground], "EPSG:4326")).rows
    assert row.covered_fraction == pytest.approx(1, abs=1e-6)
    assert row.cloud_fraction == pytest.approx(0.5, abs=0.005)
    assert row.area_m2 == pytest.approx(
        2
        * abs(
            pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.segmentize(box(179.9, -16.1, 180, -15.9), 0.01))[
                0
            ]
        ),
        rel=1e-6,
    )


def test_long_edges_follow_the_crs_of_the_file(world: GisWorld, tmp_path: Path):
    """A parallel over a degree is 120 m from the straight line in UTM; the strip along it is 550 m high."""
    x, y = pyproj.Transformer.from_crs("EPSG:4326", ZONE, always_xy=True).transform(3.0, 45.0)
    grid = from_origin(round(x) - 500, round(y) + 1500, 50, 50)
    rows, cols = np.mgrid[:40, :1620]
    xs, ys = grid @ (cols + 0.5, rows + 0.5)
    _, lat = pyproj.Transformer.from_crs(ZONE, "EPSG:4326", always_xy=True).transform(xs, ys)
    world.add(((lat > 45) & (lat < 45.005)).astype(np.uint8), transform=grid)
    strip = box(3.0, 45.0, 4.0, 45.005)
    (row,) = stages.stats(write(tmp_path / "a.geojson", [strip], "EPSG:4326")).rows
    assert row.covered_fraction == pytest.approx(1, abs=1e-6)
    assert row.cloud_fraction > 0.95  # pixels on its outline have their center outside at times


def test_a_day_counts_ground_under_several_scenes_once(world: GisWorld, tmp_path: Path):
    """Two scenes overlap by 40 of their 100 columns; the first one is cloud, with no data in its last 20."""
    first = classes(cloud=[(slice(0, 100), slice(0, 80))], no_data=[(slice(0, 100), slice(80, 100))])
    one = world.add(first, when=DAY)
    two = world.add(classes(), when=DAY + timedelta(hours=5), transform=GRID @ Affine.translation(60, 0))
    later = world.add(classes(), when=DAY + timedelta(hours=15))  # the next day
    unknown = world.add(classes(), when=None)
    wide = pixels(slice(10, 20), slice(40, 140))
    aoi = write(tmp_path / "a.gpkg", [wide, pixels(slice(0, 9), slice(0, 9)), wide], name=["twin", "left", "twin"])
    record = stages.stats(aoi, by="date")
    assert (record.by, record.count, record.masks) == ("date", 9, 4)
    twins = [row for row in record.rows if row.area == "twin"]
    assert [row.date for row in twins] == ["2024-06-01"] * 2 + ["2024-06-02"] * 2 + [None] * 2
    for row in twins[:2]:
        assert row.mask_ids == f"{one.mask_id} {two.mask_id}"
        assert row.cloud_fraction == pytest.approx(40 / 100, abs=1e-6)  # 40 columns of the first, 60 of the second
        assert row.valid_m2 == pytest.approx(geodesic(wide), rel=1e-6)
        assert (row.valid_fraction, row.masks) == (pytest.approx(1, abs=1e-6), 2)
    assert [row.mask_ids for row in twins[2::2]] == [later.mask_id, unknown.mask_id]
    assert twins[2].valid_fraction == pytest.approx(0.6, abs=1e-6)
    out = tmp_path / "days.parquet"
    assert stages.stats(aoi, by="date", out=str(out)).count == 9
    assert pyarrow.parquet.read_table(out).column("masks").to_pylist() == [2, 1, 2] + [1] * 6
    by_scene = stages.stats(aoi).rows
    assert sum(row.valid_m2 for row in by_scene[:4] if row.feature_id == 1) > 1.19 * geodesic(wide)


def test_outside_of_every_mask(world: GisWorld, tmp_path: Path):
    world.add(classes())
    aoi = write(tmp_path / "a.geojson", [box(100, 10, 101, 11)], "EPSG:4326")
    with pytest.raises(DataError, match=r"lon 100\.000 to 101\.000, lat 10\.000 to 11\.000") as caught:
        stages.stats(aoi)
    assert "no mask at this place in any time; 1 mask (2024-06-01 to 2024-06-01) in this time" in str(caught.value)
    there = write(tmp_path / "b.gpkg", [pixels(slice(0, 9), slice(0, 9))])
    with pytest.raises(DataError, match=r"1 mask \(2024-06-01 to 2024-06-01\) at this place in any time; no mask in"):
        stages.stats(there, datetime="2025")


def test_an_uncovered_polygon_is_named(world: GisWorld, tmp_path: Path):
    world.add(classes())
    far = box(700_000, 4_900_000, 700_100, 4_900_100)
    record = stages.stats(write(tmp_path / "a.gpkg", [pixels(slice(0, 9), slice(0, 9)), far], name=["in", "out"]))
    assert record.uncovered == ["out"]
    assert [row.area for row in record.rows] == ["in"]


def test_time_and_weights_choose_the_masks(world: GisWorld, tmp_path: Path):
    early = world.add(classes(), when=DAY)
    late = world.add(classes(cloud=[(slice(0, 100), slice(0, 100))]), when=DAY + timedelta(days=40))
    only_older = world.add(classes(), when=DAY + timedelta(days=60), weights_id="w-older")
    world.add(classes(), when=DAY + timedelta(days=70), weights_id="w-never")
    again = world.add(classes(), weights_id="w-older", scene=world.scene_of(late))
    aoi = write(tmp_path / "a.gpkg", [pixels(slice(0, 9), slice(0, 9))])
    ids = [row.mask_id for row in stages.stats(aoi).rows]
    assert ids == [early.mask_id, late.mask_id], "those that readers see"
    for when in ("2024-06", "2024-06-01T10:30:00Z", "../2024-06-01T10:30:00Z"):
        assert [row.mask_id for row in stages.stats(aoi, datetime=when).rows] == [early.mask_id]
    assert [row.mask_id for row in stages.stats(aoi, datetime="2024-06-02/..").rows] == ids[1:]
    by_older = stages.stats(aoi, weights_id="w-older").rows
    assert [row.mask_id for row in by_older] == [again.mask_id, only_older.mask_id]
    assert {row.model_version for row in by_older} == {1}
    with pytest.raises(NotInCatalog, match="no-such"):
        stages.stats(aoi, weights_id="w-no-such")


def test_a_bad_mask_is_reported_and_the_others_are_measured(world: GisWorld, tmp_path: Path):
    bad, missing, good = (world.add(classes(), when=DAY + timedelta(days=day)) for day in range(3))
    path = Path(world.runtime.store.gdal_path(bad.key))
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-400:] = b"\0" * 400
    path.write_bytes(bytes(content))
    Path(world.runtime.store.gdal_path(missing.key)).unlink()
    record = stages.stats(write(tmp_path / "a.gpkg", [pixels(slice(0, 100), slice(0, 100))]))
    assert [row.mask_id for row in record.rows] == [good.mask_id]
    assert {mask_id: error["error"] for mask_id, error in record.failed.items()} == {
        bad.mask_id: "ObjectCorrupt",
        missing.mask_id: "ObjectMissing",
    }


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_table_holds_the_rows(world: GisWorld, tmp_path: Path, suffix: str):
    world.add(classes(cloud=[(slice(0, 5), slice(0, 10))]), when=DAY)
    world.add(classes(no_data=[(slice(0, 50), slice(0, 50))]), when=DAY + timedelta(days=1))
    aoi, out = (
        write(tmp_path / "a.gpkg", [pixels(slice(0, 10), slice(0, 10))], name=["čistý, lán"]),
        tmp_path / f"o{suffix}",
    )
    kept = stages.stats(aoi).rows
    record = stages.stats(aoi, out=str(out))
    assert (record.count, record.rows, record.out) == (2, [], str(out))
    if suffix == ".parquet":
        found = pyarrow.parquet.read_table(out).to_pylist()
        assert found[0]["acquired_at"] == DAY
    elif suffix == ".json":
        found = json.loads(out.read_text("utf-8"))
    else:
        found = list(csv.DictReader(out.read_text("utf-8").splitlines()))
    assert [row["area"] for row in found] == ["čistý, lán"] * 2
    assert float(found[0]["cloud_fraction"]) == 0.5
    assert found[1]["cloud_fraction"] in (None, "")
    assert [row["scene_id"] for row in found] == [row.scene_id for row in kept]
    with pytest.raises(InputError, match="--overwrite"):
        stages.stats(aoi, out=str(out))
    stages.stats(aoi, out=str(out), overwrite=True)
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_failed_table_leaves_nothing(world: GisWorld, tmp_path: Path, suffix: str):
    world.add(classes())
    (row,) = stages.stats(write(tmp_path / "a.gpkg", [pixels(slice(0, 9), slice(0, 9))])).rows

    def rows() -> Iterator[Any]:
        yield row
        raise StoreUnreachable("the network failed")

    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(StoreUnreachable):
        write_rows(folder / f"t{suffix}", rows(), type(row))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb", ".shp"])
def test_formats_of_polygons(world: GisWorld, tmp_path: Path, suffix: str):
    world.add(classes())
    crs = "EPSG:4326" if suffix == ".geojson" else ZONE
    polygon = pixels(slice(10, 30), slice(10, 30))
    written = shape(transform_geom(ZONE, crs, mapping(polygon)))
    rows = stages.stats(write(tmp_path / f"a{suffix}", [written], crs, CODE=["x7"], size=[1])).rows
    assert [row.area for row in rows] == ["x7"]
    assert rows[0].valid_m2 == pytest.approx(geodesic(polygon), rel=1e-5)


@pytest.mark.parametrize("with_crs", [True, False])
def test_geoparquet(world: GisWorld, tmp_path: Path, with_crs: bool):
    world.add(classes())
    polygon = pixels(slice(10, 30), slice(10, 30))
    written = polygon if with_crs else shape(transform_geom(ZONE, "EPSG:4326", mapping(polygon)))
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": []}
    if with_crs:
        column["crs"] = json.loads(pyproj.CRS(ZONE).to_json())
    geo = {"version": "1.1.0", "primary_column": "shape", "columns": {"shape": column}}
    table = pyarrow.table({"shape": [shapely.to_wkb(written)], "name": ["lot"]})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "a.parquet")
    (row,) = stages.stats(str(tmp_path / "a.parquet")).rows
    assert row.area == "lot"
    assert row.valid_m2 == pytest.approx(geodesic(polygon), rel=1e-5)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_unusable_polygons(world: GisWorld, tmp_path: Path):
    good = pixels(slice(0, 9), slice(0, 9))
    bow_tie = Polygon([(5e5, 5e6), (500_100, 4_999_900), (500_100, 5e6), (5e5, 4_999_900)])
    cases = {
        "a polygon is invalid": write(tmp_path / "a.gpkg", [good, bow_tie]),
        "not a polygon": write(tmp_path / "b.gpkg", [shapely.Point(5e5, 5e6)]),
        "no coordinate reference system": write(tmp_path / "c.shp", [good], None),
        "not a format of polygons": str(tmp_path / "a.kml"),
        "no such file": str(tmp_path / "missing.gpkg"),
    }
    for message, aoi in cases.items():
        with pytest.raises(InputError, match=message):
            stages.stats(aoi)
    with pytest.raises(InputError, match="found name, expected title"):
        stages.stats(write(tmp_path / "d.gpkg", [good]), name_column="title")
