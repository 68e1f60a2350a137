"""How many steps a training takes: decided once, before the first one, and kept in its checkpoints."""

import logging
import math
import time
from typing import Final

from cloudseg.train.checkpoint import Progress
from cloudseg.train.trainer import Setting, Trainer

log = logging.getLogger(__name__)
_WARM_UP_STEPS: Final = 2
_MEASURED_STEPS: Final = 8
_MEASURED_S: Final = 15.0
_FINISH_S: Final = 8.0
"""Packing, ONNX export and registration after the last step."""
OVERTIME: Final = 1.5
"""A machine that became slower may take this much of the budget before the training ends at the next epoch."""


def plan(setting: Setting, *, already_spent_s: float) -> Progress:
    """Give the progress of a training that has not begun: the smallest of epochs, steps and what the minutes allow."""
    budget = setting.recipe.budget
    trial = Trainer(setting, Progress(step=0, total_steps=_WARM_UP_STEPS + _MEASURED_STEPS, epoch_steps=1))
    epoch_steps = budget.epoch_steps or trial.batches.steps_per_pass
    limits = [budget.steps, budget.epochs * epoch_steps if budget.epochs else None]
    if budget.minutes is not None:
        trial.progress.epoch_steps = epoch_steps
        limits.append(_steps_in(trial, budget.minutes * 60, already_spent_s))
    total = min(limit for limit in limits if limit is not None)
    return Progress(step=0, total_steps=total, epoch_steps=min(epoch_steps, total))


def _steps_in(trial: Trainer, budget_s: float, already_spent_s: float) -> int:
    """Measure step and validation on throw-away parameters and give the steps that fit; at least one."""
    group, begun = trial.setting.group, time.monotonic()
    step_s = _time_steps(trial)
    chip_s = _time_validation(trial)
    shown, all_chips = trial.validation_part, len(trial.setting.validation_chips)
    left = budget_s - already_spent_s - (time.monotonic() - begun) - _FINISH_S - chip_s * all_chips / group.world
    per_step = step_s + chip_s * shown / group.world / trial.progress.epoch_steps
    steps = int(group.from_leader(max(1, math.floor(left / per_step))))
    log.info(
        "pace: %.3f s a step, %.3f s a validation chip; %.1f minutes allow %d steps", step_s, chip_s, budget_s / 60, steps,
    )  # fmt: skip
    return steps


def _time_steps(trial: Trainer) -> float:
    moments: list[float] = []
    for batch in trial.batches.iter_from(0, _WARM_UP_STEPS + _MEASURED_STEPS):
        trial.take_step(batch)
        moments.append(time.monotonic())
        if len(moments) > _WARM_UP_STEPS + 1 and trial.setting.group.from_leader(moments[-1] - moments[0]) > _MEASURED_S:
            break
    return (moments[-1] - moments[_WARM_UP_STEPS - 1]) / (len(moments) - _WARM_UP_STEPS)


def _time_validation(trial: Trainer) -> float:
    chips = trial.setting.validation_chips[: trial.setting.recipe.budget.batch_size * trial.setting.group.world]
    predictor = trial.predictor()
    trial.count(predictor, chips)  # the first pass pays for kernels that later ones find ready
    begun = time.monotonic()
    trial.count(predictor, chips)
    return (time.monotonic() - begun) * trial.setting.group.world / len(chips)
