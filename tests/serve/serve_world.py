"""A published store: scenes, masks by two models and their rows, made by code and written by rasterio."""

import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasterio.transform import Affine
from shapely import to_wkb

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows, scene_rows
from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.raster.footprint import footprint_bounds, footprint_of
from cloudseg.records import Mask, Promotion, Scene, StoredObject, Weights
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stac.mask import COLORS
from cloudseg.stac.scene_thumbnails import add_thumbnails
from cloudseg.storage import LocalStore, Store

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
SIZE = 256
RESOLUTION = 20.0
THRESHOLD = 0.5
PLACES = {  # name: CRS, west, north
    "mgrs:31UDQ": ("EPSG:32631", 450_000.0, 5_500_000.0),
    "mgrs:31UFQ": ("EPSG:32631", 460_000.0, 5_500_000.0),
    "mgrs:60KXF": ("EPSG:32760", 814_000.0, 8_000_000.0),
}
"""The second lies 4.9 km east of the first one's east edge; the third crosses the antimeridian."""
DAYS = 3


def cloud_of(place: int, day: int, version: int) -> np.ndarray:
    """Return the cloud of a mask `(row, col)`: a disc that moves with the day and grows with the version."""
    rows, cols = np.mgrid[:SIZE, :SIZE]
    center = 64 + 60 * day
    return (rows - 128) ** 2 + (cols - center) ** 2 < (20 + 8 * version + 4 * place) ** 2


def build(store: Store, catalog: Catalog, folder: Path) -> None:
    """Fill a store and a migrated catalog; the first 16 columns of every scene have no data."""
    weights = [_weights(store, version) for version in (1, 2)]
    with catalog.begin() as db:
        for found in weights:
            model_rows.add_weights(db, found)
        model_rows.add_promotion(db, _promotion(weights[1].weights_id))
    for place, name in enumerate(PLACES):
        for day in range(DAYS):
            scene = _scene(store, folder, name, place, day)
            masks = [_mask(store, folder, scene, found, cloud_of(place, day, v)) for v, found in enumerate(weights, 1)]
            with catalog.begin() as db:
                scene_rows.add_scene(db, scene)
                for mask in masks if day < 2 else masks[:1]:  # model 2 has not seen the last day
                    model_rows.add_mask(db, mask)
            add_thumbnails(store, catalog, f"{NOON:%Y-%m}", [scene.scene_id])


def _cog(
    folder: Path, array: np.ndarray, scene: tuple[str, Affine], nodata: int, names: list[str], colors=None
) -> bytes:
    crs, transform = scene
    count, height, width = array.shape
    tiled, out = folder / "tiled.tif", folder / "out.tif"
    with create_tiled(
        tiled,
        height=height,
        width=width,
        count=count,
        dtype=str(array.dtype),
        crs=crs,
        transform=transform,
        nodata=nodata,
        descriptions=names,
        colormap=colors,
    ) as dataset:
        dataset.write(array)
    write_cog(out, tiled, resampling="mode" if colors else "average", tags={})
    return out.read_bytes()


def _valid() -> np.ndarray:
    valid = np.ones((SIZE, SIZE), bool)
    valid[:, :16] = False
    return valid


def _scene(store: Store, folder: Path, place: str, number: int, day: int) -> Scene:
    crs, west, north = PLACES[place]
    transform = Affine(RESOLUTION, 0, west, 0, -RESOLUTION, north)
    pixels = np.full((4, SIZE, SIZE), 800 + 10 * day, np.uint16)
    pixels[:, cloud_of(number, day, 1)] = 6000
    pixels[:, ~_valid()] = 0
    data = _cog(folder, pixels, (crs, transform), 0, ["red", "green", "blue", "nir"])
    stored = store.put(keys.scene(keys.sha256_of(data)), data)
    footprint = footprint_of(_valid(), transform, crs)
    bounds = dict(zip(("min_lon", "min_lat", "max_lon", "max_lat"), footprint_bounds(footprint), strict=True))
    source = keys.sha256_of(f"{place} {day}".encode())
    return Scene(
        scene_id=keys.id_from_hash("sc", source),
        name=f"scene_{number}_{day}",
        layout="pairs",
        sensor="sentinel-2-l1c",
        radiometry="test",
        acquired_at=NOON + timedelta(days=day),
        place=place,
        crs=crs,
        transform=list(transform)[:6],
        height=SIZE,
        width=SIZE,
        resolution_m=RESOLUTION,
        bands=["red", "green", "blue", "nir"],
        footprint_wkb=to_wkb(footprint),
        **bounds,
        valid_fraction=float(_valid().mean()),
        publishable=True,
        source_uri="file:///in/scene.tif",
        source_sha256=source,
        **stored.model_dump(),
        tags={},
        created_at=NOON + timedelta(days=day, hours=1),
    )


