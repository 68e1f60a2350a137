"""Checkpoints: the whole state of a training as one safetensors object, never a pickle.

Random numbers and the position in the data are functions of seed and step, so the step determines both.
"""

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
from cloudseg.model.safetensors_header import METADATA_KEY, HeaderError, read_metadata
from cloudseg.publish import publish, stage_object
from cloudseg.records import Checkpoint, Run
from cloudseg.storage import Store

log = logging.getLogger(__name__)
FORMAT: Final = "cloudseg-checkpoint-1"
_KEPT: Final = 2
"""Checkpoints of a run that are kept: the older one serves if the newest object is lost."""
Tensors = dict[str, torch.Tensor]


@dataclass
class TrainingProgress:
    """Progress of a training; everything else follows from the recipe. The names of the fields are stored."""

    step: int
    """Steps done."""
    total_steps: int
    """Steps of the whole training. A time budget decides them again at the end of every epoch."""
    epoch_steps: int
    """Steps of an epoch; never changes after the first one began."""
    loss_sum: float = 0.0
    """Over the steps of the unfinished epoch."""
    loss_count: int = 0
    best_loss: float | None = None
    best_epoch: int = 0
    best_step: int = 0
    stopped: str | None = None
    """Why it ended before `total_steps`."""
    spent_s: float = 0.0
    """Wall clock, added up over the processes that worked on it one after the other."""
    schedule_steps: int = 0
    """Length of the learning rate's schedule: the first `total_steps`. 0 in checkpoints of earlier releases."""
    plan_step: int = 0
    """Step after which `total_steps` was last changed."""
    plan_position: float = 0.0
    """Position on the schedule at that step, 0 to `schedule_steps`."""

    def __post_init__(self) -> None:
        self.schedule_steps = self.schedule_steps or self.total_steps

    def schedule_position(self, step: int) -> float:
        """Return where on the schedule of the learning rate a step is: between 0 and `schedule_steps`.

        What is left of the schedule is spread evenly over the steps that are left, `p0 + (S - p0) (n - n0) / (N - n0)`
        with the step n, the schedule's length S, the plan's total N, and the position p0 at the step n0 where that
        total was decided. At n0 it is p0 under the plan before too, so the learning rate has no jump; it is n itself
        where the total never changed.
        """
        left, done = self.schedule_steps - self.plan_position, step - self.plan_step
        return self.plan_position + left * done / max(1, self.total_steps - self.plan_step)

    def replan(self, total_steps: int) -> None:
        """Change the number of steps of the whole training, at least those that are done."""
        if total_steps != self.total_steps:
            self.plan_position, self.plan_step = self.schedule_position(self.step), self.step
            self.total_steps = total_steps


@dataclass(frozen=True)
class TrainingState:
    """What a checkpoint holds."""

    progress: TrainingProgress
    tensors: Tensors
    """`net.*`, `optimizer.*`, and if the recipe has them `average.*` (the EMA) and `best.*`; stored names."""
    world_size: int


class Checkpoints:
    """The checkpoints of one run: bytes first, row last; the newest two are kept."""

    def __init__(self, store: Store, catalog: Catalog, run: Run) -> None:
        self._store, self._catalog, self._run = store, catalog, run

    def save(self, state: TrainingState) -> None:
        """Store the state; it replaces an earlier one of the same step."""
        data = save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()},
            {METADATA_KEY: self._header(state)},
        )
        out = stage_object(data, lambda sha256: keys.checkpoint(self._run.run_id, state.progress.step, sha256))
        row = Checkpoint(run_id=self._run.run_id, step=state.progress.step, **out.stored.model_dump(), created_at=now())
        for key in publish(self._store, self._catalog, {"state": out}, lambda db, _: _write_row(db, row)):
            self._store.delete(key)

    def load_newest(self) -> TrainingState | None:
        """Return the newest state whose object is intact, None if there is none.

        Raises:
            CheckpointMismatch: the checkpoint belongs to another run, recipe or snapshot.
        """
        with self._catalog.read() as db:
            found = training_rows.list_checkpoints(db, self._run.run_id)
        for row in found:
            try:
                return self._read(self._store.get(row.key, row.sha256))
            except (ObjectMissing, ObjectCorrupt) as error:
                log.warning(
                    "run %s: checkpoint at step %d is lost, using an older one: %s", self._run.run_id, row.step, error
                )
        return None

    def clear(self) -> None:
        """Delete all of them: the run is finished."""
        with self._catalog.begin() as db:
            found = training_rows.list_checkpoints(db, self._run.run_id)
            for row in found:
                training_rows.delete_checkpoint(db, self._run.run_id, row.step)
        for row in found:
            self._store.delete(row.key)

    def _header(self, state: TrainingState) -> str:
        header = {**self._identity(), "world": state.world_size, "progress": asdict(state.progress)}
        return canonical_json(header).decode()

    def _identity(self) -> dict[str, Any]:
        # The hash in the run's row, not that of today's recipe: a release that renames a value changes the latter.
        run = self._run
        return {"format": FORMAT, "run_id": run.run_id, "snapshot_id": run.snapshot_id, "recipe_hash": run.recipe_hash}

    def _read(self, data: bytes) -> TrainingState:
        try:
            header = read_metadata(data)
        except HeaderError as error:
            raise CheckpointMismatch("not a checkpoint of cloudseg", subject=self._run.run_id, found=error) from error
        for name, expected in self._identity().items():
            if header.get(name) != expected:
                raise CheckpointMismatch(
                    f"the checkpoint has another {name}",
                    subject=self._run.run_id,
                    found=header.get(name),
                    expected=expected,
                    next_step="Start a run with another id, or use the recipe and snapshot that this run began with.",
                )
        return TrainingState(TrainingProgress(**header["progress"]), load(data), int(header["world"]))


def _write_row(db: Connection, row: Checkpoint) -> list[str]:
    """Add the row, delete those that it replaces, and return the keys that no row names any more."""
    before = training_rows.list_checkpoints(db, row.run_id)
    again = [entry for entry in before if entry.step == row.step]
    old = [entry for entry in before if entry.step != row.step][_KEPT - 1 :]
    for entry in [*again, *old]:
        training_rows.delete_checkpoint(db, row.run_id, entry.step)
    training_rows.add_checkpoint(db, row)
    return [entry.key for entry in [*again, *old] if entry.key != row.key]


def add_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors as `<prefix>.<name>`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def select_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors named `<prefix>.<name>`, as `<name>`."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the moments of every parameter under `<parameter>.<moment>`."""
    return {
        f"{name}.{moment}": value
        for name, parameter in net.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def load_optimizer(net: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Restore the moments of every parameter, in its memory layout; a fused optimizer's step is on the same device."""
    fused = bool(optimizer.defaults.get("fused"))
    for name, parameter in net.named_parameters():
        moments = select_prefix(name, tensors)
        if moments:
            optimizer.state[parameter] = {
                moment: torch.empty_like(parameter).copy_(value)
                if value.shape == parameter.shape
                else value.to(parameter.device if fused else value.device, copy=True)
                for moment, value in moments.items()
            }
