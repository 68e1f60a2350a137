"""Web Mercator by its formulas (EPSG:3857, OGC 17-083r4 annex D): what the tiles are compared with."""

import math


def pixel_of(lon: float, lat: float, zoom: int, size: int = 256) -> tuple[str, int, int]:
    """Return `z/x/y` of the tile of a point, and column and row of its pixel."""
    count = 2**zoom
    x = (lon + 180) / 360 * count
    y = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2 * count
    return f"{zoom}/{int(x)}/{int(y)}", int(x % 1 * size), int(y % 1 * size)
