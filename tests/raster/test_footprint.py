"""Footprints in lon/lat at every awkward place of the Earth."""

import numpy as np
import pytest
import shapely
from rasterio.transform import Affine, from_origin, xy
from rasterio.warp import transform as transform_points
from shapely.geometry import MultiPolygon, Point, Polygon

from cloudseg.errors import BadScene
from cloudseg.raster.footprint import footprint_bounds, footprint_of, lonlat_of

FULL = np.ones((100, 100), bool)


def test_a_full_utm_tile_is_its_rectangle() -> None:
    footprint = footprint_of(FULL, from_origin(500_000, 5_700_000, 1000, 1000), "EPSG:32631")
    assert isinstance(footprint, Polygon)
    assert footprint.is_valid
    assert footprint.exterior.is_ccw  # RFC 7946, 3.1.6
    min_lon, min_lat, max_lon, max_lat = footprint_bounds(footprint)
    assert min_lon == pytest.approx(3.0, abs=1e-6)
    assert (min_lat, max_lat) == (pytest.approx(50.54, abs=0.02), pytest.approx(51.45, abs=0.02))
    assert max_lon == pytest.approx(4.44, abs=0.02)


def test_nodata_corners_and_holes_are_left_out() -> None:
    valid = FULL.copy()
    valid[:50, :50] = False
    valid[70:80, 70:80] = False
    footprint = footprint_of(valid, from_origin(500_000, 5_700_000, 1000, 1000), "EPSG:32631")
    whole = footprint_of(FULL, from_origin(500_000, 5_700_000, 1000, 1000), "EPSG:32631")
    assert footprint.area / whole.area == pytest.approx(valid.mean(), abs=0.02)
    hole, corner, land = lonlat_of(
        [(500_000 + c * 1000, 5_700_000 - r * 1000) for r, c in ((75, 75), (25, 25), (60, 30))], "EPSG:32631"
    )
    assert not footprint.contains(Point(hole))
    assert not footprint.contains(Point(corner))
    assert footprint.contains(Point(land))


@pytest.mark.parametrize(("epsg", "x"), [(32601, 300_000), (32760, 500_000)])
def test_a_tile_across_the_antimeridian_is_cut_there(epsg: int, x: float) -> None:
    north = 7_000_000 if epsg == 32601 else 2_500_000
    footprint = footprint_of(FULL, from_origin(x, north, 3000, 3000), f"EPSG:{epsg}")
    assert isinstance(footprint, MultiPolygon)
    assert footprint.is_valid
    min_lon, _, max_lon, _ = footprint_bounds(footprint)
    assert min_lon > 150
    assert max_lon < -150
    assert all(part.bounds[2] - part.bounds[0] < 20 for part in footprint.geoms)


def test_geographic_coordinates_beyond_180_are_folded() -> None:
    footprint = footprint_of(FULL, from_origin(179.0, -10.0, 0.02, 0.02), "EPSG:4326")
    assert footprint_bounds(footprint) == pytest.approx((179.0, -12.0, -179.0, -10.0))
    assert footprint.area == pytest.approx(4.0)


def test_the_whole_world_stays_whole() -> None:
    footprint = footprint_of(np.ones((180, 360), bool), from_origin(-180, 90, 1, 1), "EPSG:4326")
    assert footprint_bounds(footprint) == pytest.approx((-180, -90, 180, 90))
    assert footprint.area == pytest.approx(360 * 180, rel=1e-6)


@pytest.mark.parametrize(("crs", "lat"), [("EPSG:3995", 90), ("EPSG:3031", -90)])
def test_a_scene_over_a_pole_holds_the_pole(crs: str, lat: float) -> None:
    footprint = footprint_of(FULL, from_origin(-500_000, 500_000, 10_000, 10_000), crs)
    assert footprint.is_valid
    assert footprint.distance(Point(37, lat)) < 1e-6
    assert footprint_bounds(footprint)[0] == -180
    assert footprint_bounds(footprint)[2] == 180


def test_a_ring_around_a_pole_leaves_the_pole_out() -> None:
    valid = _disc(45) & ~_disc(20)
    footprint = footprint_of(valid, from_origin(-500_000, 500_000, 10_000, 10_000), "EPSG:3995")
    assert footprint_bounds(footprint) == pytest.approx((-180, 85.80, 180, 88.25), abs=0.01)


