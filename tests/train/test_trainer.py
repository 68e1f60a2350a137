"""A step reads nothing from the device unless it must, and no checkpoint holds what a diverged loss has changed."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cloudseg.catalog import Catalog, training_rows
from cloudseg.dataset import ChipSet
from cloudseg.errors import TrainingDiverged
from cloudseg.storage import LocalStore
from cloudseg.train import train_run, trainer
from cloudseg.train.checkpoint import TrainingProgress
from cloudseg.train.data import TrainingData
from cloudseg.train.distributed import DistributedContext
from cloudseg.train.trainer import Trainer
from tests.tiny_world import CPU, recipe

PARTS: dict[str, Any] = {
    "ema_decay": 0.9,
    "optimizer": {"name": "adamw", "clip_norm": 1.0, "weight_decay": 0.01},
    "augment": {"flip": True, "scale": 0.3, "offset": 0.1, "rectangle": 0.5},
}


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: tensors whose value Python asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


PRETRAINED: dict[str, Any] = PARTS | {
    "model": {"architecture": "EfficientUNet", "encoder_weights": "imagenet"},
    "optimizer": {"name": "adam", "lr": 1e-3, "encoder_lr_factor": 0.25},
}


def make(
    chip_set: ChipSet, *, read_every: int = 1, fused: bool = False, parts: dict[str, Any] | None = None
) -> Trainer:
    chosen = recipe(**(parts or PARTS))
    data = TrainingData(chip_set, chip_set.of("train"), chip_set.of("validation"))
    made = Trainer(chosen, data, DistributedContext(0, 1, CPU), TrainingProgress(0, 12, 12))
    made._read_every = read_every
    if fused:  # as on a GPU; torch has a fused kernel for the CPU too
        made.optimizer = trainer._build_optimizer(made.net, chosen.optimizer, fused=True)
    return made


def steps(made: Trainer, count: int) -> None:
    for _ in range(count):
        made.train_step(made.batches.make(made.progress.step))


def test_a_step_reads_no_value_from_the_device(chip_set: ChipSet) -> None:
    made = make(chip_set, read_every=5, fused=True)
    steps(made, 1)  # the first loss is read at once: a training that cannot work ends at its first step
    with Reads() as reads:
        steps(made, 4)
    assert reads.count == 0
    assert made.progress.loss_count == 1
    steps(made, 1)
    assert made.progress.loss_count == 6
    with Reads() as reads:
        float(torch.ones(1))
    assert reads.count == 1, "what is counted"


def test_losses_that_are_read_later_are_the_same(chip_set: ChipSet) -> None:
    each, later = make(chip_set), make(chip_set, read_every=100)
    for one in (each, later):
        steps(one, 8)
        one.read_losses()
    assert later.progress == each.progress
    assert later.progress.loss_count == 8


@pytest.mark.parametrize(("fused", "parts"), [(False, PARTS), (True, PARTS), (False, PRETRAINED), (True, PRETRAINED)])
def test_a_loaded_state_goes_on_to_the_bit(chip_set: ChipSet, fused: bool, parts: dict[str, Any]) -> None:
    whole, first, second = (make(chip_set, fused=fused, parts=parts) for _ in range(3))
    steps(whole, 8)
    steps(first, 4)
    second.load_state(first.state())
    steps(second, 4)
    expected = whole.state().tensors
    assert all(torch.equal(tensor, expected[name]) for name, tensor in second.state().tensors.items())


@pytest.mark.parametrize("factor", [0.25, 1.0])
def test_the_encoder_has_its_own_learning_rate(chip_set: ChipSet, factor: float) -> None:
    """The first step of Adam moves each parameter by the learning rate, whatever its gradient is."""
    optimizer = PRETRAINED["optimizer"] | {"encoder_lr_factor": factor}
    made = make(chip_set, parts=PRETRAINED | {"optimizer": optimizer})
    before = {name: parameter.detach().clone() for name, parameter in made.net.named_parameters()}
    steps(made, 1)
    moved = {name: (p - before[name]).abs().max().item() for name, p in made.net.named_parameters()}
    stages = ("enc", "bottleneck.0.")
    encoder = [move for name, move in moved.items() if name.startswith(stages)]
    decoder = [move for name, move in moved.items() if not name.startswith(stages)]
    assert len(encoder) + len(decoder) == len(before)
    assert max(encoder) == pytest.approx(factor * 1e-3, rel=0.01)
    assert max(decoder) == pytest.approx(1e-3, rel=0.01)


def test_no_checkpoint_follows_a_loss_that_is_not_finite(
    store: LocalStore, catalog: Catalog, snapshot_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where nobody looks at the loss until the checkpoint is due."""
    monkeypatch.setattr(trainer, "_READ_EVERY", {"cpu": 1000})
    with pytest.raises(TrainingDiverged, match=r"not finite.*at step 1"):
        train_run(
            store,
            catalog,
            snapshot_id=snapshot_id,
            recipe=recipe(optimizer={"lr": 1e30}),
            run_id="run-a",
            device=CPU,
        )
    with catalog.read() as db:
        assert [row.step for row in training_rows.list_checkpoints(db, "run-a")] == [0]
