"""Ingest: add tiles and labels of an inbox to the catalog.

Recognize the layout, decode in a sandboxed process, store the canonical raster, add the row; or quarantine the file.
"""

from cloudseg.ingest.job import DecodeLimits
from cloudseg.ingest.pipeline import ingest_source

__all__ = ["DecodeLimits", "ingest_source"]
