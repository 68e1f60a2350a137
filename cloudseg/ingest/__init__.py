"""Brings tiles and labels of an inbox into the catalog.

Find, check, decode in a bounded process, store, name in a row.
"""

from cloudseg.ingest.job import DecodeLimits
from cloudseg.ingest.pipeline import ingest_source

__all__ = ["DecodeLimits", "ingest_source"]
