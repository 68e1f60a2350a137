"""Facts in a database: one row for every scene, label, snapshot, run, weights, verdict and mask."""

from cloudseg.catalog.session import Catalog

__all__ = ["Catalog"]
