"""A tiny snapshot to evaluate on: scenes that are bright where there is cloud, and nets that threshold brightness."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import torch

from cloudseg import keys
from cloudseg.catalog import Catalog
from cloudseg.catalog.scene_rows import add_label, add_scene
from cloudseg.catalog.training_rows import add_snapshot
from cloudseg.dataset.manifest import Manifest, snapshot_id_of
from cloudseg.dataset.shard import ShardWriter
from cloudseg.grid import Window, iter_windows
from cloudseg.model.device import Device
from cloudseg.model.golden import GOLDEN_FILE, pack_golden
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.nets import build_model
from cloudseg.model.weights import load_weights, pack_weights
from cloudseg.recipe import Model
from cloudseg.records import Chip, Label, Scene, Snapshot, Split, Weights
from cloudseg.registry import register
from cloudseg.scratch import scratch_directory
from cloudseg.storage import Store

CPU = Device(kind="cpu", precision="fp32", threads=1, reason="a test")
DAY = datetime(2018, 7, 1, 10, 30, tzinfo=UTC)
CHIP = 32
CLOUD_DN, GROUND_DN = 6000, 1000


@dataclass(frozen=True)
class Tile:
    """A scene: digital numbers, label, place and split."""

    name: str
    split: Split
    place: str
    dn: npt.NDArray[np.uint16]
    label: npt.NDArray[np.uint8]
    tags: dict[str, str]
    sensor: str = "sentinel-2-l1c"
    resolution_m: float = 10.0


def make_tile(
    name: str, split: Split, cloud: float, *, size: int = 48, place: str | None = None, ground: int = GROUND_DN, **more
) -> Tile:
    """A scene whose left part is cloud; brightness is noisy, so no threshold is perfect."""
    random = np.random.default_rng(keys.sha256_of(name.encode())[0].encode()[0])
    label = np.zeros((size, size), np.uint8)
    label[:, : round(cloud * size)] = 1
    base = np.where(label == 1, CLOUD_DN, ground)
    dn = np.clip(base + random.normal(0, 300, (3, size, size)), 1, 10_000).astype(np.uint16)
    return Tile(name, split, place or f"mgrs:{name}", dn, label, more.pop("tags", {}), **more)


def default_tiles() -> list[Tile]:
    splits: list[Split] = ["train"] * 3 + ["validation"] + ["held_out"] * 10
    clouds = [0.5, 0.2, 0.7, 0.5, 0.3, 0.6, 0.0, 1.0, 0.4, 0.5, 0.2, 0.8, 0.0, 0.3]
    return [
        make_tile(f"T{n:02d}", split, cloud, tags={"biome": "forest" if n % 2 else "water"})
        for n, (split, cloud) in enumerate(zip(splits, clouds, strict=True))
    ]


def build_world(
    store: Store, catalog: Catalog, tiles: list[Tile], *, chip: int = CHIP, working_resolution_m: float | None = None
) -> str:
    """Put tiles into catalog and store as one snapshot; return its id.

    The canonical COGs themselves are not needed here.
    """
    chips: list[Chip] = []
    labels: dict[str, Split] = {}
    with (
        scratch_directory("test") as folder,
        ShardWriter(store, folder, chip * chip * 7) as writer,
        catalog.begin() as db,
    ):
        for tile in tiles:
            scene_id, label_id = keys.make_id("sc", tile.name), keys.make_id("lb", tile.name)
            add_scene(db, _scene(tile, scene_id))
            add_label(db, _label(tile, scene_id, label_id))
            labels[label_id] = tile.split
            for window in iter_windows(*tile.label.shape, chip):
                pixels, label = _cut(tile, window, chip)
                chips.append(_chip(tile, window, scene_id, label_id, writer.add(pixels, label)))
        writer.finish()
        manifest = Manifest(
            chip_size=chip,
            bands=["red", "green", "blue"],
            working_resolution_m=working_resolution_m,
            counts={},
            chips=chips,
            shards=writer.shards,
        )
        packed = manifest.pack()
        snapshot_id = snapshot_id_of(packed)
        stored = store.put(keys.snapshot_manifest(snapshot_id), packed)
        snapshot = Snapshot(
            snapshot_id=snapshot_id,
            manifest_key=stored.key,
            manifest_sha256=stored.sha256,
            chip_size=chip,
            bands=manifest.bands,
            working_resolution_m=working_resolution_m,
            counts={},
            created_at=DAY,
        )
        add_snapshot(db, snapshot, labels)
    return snapshot_id


def _cut(tile: Tile, window: Window, chip: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    pixels, label = np.zeros((3, chip, chip), np.uint16), np.full((chip, chip), 255, np.uint8)
    pixels[:, : window.height, : window.width] = tile.dn[:, *window.slices]
    label[: window.height, : window.width] = tile.label[window.slices]
    return pixels, label


def _chip(tile: Tile, window: Window, scene_id: str, label_id: str, position: tuple[int, int]) -> Chip:
    return Chip(
        chip_id=keys.make_id("ch", tile.name, str(window)),
        scene_id=scene_id,
        label_id=label_id,
        place=tile.place,
        split=tile.split,
        shard=position[0],
        index=position[1],
        row_off=window.row_off,
        col_off=window.col_off,
        height=window.height,
        width=window.width,
        cloud_fraction=0.5,
        labelled_fraction=1,
        tags=tile.tags,
    )


def _scene(tile: Tile, scene_id: str) -> Scene:
    height, width = tile.label.shape
    return Scene(
        scene_id=scene_id,
        name=tile.name,
        layout="pairs",
        sensor=tile.sensor,
        radiometry="test",
        acquired_at=DAY,
        place=tile.place,
        crs="EPSG:32631",
        transform=[tile.resolution_m, 0, 0, 0, -tile.resolution_m, 0],
        height=height,
        width=width,
        resolution_m=tile.resolution_m,
        bands=["red", "green", "blue"],
        footprint_wkb=None,
        min_lon=0,
        min_lat=0,
        max_lon=1,
        max_lat=1,
        valid_fraction=1,
        publishable=True,
        source_uri="file:///inbox",
        source_sha256=scene_id,
        key="scenes/x.tif",
        sha256="0",
        size=1,
        tags=tile.tags,
        created_at=DAY,
    )


def _label(tile: Tile, scene_id: str, label_id: str) -> Label:
    return Label(
        label_id=label_id,
        scene_id=scene_id,
        version=1,
        source="synthetic",
        class_mapping={},
        cloud_fraction=float(tile.label.mean()),
        labelled_fraction=1,
        source_uri="file:///inbox",
        source_sha256=label_id,
        key="labels/x.tif",
        sha256="0",
        size=1,
        created_at=DAY,
    )


def brightness_net(reflectance: float, *, gain: float = 40.0, **changes: object) -> tuple[bytes, WeightsMeta]:
    """Weights whose probability is sigmoid(gain * (red - reflectance)): every other parameter is zero."""
    model = Model(widths=(2, 4))
    torch.manual_seed(0)
    net = build_model(model)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.fill_(1.0 if name.endswith(("conv.1.weight", "conv.4.weight")) else 0.0)
        net.enc1.conv[0].weight[0, 0, 1, 1] = 1.0
        net.enc1.conv[3].weight[0, 0, 1, 1] = 1.0
        net.dec1.conv[0].weight[0, 2, 1, 1] = 1.0  # the first channel of the skip comes after the two from below
        net.dec1.conv[3].weight[0, 0, 1, 1] = 1.0
        net.final.weight[0, 0] = gain
        net.final.bias[0] = -gain * reflectance
    meta = WeightsMeta.model_validate(
        {
            "architecture": "SimpleUNet",
            "bands": model.bands,
            "widths": model.widths,
            "dropout": 0.0,
            "total_parameters": 100,
            "clip": 1.0,
            "mean": (0.0,),
            "std": (1.0,),
            "working_resolution_m": None,
            "threshold": 0.5,
            "tta_flip": False,
            "chip_size": CHIP,
        }
        | changes
    )
    return pack_weights(net.eval(), meta), meta


def register_net(
    store: Store, catalog: Catalog, reflectance: float, *, golden: bytes | None = None, **changes: object
) -> Weights:
    """Publish a brightness net with its golden sample (or with another one)."""
    data, meta = brightness_net(reflectance, **changes)
    sample = golden if golden is not None else pack_golden(load_weights(data))
    return register(
        store,
        catalog,
        weights=data,
        metadata=meta.model_dump(mode="json"),
        companions={"golden": (GOLDEN_FILE, sample)},
        run_id=None,
        snapshot_id=None,
        architecture=meta.architecture,
    )
