"""A whole training: learns, resumes to bit-identical weights, refuses what does not fit."""

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from cloudseg.catalog import Catalog, model_rows, training_rows
from cloudseg.catalog.session import now
from cloudseg.dataset import build_snapshot, open_chips
from cloudseg.errors import (
    CatalogUnreachable,
    CheckpointMismatch,
    EmptySplit,
    Interrupted,
    StoreUnreachable,
    TrainingDiverged,
)
from cloudseg.model.golden import TOLERANCE, golden_difference, read_golden
from cloudseg.model.pixels import observed
from cloudseg.model.predictor import open_predictor
from cloudseg.model.safetensors_header import read_header, read_metadata
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import load_weights
from cloudseg.records import Run, TrainRecord
from cloudseg.storage import LocalStore
from cloudseg.train import train_run
from tests.tiny_world import CPU, places, recipe


def train(store: LocalStore, catalog: Catalog, snapshot_id: str, run_id: str = "run-a", **parts: object) -> TrainRecord:
    return train_run(store, catalog, snapshot_id=snapshot_id, recipe=recipe(**parts), run_id=run_id, device=CPU)


def test_learns_and_registers(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    record = train(
        store, catalog, snapshot_id, budget={"steps": 40, "epoch_steps": 10}, optimizer={"lr": 1e-2}, ema_decay=0.9
    )
    assert record.steps == 40
    assert record.epochs == 4
    assert record.metrics["validation_iou"] > 0.8
    with catalog.read() as db:
        weights = model_rows.get_weights(db, record.weights_id)
        run = training_rows.get_run(db, "run-a")
        assert [epoch.step for epoch in training_rows.list_epochs(db, "run-a")] == [10, 20, 30, 40]
        assert training_rows.list_checkpoints(db, "run-a") == []
    assert run.status == "finished"
    assert not list(store.list_keys("runs/"))
    loaded = load_weights(store.get(weights.key, weights.sha256))
    assert loaded.meta.recipe_hash == run.recipe_hash
    assert loaded.meta.snapshot_id == snapshot_id
    assert set(weights.companions) == {"card", "golden", "int8", "item", "onnx"}
    assert "| int8_mask_iou_against_fp32 |" in store.get(weights.companions["card"]["key"]).decode()
    assert open_predictor(store, weights, dataclasses.replace(CPU, int8="test")).arithmetic == "int8"
    assert golden_difference(loaded, read_golden(store.get(weights.companions["golden"]["key"]))) <= TOLERANCE
    # The ONNX export gives the same probability on a chip, from digital numbers.
    session = onnxruntime.InferenceSession(
        store.get(weights.companions["onnx"]["key"]), providers=["CPUExecutionProvider"]
    )
    with catalog.read() as db:
        snapshot = training_rows.get_snapshot(db, snapshot_id)
    with open_chips(store, snapshot) as chips:
        dn = chips.pixels(chips.chips[0])[None]
        expected = TorchPredictor(loaded, CPU).probability(dn, observed(dn))
        np.testing.assert_allclose(session.run(None, {"dn": np.array(dn)})[0], expected, atol=1e-4)


def test_a_finished_run_is_not_trained_again(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    first = train(store, catalog, snapshot_id)
    keys_before = sorted(store.list_keys())
    again = train(store, catalog, snapshot_id)
    assert again.model_copy(update={"seconds": first.seconds}) == first
    assert sorted(store.list_keys()) == keys_before


RESUME = {
    "ema_decay": 0.9,
    "model": {"architecture": "SimpleUNetV2", "dropout": 0.3},
    "data": {"balance": True},
    "augment": {"flip": True, "rotate90": True, "gain": 0.2, "scale": 0.2},
    "optimizer": {"name": "adamw", "schedule": "onecycle", "clip_norm": 1.0},
    "budget": {"patience": 5},
}

KILLED = """
import os, signal, sys
from cloudseg.catalog import Catalog
from cloudseg.storage import LocalStore
from cloudseg.train import train_run
from pathlib import Path
from tests.tiny_world import CPU, recipe
from tests.train.test_run import RESUME
folder, snapshot_id, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def kill(done, total, phrase):
    if done == step:
        os.kill(os.getpid(), signal.SIGKILL)
train_run(LocalStore(folder / "store"), Catalog(f"sqlite:///{folder / 'catalog.db'}"), snapshot_id=snapshot_id,
          recipe=recipe(**RESUME), run_id="run-killed", device=CPU, on_progress=kill)
"""


def test_killed_runs_end_with_the_weights_of_an_uninterrupted_run(
    store: LocalStore, catalog: Catalog, snapshot_id: str, tmp_path: Path
) -> None:
    repo = Path(__file__).parents[2]
    for step in (2, 10):  # before the first checkpoint after a step; inside an epoch
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path), snapshot_id, str(step)], cwd=repo, capture_output=True
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        with catalog.read() as db:
            assert training_rows.get_run(db, "run-killed").status == "running"
    resumed = train(store, catalog, snapshot_id, "run-killed", **RESUME)
    assert resumed.resumed_from_step == 9
    uninterrupted = train(store, catalog, snapshot_id, "run-whole", **RESUME)
    with catalog.read() as db:
        first, second = (model_rows.get_weights(db, record.weights_id) for record in (resumed, uninterrupted))
        losses = [
            [epoch.metrics["train_loss"] for epoch in training_rows.list_epochs(db, name)]
            for name in ("run-killed", "run-whole")
        ]
    nets = [load_weights(store.get(weights.key)).net.state_dict() for weights in (first, second)]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert losses[0] == losses[1]
    assert first.metadata["threshold"] == second.metadata["threshold"]


