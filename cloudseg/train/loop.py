"""The training loop: steps, epochs with a validation, checkpoints, early stopping, live progress."""

import logging
import time
from collections.abc import Callable
from typing import Final

from cloudseg.catalog import Catalog, training_rows
from cloudseg.catalog.session import now
from cloudseg.errors import Interrupted
from cloudseg.recipe import Budget
from cloudseg.records import Epoch
from cloudseg.signals import StopRequest
from cloudseg.train.budget import FEWEST_MEASURED, Pace, longest_epoch, plan_again
from cloudseg.train.checkpoint import Checkpoints
from cloudseg.train.distributed import DistributedContext
from cloudseg.train.trainer import Trainer
from cloudseg.train.validate import Tally, Validator

log = logging.getLogger(__name__)
OnProgress = Callable[[int, int, str], None]
"""Called with steps done, the total number of steps and a phrase with loss, images/s and ETA."""
_LOG_EVERY_S: Final = 10.0
_UNUSED_SHARE: Final = 0.1
"""Of a time budget: smaller unused parts are not logged."""


class Loop:
    """The loop that runs a trainer from its progress to the end.

    Args:
        trainer: net, optimizer and progress.
        validator: counts at the end of an epoch.
        budget: of the recipe: batch size, checkpoints, patience and minutes.
        dist: this process among those that train together; only the main one writes.
        run_id: names the run in rows and log.
        catalog: destination of the epochs.
        checkpoints: destination of the state of the trainer.
        on_progress: called after every step by the main process; None logs a line every ten seconds.
    """

    def __init__(
        self,
        trainer: Trainer,
        validator: Validator,
        *,
        budget: Budget,
        dist: DistributedContext,
        run_id: str,
        catalog: Catalog,
        checkpoints: Checkpoints,
        on_progress: OnProgress | None,
    ) -> None:
        self._trainer, self._validator, self._progress = trainer, validator, trainer.progress
        self._budget, self._dist, self._run_id = budget, dist, run_id
        self._catalog, self._checkpoints = catalog, checkpoints
        self._report = on_progress or self._log_progress
        self._images_per_step = budget.batch_size * dist.world_size
        self._began = self._epoch_began = self._last_logged = time.monotonic()
        self._spent_before = self._progress.spent_s
        self._first_step = self._epoch_first_step = self._progress.step

    def run(self, request: StopRequest) -> None:
        """Train to the end.

        Args:
            request: checked after every step.

        Raises:
            Interrupted: a signal arrived; a checkpoint was written.
            TrainingDiverged: the loss or the net's output is not finite.
        """
        progress = self._progress
        while progress.stopped is None and progress.step < progress.total_steps:
            self._run_epoch(request)
        if progress.stopped is not None:
            log.info("run %s ends early at step %d: %s", self._run_id, progress.step, progress.stopped)
        self._log_unused_budget()

    def _run_epoch(self, request: StopRequest) -> None:
        """Take the steps that are left of an epoch; its end may change how many epochs follow."""
        progress = self._progress
        end = min(progress.total_steps, (progress.step // progress.epoch_steps + 1) * progress.epoch_steps)
        for batch in self._trainer.batches.iter_from(progress.step, end):
            loss = self._trainer.train_step(batch)
            self._report_step(loss)
            if progress.step == end:
                self._end_epoch()
            elif progress.step % self._budget.checkpoint_every_steps == 0:
                self.save_checkpoint()
            if progress.stopped is None:
                self._stop_if_requested(request)

    def save_checkpoint(self) -> None:
        """Write a checkpoint, in the main process."""
        self._trainer.read_losses()
        self._progress.spent_s = self._spent_s()
        if self._dist.is_main:
            self._checkpoints.save(self._trainer.state())

    def _end_epoch(self) -> None:
        """Validate, keep the best net, decide whether to stop, plan again, add the epoch's row, write a checkpoint."""
        self._trainer.read_losses()
        progress = self._progress
        epoch = -(-progress.step // progress.epoch_steps)
        trained_s, steps = time.monotonic() - self._epoch_began, progress.step - self._epoch_first_step
        counted, chip_s = self._validate()
        self._trainer.keep_if_best(counted.loss, epoch)
        progress.stopped = self._reason_to_stop(epoch)
        metrics = {
            "train_loss": round(progress.loss_sum / max(1, progress.loss_count), 6),
            "validation_loss": round(counted.loss, 6),
            "validation_iou": round(counted.iou(), 6),
            "best_epoch": progress.best_epoch,
            "images_per_s": round(steps * self._images_per_step / max(trained_s, 1e-9), 2),
            "lr": self._trainer.learning_rate(progress.step - 1),
            "seconds": round(self._spent_s(), 1),
        }
        self._plan_again(epoch, Pace(trained_s / steps, chip_s), steps)
        metrics["total_steps"] = progress.total_steps
        self._record(Epoch(run_id=self._run_id, epoch=epoch, step=progress.step, metrics=metrics, created_at=now()))
        progress.loss_sum, progress.loss_count = 0.0, 0
        self._epoch_began, self._epoch_first_step = time.monotonic(), progress.step
        self.save_checkpoint()

    def _validate(self) -> tuple[Tally, float]:
        """Return the counts over the validation chips of an epoch, and the seconds for each of them."""
        began, watched = time.monotonic(), self._validator.watched(self._progress.epoch_steps)
        counted = self._validator.count(self._trainer.predictor(), watched)
        return counted, (time.monotonic() - began) / watched

    def _record(self, row: Epoch) -> None:
        """Add the row of an epoch, in the main process."""
        if not self._dist.is_main:
            return
        with self._catalog.begin() as db:
            training_rows.add_epoch(db, row)
        log.info(
            "run %s epoch %d, step %d of %d: %s",
            row.run_id,
            row.epoch,
            row.step,
            self._progress.total_steps,
            ", ".join(f"{name} {value:.4g}" for name, value in row.metrics.items() if value is not None),
        )

    def _reason_to_stop(self, epoch: int) -> str | None:
        """Return why to end before `total_steps`: patience is exhausted; None to continue."""
        progress, patience = self._progress, self._budget.patience
        if progress.step >= progress.total_steps or patience is None:
            return None
        # Where the plan grew, more epochs follow than it began with: patience lasts as many steps as with the epochs
        # that this plan would have begun with.
        epoch_steps = max(progress.epoch_steps, longest_epoch(self._budget, self._trainer))
        if progress.step - progress.best_step < patience * epoch_steps:
            return None
        return f"no lower validation loss than {progress.best_loss:.4f} for {epoch - progress.best_epoch} epochs"

    # --- the plan of a time budget ------------------------------------------------------------------------------------

    def _plan_again(self, epoch: int, pace: Pace, steps: int) -> None:
        """Change the number of steps to what the minutes allow, at the pace of the steps of an epoch.

        The epoch's row records the decision. A process that was killed after it, before the checkpoint, left that row:
        the process that repeats the epoch takes the number from there, so no epoch is followed by two plans.
        """
        progress, minutes = self._progress, self._budget.minutes
        if minutes is None or progress.stopped is not None or progress.step == progress.total_steps:
            return
        total = self._recorded_total(epoch)
        if total is None and steps >= min(FEWEST_MEASURED, progress.epoch_steps):
            total = plan_again(self._budget, self._trainer, self._validator, pace, spent_s=self._spent_s())
        progress.replan(int(self._dist.broadcast(total or progress.total_steps)))
        if progress.total_steps == progress.step:
            log.info("run %s ends at step %d: no time is left of %g minutes", self._run_id, progress.step, minutes)

    def _recorded_total(self, epoch: int) -> int | None:
        """Return the number of steps that an earlier process decided at the end of this epoch."""
        with self._catalog.read() as db:
            rows = training_rows.list_epochs(db, self._run_id)
        recorded = [row for row in rows if (row.epoch, row.step) == (epoch, self._progress.step)]
        return recorded[0].metrics.get("total_steps") if recorded else None

    def _stop_if_requested(self, request: StopRequest) -> None:
        progress = self._progress
        # One process of several may get the signal a step earlier: all stop at the same step.
        requested = self._dist.any(request.signal_name is not None)
        if requested and progress.step < progress.total_steps:
            self.save_checkpoint()
            raise Interrupted(
                f"stopped by {request.signal_name or 'a signal to another process'}",
                subject=self._run_id,
                found=f"step {progress.step} of {progress.total_steps}",
                next_step="Start it again with the same run id: it resumes.",
            )

    # --- live progress ------------------------------------------------------------------------------------------------

    def _spent_s(self) -> float:
        """Return the seconds of all processes that worked on this run one after the other, this one included."""
        return self._spent_before + time.monotonic() - self._began

    def _report_step(self, loss: float) -> None:
        if not self._dist.is_main:
            return
        progress = self._progress
        step_s = (time.monotonic() - self._began) / (progress.step - self._first_step)
        left_s = step_s * (progress.total_steps - progress.step)
        eta = f"{left_s / 60:.1f} min" if left_s >= 60 else f"{left_s:.0f} s"
        phrase = f"loss {loss:.4f}, {self._images_per_step / step_s:.1f} images/s, ETA {eta}"
        self._report(progress.step, progress.total_steps, phrase)

    def _log_progress(self, done: int, total: int, phrase: str) -> None:
        moment = time.monotonic()
        if done == total or moment - self._last_logged >= _LOG_EVERY_S:
            self._last_logged = moment
            log.info("run %s step %d of %d: %s", self._run_id, done, total, phrase)

    def _log_unused_budget(self) -> None:
        """Log how much of a time budget is left: the machine was slower while the pace was measured than later."""
        minutes = self._budget.minutes
        if minutes is None or not self._dist.is_main:
            return
        unused = minutes - self._progress.spent_s / 60
        if unused > _UNUSED_SHARE * minutes:
            log.info("run %s: %.1f of %g minutes of the budget unused", self._run_id, unused, minutes)
