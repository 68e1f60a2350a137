"""What the ingest of a STAC source needs to know."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cloudseg.ingest.stac_source.http_client import HttpOptions
from cloudseg.ingest.stac_source.search import Search

DEFAULT_LIMIT: Final = 100


@dataclass(frozen=True)
class StacOptions:
    """Which items are wanted and how they are fetched."""

    folder: Path
    """Where unfinished copies are kept, so that the next ingest continues them."""
    search: Search = field(default_factory=Search)
    limit: int = DEFAULT_LIMIT
    """Items that are new; known ones are passed over."""
    whole: bool = False
    """Fetch whole files although the search has an area."""
    max_item_bytes: int = 4 << 30
    """Bytes that are fetched for one item at most."""
    http: HttpOptions = field(default_factory=HttpOptions)
