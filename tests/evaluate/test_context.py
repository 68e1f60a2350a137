"""A chip is judged as part of its scene: the cut into chips must not show."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cloudseg.catalog import Catalog
from cloudseg.catalog.training_rows import get_snapshot
from cloudseg.dataset.chips import open_chips
from cloudseg.evaluate.context import look_around
from cloudseg.evaluate.resample import average_down, bring_up
from cloudseg.evaluate.scene import Evaluator
from cloudseg.evaluate.windows import window_of
from cloudseg.model.nets import build_model
from cloudseg.model.normalize import observed
from cloudseg.model.predictor import Predictor
from cloudseg.model.weights import LoadedModel, WeightsMeta
from cloudseg.recipe import Model
from cloudseg.storage import LocalStore
from tests.evaluate.world import CPU, Tile, build_world

SIZE = 100


def random_net(working_resolution_m: float | None) -> Predictor:
    model = Model(widths=(4, 6, 8))
    torch.manual_seed(3)
    net = build_model(model).eval()
    for module in net.modules():  # BatchNorm that does something, and an output that is not all one half
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.2, 0.5)
    meta = WeightsMeta(
        architecture="SimpleUNet",
        bands=model.bands,
        widths=model.widths,
        dropout=0.0,
        total_parameters=1,
        clip=1.0,
        mean=(0.3,),
        std=(0.2,),
        working_resolution_m=working_resolution_m,
        threshold=0.5,
        tta_flip=False,
        chip_size=32,
    )
    return Predictor(LoadedModel(net, meta), CPU)


def noise() -> npt.NDArray[np.uint16]:
    return np.random.default_rng(1).integers(1, 9000, (3, SIZE, SIZE)).astype(np.uint16)


@pytest.mark.parametrize(("chip", "resolution_m", "factor"), [(32, None, 1), (64, 20.0, 2)])
def test_chips_give_the_probability_of_the_whole_scene(
    store: LocalStore, catalog: Catalog, chip: int, resolution_m: float | None, factor: int
) -> None:
    dn = noise()
    tile = Tile("A", "held_out", "mgrs:A", dn, np.ones((SIZE, SIZE), np.uint8), {})
    snapshot_id = build_world(store, catalog, [tile], chip=chip)
    predictor = random_net(resolution_m)
    coarse = average_down(dn[None], factor)
    whole = bring_up(predictor.probability(coarse, observed(coarse)), factor, SIZE, SIZE)[0]
    assert whole.std() > 0.005
    with catalog.read() as db:
        snapshot = get_snapshot(db, snapshot_id)
    with open_chips(store, snapshot) as chips:
        judge = Evaluator(chips, predictor, snapshot_id=snapshot_id, snapshot_resolution_m=None)
        seen = 0
        for one, probability in judge.iter_probabilities(chips.of("held_out"), factor):
            np.testing.assert_allclose(probability, whole[window_of(one).slices], atol=2e-5)
            seen += 1
    assert seen == len(chips.chips) > 1


def test_where_no_chip_lies_the_view_ends_or_holds_no_data(store: LocalStore, catalog: Catalog) -> None:
    tile = Tile("A", "held_out", "mgrs:A", noise(), np.ones((SIZE, SIZE), np.uint8), {})
    snapshot_id = build_world(store, catalog, [tile], chip=32)
    with catalog.read() as db:
        snapshot = get_snapshot(db, snapshot_id)
    with open_chips(store, snapshot) as chips:
        corner, right, below = (
            next(c for c in chips.chips if (c.row_off, c.col_off) == at) for at in ((0, 0), (0, 32), (32, 0))
        )
        alone = look_around(chips, [corner], corner, bands=[0, 1, 2], margin=10, step=4)
        assert alone.dn.shape == (3, 32, 32)
        np.testing.assert_array_equal(alone.dn[:, *alone.chip], chips.pixels(corner))
        three = look_around(chips, [corner, right, below], corner, bands=[2, 0], margin=10, step=4)
        assert three.dn.shape == (2, 42, 42)
        assert (three.dn[:, 32:, 32:] == 0).all(), "the chip in the south-east is missing"
        np.testing.assert_array_equal(three.dn[:, :32, 32:], chips.pixels(right)[[2, 0], :, :10])
        first = look_around(chips, [corner, right], right, bands=[0], margin=10, step=8)
        assert first.chip == (slice(0, 32), slice(16, 48)), "it begins at a multiple of the step"
