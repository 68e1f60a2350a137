"""The pipeline with its store and its inbox on a real S3 server; no local store is used."""

import json
import logging
import os
import urllib.request
from pathlib import Path

import pytest
import rasterio

from cloudseg.raster.read import open_raster
from cloudseg.runtime import open_runtime
from cloudseg.stages import doctor, ingest, lineage, maintain, masks, predict, promote, retrain
from tests.seaweed import BUCKET, SECRET_KEY, Seaweed


@pytest.fixture
def environment(s3_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set CLOUDSEG_HOME, which holds the catalog only; the store is on S3."""
    for name in [name for name in os.environ if name.startswith("CLOUDSEG_") and name not in s3_env]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLOUDSEG_THREADS", "1")
    return tmp_path / "home"


@pytest.fixture
def inbox(seaweed: Seaweed, s3_env: dict[str, str], synthetic_folder: Path) -> str:
    """Upload the synthetic tiles beside the store's prefix, under names that are no valid object keys."""
    client, prefix = seaweed.client(), f"{s3_env['CLOUDSEG_STORE_URL'].rpartition('/')[2]}-inbox/Tiles"
    for path in synthetic_folder.rglob("*.tif"):
        client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(synthetic_folder).as_posix()}")
    return f"s3://{BUCKET}/{prefix}"


def test_pipeline_runs_on_s3(
    environment: Path,
    inbox: str,
    synthetic_folder: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    caplog.set_level(logging.DEBUG)
    assert doctor().ok
    added = ingest(inbox)
    tiles = len(list((synthetic_folder / "images").iterdir()))
    assert (len(added.added), added.quarantined) == (tiles, [])
    verdict = retrain("smoke").promote
    assert verdict is not None
    if not verdict.promoted:
        verdict = promote(verdict.challenger_id, force=True, reason="test", actor="test")
    predicted = predict(new=True)
    assert (len(predicted.masks), predicted.failed) == (tiles, {})

    runtime = open_runtime()
    listed = masks(limit=None, link_s=60)
    assert all(mask["uri"].startswith(f"{runtime.store.uri}/masks/") for mask in listed)
    with open_raster(runtime.store.gdal_path(listed[0]["key"])) as mask:
        assert (mask.tags()["CLOUDSEG_MASK_ID"], mask.dtypes) == (listed[0]["mask_id"], ("uint8",))
    with urllib.request.urlopen(listed[0]["link"]) as answer:
        assert len(answer.read()) == listed[0]["size"]
    found = lineage(listed[0]["mask_id"])
    assert found["weights"]["weights_id"] == verdict.champion_id
    assert found["scene"]["source_uri"].startswith(inbox)

    before = set(runtime.store.list_keys())
    again = ingest(inbox)
    assert (again.added, again.known, predict(new=True).masks, set(runtime.store.list_keys())) == (
        [],
        tiles,
        [],
        before,
    )
    record = maintain(dry_run=False, orphan_hours=0, verify=True)
    assert (record.orphans, record.missing, record.repaired) == ([], [], [])
    assert not (environment / "store").exists()
    assert SECRET_KEY not in caplog.text + "".join(capfd.readouterr()) + json.dumps(listed)
    assert "Signature=" not in caplog.text


def test_masks_are_readable_with_plain_gdal(environment: Path, seaweed: Seaweed, synthetic_folder: Path):
    """Read as QGIS does, with GDAL's own settings for S3 and without cloudseg."""
    store = open_runtime().store
    store.put_file("masks/x/mask.tif", next((synthetic_folder / "labels").iterdir()))
    outside = {
        "AWS_S3_ENDPOINT": seaweed.endpoint.removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }
    with (
        rasterio.Env(**outside),
        rasterio.open(f"/vsis3/{store.uri_of('masks/x/mask.tif').removeprefix('s3://')}") as dataset,
    ):
        assert set(dataset.read(1).flat) <= {0, 1, 255}
