"""Train a net on a snapshot: resumable, deterministic from seed and step, watched through the catalog."""

from cloudseg.train.run import train_run

__all__ = ["train_run"]
