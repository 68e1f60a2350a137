"""The catalog: a database with one row for every scene, label, snapshot, run, set of weights, verdict and mask."""

from cloudseg.catalog.session import Catalog

__all__ = ["Catalog"]
