"""Frozen sets of chips: which place belongs to which split, how chips are cut and packed, how they are read."""
