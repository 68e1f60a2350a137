"""The content that all product ids have in common."""

from dataclasses import dataclass
from datetime import UTC, datetime

from cloudseg.bands import Radiometry


@dataclass(frozen=True)
class Product:
    """The content of a product id."""

    sensor: str
    acquired_at: datetime | None
    """UTC."""
    place: str | None
    """`mgrs:<square>` or `wrs2:<path and row>`."""
    radiometry: Radiometry | None


def parse_time(text: str, pattern: str) -> datetime | None:
    """Return a time in UTC, or None if the text does not match the `strptime` pattern."""
    try:
        return datetime.strptime(text, pattern).replace(tzinfo=UTC)
    except ValueError:
        return None