def test_sigterm_writes_a_checkpoint(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    def ask(done: int, total: int, phrase: str) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="step 5 of 12"):
        train_run(store, catalog, snapshot_id=snapshot_id, recipe=recipe(), run_id="run-a", device=CPU, on_progress=ask)
    assert signal.getsignal(signal.SIGTERM) is before
    with catalog.read() as db:
        assert training_rows.list_checkpoints(db, "run-a")[0].step == 5
        assert training_rows.get_run(db, "run-a").status == "running"
    assert train(store, catalog, snapshot_id).resumed_from_step == 5


def test_the_names_in_a_checkpoint_are_those_of_earlier_releases(
    store: LocalStore, catalog: Catalog, snapshot_id: str
) -> None:
    """Later releases read the checkpoint: other names would make a killed run begin again."""

    def ask(done: int, total: int, phrase: str) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGTERM)

    wanted = recipe(ema_decay=0.9, budget={"patience": 5})
    with pytest.raises(Interrupted):
        train_run(store, catalog, snapshot_id=snapshot_id, recipe=wanted, run_id="run-a", device=CPU, on_progress=ask)
    with catalog.read() as db:
        data = store.get(training_rows.list_checkpoints(db, "run-a")[0].key)
    header = read_metadata(data)
    assert set(header) == {"format", "run_id", "snapshot_id", "recipe_hash", "world", "progress"}
    assert header["format"] == "cloudseg-checkpoint-1"
    assert set(header["progress"]) == {
        *("step", "total_steps", "epoch_steps", "loss_sum", "loss_count"),
        *("best_loss", "best_epoch", "best_step", "stopped", "spent_s"),
        *("schedule_steps", "plan_step", "plan_position"),
    }
    tensors = set(read_header(data)) - {"__metadata__"}
    assert {name.split(".")[0] for name in tensors} == {"net", "optimizer", "average", "best"}
    moments = {"exp_avg", "exp_avg_sq", "step"}
    assert {name for name in tensors if name.startswith("optimizer.final.bias")} == {
        f"optimizer.final.bias.{moment}" for moment in moments
    }


