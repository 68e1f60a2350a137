"""Build a snapshot: the accepted labels of the catalog, cut into chips, split by place, packed and hashed."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from sqlalchemy import Connection

from cloudseg import keys
from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.catalog import Catalog, training_rows
from cloudseg.catalog.session import now
from cloudseg.dataset.manifest import Manifest, read_manifest, snapshot_id_of
from cloudseg.dataset.plan import Source, list_sources
from cloudseg.dataset.shard import ShardWriter
from cloudseg.errors import CloudsegError, EmptySplit
from cloudseg.grid import Window, iter_strips
from cloudseg.publish import publish, stage_object
from cloudseg.raster.read import open_raster, read_overlay, read_scene
from cloudseg.recipe import Recipe
from cloudseg.records import Chip, Json, Snapshot, SnapshotRecord, Split
from cloudseg.scratch import scratch_directory
from cloudseg.storage import Store, whole_object

log = logging.getLogger(__name__)
OnProgress = Callable[[int, int], None]
"""Called with scenes done and the total number of scenes."""
SPLITS: tuple[Split, ...] = ("train", "validation", "held_out")

_STRIP_ROWS = 512
"""Rows of a scene's labels that are counted at a time."""
CLEAR_BELOW, OVERCAST_ABOVE = 0.10, 0.90
"""Cloud fractions of a scene's label that separate the slices 'clear', 'mixed' and 'overcast'."""


def build_snapshot(
    store: Store, catalog: Catalog, recipe: Recipe, *, dry_run: bool = False, on_progress: OnProgress | None = None
) -> SnapshotRecord:
    """Freeze the accepted labels of all scenes that have the recipe's bands; those of one scene are overlaid.

    The same labels, chip size, bands and working resolution produce the same snapshot, whatever the order or time of
    ingestion; a second call finds it and reads no pixel. Memory: one window of one scene.

    Args:
        store: holds scenes and labels; shards and manifest are written to it.
        catalog: lists the labels; the splits of new places and the snapshot's row are written to it.
        recipe: bands, chip size and working resolution.
        dry_run: write nothing and count windows, including those without a labeled pixel.
        on_progress: called with scenes done and the total number of scenes.

    Raises:
        EmptySplit: no scene fits the recipe, or no pixel is labeled.
        ObjectCorrupt: the bytes of a scene or a label are not those that were ingested.
    """
    if dry_run:
        with catalog.read() as db:
            return SnapshotRecord(
                snapshot_id="", created=False, counts=_planned_counts(list_sources(db, recipe, write=False))
            )
    with catalog.begin() as db:
        sources = list_sources(db, recipe, write=True)
    labels = {label.label_id: source.split for source in sources for label in source.labels}
    if (known := _find_same(store, catalog, recipe, labels)) is not None:
        return SnapshotRecord(snapshot_id=known.snapshot_id, created=False, counts=known.counts)
    while (record := _publish(store, catalog, _pack(store, recipe, sources, on_progress), labels)) is None:
        log.warning("maintenance deleted a shard that this snapshot was going to share: packing again")
    return record


def _publish(store: Store, catalog: Catalog, manifest: Manifest, labels: dict[str, Split]) -> SnapshotRecord | None:
    """Store the manifest and add the row; return None if a shard is gone, which only packing again can restore."""
    packed = manifest.pack()
    snapshot_id = snapshot_id_of(packed)
    out = stage_object(packed, lambda _: keys.snapshot_manifest(snapshot_id))
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        manifest_key=out.stored.key,
        manifest_sha256=out.stored.sha256,
        chip_size=manifest.chip_size,
        bands=manifest.bands,
        working_resolution_m=manifest.working_resolution_m,
        counts=manifest.counts,
        created_at=now(),
    )

    def write(db: Connection, _: object) -> bool | None:
        whole = all(store.exists(shard.object.key) for shard in manifest.shards)
        return training_rows.add_snapshot(db, snapshot, labels) if whole else None

    created = publish(store, catalog, {"manifest": out}, write)
    if created is None:
        return None
    log.info("snapshot %s: %s", snapshot_id, _describe(manifest.counts))
    return SnapshotRecord(snapshot_id=snapshot_id, created=created, counts=manifest.counts)


