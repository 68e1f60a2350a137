"""Files of polygons, read by GDAL and pyarrow: the area of the cloud pixels, and what each polygon belongs to."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pyogrio.raw
import pytest
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from cloudseg import stages
from cloudseg.cli import _run
from cloudseg.errors import InputError, NotInCatalog, SettingsError
from cloudseg.records import Mask
from cloudseg.runtime import open_runtime
from tests.export.conftest import UTM, Home, speckled, steps_of


def read(path: Path, **how: Any) -> tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]:
    """Return facts, polygons and columns of a layer."""
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path)
        about = {name.decode(): text.decode() for name, text in table.schema.metadata.items()}
        columns = {name: np.array(table[name].to_pylist(), object) for name in table.column_names}
        return about, shapely.from_wkb(columns.pop("geometry")), columns
    meta, _, geometry, fields = pyogrio.raw.read(path, **how)
    columns = dict(zip(meta["fields"], fields, strict=True))
    return pyogrio.read_info(path), shapely.from_wkb(geometry), columns


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet"])
def test_polygons_in_the_scenes_crs_are_the_cloud_pixels(home: Home, tmp_path: Path, suffix: str) -> None:
    classes = speckled(600, 230)
    home.mask(steps_of(classes))
    out = tmp_path / "new" / f"clouds{suffix}"
    record = stages.export_clouds(str(out), crs="native")
    about, polygons, columns = read(out)
    assert record.features == len(polygons) > 20
    assert sum(shapely.area(polygons)) == (classes == 1).sum() * 100 == pytest.approx(sum(columns["area_m2"]))
    burned = rasterize(polygons, out_shape=classes.shape, transform=UTM, fill=0)
    assert np.array_equal(burned, classes == 1)
    assert any(len(part.interiors) for polygon in polygons for part in polygon.geoms), "holes are kept"
    assert shapely.is_valid(polygons).all()
    assert shapely.is_ccw([part.exterior for polygon in polygons for part in polygon.geoms]).all()
    code = (
        json.loads(about["geo"])["columns"]["geometry"]["crs"]["id"]["code"] if suffix == ".parquet" else about["crs"]
    )
    assert code in (32631, "EPSG:32631")
    assert list(out.parent.iterdir()) == [out], "nothing else is left"


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet"])
def test_what_each_polygon_belongs_to_and_how_it_was_made(home: Home, tmp_path: Path, suffix: str) -> None:
    first = home.mask(steps_of(speckled(90, 80)), number=3)
    second = home.mask(steps_of(speckled(80, 90, seed=1)), place="block:2", crs="EPSG:32733", acquired_at=None)
    out = tmp_path / f"clouds{suffix}"
    stages.export_clouds(str(out), threshold=0.5, min_area_m2=300, buffer_m=20)
    about, polygons, columns = read(out)
    assert set(columns["mask_id"]) == {first.mask_id, second.mask_id}
    of_first = columns["mask_id"] == first.mask_id
    assert set(columns["scene_name"][of_first]) == {"synthetic_block:1_3"}
    assert set(columns["scene_id"][of_first]) == {first.scene_id}
    assert {str(value)[:10] for value in columns["acquired_at"][of_first]} == {"2024-05-04"}
    assert {str(value) for value in columns["acquired_at"][~of_first]} <= {"None", "NaT"}
    assert set(columns["threshold"]) == {0.5}
    tags = about if suffix == ".parquet" else about["layer_metadata"]
    assert {name: tags[name] for name in tags if name.startswith("CLOUDSEG_")} == {
        "CLOUDSEG_THRESHOLD": "0.5",
        "CLOUDSEG_MIN_AREA_M2": "300",
        "CLOUDSEG_MIN_HOLE_M2": "0",
        "CLOUDSEG_BUFFER_M": "20",
    }
    lon, lat = shapely.get_coordinates(polygons[of_first][0])[0]
    assert (round(lon), round(lat)) == (3, 49), "longitude first"
    if suffix == ".parquet":
        assert "crs" not in json.loads(about["geo"])["columns"]["geometry"], "OGC:CRS84 by default"
    else:
        assert about["crs"] == "EPSG:4326"


def test_lonlat_polygons_lie_where_the_pixels_are(home: Home, tmp_path: Path) -> None:
    classes = np.zeros((300, 300), np.uint8)
    classes[20:280, 30:270] = 1
    classes[100:150, 100:150] = 0
    home.mask(steps_of(classes))
    stages.export_clouds(str(tmp_path / "c.gpkg"))
    _, polygons, columns = read(tmp_path / "c.gpkg")
    rows, cols = np.indices(classes.shape)
    x, y = UTM @ (cols.ravel() + 0.5, rows.ravel() + 0.5)
    lon, lat = transform_points("EPSG:32631", "EPSG:4326", x.tolist(), y.tolist())
    inside = shapely.contains_xy(polygons[0], lon, lat).reshape(classes.shape)
    assert np.array_equal(inside, classes == 1)
    assert columns["area_m2"].tolist() == [(classes == 1).sum() * 100]


def test_clouds_are_cut_at_180_degrees(home: Home, tmp_path: Path) -> None:
    classes = np.zeros((60, 60), np.uint8)
    classes[10:50, 5:55] = 1
    home.mask(
        steps_of(classes), crs="EPSG:32701", transform=Affine(300, 0, 170_000, 0, -300, 8_180_000), resolution_m=300.0
    )
    stages.export_clouds(str(tmp_path / "c.gpkg"))
    _, polygons, _ = read(tmp_path / "c.gpkg")
    parts = [part.bounds for part in polygons[0].geoms]
    assert sorted((west < -179, east > 179) for west, _, east, _ in parts) == [(False, True), (True, False)]
    assert all(east - west < 1 for west, _, east, _ in parts)


def test_in_degrees_areas_are_those_of_the_ellipsoid(home: Home, tmp_path: Path) -> None:
    classes = np.zeros((100, 100), np.uint8)
    classes[25:75, 25:75] = 1
    home.mask(steps_of(classes), crs="EPSG:4326", transform=Affine(0.01, 0, 20, 0, -0.01, 60.5))
    stages.export_clouds(str(tmp_path / "c.gpkg"))
    _, _, columns = read(tmp_path / "c.gpkg")
    # 0.5 x 0.5 degrees at 60 N: 111.412 km a degree of latitude, 55.800 km of longitude (Snyder 1987, table 5).
    assert columns["area_m2"][0] == pytest.approx(0.5 * 111_412 * 0.5 * 55_800, rel=2e-3)


def test_footprints_have_the_addresses_of_the_files(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = home.mask(steps_of(speckled(90, 80)))
    stages.export_footprints(str(tmp_path / "f.gpkg"))
    about, polygons, columns = read(tmp_path / "f.gpkg")
    assert (about["crs"], about["geometry_type"], about["layer_name"]) == ("EPSG:4326", "MultiPolygon", "masks")
    assert columns["mask"][0] == str(home.root / "store" / mask.key)
    assert Path(columns["probability"][0]).is_file()
    assert columns["thumbnail"][0] is None
    assert columns["cloud_fraction"][0] == pytest.approx(mask.cloud_fraction)
    assert shapely.from_wkb(shapely.to_wkb(polygons[0])).area > 0
    monkeypatch.setenv("CLOUDSEG_PUBLIC_URL", "https://masks.example/")
    stages.export_footprints(str(tmp_path / "f.fgb"))
    _, _, columns = read(tmp_path / "f.fgb")
    assert columns["mask"][0] == f"https://masks.example/{mask.key}"
    with sqlite3.connect(f"file:{tmp_path / 'f.gpkg'}?mode=ro", uri=True) as db:  # what QGIS finds a layer by
        assert db.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall() == [("masks", "features")]
        assert db.execute("SELECT count(*) FROM rtree_masks_geom").fetchone() == (1,)
    db.close()


def exported(tmp_path: Path, **chosen: Any) -> set[str]:
    stages.export_footprints(str(tmp_path / "chosen.gpkg"), overwrite=True, **chosen)
    return set(read(tmp_path / "chosen.gpkg")[2]["mask_id"])


def test_masks_are_chosen_by_id_scene_box_time_and_weights(home: Home, tmp_path: Path) -> None:
    steps = steps_of(speckled(40, 40))
    near = home.mask(steps, number=1)
    far = home.mask(steps, place="block:2", crs="EPSG:32733", number=40)
    older = home.mask(steps, place="block:3", weights_id="w-other")
    ids = near.mask_id, far.mask_id, older.mask_id
    assert exported(tmp_path) == set(ids[:2]), "the champion's"
    assert exported(tmp_path, weights_id="w-other") == {ids[2]}
    assert exported(tmp_path, mask_ids=[ids[2], ids[0]]) == {ids[0], ids[2]}
    assert exported(tmp_path, scenes=["synthetic_block:2_40"]) == {ids[1]}
    assert exported(tmp_path, scenes=[near.scene_id]) == {ids[0]}
    assert exported(tmp_path, bbox=(2, 48, 4, 50)) == {ids[0]}
    assert exported(tmp_path, interval="2024-05") == {ids[0]}
    assert exported(tmp_path, interval="2024-06-01/..") == {ids[1]}
    assert exported(tmp_path, interval="2024-05-02T00:00:00Z/2024-12") == set(ids[:2])
    for nothing in ({"interval": "../2024-04-30"}, {"bbox": (100, 0, 101, 1)}):
        with pytest.raises(InputError, match="no mask is chosen"):
            exported(tmp_path, **nothing)
    for unknown in ({"mask_ids": ["mk-1"]}, {"scenes": ["nowhere"]}, {"weights_id": "w-9"}):
        with pytest.raises(NotInCatalog, match=next(iter(unknown.values()))[0]):
            exported(tmp_path, **unknown)
    for wrong in ({"interval": "May"}, {"interval": ".."}, {"interval": "2024/2023"}, {"bbox": (0, 1, 2, 0)}):
        with pytest.raises(InputError, match=r"datetime|bbox"):
            exported(tmp_path, **wrong)


def damage(home: Home, mask: Mask) -> None:
    path = home.root / "store" / mask.key
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def test_a_damaged_mask_does_not_stop_the_others(home: Home, tmp_path: Path) -> None:
    bad = home.mask(steps_of(speckled(40, 40)), place="block:2")
    good = home.mask(steps_of(speckled(40, 40, seed=1)))
    damage(home, bad)
    record = stages.export_clouds(str(tmp_path / "c.gpkg"))
    assert list(record.failed) == [bad.mask_id]
    assert record.failed[bad.mask_id]["error"] == "ObjectCorrupt"
    assert record.masks == 1
    assert set(read(tmp_path / "c.gpkg")[2]["mask_id"]) == {good.mask_id}


def test_a_file_that_exists_is_kept_and_a_failure_leaves_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mask(steps_of(speckled(40, 40)))
    out = tmp_path / "out" / "c.gpkg"
    stages.export_clouds(str(out))
    before = out.read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        stages.export_clouds(str(out))
    with pytest.raises(InputError, match=r"\.shp"):
        stages.export_clouds(str(tmp_path / "c.shp"))

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cloudseg.export.layers.iter_clouds", fail)
    with pytest.raises(KeyboardInterrupt):
        stages.export_clouds(str(out), overwrite=True)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


def test_scenes_of_several_crs_have_no_native_layer(home: Home, tmp_path: Path) -> None:
    home.mask(steps_of(speckled(40, 40)))
    home.mask(steps_of(speckled(40, 40)), place="block:2", crs="EPSG:32733")
    with pytest.raises(InputError, match="EPSG:32631, EPSG:32733"):
        stages.export_clouds(str(tmp_path / "c.gpkg"), crs="native")
    assert not (tmp_path / "c.gpkg").exists()


def test_parquet_without_its_library_names_the_extra(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mask(steps_of(speckled(40, 40)))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(SettingsError, match=r"cloudseg\[gis\]"):
        stages.export_clouds(str(tmp_path / "c.parquet"))
    assert open_runtime().store  # and the rest works
    stages.export_clouds(str(tmp_path / "c.fgb"))


def test_a_clear_mask_has_a_layer_without_polygons(home: Home, tmp_path: Path) -> None:
    home.mask(steps_of(np.zeros((30, 30), np.uint8)))
    for suffix in (".gpkg", ".fgb", ".parquet"):
        assert stages.export_clouds(str(tmp_path / f"c{suffix}")).features == 0
        assert len(read(tmp_path / f"c{suffix}")[1]) == 0


def test_the_command_names_what_failed_and_exits_with_3(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = home.mask(steps_of(speckled(40, 40)))
    bad = home.mask(steps_of(speckled(40, 40, seed=1)), place="block:2")
    damage(home, bad)
    out = tmp_path / "c.fgb"
    arguments = ["export", "clouds", str(out), "--bbox", "2", "48", "4", "50", "--datetime", "2024", "--json"]
    assert _run(arguments) == 3
    record = json.loads(capsys.readouterr().out)
    assert list(record["failed"]) == [bad.mask_id]
    assert set(read(out)[2]["mask_id"]) == {good.mask_id}
    assert _run(["export", "footprints", str(tmp_path / "f.gpkg"), "--mask", good.mask_id]) == 0
    assert _run(["export", "masks", str(tmp_path / "m"), "--mask", good.mask_id, "--min-area-m2", "500"]) == 0
    assert _run(["export", "clouds", str(out), "--buffer-m", "-1"]) == 2