@pytest.mark.parametrize("off", range(0, 100_000, 7_919))
def test_a_disc_over_a_pole_covers_every_longitude(off: int) -> None:
    footprint = footprint_of(_disc(45), from_origin(-500_000 - off, 500_000 + off / 3, 10_000, 10_000), "EPSG:3031")
    assert isinstance(footprint, Polygon)
    min_lon, min_lat, max_lon, _ = footprint_bounds(footprint)
    assert (min_lon, min_lat, max_lon) == (-180, -90, 180)


_ROW, _COL = np.mgrid[:100, :100]


def _disc(radius: float) -> np.ndarray:
    return radius**2 > (_ROW - 49.5) ** 2 + (_COL - 49.5) ** 2


@pytest.mark.parametrize("shape", ["full", "nodata", "swath", "ring", "waves"])
@pytest.mark.parametrize(
    ("crs", "west", "north", "size"),
    [
        ("EPSG:32601", 300_000, 7_000_000, 3000),  # across 180°
        ("EPSG:32760", 500_000, 2_500_000, 3000),
        ("EPSG:32660", 600_000, 9_200_000, 1000),
        ("EPSG:3995", -500_000, 500_000, 10_000),  # the pole in the middle
        ("EPSG:3995", -999_999, 1_000_000, 10_000),  # the pole on an edge
        ("EPSG:3031", 0, 0, 10_000),  # the pole at a corner
        ("EPSG:3413", -100_000, 1_000_000, 10_000),
        ("EPSG:4326", 180, 0, 0.02),  # begins at 180°
        ("EPSG:4326", 170, 89, 0.2),
        ("EPSG:4326", 0, 90, 1.8),  # longitudes 0 to 180
        ("EPSG:4326", -190, 85, 3.6),  # the whole circle
        ("+proj=laea +lat_0=60 +lon_0=180", -500_000, 3_500_000, 10_000),
    ],
)
def test_a_place_is_inside_where_its_pixel_is_valid(
    crs: str, west: float, north: float, size: float, shape: str
) -> None:
    valid = {
        "full": FULL,
        "nodata": FULL & ~((_ROW < 50) & (_COL < 50)) & ~_disc(6),
        "swath": np.abs(_ROW - _COL) < 35,
        "ring": _disc(45) & ~_disc(20),
        "waves": np.sin(_COL / 7) + np.cos(_ROW / 5) > 0,
    }[shape]
    transform = from_origin(west, north, size, min(size, 1.7) if crs == "EPSG:4326" else size)
    footprint = footprint_of(valid, transform, crs)
    assert footprint.is_valid
    # Three pixels from any edge: the outline is simplified by one and has a vertex every three.
    around = np.lib.stride_tricks.sliding_window_view(np.pad(valid, 3), (7, 7))
    rows, cols = np.nonzero(around.all(axis=(2, 3)) | ~around.any(axis=(2, 3)))
    lon, lat = transform_points(crs, "EPSG:4326", *xy(transform, rows, cols))
    inside = shapely.intersects_xy(footprint, (np.asarray(lon) + 180) % 360 - 180, lat)
    assert np.array_equal(inside, valid[rows, cols])


def test_the_overhang_of_the_overview_is_cut_off() -> None:
    wide = footprint_of(np.ones((10, 10), bool), from_origin(0, 0, 1, 1), "EPSG:4326", extent=(9.5, 8.25))
    assert footprint_bounds(wide) == pytest.approx((0, -9.5, 8.25, 0))


def test_specks_stay_few_points() -> None:
    valid = np.random.default_rng(0).random((512, 512)) > 0.02
    footprint = footprint_of(valid, from_origin(500_000, 5_700_000, 20, 20), "EPSG:32631")
    assert footprint.is_valid
    assert shapely.get_num_coordinates(footprint) < 5_000


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (from_origin(0, 300, 1, 1), "EPSG:4326"),
        (Affine(np.nan, 0, 0, 0, -1, 0), "EPSG:4326"),
        (from_origin(1e12, 1e12, 1, 1), "EPSG:32631"),
    ],
)
def test_places_that_are_not_on_the_earth_are_refused(transform: Affine, crs: str) -> None:
    with pytest.raises(BadScene):
        footprint_of(FULL, transform, crs)


def test_nothing_valid_has_no_footprint() -> None:
    with pytest.raises(BadScene, match="no pixel is valid"):
        footprint_of(~FULL, from_origin(0, 0, 1, 1), "EPSG:4326")
