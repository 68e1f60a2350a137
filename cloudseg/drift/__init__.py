"""Drift: how the scenes and masks of each week differ from what the champion was trained on.

Functions over rows of the catalog; `cloudseg.drift.measure` alone reads pixels. `docs/how-to/drift.md` says how to read
the result, `docs/decisions/0037_drift.md` why it is measured so.
"""
