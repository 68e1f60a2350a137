"""Read the chips of a snapshot from memory-mapped shards, without decoding or copying."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloudseg.dataset.manifest import Manifest, Shard, read_manifest
from cloudseg.errors import ObjectCorrupt, ObjectMissing, SnapshotChanged
from cloudseg.records import Chip, Json, Snapshot, Split
from cloudseg.storage import Store
from cloudseg.storage.local import file_sha256


class ChipSet:
    """The chips of one snapshot, in the order of the manifest. Safe to share between threads."""

    def __init__(self, manifest: Manifest, shards: list[npt.NDArray[np.uint8]]) -> None:
        self._manifest = manifest
        self._shards = shards
        self.chips = manifest.chips

    @property
    def bands(self) -> list[str]:
        """Bands of `pixels`, in order."""
        return self._manifest.bands

    @property
    def chip_size(self) -> int:
        """Rows and columns of every chip, padding included."""
        return self._manifest.chip_size

    @property
    def counts(self) -> Json:
        """Chips, scenes, places and cloud_fraction of each split."""
        return self._manifest.counts

    def of(self, split: Split) -> list[Chip]:
        """Return the chips of a split."""
        return [chip for chip in self.chips if chip.split == split]

    def pixels(self, chip: Chip) -> npt.NDArray[np.uint16]:
        """Return canonical digital numbers `(band, row, col)`, a read-only view; 0 is no data (and padding)."""
        size, bands = self.chip_size, len(self.bands)
        flat = self._shards[chip.shard][chip.index, : 2 * bands * size * size]
        return flat.view("<u2").reshape(bands, size, size)

    def label(self, chip: Chip) -> npt.NDArray[np.uint8]:
        """Return the label `(row, col)`, a read-only view: 0 clear, 1 cloud, 255 unlabeled, unobserved or padding."""
        size = self.chip_size
        return self._shards[chip.shard][chip.index, 2 * len(self.bands) * size * size :].reshape(size, size)


@contextmanager
def open_chips(store: Store, snapshot: Snapshot, *, verify: bool = True) -> Iterator[ChipSet]:
    """Yield the chips of a snapshot; the sizes of its shards are always checked.

    Args:
        store: holds manifest and shards.
        snapshot: the row.
        verify: whether the checksum of every shard is compared too (one sequential read).

    Raises:
        SnapshotChanged: an object is missing or is not what the manifest names.
    """
    with ExitStack() as stack:
        yield _open(store, snapshot, stack, verify=verify)


def _open(store: Store, snapshot: Snapshot, stack: ExitStack, *, verify: bool) -> ChipSet:
    try:
        manifest = read_manifest(store.get(snapshot.manifest_key, snapshot.manifest_sha256), snapshot.snapshot_id)
        paths = [stack.enter_context(store.local_file(shard.object.key)) for shard in manifest.shards]
    except (ObjectMissing, ObjectCorrupt) as error:
        raise SnapshotChanged(
            error.what,
            subject=snapshot.snapshot_id,
            found=error.subject,
            next_step="Restore the object or build the snapshot again.",
        ) from error
    pairs = zip(manifest.shards, paths, strict=True)
    return ChipSet(manifest, [_map_shard(snapshot, manifest, shard, path, verify=verify) for shard, path in pairs])


def _map_shard(
    snapshot: Snapshot, manifest: Manifest, shard: Shard, path: Path, *, verify: bool
) -> npt.NDArray[np.uint8]:
    expected = shard.chips * manifest.chip_bytes
    if path.stat().st_size != expected:
        raise _changed(snapshot, shard, f"{path.stat().st_size} bytes", f"{expected} bytes")
    if verify and (found := file_sha256(path)) != shard.object.sha256:
        raise _changed(snapshot, shard, found, shard.object.sha256)
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(shard.chips, manifest.chip_bytes))


def _changed(snapshot: Snapshot, shard: Shard, found: str, expected: str) -> SnapshotChanged:
    return SnapshotChanged(
        f"shard {shard.object.key} is not what the manifest names",
        subject=snapshot.snapshot_id,
        found=found,
        expected=expected,
        next_step="Restore the object or build the snapshot again.",
    )
