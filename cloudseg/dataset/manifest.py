"""The manifest of a snapshot: canonical JSON that lists shards and chips; its hash is the snapshot's id."""

from typing import Literal

from pydantic import Field, ValidationError

from cloudseg.errors import SnapshotChanged
from cloudseg.keys import canonical_json, id_from_hash, sha256_of
from cloudseg.records import Chip, Json, Record, StoredObject


class Shard(Record):
    """A file of packed chips: `chips` records of equal size and nothing else (docs/reference/on_disk.md)."""

    object: StoredObject
    chips: int = Field(ge=1)


class Manifest(Record):
    """The content of a snapshot; it holds no time and no order of ingestion."""

    format: Literal["cloudseg-snapshot-1"] = "cloudseg-snapshot-1"
    chip_size: int
    bands: list[str]
    working_resolution_m: float | None
    counts: Json
    shards: list[Shard]
    chips: list[Chip]

    @property
    def chip_bytes(self) -> int:
        """Bytes of one packed chip: uint16 pixels `(band, row, col)`, then the uint8 label `(row, col)`."""
        return self.chip_size**2 * (2 * len(self.bands) + 1)

    def pack(self) -> bytes:
        """Return the canonical JSON."""
        return canonical_json(self.as_json())


def snapshot_id_of(packed: bytes) -> str:
    """Return the snapshot id of a packed manifest."""
    return id_from_hash("sn", sha256_of(packed))


def read_manifest(packed: bytes, snapshot_id: str) -> Manifest:
    """Read a packed manifest.

    Raises:
        SnapshotChanged: its hash is not the snapshot's id, or it cannot be read.
    """
    if (found := snapshot_id_of(packed)) != snapshot_id:
        raise SnapshotChanged("the manifest has another hash", subject=snapshot_id, found=found, expected=snapshot_id)
    try:
        return Manifest.model_validate_json(packed)
    except ValidationError as error:
        raise SnapshotChanged(
            "the manifest cannot be read",
            subject=snapshot_id,
            found=error.errors()[0]["msg"],
            next_step="Build the snapshot again.",
        ) from error
