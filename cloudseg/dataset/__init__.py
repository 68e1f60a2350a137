"""Frozen sets of chips: which place belongs to which split, how chips are cut and packed, how they are read."""

from cloudseg.dataset.chips import ChipSet, open_chips
from cloudseg.dataset.snapshot import build_snapshot
from cloudseg.dataset.split import split_of

__all__ = ["ChipSet", "build_snapshot", "open_chips", "split_of"]
