"""The range of brightness that goes into the weights is that of the training scenes alone."""

from cloudseg.catalog import Catalog
from cloudseg.catalog.training_rows import get_snapshot
from cloudseg.dataset.chips import open_chips
from cloudseg.storage import LocalStore
from cloudseg.train.brightness import training_brightness
from cloudseg.train.data import TrainingData
from tests.evaluate.world import build_world, make_tile


def test_the_range_is_that_of_the_training_scenes(store: LocalStore, catalog: Catalog) -> None:
    """Ground of 0.1 to 0.2, cloud of 0.6 over less than half; held-out ground is brighter than that."""
    tiles = [make_tile(f"T{n}", "train", 0.3, ground=1000 + 20 * n) for n in range(50)]
    tiles += [make_tile(f"H{n}", "held_out", 0.0, ground=5900) for n in range(9)]
    snapshot_id = build_world(store, catalog, tiles)
    with catalog.read() as db:
        snapshot = get_snapshot(db, snapshot_id)
    with open_chips(store, snapshot) as chips:
        found = training_brightness(TrainingData(chips, list(chips.of("train")), []))
        fewer = training_brightness(TrainingData(chips, list(chips.of("train"))[: 4 * 49], []))
    assert found is not None
    assert (found.scenes, found.percentiles) == (50, (1, 5, 25, 50))
    assert 0.09 < found.low[3] < 0.12, "the median of the darkest scene is its ground"
    assert 0.18 < found.high[3] < 0.22
    assert found.high[0] < 0.2
    assert fewer is None, "49 scenes are too few"
