"""Ingest: add tiles and labels of an inbox to the catalog.

Recognize the layout, decode in a sandboxed process, store the canonical raster, add the row; or quarantine the file.
Nothing of the service is imported here: this package is also loaded by decoder processes, where memory costs forks.
"""

from cloudseg.ingest.job import DecodeLimits

__all__ = ["DecodeLimits"]
