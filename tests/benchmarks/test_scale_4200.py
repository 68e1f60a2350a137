"""The made folder of the scale benchmark is in 38-Cloud's layout: what is measured is ingested, all of it."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.scale_4200 import make_folder
from cloudseg.catalog import Catalog, scene_rows
from cloudseg.dataset import split_of
from cloudseg.ingest import DecodeLimits
from cloudseg.ingest.pipeline import ingest_source
from cloudseg.storage import LocalStore


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_every_made_patch_becomes_a_labeled_scene_of_its_own(tmp_path: Path, store: LocalStore, catalog: Catalog):
    size = make_folder(tmp_path / "made", 6)
    assert size == pytest.approx(6 * (4 * 2 + 1) * 384**2, rel=0.01)  # uncompressed: four bands of 16 bits and a label
    record = ingest_source(store, catalog, str(tmp_path / "made"), layout="38cloud", limits=DecodeLimits(), workers=1)
    assert (len(record.added), len(record.labelled), record.quarantined) == (6, 6, [])
    with catalog.read() as db:
        scenes = list(scene_rows.list_scenes(db))
    assert Counter(split_of(scene.place) for scene in scenes) == {"train": 4, "validation": 1, "held_out": 1}
    assert {(scene.height, scene.width, scene.sensor) for scene in scenes} == {(384, 384, "landsat-8-l1")}
