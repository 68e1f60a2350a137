"""Train a net on a snapshot: resumable, deterministic from seed and step, visible in the catalog while it runs.

Reading order: `trainer` (loss, learning rate, EMA, the step), `loop` (epochs, checkpoints, early stopping), `batch` and
`augment` (the input of a step), `budget` (how many steps), `validate` (counts and threshold), `finish` (export and
registration), `run` (rows, resume).
"""

from cloudseg.train.run import train_run

__all__ = ["train_run"]
