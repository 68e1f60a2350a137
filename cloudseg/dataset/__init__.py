"""Snapshots, which are frozen sets of chips: the split of places, how chips are cut, packed and read."""

from cloudseg.dataset.chips import ChipSet, open_chips
from cloudseg.dataset.snapshot import build_snapshot
from cloudseg.dataset.split import split_of

__all__ = ["ChipSet", "build_snapshot", "open_chips", "split_of"]
