"""A recipe that drops bands publishes weights for scenes without them; every file beside them agrees."""

from collections.abc import Callable

import numpy as np
import onnxruntime

from cloudseg.catalog import Catalog, model_rows, training_rows
from cloudseg.dataset import build_snapshot, open_chips
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import load_weights
from cloudseg.storage import LocalStore
from cloudseg.train import train_run
from tests.tiny_world import CPU, places, recipe

BANDS = ("red", "green", "nir")


def test_a_training_that_drops_nir_makes_it_optional(
    store: LocalStore, catalog: Catalog, add_scene: Callable[..., str]
) -> None:
    dropping = recipe(
        model={"bands": list(BANDS)},
        augment={"drop_bands": 0.5},
        budget={"steps": 40, "epoch_steps": 20},
        optimizer={"lr": 1e-2},
        ema_decay=0.9,
    )
    for split, count in (("train", 6), ("validation", 3), ("held_out", 1)):
        for number, place in enumerate(places(split, count)):
            add_scene(place, seed=100 * len(split) + number, bands=BANDS)
    snapshot_id = build_snapshot(store, catalog, dropping).snapshot_id
    record = train_run(store, catalog, snapshot_id=snapshot_id, recipe=dropping, run_id="run-a", device=CPU)
    with catalog.read() as db:
        weights = model_rows.get_weights(db, record.weights_id)
        snapshot = training_rows.get_snapshot(db, snapshot_id)
    assert weights.metadata["optional_bands"] == ["nir"]
    assert weights.required_bands == ["red", "green"]
    loaded = load_weights(store.get(weights.key, weights.sha256))
    assert loaded.meta.optional_bands == ("nir",)
    assert "int8" in weights.companions, "it agrees with and without nir"
    session, int8 = (
        onnxruntime.InferenceSession(store.get(weights.companions[name]["key"]), providers=["CPUExecutionProvider"])
        for name in ("onnx", "int8")
    )
    predictor = TorchPredictor(loaded, CPU)
    with open_chips(store, snapshot) as chips:
        (chip,) = (chip for chip in chips.chips if chip.split == "held_out")
        dn, label = np.array(chips.pixels(chip))[None], chips.label(chip)
        without = dn * np.array([1, 1, 0], np.uint16)[:, None, None]
        for pixels in (dn, without):
            expected = predictor.probability(pixels, np.ones((1, *label.shape), bool))
            cloud = expected[0] >= loaded.meta.threshold
            assert (cloud & (label == 1)).sum() / (cloud | (label == 1)).sum() > 0.7
            np.testing.assert_allclose(session.run(None, {"dn": pixels})[0], expected, atol=1e-4)
            in_int8 = int8.run(None, {"dn": pixels})[0][0] >= loaded.meta.threshold
            assert (cloud & in_int8).sum() / (cloud | in_int8).sum() > 0.95