def test_minutes_and_steps_limit_each_other(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    totals = set()
    record = train_run(
        store,
        catalog,
        snapshot_id=snapshot_id,
        recipe=recipe(budget={"steps": 30, "minutes": 5}),
        run_id="run-a",
        device=CPU,
        on_progress=lambda done, total, phrase: totals.add(total),
    )
    assert totals == {30}, "five minutes are plenty for thirty steps"
    assert record.steps == 30
    short = train(store, catalog, snapshot_id, "run-b", budget={"steps": 5000, "minutes": 0.01})
    assert short.steps == 4, "no time is left after the steps that were measured: one more ends the epoch"


def test_a_run_of_an_earlier_release_resumes(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    """Its row and its checkpoints have the hash of a recipe whose values had other names."""
    today = recipe(ema_decay=0.9, optimizer={"clip_norm": 1.0})
    values = today.model_dump(mode="json")
    old = {**values, "average_decay": values["ema_decay"], "flip_at_prediction": values["tta_flip"]}
    old |= {"loss": {"bce": 1.0, "soft_jaccard": 0.0, "label_smoothing": 0.0}, "name": "seed"}
    del old["ema_decay"], old["tta_flip"]
    row = Run(
        run_id="run-old",
        snapshot_id=snapshot_id,
        recipe_name="seed",
        recipe_hash="0" * 64,
        recipe=old,
        parent_weights_id=None,
        seed=today.seed,
        status="running",
        device="cpu",
        device_reason="test",
        error=None,
        created_at=now(),
        finished_at=None,
    )
    with catalog.begin() as db:
        training_rows.add_run(db, row)

    def ask(done: int, total: int, phrase: str) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGTERM)

    given: dict[str, Any] = {"snapshot_id": snapshot_id, "run_id": "run-old", "device": CPU}
    with pytest.raises(Interrupted):
        train_run(store, catalog, recipe=today, on_progress=ask, **given)
    with pytest.raises(CheckpointMismatch, match="another recipe"):
        train_run(store, catalog, recipe=recipe(ema_decay=0.8, optimizer={"clip_norm": 1.0}), **given)
    record = train_run(store, catalog, recipe=today, **given)
    assert record.resumed_from_step == 5
    with catalog.read() as db:
        assert model_rows.get_weights(db, record.weights_id).metadata["recipe_hash"] == "0" * 64


def test_another_recipe_or_snapshot_is_refused(
    store: LocalStore, catalog: Catalog, snapshot_id: str, add_scene: Callable[..., str]
) -> None:
    train(store, catalog, snapshot_id)
    with pytest.raises(CheckpointMismatch, match="another recipe"):
        train(store, catalog, snapshot_id, optimizer={"lr": 0.5})
    add_scene(places("train", 8)[-1], seed=77)
    other = build_snapshot(store, catalog, recipe()).snapshot_id
    assert other != snapshot_id
    with pytest.raises(CheckpointMismatch, match="another snapshot"):
        train(store, catalog, other)
    with catalog.read() as db:
        assert training_rows.get_run(db, "run-a").status == "finished", "a wrong question is no failure of the run"


def test_a_snapshot_cut_for_another_recipe_is_refused(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    with pytest.raises(CheckpointMismatch, match="cut for another recipe"):
        train(store, catalog, snapshot_id, data={"chip_size": 32})


def test_nan_fails_the_run(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    with pytest.raises(TrainingDiverged, match=r"not finite.*at step"):
        train(store, catalog, snapshot_id, optimizer={"lr": 1e30}, budget={"steps": 12})
    with catalog.read() as db:
        run = training_rows.get_run(db, "run-a")
    assert run.status == "failed"
    assert "not finite" in (run.error or "")


def train_until(
    store: LocalStore, catalog: Catalog, snapshot_id: str, step: int, error: BaseException
) -> tuple[str, str | None]:
    """Train until an error comes at a step; give the status and the error of the run's row."""

    def tell(done: int, total: int, phrase: str) -> None:
        if done == step:
            raise error

    with pytest.raises(type(error)):
        train_run(
            store, catalog, snapshot_id=snapshot_id, recipe=recipe(), run_id="run-a", device=CPU, on_progress=tell
        )
    with catalog.read() as db:
        run = training_rows.get_run(db, "run-a")
    return run.status, run.error


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (RuntimeError("out of memory"), "unexpected RuntimeError: out of memory"),
        (CheckpointMismatch("not this one", subject="run-a"), "run-a: not this one"),
    ],
)
def test_an_error_fails_the_run_and_it_can_be_taken_up_again(
    store: LocalStore, catalog: Catalog, snapshot_id: str, error: Exception, recorded: str
) -> None:
    assert train_until(store, catalog, snapshot_id, 5, error) == ("failed", recorded)
    assert train(store, catalog, snapshot_id).resumed_from_step == 4
    with catalog.read() as db:
        run = training_rows.get_run(db, "run-a")
    assert (run.status, run.error) == ("finished", None)


def test_a_failed_run_stays_failed_where_another_recipe_is_refused(
    store: LocalStore, catalog: Catalog, snapshot_id: str
) -> None:
    failed = train_until(store, catalog, snapshot_id, 5, RuntimeError("out of memory"))
    with pytest.raises(CheckpointMismatch, match="another recipe"):
        train(store, catalog, snapshot_id, seed=99)
    with catalog.read() as db:
        run = training_rows.get_run(db, "run-a")
    assert (run.status, run.error) == failed


@pytest.mark.parametrize(
    "error", [StoreUnreachable("no answer"), CatalogUnreachable("no answer"), KeyboardInterrupt(), SystemExit(1)]
)
def test_what_a_retry_can_help_leaves_the_run_running(
    store: LocalStore, catalog: Catalog, snapshot_id: str, error: BaseException
) -> None:
    assert train_until(store, catalog, snapshot_id, 5, error) == ("running", None)
    assert train(store, catalog, snapshot_id).resumed_from_step == 4


def test_the_error_that_ended_the_run_comes_up_even_where_its_row_cannot_be_written(
    store: LocalStore, catalog: Catalog, snapshot_id: str
) -> None:
    def tell(done: int, total: int, phrase: str) -> None:
        with catalog.begin() as db:
            db.exec_driver_sql("ALTER TABLE run RENAME TO elsewhere")
        raise RuntimeError("the first error")

    with pytest.raises(RuntimeError, match="the first error"):
        train_run(
            store, catalog, snapshot_id=snapshot_id, recipe=recipe(), run_id="run-a", device=CPU, on_progress=tell
        )


def test_a_last_step_that_breaks_the_net_fails_the_run(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    """The loss of the only step is taken before it: the validation must see what it did."""
    with pytest.raises(TrainingDiverged, match="not finite"):
        train(store, catalog, snapshot_id, optimizer={"lr": 3e37}, budget={"steps": 1})
    with catalog.read() as db:
        assert training_rows.get_run(db, "run-a").status == "failed"


def test_an_empty_split_is_named_with_counts(
    store: LocalStore, catalog: Catalog, add_scene: Callable[..., str]
) -> None:
    for number, place in enumerate(places("train", 2)):
        add_scene(place, seed=number)
    only_train = build_snapshot(store, catalog, recipe()).snapshot_id
    with pytest.raises(EmptySplit, match=r"validation split has no chips.*train 2, validation 0, held_out 0") as caught:
        train(store, catalog, only_train)
    with catalog.read() as db:
        run = training_rows.get_run(db, "run-a")
    assert (run.status, run.error) == ("failed", str(caught.value))


def test_one_class_is_named(store: LocalStore, catalog: Catalog, add_scene: Callable[..., str]) -> None:
    for number, place in enumerate(places("train", 2) + places("validation", 2)):
        add_scene(place, seed=number, label=np.zeros((64, 64), np.uint8))
    with pytest.raises(EmptySplit, match="train split has only clear ground"):
        train(store, catalog, build_snapshot(store, catalog, recipe()).snapshot_id)


def test_warm_start_begins_with_the_parent(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    parent = train(store, catalog, snapshot_id, budget={"steps": 30}, optimizer={"lr": 1e-2})
    warm = {"warm_start": True, "budget": {"steps": 1}, "optimizer": {"lr": 1e-9}}
    record = train_run(
        store,
        catalog,
        snapshot_id=snapshot_id,
        recipe=recipe(**warm),
        run_id="run-b",
        device=CPU,
        parent_weights_id=parent.weights_id,
    )
    with catalog.read() as db:
        child, old = (model_rows.get_weights(db, weights_id) for weights_id in (record.weights_id, parent.weights_id))
    assert child.metadata["parent_weights_id"] == parent.weights_id
    first, second = (load_weights(store.get(weights.key)).net.final.weight for weights in (child, old))
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
    gentle = {**warm, "optimizer": {"lr": 1e-9, "warm_lr_factor": 0.25}}
    for run_id, parent_id, lr in (("run-c", parent.weights_id, 0.25e-9), ("run-d", None, 1e-9)):
        train_run(
            store,
            catalog,
            snapshot_id=snapshot_id,
            recipe=recipe(**gentle),
            run_id=run_id,
            device=CPU,
            parent_weights_id=parent_id,
        )
        with catalog.read() as db:
            assert training_rows.list_epochs(db, run_id)[-1].metrics["lr"] == pytest.approx(lr), (
                "without a champion the start is cold"
            )
    with pytest.raises(CheckpointMismatch, match="another parent"):
        train_run(
            store,
            catalog,
            snapshot_id=snapshot_id,
            recipe=recipe(**warm),
            run_id="run-b",
            device=CPU,
            parent_weights_id="w-0",
        )
