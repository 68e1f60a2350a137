"""Cleaned masks as files: the pixels, the settings in the tags, and the style beside."""

from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from cloudseg import stages
from cloudseg.catalog import model_rows
from cloudseg.errors import BadLabel, InputError
from cloudseg.ingest.label_tags import label_tags
from cloudseg.runtime import open_runtime
from tests.export.conftest import UTM, Home, speckled, steps_of
from tests.predict.promised import evaluate_as
from tests.raster.test_clean import by_pairs


def test_a_widened_mask_with_its_settings(home: Home, tmp_path: Path) -> None:
    classes = speckled(120, 100)
    mask = home.mask(steps_of(classes))
    record = stages.export_masks(str(tmp_path / "out"), buffer_m=35)
    path = tmp_path / "out" / record.files[mask.mask_id]
    assert {each.name for each in path.parent.iterdir()} == {path.name, path.with_suffix(".qml").name}
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as dataset:
        found, tags, band = dataset.read(1), dataset.tags(), dataset.tags(1)
        assert (dataset.crs.to_epsg(), dataset.transform, dataset.nodata) == (32631, UTM, 255)
        assert dataset.colormap(1)[1][:3] == (245, 245, 245)
    assert np.array_equal(found, by_pairs(classes, 10, 10, 35))
    assert (tags["CLOUDSEG_BUFFER_M"], tags["CLOUDSEG_THRESHOLD"], tags["CLOUDSEG_MODEL_THRESHOLD"]) == (
        "35",
        "0.4",
        "0.4",
    )
    assert (tags["CLOUDSEG_MASK_ID"], tags["CLOUDSEG_SOURCE_SHA256"]) == (mask.mask_id, mask.sha256)
    share = (found == 1).sum() / (found != 255).sum()
    assert float(tags["CLOUDSEG_CLOUD_FRACTION"]) == pytest.approx(share, abs=1e-6)
    assert float(band["STATISTICS_MEAN"]) == pytest.approx(share)


def test_a_cleaned_mask_is_no_label(home: Home, tmp_path: Path) -> None:
    mask = home.mask(steps_of(speckled(40, 40)))
    record = stages.export_masks(str(tmp_path), buffer_m=35)
    with rasterio.open(tmp_path / record.files[mask.mask_id]) as dataset:
        tags = dataset.tags()
    with pytest.raises(BadLabel, match="learn from itself"):
        label_tags(tags, "cleaned.tif")
    assert label_tags(tags | {"LABEL_CONFIRMS": mask.mask_id}, "cleaned.tif").mask_id == mask.mask_id


def test_another_threshold_reads_the_probability(home: Home, tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(0, 251, (60, 50)).astype(np.uint8)
    mask = home.mask(steps)
    record = stages.export_masks(str(tmp_path), threshold=0.8)
    with rasterio.open(tmp_path / record.files[mask.mask_id]) as dataset:
        assert np.array_equal(dataset.read(1), steps / 250 >= 0.8)
        assert dataset.tags()["CLOUDSEG_THRESHOLD"] == "0.8"
        assert dataset.tags()["CLOUDSEG_SOURCE_SHA256"] == mask.companions["probability"]["sha256"]


def test_a_threshold_by_name_is_that_of_each_mask(home: Home, tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(0, 251, (60, 50)).astype(np.uint8)
    mask = home.mask(steps)
    refused = stages.export_masks(str(tmp_path), threshold="careful")
    assert refused.masks == 0
    assert refused.failed[mask.mask_id]["what"] == "these weights have no careful threshold"
    with open_runtime().catalog.read() as db:
        weights = model_rows.get_weights(db, mask.weights_id)
    promise = evaluate_as(home.world, weights)
    assert promise.careful is not None
    assert promise.generous is not None
    for name, threshold in (
        ("careful", promise.careful.threshold),
        ("balanced", weights.metadata["threshold"]),
        ("generous", promise.generous.threshold),
    ):
        record = stages.export_masks(str(tmp_path / name), threshold=name)
        with rasterio.open(tmp_path / name / record.files[mask.mask_id]) as dataset:
            assert np.array_equal(dataset.read(1), steps / 250 >= threshold)
            assert float(dataset.tags()["CLOUDSEG_THRESHOLD"]) == threshold
    stages.export_clouds(str(tmp_path / "clouds.fgb"), threshold="careful")
    about = pyogrio.read_info(tmp_path / "clouds.fgb")["layer_metadata"]
    assert about["CLOUDSEG_THRESHOLD"] == "careful of each model"
    with pytest.raises(InputError, match="not a threshold"):
        stages.export_masks(str(tmp_path), threshold="brave")  # type: ignore[arg-type]


def test_a_raster_that_exists_is_kept(home: Home, tmp_path: Path) -> None:
    mask = home.mask(steps_of(speckled(40, 40)))
    name = stages.export_masks(str(tmp_path)).files[mask.mask_id]
    before = (tmp_path / name).read_bytes()
    again = stages.export_masks(str(tmp_path), buffer_m=50)
    assert (list(again.failed), again.masks) == ([mask.mask_id], 0)
    assert (tmp_path / name).read_bytes() == before
    assert stages.export_masks(str(tmp_path), overwrite=True).masks == 1
    assert (tmp_path / name).read_bytes() == before, "the same bytes again"
