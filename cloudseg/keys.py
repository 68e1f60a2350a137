"""Every key in the object store is built here. `docs/reference/on_disk.md` lists what writes, reads and deletes each.

Keys are relative, use only `[a-z0-9._/-]`, and no key is ever the prefix folder of another. Objects are immutable
and content-addressed, except those in `REPLACED`.
"""

import hashlib
import json
import re
from typing import Any, Final

CHAMPION_POINTER: Final = "models/champion.json"
VERIFICATION: Final = "maintenance/verification.json"
"""What maintenance last read of the store, and what was damaged (`cloudseg.stages.verification`)."""
STAC_ROOT: Final = "stac/catalog.json"
"""The static STAC catalog. Everything under `STAC_PREFIX` follows from the rows of the catalog and may be replaced."""
STAC_PREFIX: Final = "stac/"
REPLACED: Final = (CHAMPION_POINTER, VERIFICATION)
"""The objects that no row names by checksum: they may be replaced, and their absence is no damage."""
PREFIXES: Final = (
    "scenes/",
    "labels/",
    "snapshots/",
    "shards/",
    "runs/",
    "models/",
    "evaluations/",
    "verdicts/",
    "masks/",
    "maintenance/",
    "doctor/",
)
"""Every key of this module begins with one of these or with `STAC_PREFIX`. Other objects in a store (an inbox) are not
the service's."""
_PART = re.compile(r"[a-z0-9][a-z0-9._-]*")


def sha256_of(data: bytes) -> str:
    """Return the hex SHA-256 of the bytes."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return a value as canonical JSON: sorted keys, no blanks, UTF-8.

    Raises:
        ValueError: the value holds NaN or infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # A file name that is not UTF-8 arrives with lone surrogates, which only a JSON escape can hold.
    return text.encode("utf-8", "backslashreplace")


def make_id(prefix: str, *parts: str) -> str:
    """Return `<prefix>-<20 hex digits>` over the parts; the parts are delimited unambiguously."""
    return f"{prefix}-{sha256_of(canonical_json(list(parts)))[:20]}"


def id_from_hash(prefix: str, sha256: str) -> str:
    """Return `<prefix>-<20 hex digits>` of a content hash."""
    return f"{prefix}-{sha256[:20]}"


def checked(key: str) -> str:
    """Return the key, or raise ValueError: absolute keys, `..` and empty parts never reach a store."""
    if not is_key(key):
        raise ValueError(f"not an object key: {key!r}")
    return key


def is_key(key: str) -> bool:
    """Return whether a store may hold an object of this name.

    At most 512 characters, 200 per part (file systems end at 255).
    """
    return len(key) <= 512 and all(len(part) <= 200 and _PART.fullmatch(part) for part in key.split("/"))


def scene(sha256: str) -> str:
    """Return the key of the canonical COG of a scene."""
    return f"scenes/{sha256[:2]}/{sha256}.tif"


def label(sha256: str) -> str:
    """Return the key of the canonical COG of a label."""
    return f"labels/{sha256[:2]}/{sha256}.tif"


def snapshot_manifest(snapshot_id: str) -> str:
    """Return the key of a snapshot's manifest, the list of its chips."""
    return f"snapshots/{snapshot_id}/manifest.json"


def snapshot_shard(sha256: str) -> str:
    """Return the key of packed chips, shared between the snapshots that hold them."""
    return f"shards/{sha256[:2]}/{sha256}.bin"


def checkpoint(run_id: str, step: int, sha256: str) -> str:
    """Return the key of the state of a run after a step."""
    return f"runs/{slug(run_id)}/checkpoints/{step:08d}.{sha256[:12]}.safetensors"


def weights(sha256: str) -> str:
    """Return the key of published parameters."""
    return f"models/{sha256}/weights.safetensors"


def weights_asset(weights_sha256: str, name: str, sha256: str) -> str:
    """Return the key of an asset of weights (ONNX export, card, …); `name` is a file name such as `model.onnx`."""
    stem, _, suffix = name.rpartition(".")
    return f"models/{weights_sha256}/{stem}.{sha256[:12]}.{suffix}"


def evaluation(evaluation_id: str, name: str, sha256: str) -> str:
    """Return the key of a part of a report; `name` is a file name such as `report.html`."""
    stem, _, suffix = name.rpartition(".")
    return f"evaluations/{evaluation_id}/{stem}.{sha256[:12]}.{suffix}"


def verdict(verdict_id: str) -> str:
    """Return the key of the canonical JSON of a verdict."""
    return f"verdicts/{verdict_id}.json"


def mask(weights_id: str, scene_id: str, name: str, sha256: str) -> str:
    """Return the key of a published raster or an asset of it; `name` is a file name such as `mask.tif`."""
    stem, _, suffix = name.rpartition(".")
    return f"masks/{weights_id}/{scene_id}/{stem}.{sha256[:12]}.{suffix}"


def style(raster: str) -> str:
    """Return the key of the QGIS style of a raster: of the same base name, because QGIS looks for that name only."""
    return f"{raster.rpartition('.')[0]}.qml"


def parts_of_mask(key: str) -> tuple[str, str] | None:
    """Return the weights id and the scene id of a key that `mask` built, None for any other."""
    match key.split("/"):
        case ["masks", weights_id, scene_id, _]:
            return weights_id, scene_id
    return None


def stac_collection(collection: str) -> str:
    """Return the key of a collection of the static STAC catalog."""
    return f"{STAC_PREFIX}{collection}/collection.json"


def stac_month(collection: str, month: str) -> str:
    """Return the key of the catalog that lists the items of a month (`2024-05`, or `undated`)."""
    return f"{STAC_PREFIX}{collection}/{month}/catalog.json"


def stac_item(collection: str, month: str, item_id: str) -> str:
    """Return the key of an item."""
    return f"{STAC_PREFIX}{collection}/{month}/{item_id}.json"


def stac_thumbnail(month: str, scene_id: str) -> str:
    """Return the key of the thumbnail of a scene."""
    return f"{STAC_PREFIX}scenes/{month}/{scene_id}.webp"


def stac_index(collection: str, month: str) -> str:
    """Return the key of the GeoParquet file with the items of a month."""
    return f"{STAC_PREFIX}{collection}/{month}/items.parquet"


def doctor_probe(name: str) -> str:
    """Return the key of the object that `cloudseg doctor` writes, reads and deletes."""
    return f"doctor/{name}.txt"


def slug(text: str) -> str:
    """Return text as one key part; different texts with the same slug get different hash suffixes."""
    plain = re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")[:60]
    if plain and plain == text:
        return plain
    hashed = sha256_of(text.encode("utf-8", "backslashreplace"))
    return f"{plain}-{hashed[:8]}" if plain else hashed[:16]