def _describe(counts: Json) -> str:
    """Return the counts of a snapshot in words, split by split."""
    splits = {name: of for name, of in counts.items() if isinstance(of, dict)}
    return "; ".join(f"{name} {of['chips']} chips of {of['scenes']} scenes" for name, of in splits.items())


def _find_same(store: Store, catalog: Catalog, recipe: Recipe, labels: dict[str, Split]) -> Snapshot | None:
    """Return the snapshot of the same labels with the same chip size, bands and resolution, if its objects exist."""
    wanted = (recipe.data.chip_size, list(recipe.model.bands), recipe.input.working_resolution_m)
    with catalog.read() as db:
        for snapshot in training_rows.list_snapshots(db):
            same = (snapshot.chip_size, snapshot.bands, snapshot.working_resolution_m) == wanted
            if (
                same
                and training_rows.list_snapshot_labels(db, snapshot.snapshot_id) == labels
                and _is_whole(store, snapshot)
            ):
                return snapshot
    return None


def _is_whole(store: Store, snapshot: Snapshot) -> bool:
    """Return whether manifest and shards exist; if not, building again stores them under the same keys."""
    try:
        manifest = read_manifest(store.get(snapshot.manifest_key, snapshot.manifest_sha256), snapshot.snapshot_id)
        return all(store.stat(shard.object.key)[0] == shard.object.size for shard in manifest.shards)
    except CloudsegError as error:
        if error.retry_helps:
            raise
        log.warning("snapshot %s is incomplete, building it again: %s", snapshot.snapshot_id, error)
        return False


def _pack(store: Store, recipe: Recipe, sources: list[Source], on_progress: OnProgress | None) -> Manifest:
    size, bands = recipe.data.chip_size, list(recipe.model.bands)
    chips: list[Chip] = []
    with (
        scratch_directory("shards") as folder,
        ShardWriter(store, folder, size * size * (2 * len(bands) + 1)) as writer,
    ):
        for done, source in enumerate(sources, start=1):
            writer.begin_scene(source.scene.scene_id)
            tags = _tags(source, _cloud_fraction(store, source))
            for window, pixels, label in _iter_cut(store, source, bands, size):
                chips.append(_chip(source, tags, window, label, writer.add(pixels, label)))
            if on_progress is not None:
                on_progress(done, len(sources))
        writer.finish()
    if not chips:
        raise EmptySplit(
            "no chip has a labeled pixel",
            subject=f"recipe {recipe.name}",
            found=f"{len(sources)} labeled scenes",
            next_step="Check the labels of these scenes: every pixel is 255.",
        )
    return Manifest(
        chip_size=size,
        bands=bands,
        working_resolution_m=recipe.input.working_resolution_m,
        counts=_counts(chips),
        shards=writer.shards,
        chips=chips,
    )


Cut = tuple[Window, npt.NDArray[np.uint16], npt.NDArray[np.uint8]]


def _iter_cut(store: Store, source: Source, bands: list[str], size: int) -> Iterator[Cut]:
    """Yield the chips of a scene that have a labeled pixel: padded to `size`, label 255 where not observed.

    Raises:
        ObjectCorrupt: the scene or a label is not what was ingested: nothing may be learned from it.
    """
    with (
        whole_object(store, source.scene, f"scene {source.scene.scene_id}") as scene_file,
        open_raster(str(scene_file)) as scene,
        _open_labels(store, source) as labels,
    ):
        for window in source.windows:
            label = _read_label(labels, window, source.factor, size)
            if (label == MASK_NO_DATA).all():
                continue
            pixels, valid = read_scene(scene, window, bands, source.factor)
            label[: window.height, : window.width][~valid] = MASK_NO_DATA
            if (label == MASK_NO_DATA).all():
                continue
            padding = ((0, 0), (0, size - window.height), (0, size - window.width))
            yield window, np.pad(pixels, padding), label


