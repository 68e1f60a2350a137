"""Rotated rasters and rasters with ground control points are warped north-up."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from tests.ingest.conftest import Service
from tests.ingest.tiles import SIZE, UTM, clouds, random_dn, write


def test_a_rotated_scene_is_warped_north_up_with_empty_corners(service: Service, inbox: Path) -> None:
    rotated = Affine.translation(500_000, 5_600_000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    write(inbox / "images" / "rotated.tif", random_dn(), transform=rotated)
    write(inbox / "labels" / "rotated.tif", clouds(), names=["label"], transform=rotated, nodata=255)
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()["rotated"]
    assert (scene.transform[1], scene.transform[3]) == (0, 0)
    assert scene.transform[0] == pytest.approx(10)
    assert scene.valid_fraction == pytest.approx(SIZE**2 / (scene.height * scene.width), abs=0.03)
    assert "rotated" in scene.tags["warped"]
    assert service.labels(scene)[0].cloud_fraction == pytest.approx(0.5, abs=0.03)


def test_ground_control_points_with_a_crs_georeference_a_scene(service: Service, inbox: Path) -> None:
    corners = [(0, 0), (0, SIZE), (SIZE, 0), (SIZE, SIZE)]
    points = [GroundControlPoint(row, col, *(UTM @ (col, row))) for row, col in corners]
    write(inbox / "points.tif", random_dn(), transform=None, gcps=points)
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()["points"]
    assert "ground control points" in scene.tags["warped"]
    assert scene.transform[0] == pytest.approx(10, rel=0.02)
    assert scene.valid_fraction > 0.9


def test_a_mask_inside_the_file_and_an_alpha_band_mark_what_is_valid(service: Service, inbox: Path) -> None:
    keep = np.zeros((SIZE, SIZE), bool)
    keep[:, 12:] = True
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(write(inbox / "masked.tif", random_dn()), "r+") as dataset,
    ):
        dataset.write_mask(keep)
    colors = np.concatenate([random_dn(low=5, high=255, dtype="uint8"), keep[None].astype(np.uint8) * 255])
    write(inbox / "alpha.tif", colors, names=None, photometric="RGB", alpha="YES")
    assert service.ingest(inbox).quarantined == []
    scenes = service.scenes()
    assert scenes["masked"].valid_fraction == pytest.approx(0.75)
    assert scenes["alpha"].valid_fraction == pytest.approx(0.75)
    assert scenes["alpha"].bands == ["red", "green", "blue"]
