"""Parsers of product ids and metadata: sensor, time, place and scale. One module for each family of products.

To add a family, write a module with a function `(text) -> Product | None` and add it to `_PARSERS`.
"""

from collections.abc import Callable
from typing import Final

from cloudseg.ingest.products.hls import hls_product
from cloudseg.ingest.products.landsat import landsat_product
from cloudseg.ingest.products.planet import planet_product
from cloudseg.ingest.products.product import Product
from cloudseg.ingest.products.sentinel2 import sentinel2_product

_PARSERS: Final[tuple[Callable[[str], Product | None], ...]] = (
    sentinel2_product,
    landsat_product,
    hls_product,
    planet_product,
)

__all__ = ["Product", "find_product"]


def find_product(text: str) -> Product | None:
    """Return the content of the first product id in a file name, or None."""
    return next((product for parse in _PARSERS if (product := parse(text)) is not None), None)
