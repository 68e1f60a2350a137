"""The loop around the steps: epochs, validation, checkpoints, early stop, live progress."""

import logging
import time
from collections.abc import Callable
from typing import Final

from cloudseg.catalog import Catalog, training_rows
from cloudseg.catalog.session import now
from cloudseg.errors import Interrupted
from cloudseg.records import Epoch
from cloudseg.train.budget import OVERTIME
from cloudseg.train.checkpoint import Checkpoints
from cloudseg.train.stop import StopRequest
from cloudseg.train.trainer import Trainer

log = logging.getLogger(__name__)
OnProgress = Callable[[int, int, str], None]
"""Gets steps done, steps in all and a phrase with loss, images/s and ETA."""
_LOG_EVERY_S: Final = 10.0
_WORTH_TELLING: Final = 0.1


class Loop:
    """Runs a trainer from where it stands to its end."""

    def __init__(
        self, trainer: Trainer, catalog: Catalog, checkpoints: Checkpoints, on_progress: OnProgress | None
    ) -> None:
        self._trainer, self._catalog, self._checkpoints = trainer, catalog, checkpoints
        self._tell = on_progress or self._log_progress
        self._leads = trainer.setting.group.leads
        self._begun = self._epoch_begun = self._told = time.monotonic()
        self._spent_before = trainer.progress.spent_s
        self._first_step = self._epoch_first = trainer.progress.step

    def run(self, request: StopRequest) -> None:
        """Train to the end. Raises Interrupted after a checkpoint when a signal asked for it, TrainingDiverged."""
        trainer, progress = self._trainer, self._trainer.progress
        if progress.stopped is not None:
            return
        for batch in trainer.batches.iter_from(progress.step, progress.total_steps):
            loss = trainer.take_step(batch)
            self._tell_step(loss)
            last = progress.step == progress.total_steps
            if last or progress.step % progress.epoch_steps == 0:
                self._end_epoch()
            elif progress.step % trainer.setting.recipe.budget.checkpoint_every_steps == 0:
                self.checkpoint()
            if progress.stopped is not None:
                log.info(
                    "run %s ends early at step %d: %s", trainer.setting.run.run_id, progress.step, progress.stopped
                )
                break
            self._leave_if_asked(request)
        self._tell_unused()

    def _tell_unused(self) -> None:
        """Say how much of a time budget is left.

        The machine was slower while the pace was measured than it was later.
        """
        progress, minutes = self._trainer.progress, self._trainer.setting.recipe.budget.minutes
        if minutes is None or not self._leads:
            return
        unused = minutes - progress.spent_s / 60
        if unused > _WORTH_TELLING * minutes:
            log.info(
                "run %s: %.1f of %g minutes of the budget unused", self._trainer.setting.run.run_id, unused, minutes
            )

    def checkpoint(self) -> None:
        """Write a checkpoint (the leader does)."""
        self._trainer.progress.spent_s = self._spent_before + time.monotonic() - self._begun
        if self._leads:
            self._checkpoints.save(self._trainer.state())

    def _end_epoch(self) -> None:
        trainer, progress = self._trainer, self._trainer.progress
        epoch = -(-progress.step // progress.epoch_steps)
        trained_s, steps = time.monotonic() - self._epoch_begun, progress.step - self._epoch_first
        counted = trainer.validate()
        trainer.keep_if_best(counted.loss, epoch)
        progress.stopped = self._reason_to_stop(epoch)
        metrics = {
            "train_loss": round(progress.loss_sum / max(1, progress.loss_count), 6),
            "validation_loss": round(counted.loss, 6),
            "validation_iou": round(counted.iou(), 6),
            "best_epoch": progress.best_epoch,
            "images_per_s": round(steps * self._images_per_step / max(trained_s, 1e-9), 2),
            "lr": trainer.learning_rate(progress.step - 1),
            "seconds": round(self._spent_before + time.monotonic() - self._begun, 1),
        }
        if self._leads:
            run_id = trainer.setting.run.run_id
            with self._catalog.begin() as db:
                training_rows.add_epoch(
                    db, Epoch(run_id=run_id, epoch=epoch, step=progress.step, metrics=metrics, created_at=now())
                )
            log.info("run %s epoch %d, step %d of %d: %s", run_id, epoch, progress.step, progress.total_steps, metrics)
        progress.loss_sum, progress.loss_count = 0.0, 0
        self._epoch_begun, self._epoch_first = time.monotonic(), progress.step
        self.checkpoint()

    def _reason_to_stop(self, epoch: int) -> str | None:
        progress, budget = self._trainer.progress, self._trainer.setting.recipe.budget
        if progress.step >= progress.total_steps:
            return None
        if budget.patience is not None and epoch - progress.best_epoch >= budget.patience:
            return f"no lower validation loss than {progress.best_loss:.4f} for {budget.patience} epochs"
        spent = self._trainer.setting.group.from_leader(self._spent_before + time.monotonic() - self._begun)
        if budget.minutes is not None and spent > OVERTIME * 60 * budget.minutes:
            return f"{spent / 60:.1f} minutes spent of {budget.minutes}: the machine became slower"
        return None

    def _leave_if_asked(self, request: StopRequest) -> None:
        progress, group = self._trainer.progress, self._trainer.setting.group
        asked = request.signal_name is not None
        # One process of several may get the signal a step earlier: all leave at the same step.
        if group.world > 1:
            asked = group.any(asked)
        if asked and progress.step < progress.total_steps:
            self.checkpoint()
            raise Interrupted(
                f"asked to stop by {request.signal_name or 'a signal to another process'}",
                subject=self._trainer.setting.run.run_id,
                found=f"step {progress.step} of {progress.total_steps}",
                next_step="Start it again with the same run id: it resumes.",
            )

    # --- live progress ------------------------------------------------------------------------------------------------

    @property
    def _images_per_step(self) -> int:
        return self._trainer.setting.recipe.budget.batch_size * self._trainer.setting.group.world

    def _tell_step(self, loss: float) -> None:
        if not self._leads:
            return
        progress = self._trainer.progress
        per_step = (time.monotonic() - self._begun) / (progress.step - self._first_step)
        remaining = per_step * (progress.total_steps - progress.step)
        eta = f"{remaining / 60:.1f} min" if remaining >= 60 else f"{remaining:.0f} s"
        self._tell(
            progress.step,
            progress.total_steps,
            f"loss {loss:.4f}, {self._images_per_step / per_step:.1f} images/s, ETA {eta}",
        )

    def _log_progress(self, done: int, total: int, phrase: str) -> None:
        moment = time.monotonic()
        if done == total or moment - self._told >= _LOG_EVERY_S:
            self._told = moment
            log.info("run %s step %d of %d: %s", self._trainer.setting.run.run_id, done, total, phrase)
