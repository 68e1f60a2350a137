"""Pack chips into a few large files of equal records, one file at a time.

Where a file ends depends on its content (a scene's id) and its size, so that a new scene changes only its own
file, and a later snapshot shares the others (content-defined chunking).
"""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from cloudseg import keys
from cloudseg.dataset.manifest import Shard
from cloudseg.storage import Store

MAX_SHARD_BYTES: Final = 256 << 20
"""A shard is never larger: it fits into the page cache and into one upload."""
_MIN_SHARD_BYTES: Final = 48 << 20
_ONE_IN: Final = 8
"""Beyond the smallest size one scene in eight, by its hash, begins a new shard."""


class ShardWriter:
    """Writer that appends chips to a file and stores each finished file under its checksum. Memory: one chip."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        chip_bytes: int,
        *,
        max_bytes: int = MAX_SHARD_BYTES,
        min_bytes: int = _MIN_SHARD_BYTES,
    ) -> None:
        self.shards: list[Shard] = []
        self._store, self._folder = store, folder
        self._chip_bytes = chip_bytes
        self._max_bytes, self._min_bytes = max(max_bytes, chip_bytes), min_bytes
        self._chips = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def begin_scene(self, scene_id: str) -> None:
        """Begin the chips of another scene; a new shard may begin here."""
        marked = hashlib.sha256(scene_id.encode()).digest()[0] % _ONE_IN == 0
        if marked and self._chips * self._chip_bytes >= self._min_bytes:
            self.finish()

    def add(self, pixels: npt.NDArray[np.uint16], label: npt.NDArray[np.uint8]) -> tuple[int, int]:
        """Append a chip; return the number of its shard and its index in it."""
        if (self._chips + 1) * self._chip_bytes > self._max_bytes:
            self.finish()
        if self._file is None:
            self._file = (self._folder / f"{len(self.shards)}.bin").open("wb")
        self._file.write(pixels.astype("<u2").tobytes() + label.tobytes())
        self._chips += 1
        return len(self.shards), self._chips - 1

    def finish(self) -> None:
        """Store the shard that is being written, if any."""
        if self._file is None:
            return
        self._file.close()
        path = Path(self._file.name)
        with path.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        self.shards.append(Shard(object=self._store.put_file(keys.snapshot_shard(sha256), path), chips=self._chips))
        path.unlink()
        self._file, self._chips = None, 0
