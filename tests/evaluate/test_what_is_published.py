"""What is evaluated is what is published: the same probability for the same pixel, bit for bit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cloudseg.catalog import Catalog
from cloudseg.catalog.scene_rows import list_scenes
from cloudseg.catalog.training_rows import get_snapshot
from cloudseg.dataset import build_snapshot, open_chips
from cloudseg.evaluate import scene as evaluating
from cloudseg.evaluate.mosaic import window_of
from cloudseg.evaluate.scene import Evaluator, Facts
from cloudseg.model.int8 import quantize
from cloudseg.model.predictor import Int8Predictor, Predictor
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.predict import draw as drawing
from cloudseg.predict.draw import draw_rasters, plan_scene
from cloudseg.records import Scene
from cloudseg.storage import LocalStore
from tests.predict.conftest import make_loaded, make_numbers
from tests.tiny_world import CPU, add_scene, places, recipe

__all__ = ["add_scene"]

RESOLUTION_M = 30.0
"""Of the scenes of tests/tiny_world.py."""


def ragged(height: int, width: int) -> np.ndarray:
    """Pixels `(3, row, col)` with a slanted, ragged edge, a hole, and speckle in all bands or in one."""
    rng = np.random.default_rng(7)
    numbers = make_numbers(height, width, count=3)
    edge = width // 4 + np.arange(height) * width // (6 * height) + rng.integers(-4, 5, height)
    numbers[:, np.arange(width) < edge[:, None]] = 0
    numbers[:, height // 2 : height // 2 + 20, width // 2 : width // 2 + 25] = 0
    numbers[:, rng.random((height, width)) < 0.05] = 0
    numbers[1, rng.random((height, width)) < 0.02] = 0
    return numbers


def make_predictor(
    numbers: np.ndarray, factor: int, *, widths: tuple[int, ...] = (4, 6), flip: bool = False, int8: bool = False
) -> Predictor:
    loaded = make_loaded(widths, tta_flip=flip, working_resolution_m=RESOLUTION_M * factor)
    if not int8:
        return TorchPredictor(loaded, CPU)
    companion = quantize(loaded, [numbers[:, -64:, -64:], numbers[:, :64, -64:]])
    predictor = Int8Predictor(companion, loaded.meta, loaded.weights_id)
    assert predictor.arithmetic == "int8"
    return predictor


def publish(
    store: LocalStore, scene: Scene, predictor: Predictor, folder: Path, budget_bytes: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The published probability and mask of a scene, and how many windows it took."""
    mask, probability = folder / "mask.tif", folder / "probability.tif"
    plan = plan_scene(scene, predictor, budget_bytes=budget_bytes)
    draw_rasters(store.gdal_path(scene.key), scene, predictor, plan, mask=mask, probability=probability)
    with rasterio.open(mask) as m, rasterio.open(probability) as p:
        return p.read(1), m.read(1), len(plan.windows)


@pytest.fixture
def floats(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[np.ndarray]]:
    """The floats that evaluation and prediction encode; each cuts a scene into pieces of its own."""
    seen: dict[str, list[np.ndarray]] = {"evaluated": [], "published": []}
    encode_probability = drawing.encode_probability

    def keep(name: str) -> Callable[..., np.ndarray]:
        def wrapped(probability: np.ndarray, valid: np.ndarray, *, subject: str) -> np.ndarray:
            seen[name].append(np.where(valid, probability, np.float32(-1)))
            return encode_probability(probability, valid, subject=subject)

        return wrapped

    monkeypatch.setattr(evaluating, "encode_probability", keep("evaluated"))
    monkeypatch.setattr(drawing, "encode_probability", keep("published"))
    return seen


