"""How many steps a training takes: planned after its first steps, and again after every epoch where it has minutes."""

import logging
import math
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from cloudseg.recipe import Budget
from cloudseg.train.distributed import DistributedContext
from cloudseg.train.trainer import Trainer
from cloudseg.train.validate import Validator

log = logging.getLogger(__name__)
_WARM_UP_STEPS: Final = 2
FEWEST_MEASURED: Final = 4
"""Steps, for a pace. Slow and fast steps belong together, because batches are made ahead: the pace is their mean."""
_MEASURED_SHARE: Final = 0.01
"""Of the budget. The steps count, at the learning rate of the first; the plan is corrected after every epoch anyway."""
_FEWEST_EPOCHS: Final = 8
"""A short time budget makes epochs shorter rather than fewer: users watch epochs, early stopping chooses from them, and
the plan is corrected after each."""
_FEW_STEPS: Final = 50
"""With fewer steps most verdicts are REJECT: the smoke recipe, made for tests on synthetic tiles, takes 60."""
_FINISH_S: Final = 8.0
"""Packing, ONNX export, int8 and registration after the last step."""
LONGEST: Final = 10**9
"""Steps: the largest number that a recipe may have, and the plan of a training whose pace is not known yet."""


@dataclass(frozen=True)
class Pace:
    """Seconds that the processes of a training need together."""

    step_s: float
    """For a step."""
    chip_s: float
    """For the validation of a chip."""


def plan_training(
    budget: Budget, trainer: Trainer, validator: Validator, dist: DistributedContext, *, spent_s: float
) -> None:
    """Plan a training that has not begun: the smallest of epochs, steps and what the minutes allow.

    With minutes it takes the first steps of the training, to measure the pace.

    Args:
        budget: of the recipe.
        trainer: before its first step; its progress gets the plan.
        validator: to measure a validation with.
        dist: so that all processes use the same number of steps.
        spent_s: seconds of the budget that are already used.
    """
    progress = trainer.progress
    progress.epoch_steps = _full_epoch(budget, trainer)
    progress.total_steps = progress.schedule_steps = _most_steps(budget, trainer)
    if budget.minutes is not None:
        began = time.monotonic()
        pace = _measure(60 * budget.minutes, trainer, validator, dist)
        if pace is not None:
            left_s = _time_left(60 * budget.minutes - spent_s - (time.monotonic() - began), pace, validator)
            _plan(budget, left_s, pace, trainer, validator, dist)
    progress.epoch_steps = min(progress.epoch_steps, progress.total_steps)


def _plan(
    budget: Budget, left_s: float, pace: Pace, trainer: Trainer, validator: Validator, dist: DistributedContext
) -> None:
    """Plan as many steps as fit into some seconds, and epochs short enough that there are eight of them."""
    progress, most = trainer.progress, trainer.progress.total_steps
    if dist.broadcast(progress.step + _steps_in(left_s, progress.epoch_steps, pace, validator)) < most:
        short = _epoch_in(left_s / _FEWEST_EPOCHS, progress.epoch_steps, pace, validator)
        # The steps that were measured are in the first epoch, whose end is still to come.
        progress.epoch_steps = max(int(dist.broadcast(short)), progress.step + 1)
    more = max(1, int(dist.broadcast(_steps_in(left_s, progress.epoch_steps, pace, validator))))
    progress.replan(min(most, progress.step + more))
    log.info(
        "pace: %.3f s per step, %.3f s per validation chip; %g minutes allow %d steps",
        pace.step_s,
        pace.chip_s,
        budget.minutes,
        progress.step + more,
    )
    if progress.total_steps < min(most, _FEW_STEPS):
        log.warning(
            "a training of %d steps learns little: %g minutes are too few here", progress.total_steps, budget.minutes
        )


def plan_again(budget: Budget, trainer: Trainer, validator: Validator, pace: Pace, *, spent_s: float) -> int:
    """Return the number of steps of the whole training after an epoch: those that are done and those that still fit.

    Args:
        budget: of the recipe, with minutes.
        trainer: at the end of an epoch.
        validator: for the number of chips of a validation.
        pace: of the epoch.
        spent_s: seconds of the budget that are used.
    """
    progress = trainer.progress
    left_s = _time_left(60 * (budget.minutes or 0) - spent_s, pace, validator)
    more = _steps_in(left_s, progress.epoch_steps, pace, validator)
    return min(_most_steps(budget, trainer), progress.step + more)


def longest_epoch(budget: Budget, trainer: Trainer) -> int:
    """Return the steps of an epoch of the recipe, or fewer: so many that the planned steps are eight epochs."""
    return min(_full_epoch(budget, trainer), trainer.progress.total_steps // _FEWEST_EPOCHS)


def _full_epoch(budget: Budget, trainer: Trainer) -> int:
    return budget.epoch_steps or trainer.batches.steps_per_pass


def _most_steps(budget: Budget, trainer: Trainer) -> int:
    """Return the smallest of the steps and the epochs of a budget; LONGEST where it has minutes only."""
    epochs = budget.epochs * _full_epoch(budget, trainer) if budget.epochs else None
    return min(limit for limit in (budget.steps, epochs, LONGEST) if limit is not None)


def _time_left(seconds: float, pace: Pace, validator: Validator) -> float:
    """Return what is left for epochs of some seconds: the end of a training validates all chips."""
    return max(0.0, seconds - _FINISH_S - pace.chip_s * validator.chip_count)


def _epoch_in(seconds: float, most: int, pace: Pace, validator: Validator) -> int:
    """Return the steps, 1 to `most`, of the longest epoch that fits into some seconds with its validation."""
    return max(1, bisect_right(range(1, most + 1), seconds, key=lambda steps: _epoch_s(steps, pace, validator)))


def _steps_in(seconds: float, epoch_steps: int, pace: Pace, validator: Validator) -> int:
    """Return how many steps fit into some seconds with a validation after each epoch and after the last step."""
    epochs, rest_s = divmod(seconds, _epoch_s(epoch_steps, pace, validator))
    validation_s = pace.chip_s * validator.watched(epoch_steps)
    return int(epochs) * epoch_steps + max(0, math.floor((rest_s - validation_s) / pace.step_s))


def _epoch_s(steps: int, pace: Pace, validator: Validator) -> float:
    return steps * pace.step_s + pace.chip_s * validator.watched(steps)


def _measure(budget_s: float, trainer: Trainer, validator: Validator, dist: DistributedContext) -> Pace | None:
    """Take the first steps, without the last one of the first epoch, and time them and a validation.

    Returns:
        The pace; None where the epoch is too short for that: its end plans.
    """
    progress = trainer.progress
    moments = []
    for batch in trainer.batches.iter_from(0, min(progress.epoch_steps, progress.total_steps) - 1):
        trainer.train_step(batch)
        moments.append(time.monotonic())
        if len(moments) >= FEWEST_MEASURED and dist.broadcast(moments[-1] - moments[0]) > _MEASURED_SHARE * budget_s:
            break
    if len(moments) <= _WARM_UP_STEPS:
        return None
    steps_s = moments[-1] - moments[_WARM_UP_STEPS - 1]
    predictor = trainer.predictor()
    validator.time_one_batch(predictor)  # the first pass initializes kernels that later passes reuse
    return Pace(steps_s / (len(moments) - _WARM_UP_STEPS), validator.time_one_batch(predictor))