def _mask(store: Store, folder: Path, scene: Scene, weights: Weights, cloud: np.ndarray) -> Mask:
    grid = (scene.crs, Affine(*scene.transform))
    valid = _valid()
    steps = np.where(valid, np.where(cloud, 225, 25), 255).astype(np.uint8)
    classes = np.where(valid, cloud, 255).astype(np.uint8)
    colors = {value: (*color, 255) for value, color in COLORS.items()}
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 80)).save(out, "PNG")

    def put(name: str, data: bytes) -> StoredObject:
        return store.put(keys.mask(weights.weights_id, scene.scene_id, name, keys.sha256_of(data)), data)

    stored = put("mask.tif", _cog(folder, classes[None], grid, 255, ["cloud mask"], colors))
    probability = put("probability.tif", _cog(folder, steps[None], grid, 255, ["cloud probability"]))
    companions = {"probability": probability, "thumbnail": put("thumbnail.png", out.getvalue())}
    return Mask(
        mask_id=keys.make_id("mk", scene.scene_id, weights.weights_id),
        scene_id=scene.scene_id,
        weights_id=weights.weights_id,
        threshold=THRESHOLD,
        cloud_fraction=float((cloud & valid).sum() / valid.sum()),
        valid_fraction=float(valid.mean()),
        **stored.model_dump(),
        companions={name: found.model_dump() for name, found in companions.items()},
        created_at=NOON + timedelta(days=10),
    )


def _weights(store: Store, version: int) -> Weights:
    data = f"weights {version}".encode()
    sha256 = keys.sha256_of(data)
    stored = store.put(keys.weights(sha256), data)
    metadata = {
        "threshold": THRESHOLD,
        "bands": ["red", "green", "blue"],
        "recipe_name": "tiny",
        "working_resolution_m": RESOLUTION,
        "architecture": "SimpleUNet",
        "widths": [4, 8],
        "mean": [0.2],
        "std": [0.2],
        "clip": 1.0,
    }
    return Weights(
        weights_id=keys.id_from_hash("w", sha256),
        version=version,
        run_id=None,
        snapshot_id=None,
        architecture="SimpleUNet",
        **stored.model_dump(),
        companions={},
        metadata=metadata,
        created_at=NOON + timedelta(days=version),
    )


def _promotion(weights_id: str) -> Promotion:
    return Promotion(
        generation=1,
        weights_id=weights_id,
        previous_weights_id=None,
        action="promote",
        verdict_id=None,
        actor="test",
        reason="first",
        created_at=NOON,
    )


def home_of(folder: Path) -> Path:
    """Make CLOUDSEG_HOME with a published store and an embedded catalog; return it."""
    home = folder / "home"
    home.mkdir()
    catalog = Catalog(f"sqlite:///{home / 'catalog.db'}")
    catalog.upgrade()
    build(LocalStore(home / "store"), catalog, folder)
    catalog.engine.dispose()
    return home


def opened_runtime(home: Path, **settings: str) -> Runtime:
    """Open settings, catalog and store of a home, with settings without their prefix."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("CLOUDSEG_")]:
            patch.delenv(name)
        patch.setenv("CLOUDSEG_HOME", str(home))
        for name, value in settings.items():
            patch.setenv(f"CLOUDSEG_{name.upper()}", value)
        return open_runtime()
