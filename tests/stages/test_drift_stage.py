"""The stage `drift`: brightness is measured once for each scene, a bounded number at a time."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cloudseg import stages
from cloudseg.catalog import scene_rows, tables
from cloudseg.drift.measure import mean_reflectance
from cloudseg.errors import InputError, StoreUnreachable
from cloudseg.runtime import open_runtime


def test_brightness_is_measured_once_and_a_repeated_call_goes_on(runtime_env: Path, synthetic_folder: Path):
    stages.ingest(str(synthetic_folder))
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        scenes = scene_rows.list_scenes(db)
    planned = stages.drift(dry_run=True)
    assert (planned.measured, planned.unmeasured) == (0, len(scenes))
    first = stages.drift(limit=5)
    assert (first.measured, first.unmeasured) == (5, len(scenes) - 5)
    assert f"the brightness of {len(scenes) - 5} scenes is still to be measured" in first.notes[-1]
    assert stages.drift().measured == len(scenes) - 5
    again = stages.drift()
    assert (again.measured, again.unmeasured, again.past_limit) == (0, 0, [])
    assert json.loads(json.dumps(again.as_json())) == again.as_json()
    with runtime.catalog.read() as db:
        found = {row.scene_id: row.reflectance for row in db.execute(tables.scene_brightness.select())}
    for scene in scenes:
        with rasterio.open(runtime.store.gdal_path(scene.key).path) as pixels:
            dn = pixels.read([1, 2, 3])
        valid = (dn != 0).all(axis=0)
        assert found[scene.scene_id] == pytest.approx(dn[:, valid].mean() / 10_000, rel=1e-6)


def test_the_mean_of_a_large_scene_is_read_from_an_overview(tmp_path: Path):
    rng = np.random.default_rng(0)
    dn = rng.integers(500, 9000, (3, 2000, 1500)).astype(np.uint16)
    dn[:, :400] = 0
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "height": 2000, "width": 1500, "count": 3, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(10, 0, 0, 0, -10, 0), crs="EPSG:32631") as file:
        file.write(dn)
        file.descriptions = ("red", "green", "blue")
    assert mean_reflectance(str(path)) == pytest.approx(dn[:, 400:].mean() / 10_000, rel=0.01)


def test_all_bands_count_where_one_of_the_three_is_missing(tmp_path: Path):
    dn = np.stack([np.full((64, 64), value, np.uint16) for value in (1000, 2000, 6000)])
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": 3, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(10, 0, 0, 0, -10, 0), crs="EPSG:32631") as file:
        file.write(dn)
        file.descriptions = ("red", "green", "nir")
    assert mean_reflectance(str(path)) == pytest.approx(0.3)


def test_a_store_that_does_not_answer_is_no_missing_brightness(
    runtime_env: Path, synthetic_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    stages.ingest(str(synthetic_folder))

    def unreachable(*_: object) -> None:
        raise StoreUnreachable("the store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("cloudseg.drift.measure.mean_reflectance", unreachable)
        with pytest.raises(StoreUnreachable):
            stages.drift(limit=1)
    assert stages.drift(limit=1).measured == 1, "nothing was recorded"


def test_a_damaged_scene_is_recorded_and_stops_nothing(
    runtime_env: Path, synthetic_folder: Path, caplog: pytest.LogCaptureFixture
):
    stages.ingest(str(synthetic_folder))
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        damaged = scene_rows.list_scenes(db, limit=1)[0]
    path = Path(runtime.store.gdal_path(damaged.key).path)
    path.chmod(0o644)
    path.write_bytes(b"no raster")
    assert stages.drift().unmeasured == 0
    assert f"no brightness of scene {damaged.scene_id}" in caplog.text
    assert stages.drift().measured == 0


def test_a_negative_limit_is_refused(runtime_env: Path):
    with pytest.raises(InputError, match="not a number of scenes"):
        stages.drift(limit=-1)
