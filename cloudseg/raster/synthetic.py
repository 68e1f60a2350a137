"""Synthetic scenes for the demo, the tests and the benchmarks: georeferenced, seeded, the same bytes on every machine.

Their names begin with `synthetic_` and every file has the tag SYNTHETIC=YES, so that they are not mistaken for
observations. The folder has a layout that ingest supports, `images/` next to `labels/`.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.windows import Window as RasterWindow

from cloudseg.bands import MASK_NO_DATA, NIR, NO_DATA, REFLECTANCE_SCALE, RGB
from cloudseg.grid import iter_windows
from cloudseg.raster.landscape import Ground, Sky, cloud_level, reflectance
from cloudseg.raster.noise import hashed, uniform

BANDS: Final = (*RGB, NIR)
RESOLUTION_M: Final = 30.0


@dataclass(frozen=True)
class _Site:
    """Location of a synthetic scene: the center of its grid in meters of a UTM zone, and its ground."""

    name: str
    epsg: int
    easting: int
    northing: int
    ground: Ground
    swath_edge: bool = False
    """Whether the edge of the swath cuts the scene at an angle; there are no data beyond it."""


_SITES: Final = (
    # Twelve MGRS squares: the split rule assigns six to training, three to validation and three to held-out.
    _Site("fields", 32631, 395760, 5328360, Ground(101)),
    _Site("desert", 32733, 540480, 7279260, Ground(102, base="sand", forest=9, water=-9, city=2.2)),
    _Site("city", 32630, 440580, 4472400, Ground(103, city=0.0, forest=1.1, water=-2.0)),
    _Site(
        "atoll", 32760, 819330, 8145690, Ground(104, water=0.35, forest=-0.2, city=1.6)
    ),  # its middle column crosses 180°
    _Site("alps", 32632, 415260, 5127960, Ground(105, base="rock", forest=0.3, snow=0.35, water=-2.2, city=2.4)),
    _Site("lakes", 32633, 559680, 6752160, Ground(106, forest=-0.5, water=-0.7, city=1.8)),
    _Site("metropolis", 32723, 336660, 7394700, Ground(107, city=-0.4, forest=0.6)),
    _Site("marsh", 32615, 376800, 5128620, Ground(108, forest=0.2, water=-0.8), swath_edge=True),
    _Site("icefield", 32613, 379800, 4384320, Ground(109, base="rock", forest=0.9, snow=-0.2, water=-1.8, city=2.2)),
    _Site("fjord", 32759, 443520, 5172300, Ground(110, base="rock", forest=0.0, snow=0.6, water=-0.6, city=2.2)),
    _Site("prairie", 32615, 450360, 4661040, Ground(111, forest=1.6, water=-2.2)),
    _Site("dunes", 32632, 333480, 3142680, Ground(112, base="sand", forest=2.2, water=-9, city=1.7)),
)
_CLOUD_FRACTIONS: Final = (0.35, 0.55, 0.15, 0.75, 0.25, 0.0, 0.4)
"""Used in turn; seven and twelve have no common factor, so each site gets them all."""
_FIRST_DAY: Final = datetime(2024, 1, 8, tzinfo=UTC)


def make_tiles(folder: Path, *, count: int, size: int = 512, seed: int = 0, unlabeled: int = 2) -> list[Path]:
    """Write labeled scenes, then scenes without label, and return the paths of the images.

    Images are in `folder/images`: `size` × `size` pixels of 30 m, uint16 reflectance × 10 000 in red, green, blue and
    near infrared, 0 = no data, UTM. Labels are in `folder/labels` under the same name: uint8 0 clear, 1 cloud, 255 no
    data. Twelve sites repeat with other dates and clouds. The same arguments produce the same bytes. A scene of 512²
    takes about 0.3 s.
    """
    if count < 0 or unlabeled < 0 or size < 16:
        raise ValueError(f"count {count}, unlabeled {unlabeled} and size {size} make no tiles")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    return [_make_tile(folder, index, size, seed, labeled=index < count) for index in range(count + unlabeled)]


def make_large_scene(path: Path, *, size: int = 10_980, bands: int = 4, seed: int = 0) -> Path:
    """Write one scene of `size` × `size` pixels window by window, for benchmarks; return its path.

    10 m pixels at the location of a full Sentinel-2 tile. One square of a sixth of the side is computed and repeated
    mirrored, so that the time is spent on writing: for timing, not for display. Memory: one such square (27 MB for
    10 980 and 4 bands) and GDAL's cache of 64 MB.
    """
    if not 1 <= bands <= len(BANDS):
        raise ValueError(f"{bands} bands, but a synthetic scene has 1 to {len(BANDS)}")
    part = -(-size // 6)
    plane = np.arange(part, dtype=np.int64)
    sky = _sky(seed, plane, plane, 0.4, cirrus=1.0, southern=False)
    square = np.empty((bands, part, part), np.uint16)
    for window in iter_windows(part, part, 512):
        rows, cols = (plane[span] for span in window.slices)
        seen, _ = reflectance(replace(_SITES[0].ground, snow=1.4, city=0.9), sky, rows, cols)
        square[(slice(None), *window.slices)] = _digital(seen[:bands], seed, rows, cols)
    reflected = np.concatenate([plane, plane[::-1]])
    transform = from_origin(300_000.0, 5_400_000.0, 10.0, 10.0)
    profile = _profile(size, bands, "uint16", 32631, transform, NO_DATA)
    with rasterio.open(path, "w", **profile, bigtiff="if_safer") as out:
        _describe(out, BANDS[:bands], "synthetic_large", _FIRST_DAY, "mixed")
        for window in iter_windows(size, size, 1024):
            rows, cols = (reflected[np.arange(span.start, span.stop) % len(reflected)] for span in window.slices)
            out.write(
                square[:, rows[:, None], cols[None, :]],
                window=RasterWindow(window.col_off, window.row_off, window.width, window.height),
            )
    return path


def _make_tile(folder: Path, index: int, size: int, seed: int, *, labeled: bool) -> Path:
    site, visit = _SITES[index % len(_SITES)], index // len(_SITES)
    # A later visit is shifted by half a frame to the north, so that half of its ground is new.
    rows = np.arange(size, dtype=np.int64) - (visit % 4) * (size // 2)
    cols = np.arange(size, dtype=np.int64)
    name = f"synthetic_{site.name}_{index:03d}" + ("" if labeled else "_unlabelled")
    sky = _sky(
        seed * 1_000_033 + index,
        rows,
        cols,
        _CLOUD_FRACTIONS[index % len(_CLOUD_FRACTIONS)],
        cirrus=0.9 if index % 3 == 1 and index % len(_CLOUD_FRACTIONS) != 5 else 9.0,
        southern=site.epsg > 32700,
    )
    seen, cloud = reflectance(replace(site.ground, seed=site.ground.seed * 7919 + seed), sky, rows, cols)
    valid = _swath(size) if site.swath_edge else np.ones((size, size), bool)
    pixels = np.where(valid, _digital(seen, sky.seed, rows, cols), np.uint16(NO_DATA))
    half = size * RESOLUTION_M / 2
    transform = from_origin(
        site.easting - half, site.northing + half - float(rows[0]) * RESOLUTION_M, RESOLUTION_M, RESOLUTION_M
    )
    image = folder / "images" / f"{name}.tif"
    with rasterio.open(image, "w", **_profile(size, len(BANDS), "uint16", site.epsg, transform, NO_DATA)) as out:
        _describe(out, BANDS, name, _acquired_at(index, site.epsg), site.name)
        out.write(pixels)
    if labeled:
        with rasterio.open(
            folder / "labels" / f"{name}.tif", "w", **_profile(size, 1, "uint8", site.epsg, transform, MASK_NO_DATA)
        ) as out:
            out.update_tags(SYNTHETIC="YES", LABEL_SOURCE="synthetic")
            out.write(np.where(valid, cloud.astype(np.uint8), np.uint8(MASK_NO_DATA)), 1)
    return image


def _sky(
    seed: int, rows: NDArray[np.int64], cols: NDArray[np.int64], fraction: float, *, cirrus: float, southern: bool
) -> Sky:
    level = cloud_level(seed, rows[:: max(1, len(rows) // 128)], cols[:: max(1, len(cols) // 128)], fraction)
    # The mid-morning sun is in the south-east of a northern scene and in the north-east of a southern one.
    return Sky(seed=seed, thick=level, cirrus=cirrus, shadow=(19 if southern else -19, -27))


def _digital(
    seen: NDArray[np.float32], seed: int, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> NDArray[np.uint16]:
    """Return reflectance as digital numbers with a few counts of sensor noise; never 0, which means no data."""
    bits = hashed(seed + 29, rows[:, None], cols[None, :])
    noise = np.stack([uniform(bits, band) for band in range(len(seen))]) - np.float32(0.5)
    dn = np.rint(seen * np.float32(REFLECTANCE_SCALE) + noise * np.float32(36))
    return np.clip(dn, 1, 65535).astype(np.uint16)


def _swath(size: int) -> NDArray[np.bool_]:
    row, col = np.arange(size)[:, None], np.arange(size)[None, :]
    edge = 5 * col - row  # a slope of 1 in 5, about the heading of a sun-synchronous orbit
    return (edge > size // 2) & (edge < 5 * size - size // 2)


def _acquired_at(index: int, epsg: int) -> datetime:
    """Return 10:30 local solar time at the central meridian of the zone, 37 days after the previous scene."""
    central_meridian = 6 * (epsg % 100) - 183
    return _FIRST_DAY + timedelta(days=37 * index % 700, hours=10.5 - central_meridian / 15)


def _profile(size: int, count: int, dtype: str, epsg: int, transform: Any, nodata: int) -> dict[str, Any]:
    block = min(256, size // 16 * 16)
    return {
        "driver": "GTiff",
        "height": size,
        "width": size,
        "count": count,
        "dtype": dtype,
        "crs": f"EPSG:{epsg}",
        "transform": transform,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "compress": "deflate",
        "zlevel": 1,
        "predictor": 2,
    }


def _describe(out: Any, bands: tuple[str, ...], name: str, acquired_at: datetime, ground: str) -> None:
    out.descriptions = bands
    out.scales = (1 / REFLECTANCE_SCALE,) * len(bands)
    out.offsets = (0.0,) * len(bands)
    out.update_tags(
        SYNTHETIC="YES",
        TIFFTAG_IMAGEDESCRIPTION=f"{name}: procedural scene made by cloudseg, not an observation",
        TIFFTAG_DATETIME=acquired_at.strftime("%Y:%m:%d %H:%M:%S"),
        ACQUIRED_AT=acquired_at.isoformat(),
        GROUND=ground,
    )
