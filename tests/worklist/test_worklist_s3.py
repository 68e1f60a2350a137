"""A worklist of rasters that lie in a bucket."""

from pathlib import Path

import numpy as np
import rasterio

from cloudseg.catalog import Catalog
from cloudseg.storage.s3 import S3Store
from cloudseg.worklist import build_worklist, write_folder
from tests.worklist.conftest import make_world, undecided


def test_rasters_are_read_from_the_bucket(s3_store: S3Store, catalog: Catalog, tmp_path: Path):
    world = make_world(s3_store, catalog)  # type: ignore[arg-type]
    scene_id = world.scene("block:a")
    steps = undecided(0.5)
    world.mask(scene_id, steps)
    world.mask(scene_id, steps, weights_id=world.other)
    made = build_worklist(s3_store, catalog, weights_id=world.champion, count=5, megapixels=100)
    assert [item.scene_id for item in made.items] == [scene_id]
    write_folder(s3_store, catalog, made, tmp_path / "w")
    with rasterio.open(tmp_path / "w" / "layers" / scene_id / "mask.tif") as mask:
        assert np.array_equal(mask.read(1), (steps >= 100).astype(np.uint8))
