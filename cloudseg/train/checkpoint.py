"""Checkpoints: the whole state of a training as one safetensors object, never a pickle.

Random numbers and the position in the data are functions of seed and step, so the step stands for both.
"""

import json
import logging
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from safetensors.torch import load, save
from sqlalchemy import Connection

from cloudseg import keys
from cloudseg.catalog import Catalog, training_rows
from cloudseg.catalog.session import now
from cloudseg.errors import CheckpointMismatch, ObjectCorrupt, ObjectMissing
from cloudseg.keys import canonical_json
from cloudseg.publish import publish, stage_object
from cloudseg.records import Checkpoint, Run
from cloudseg.storage import Store

log = logging.getLogger(__name__)
FORMAT: Final = "cloudseg-checkpoint-1"
_KEPT: Final = 2
_KEY: Final = "cloudseg"
Tensors = dict[str, torch.Tensor]


@dataclass
class Progress:
    """Where a training stands; everything else follows from the recipe."""

    step: int
    """Steps done."""
    total_steps: int
    """Decided once, at the beginning."""
    epoch_steps: int
    loss_sum: float = 0.0
    """Over the steps of the unfinished epoch."""
    loss_count: int = 0
    best_loss: float | None = None
    best_epoch: int = 0
    best_step: int = 0
    stopped: str | None = None
    """Why it ended before `total_steps`."""
    spent_s: float = 0.0
    """Wall clock of all processes that worked on it one after the other."""


@dataclass(frozen=True)
class State:
    """What a checkpoint holds."""

    progress: Progress
    tensors: Tensors
    """`net.*`, `optimizer.*`, and where the recipe has them `average.*` and `best.*`."""
    world: int


class Checkpoints:
    """The checkpoints of one run: bytes first, row last; the newest two are kept."""

    def __init__(self, store: Store, catalog: Catalog, run: Run) -> None:
        self._store, self._catalog, self._run = store, catalog, run

    def save(self, state: State) -> None:
        """Store the state; at the same step again it takes the place of the earlier one."""
        data = save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()},
            {_KEY: self._header(state)},
        )
        out = stage_object(data, lambda sha256: keys.checkpoint(self._run.run_id, state.progress.step, sha256))
        row = Checkpoint(run_id=self._run.run_id, step=state.progress.step, **out.stored.model_dump(), created_at=now())
        for key in publish(self._store, self._catalog, {"state": out}, lambda db, _: _write_row(db, row)):
            self._store.delete(key)

    def newest(self) -> State | None:
        """Return the newest whole state, or None before the first. Raises CheckpointMismatch for one of another run."""
        with self._catalog.read() as db:
            found = training_rows.list_checkpoints(db, self._run.run_id)
        for row in found:
            try:
                return self._read(self._store.get(row.key, row.sha256))
            except (ObjectMissing, ObjectCorrupt) as error:
                log.warning(
                    "run %s: checkpoint at step %d is lost, taking an older one: %s", self._run.run_id, row.step, error
                )
        return None

    def clear(self) -> None:
        """Forget all of them: the run is finished."""
        with self._catalog.begin() as db:
            found = training_rows.list_checkpoints(db, self._run.run_id)
            for row in found:
                training_rows.delete_checkpoint(db, self._run.run_id, row.step)
        for row in found:
            self._store.delete(row.key)

    def _header(self, state: State) -> str:
        return canonical_json({**self._identity(), "world": state.world, "progress": asdict(state.progress)}).decode()

    def _identity(self) -> dict[str, Any]:
        run = self._run
        return {"format": FORMAT, "run_id": run.run_id, "snapshot_id": run.snapshot_id, "recipe_hash": run.recipe_hash}

    def _read(self, data: bytes) -> State:
        header = _read_header(data)
        for name, expected in self._identity().items():
            if header.get(name) != expected:
                raise CheckpointMismatch(
                    f"the checkpoint has another {name}",
                    subject=self._run.run_id,
                    found=header.get(name),
                    expected=expected,
                    next_step="Start a run with another id, or give back the recipe and the snapshot that this one began with.",
                )
        return State(Progress(**header["progress"]), load(data), int(header["world"]))


def _write_row(db: Connection, row: Checkpoint) -> list[str]:
    """Add the row, forget those that it replaces, and return the keys that no row names any more."""
    before = training_rows.list_checkpoints(db, row.run_id)
    again = [entry for entry in before if entry.step == row.step]
    old = [entry for entry in before if entry.step != row.step][_KEPT - 1 :]
    for entry in [*again, *old]:
        training_rows.delete_checkpoint(db, row.run_id, entry.step)
    training_rows.add_checkpoint(db, row)
    return [entry.key for entry in [*again, *old] if entry.key != row.key]


def _read_header(data: bytes) -> dict[str, Any]:
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch("not a checkpoint of cloudseg", found=error) from error
    if not isinstance(header, dict):
        raise CheckpointMismatch("not a checkpoint of cloudseg", found=type(header).__name__)
    return header


def named(prefix: str, tensors: Tensors) -> Tensors:
    """Return tensors under `prefix.`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors that stand under `prefix.`, without it."""
    return {
        name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")
    }


def optimizer_tensors(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the moments of every parameter under `<parameter>.<moment>`."""
    return {
        f"{name}.{moment}": value
        for name, parameter in net.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def load_optimizer(net: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put the moments back where they came from, in the memory layout of their parameter."""
    for name, parameter in net.named_parameters():
        moments = under(name, tensors)
        if moments:
            optimizer.state[parameter] = {
                moment: torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.clone()
                for moment, value in moments.items()
            }