def same_bits(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Return whether both hold the same floats; their places are compared by what is encoded of them."""
    first, second = (np.sort(np.concatenate([piece.ravel() for piece in pieces])) for pieces in (one, other))
    return first.tobytes() == second.tobytes()


@pytest.mark.parametrize("factor", [1, 3, 9])
@pytest.mark.parametrize(("flip", "int8"), [(False, False), (True, False), (True, True)])
def test_every_scene_pixel_has_its_published_probability(
    store: LocalStore,
    catalog: Catalog,
    add_scene: Callable[..., str],
    floats: dict[str, list[np.ndarray]],
    tmp_path: Path,
    factor: int,
    flip: bool,
    int8: bool,
) -> None:
    height, width = 155 * factor + 1, 60 * factor + 11
    numbers = ragged(height, width)
    label = np.random.default_rng(3).integers(0, 2, (height, width)).astype(np.uint8)
    add_scene(places("held_out", 1)[0], size=(height, width), pixels=numbers, label=label)
    record = build_snapshot(store, catalog, recipe(data={"chip_size": 64}))
    with catalog.read() as db:
        snapshot, (scene,) = get_snapshot(db, record.snapshot_id), list_scenes(db)
    predictor = make_predictor(numbers, factor, flip=flip, int8=int8)
    published, mask, windows = publish(store, scene, predictor, tmp_path, budget_bytes=1)
    assert windows > 1
    valid = (numbers != 0).all(axis=0)
    assert published[valid].std() > 10, "a flat picture would prove nothing"
    with open_chips(store, snapshot) as chips:
        evaluator = Evaluator(
            chips, predictor, snapshot_id=snapshot.snapshot_id, snapshot_resolution_m=None, budget_bytes=1
        )
        covered = np.zeros((height, width), bool)
        for chip, steps in evaluator.iter_probabilities(chips.chips, scene):
            window = window_of(chip).slices
            covered[window] = True
            np.testing.assert_array_equal(steps, published[window])
        assert covered[valid].all()
        assert same_bits(floats["evaluated"], floats["published"])
        counts = evaluator.evaluate_scene(chips.chips, Facts(scene, "test", "file:///y"), None)[0].counts
    expected = {"tp": (1, 1), "fp": (1, 0), "fn": (0, 1), "tn": (0, 0)}
    for name, (in_mask, in_label) in expected.items():
        assert getattr(counts, name) == ((mask == in_mask) & (label == in_label)).sum(), name


@pytest.mark.parametrize("factor", [3, 9])
@pytest.mark.parametrize("widths", [(4,), (4, 6)])  # the margin of a net of one level depends on the factor
def test_a_snapshot_of_working_pixels_has_the_numbers_that_are_interpolated(
    store: LocalStore,
    catalog: Catalog,
    add_scene: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    factor: int,
    widths: tuple[int, ...],
) -> None:
    height, width = 155 * factor + 1, 60 * factor + 11
    numbers = ragged(height, width)
    add_scene(places("held_out", 1)[0], size=(height, width), pixels=numbers, label=np.ones((height, width), np.uint8))
    wanted = recipe(data={"chip_size": 64}, input={"working_resolution_m": RESOLUTION_M * factor})
    record = build_snapshot(store, catalog, wanted)
    with catalog.read() as db:
        snapshot, (scene,) = get_snapshot(db, record.snapshot_id), list_scenes(db)
    predictor = make_predictor(numbers, factor, widths=widths)
    seen: list[np.ndarray] = []
    forward = Predictor.probability

    def keep(self: Predictor, dn: np.ndarray, valid: np.ndarray) -> np.ndarray:
        seen.append(forward(self, dn, valid))
        return seen[-1]

    monkeypatch.setattr(Predictor, "probability", keep)
    publish(store, scene, predictor, tmp_path, budget_bytes=1)
    published, seen[:] = list(seen), []
    resolution_m = snapshot.working_resolution_m
    with open_chips(store, snapshot) as chips:
        evaluator = Evaluator(
            chips, predictor, snapshot_id=snapshot.snapshot_id, snapshot_resolution_m=resolution_m, budget_bytes=1
        )
        assert evaluator.factor(scene) == 1
        assert len(list(evaluator.iter_probabilities(chips.chips, scene))) == len(chips.chips)
    assert len(published) > 1
    assert same_bits(seen, published)
