"""How many steps a training takes: decided once, before the first one, and kept in its checkpoints."""

import logging
import math
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from cloudseg.recipe import Budget
from cloudseg.train.checkpoint import TrainingProgress
from cloudseg.train.distributed import DistributedContext
from cloudseg.train.trainer import Trainer
from cloudseg.train.validate import Validator

log = logging.getLogger(__name__)
_WARM_UP_STEPS: Final = 2
_BLOCK_STEPS: Final = 8
_MOST_BLOCKS: Final = 9
_MEASURED_SHARE: Final = 0.03
"""Of the budget: measuring longer would cost more steps than a better estimate gains."""
TRIAL_STEPS: Final = _WARM_UP_STEPS + _MOST_BLOCKS * _BLOCK_STEPS
"""Upper bound of the time of a trial."""
_FEWEST_EPOCHS: Final = 8
"""A short time budget makes epochs shorter rather than fewer: users watch epochs, and early stopping
chooses from them."""
_FINISH_S: Final = 8.0
"""Packing, ONNX export and registration after the last step."""
OVERTIME: Final = 1.5
"""A machine that became slower may take this much of the budget before the training ends at the next epoch."""


def decide_steps(
    budget: Budget, trial: Trainer, validator: Validator, dist: DistributedContext, *, spent_s: float
) -> TrainingProgress:
    """Return the progress of a training that has not begun: the smallest of epochs, steps and what the minutes allow.

    Never decided again: the number of steps determines the course of the learning rate, and a resumed run must end with
    the same weights.

    Args:
        budget: of the recipe.
        trial: a trainer to measure with; its parameters are changed and must not be used afterward.
        validator: to measure a validation with.
        dist: so that all processes use the same number of steps.
        spent_s: seconds of the budget that are already used.
    """
    epoch_steps = budget.epoch_steps or trial.batches.steps_per_pass
    limits = [budget.steps, budget.epochs * epoch_steps if budget.epochs else None]
    if budget.minutes is not None:
        limits.append(_measure_steps(60 * budget.minutes, spent_s, epoch_steps, trial, validator, dist))
    total = min(limit for limit in limits if limit is not None)
    if budget.minutes is not None and total == limits[-1]:
        epoch_steps = min(epoch_steps, math.ceil(total / _FEWEST_EPOCHS))
    return TrainingProgress(step=0, total_steps=total, epoch_steps=min(epoch_steps, total))


def _measure_steps(
    budget_s: float, spent_s: float, epoch_steps: int, trial: Trainer, validator: Validator, dist: DistributedContext
) -> int:
    """Measure a step and a validation, and return the steps that fit into what is left of a time budget."""
    began = time.monotonic()
    step_s = _time_steps(trial, dist, _MEASURED_SHARE * budget_s)
    chip_s = _time_validation(trial, validator)
    last_validation_s = chip_s * validator.chip_count / dist.world_size
    left_s = budget_s - spent_s - (time.monotonic() - began) - _FINISH_S - last_validation_s
    epoch_s = chip_s * validator.watched(epoch_steps) / dist.world_size
    steps = int(dist.broadcast(steps_in(left_s, step_s, epoch_s, epoch_steps)))
    log.info(
        "pace: %.3f s per step, %.3f s per validation chip; %.1f minutes allow %d steps",
        step_s,
        chip_s,
        budget_s / 60,
        steps,
    )
    return steps


def steps_in(left_s: float, step_s: float, epoch_s: float, epoch_steps: int) -> int:
    """Return how many steps fit into some seconds, at least one.

    Args:
        left_s: time for steps and validations.
        step_s: seconds per step.
        epoch_s: seconds of the validation after an epoch.
        epoch_steps: steps per epoch; where fewer than eight epochs fit, epochs become shorter and eight are counted.
    """
    steps = left_s / (step_s + epoch_s / epoch_steps)
    if steps < _FEWEST_EPOCHS * epoch_steps:
        steps = (left_s - _FEWEST_EPOCHS * epoch_s) / step_s
    return max(1, math.floor(steps))


def _time_steps(trial: Trainer, dist: DistributedContext, measured_s: float) -> float:
    """Run steps until the time is over, at least one block of them, and return the seconds per step."""
    moments: list[float] = []
    for batch in trial.batches.iter_from(0, TRIAL_STEPS):
        trial.train_step(batch)
        moments.append(time.monotonic())
        whole_blocks = len(moments) > _WARM_UP_STEPS and (len(moments) - _WARM_UP_STEPS) % _BLOCK_STEPS == 0
        if whole_blocks and dist.broadcast(moments[-1] - moments[0]) > measured_s:
            break
    return pace_of(moments[_WARM_UP_STEPS - 1 :])


def pace_of(moments: Sequence[float]) -> float:
    """Return the seconds per step from the moments at which steps ended: the median over blocks of the mean of a block.

    A machine that is busy with something else during less than half of the blocks does not matter (median of means);
    inside a block slow and fast steps belong together, because batches are made ahead.
    """
    blocks = pairwise(moments[::_BLOCK_STEPS])
    return statistics.median((last - first) / _BLOCK_STEPS for first, last in blocks)


def _time_validation(trial: Trainer, validator: Validator) -> float:
    """Return the seconds per validation chip of one process."""
    predictor = trial.predictor()
    validator.time_one_batch(predictor)  # the first pass initializes kernels that later passes reuse
    return validator.time_one_batch(predictor)
