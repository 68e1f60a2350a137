"""The trivial brightness mask, the brightness of the ground, and saturation."""

import numpy as np
import pytest

from cloudseg.catalog import Catalog
from cloudseg.catalog.training_rows import get_snapshot
from cloudseg.dataset.chips import open_chips
from cloudseg.evaluate import brightness
from cloudseg.storage import LocalStore
from tests.evaluate.world import Tile, build_world, make_tile


def test_visible_bands_or_all() -> None:
    assert brightness.visible(["nir", "red", "green", "blue"]) == [1, 2, 3]
    assert brightness.visible(["nir", "red"]) == [0, 1]


def test_median_of_the_ground() -> None:
    dn = np.full((3, 4, 4), 1010, np.uint16)
    dn[:, 0] = 9000
    label = np.zeros((4, 4), np.uint8)
    label[0] = 1
    clear, cloud = brightness.histograms(dn, label, [0, 1, 2])
    assert brightness.median_reflectance(clear) == pytest.approx(0.101, abs=0.003)
    assert brightness.median_reflectance(cloud) == pytest.approx(0.9, abs=0.003)
    assert brightness.median_reflectance(np.zeros(5, np.int64)) is None


def test_the_threshold_is_tuned_on_training_places_only(store: LocalStore, catalog: Catalog) -> None:
    """Held-out ground is as bright as training cloud: looking there would move the threshold."""
    tiles = [
        make_tile("A", "train", 0.5),
        make_tile("B", "held_out", 0.0, ground=5900),
        make_tile("C", "validation", 0.0, ground=5900),
    ]
    snapshot_id = build_world(store, catalog, tiles)
    with catalog.read() as db:
        snapshot = get_snapshot(db, snapshot_id)
    with open_chips(store, snapshot) as chips:
        threshold = brightness.tune_threshold(chips)
        assert threshold is not None
        assert 1200 < threshold * brightness.STEP < 6000
        totals = [brightness.histograms(chips.pixels(chip), chips.label(chip), [0, 1, 2]) for chip in chips.of("train")]
    clear, cloud = (sum(parts) for parts in zip(*totals, strict=True))
    found = brightness.above(clear, cloud, threshold)
    assert found["tp"] / (found["tp"] + found["fp"] + found["fn"]) > 0.99


@pytest.mark.parametrize(
    ("top", "part", "saturated"),
    [(3558, 24, True), (3558, 0, False), (800, 24, False)],
    ids=["snow", "no plateau", "dark sea"],
)
def test_saturation_is_a_plateau_at_a_bright_maximum(
    store: LocalStore, catalog: Catalog, top: int, part: int, saturated: bool
) -> None:
    dn = np.random.default_rng(0).integers(300, min(top, 3000), (3, 32, 32)).astype(np.uint16)
    dn[:, :part] = top
    snapshot_id = build_world(store, catalog, [Tile("A", "held_out", "p", dn, np.zeros((32, 32), np.uint8), {})])
    with catalog.read() as db:
        snapshot = get_snapshot(db, snapshot_id)
    with open_chips(store, snapshot) as chips:
        found = brightness.Saturation(chips, chips.chips, [0, 1, 2]).count(
            chips.pixels(chips.chips[0]), np.ones((32, 32), bool)
        )
    assert (found > 0.3 * 32 * 32) is saturated
