"""A chip is evaluated as part of its scene: the cut into chips has no effect."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cloudseg.catalog import Catalog
from cloudseg.catalog.scene_rows import list_scenes
from cloudseg.catalog.training_rows import get_snapshot
from cloudseg.dataset.chips import open_chips
from cloudseg.evaluate.mosaic import read_mosaic, window_of
from cloudseg.evaluate.scene import Evaluator
from cloudseg.grid import Window
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.nets import build_model
from cloudseg.model.predictor import Predictor
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import LoadedModel
from cloudseg.recipe import Model
from cloudseg.storage import LocalStore
from tests.evaluate.world import CPU, Tile, build_world

SIZE = 100


def random_net_loaded(working_resolution_m: float | None) -> LoadedModel:
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
    return LoadedModel(net, meta)


def random_net(working_resolution_m: float | None) -> Predictor:
    return TorchPredictor(random_net_loaded(working_resolution_m), CPU)


def noise() -> npt.NDArray[np.uint16]:
    return np.random.default_rng(1).integers(1, 9000, (3, SIZE, SIZE)).astype(np.uint16)


def naive_down(dn: npt.NDArray[np.uint16], factor: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Means of the observed pixels of each block, one block at a time."""
    side = -(-SIZE // factor)
    means, seen = np.zeros((3, side, side), np.uint16), np.zeros((side, side), bool)
    for row, col in np.ndindex(side, side):
        block = dn[:, row * factor : (row + 1) * factor, col * factor : (col + 1) * factor]
        pixels = block[:, (block > 0).all(axis=0)]
        if pixels.size:
            seen[row, col], means[:, row, col] = True, np.floor(pixels.mean(axis=1) + 0.5)
    return means, seen


def naive_up(probability: npt.NDArray[np.float32], seen: npt.NDArray[np.bool_], factor: int) -> npt.NDArray[np.float64]:
    """Bilinear between the centers of observed working pixels, one scene pixel at a time."""
    side, found = len(probability), np.zeros((SIZE, SIZE))
    for row, col in np.ndindex(SIZE, SIZE):
        at = [min(max((i + 0.5) / factor - 0.5, 0), side - 1) for i in (row, col)]
        total = weight = 0.0
        for i, j in ((int(at[0]) + a, int(at[1]) + b) for a in (0, 1) for b in (0, 1)):
            share = (1 - abs(at[0] - i)) * (1 - abs(at[1] - j))
            if share > 0 and seen[i, j]:
                total, weight = total + share * float(probability[i, j]), weight + share
        found[row, col] = total / weight if weight else 0
    return found


@pytest.mark.parametrize(("chip", "resolution_m", "factor"), [(32, None, 1), (64, 20.0, 2), (64, 30.0, 3)])
def test_chips_give_the_probability_of_the_whole_scene(
    store: LocalStore, catalog: Catalog, chip: int, resolution_m: float | None, factor: int
) -> None:
    dn = noise()
    dn[:, np.random.default_rng(2).random((SIZE, SIZE)) < 0.05] = 0
    dn[:, :37, 60:] = 0
    tile = Tile("A", "held_out", "mgrs:A", dn, np.ones((SIZE, SIZE), np.uint8), {})
    snapshot_id = build_world(store, catalog, [tile], chip=chip)
    predictor = random_net(resolution_m)
    coarse, seen = naive_down(dn, factor)
    whole = naive_up(predictor.probability(coarse[None], seen[None])[0], seen, factor)
    valid = (dn > 0).all(axis=0)
    assert whole[valid].std() > 0.005
    with catalog.read() as db:
        snapshot = get_snapshot(db, snapshot_id)
        (scene,) = list_scenes(db)
    with open_chips(store, snapshot) as chips:
        evaluator = Evaluator(chips, predictor, snapshot_id=snapshot_id, snapshot_resolution_m=None)
        times = np.zeros((SIZE, SIZE), int)
        for one, steps in evaluator.iter_probabilities(chips.of("held_out"), scene):
            window = window_of(one).slices
            times[window] += 1
            assert ((steps == 255) == ~valid[window]).all()
            difference = np.abs(steps / 250 - whole[window])[valid[window]]
            assert difference.max(initial=0) <= 0.5 / 250 + 2e-5
    assert (times >= 1).all()


def test_where_no_chip_lies_there_is_no_data(store: LocalStore, catalog: Catalog) -> None:
    dn = noise()
    tile = Tile("A", "held_out", "mgrs:A", dn, np.ones((SIZE, SIZE), np.uint8), {})
    snapshot_id = build_world(store, catalog, [tile], chip=32)
    with catalog.read() as db:
        snapshot = get_snapshot(db, snapshot_id)
    with open_chips(store, snapshot) as chips:
        near = [c for c in chips.chips if (c.row_off, c.col_off) in ((0, 0), (0, 32), (32, 0))]
        found = read_mosaic(chips, near, Window(10, 20, 40, 50), [2, 0])
        expected = dn[[2, 0], 10:50, 20:70].copy()
        expected[:, 22:, 12:] = 0  # the chip in the south-east is missing
        expected[:, :, 44:] = 0
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(read_mosaic(chips, chips.chips, Window(0, 0, SIZE, SIZE), [0, 1, 2]), dn)


def test_a_scene_with_few_chips_costs_few_forward_passes(store: LocalStore, catalog: Catalog) -> None:
    dn = np.random.default_rng(1).integers(1, 9000, (3, 400, 400)).astype(np.uint16)
    tile = Tile("A", "held_out", "mgrs:A", dn, np.ones((400, 400), np.uint8), {})
    snapshot_id = build_world(store, catalog, [tile], chip=40)
    with catalog.read() as db:
        snapshot = get_snapshot(db, snapshot_id)
        (scene,) = list_scenes(db)

    class Counting(TorchPredictor):
        passes = 0

        def probability(self, *args: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
            self.passes += 1
            return super().probability(*args)

    predictor = Counting(random_net_loaded(None), CPU)
    with open_chips(store, snapshot) as chips:
        evaluator = Evaluator(chips, predictor, snapshot_id=snapshot_id, snapshot_resolution_m=None, budget_bytes=1)
        corner = [chip for chip in chips.chips if (chip.row_off, chip.col_off) == (0, 0)]
        assert [chip for chip, _ in evaluator.iter_probabilities(corner, scene)] == corner
        assert predictor.passes == 1
        assert len(list(evaluator.iter_probabilities(chips.chips, scene))) == 100
        assert predictor.passes == 1 + 9
