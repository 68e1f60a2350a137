"""What is drawn in a worklist comes back through an inbox as a correction of the right scene and mask."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from shapely import box

from cloudseg import stages
from cloudseg.runtime import open_runtime
from tests.worklist.conftest import World, make_world, undecided
from tests.worklist.test_folder import draw


@pytest.fixture
def home(runtime_env: Path) -> World:
    runtime = open_runtime()
    world = make_world(runtime.store, runtime.catalog)  # type: ignore[arg-type]
    for place in "ab":
        world.mask(world.scene(f"block:{place}"), undecided(0.5))
    return world


def test_a_polygon_becomes_a_label_that_corrects_the_mask(home: World, tmp_path: Path):
    folder = tmp_path / "list"
    listed = stages.worklist(out=str(folder))
    drawn, empty = listed.items
    # 100 x 50 pixels of 30 m, from row 10 and column 20 of the scene's grid.
    corner_x, corner_y = 4e5 + 20 * 30, 5e6 - 10 * 30
    draw(
        folder / "labels" / f"{drawn.scene_id}.gpkg",
        box(corner_x, corner_y - 50 * 30, corner_x + 100 * 30, corner_y),
        "cloud",
    )

    record = stages.ingest(str(folder))
    assert (record.added, record.quarantined) == ([], [])
    assert record.empty_layers == [f"labels/{empty.scene_id}.gpkg"]
    (label_id,) = record.proposed
    label = stages.label(label_id)
    assert (label["scene_id"], label["corrects_mask_id"]) == (drawn.scene_id, drawn.mask_id)
    with rasterio.open(Path(home.store.gdal_path(label["key"]))) as raster:
        classes = raster.read(1)
    expected = np.full((512, 512), 255)
    expected[10:60, 20:120] = 1
    assert np.array_equal(classes, expected)

    assert [item.scene_id for item in stages.worklist().items] == [empty.scene_id]  # the other one waits
    again = stages.ingest(str(folder))
    assert (again.labelled, again.quarantined) == ([], [])