@contextmanager
def _open_labels(store: Store, source: Source) -> Iterator[list[rasterio.DatasetReader]]:
    """Yield the open labels of a scene, oldest first.

    Raises:
        ObjectCorrupt: a label is not what was ingested.
    """
    with ExitStack() as stack:
        owners = [f"label {label.label_id} of scene {source.scene.scene_id}" for label in source.labels]
        files = [
            stack.enter_context(whole_object(store, label, owner))
            for label, owner in zip(source.labels, owners, strict=True)
        ]
        yield [stack.enter_context(open_raster(str(file))) for file in files]


def _read_label(
    datasets: list[rasterio.DatasetReader], window: Window, factor: int, size: int
) -> npt.NDArray[np.uint8]:
    label = np.full((size, size), MASK_NO_DATA, np.uint8)
    label[: window.height, : window.width] = read_overlay(datasets, window, factor)
    return label


def _cloud_fraction(store: Store, source: Source) -> float:
    """Return the share of cloud among the labeled pixels of a scene; 0 if none is labeled."""
    if len(source.labels) == 1:
        return source.labels[0].cloud_fraction
    cloud = labeled = 0
    with _open_labels(store, source) as labels:
        for strip in iter_strips(Window(0, 0, source.scene.height, source.scene.width), _STRIP_ROWS):
            classes = read_overlay(labels, strip)
            cloud += int((classes == MASK_CLOUD).sum())
            labeled += int((classes != MASK_NO_DATA).sum())
    return cloud / labeled if labeled else 0.0


def _chip(source: Source, tags: Json, window: Window, label: npt.NDArray[np.uint8], position: tuple[int, int]) -> Chip:
    labeled = int((label != MASK_NO_DATA).sum())
    scene, label_ids = source.scene, [entry.label_id for entry in source.labels]
    return Chip(
        # All labels: the same window of another overlay is another chip. One label gives the id that it always gave.
        chip_id=keys.make_id("ch", *label_ids, str(window.row_off), str(window.col_off), str(source.factor)),
        scene_id=scene.scene_id,
        label_id=label_ids[-1],
        place=scene.place,
        split=source.split,
        shard=position[0],
        index=position[1],
        row_off=window.row_off,
        col_off=window.col_off,
        height=window.height,
        width=window.width,
        cloud_fraction=int((label == MASK_CLOUD).sum()) / labeled,
        labelled_fraction=labeled / (window.height * window.width),
        tags=tags,
    )


def _tags(source: Source, cloud: float) -> Json:
    """Return what an evaluation can slice by: the tags of the scene, its sensor and its cloud cover."""
    cover = "clear" if cloud < CLEAR_BELOW else ("overcast" if cloud > OVERCAST_ABOVE else "mixed")
    return {**source.scene.tags, "sensor": source.scene.sensor, "cloud_cover": cover}


def _counts(chips: list[Chip]) -> Json:
    """Return chips, scenes, places and cloud fraction (of labeled pixels; None without chips) of each split."""
    counts: dict[str, Any] = {"chips": len(chips)}
    for split in SPLITS:
        of_split = [chip for chip in chips if chip.split == split]
        labeled = sum(chip.labelled_fraction * chip.height * chip.width for chip in of_split)
        cloud = sum(chip.cloud_fraction * chip.labelled_fraction * chip.height * chip.width for chip in of_split)
        counts[split] = {
            "chips": len(of_split),
            "scenes": len({chip.scene_id for chip in of_split}),
            "places": len({chip.place for chip in of_split}),
            "cloud_fraction": round(cloud / labeled, 6) if of_split else None,
        }
    return counts


def _planned_counts(sources: list[Source]) -> Json:
    counts: dict[str, Any] = {"chips": sum(len(source.windows) for source in sources)}
    for split in SPLITS:
        of_split = [source for source in sources if source.split == split]
        counts[split] = {
            "chips": sum(len(source.windows) for source in of_split),
            "scenes": len(of_split),
            "places": len({source.scene.place for source in of_split}),
            "cloud_fraction": None,
        }
    return counts
