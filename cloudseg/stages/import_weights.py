"""Stage: register weights that were trained elsewhere."""

from pathlib import Path

from cloudseg.keys import id_from_hash, sha256_of
from cloudseg.records import Record
from cloudseg.runtime import open_runtime
from cloudseg.stages import log
from cloudseg.stages.stac import publish_stac


class ImportRecord(Record):
    """Imported weights."""

    weights_id: str
    version: int
    architecture: str
    bands: list[str]
    source: str


def import_weights(path: str, *, dry_run: bool = False) -> ImportRecord:
    """Register the `.pth` file that the baseline project published, with its own preprocessing.

    Only tensors are read, nothing is unpickled. Imported weights have no run and no snapshot: `promote` evaluates them
    on the newest one. Importing the same file again changes nothing.

    Args:
        path: the file.
        dry_run: read and check the file, and write nothing; the version is 0.

    Raises:
        SettingsError: torch is not installed.
        BadWeights: the file cannot be loaded, or the net's output is not finite.
    """
    log.started("model import", path=path, dry_run=dry_run)
    from cloudseg.model.device import import_torch

    import_torch()
    from cloudseg.model.export import export_onnx
    from cloudseg.model.golden import GOLDEN_FILE, pack_golden
    from cloudseg.model.import_baseline_weights import read_baseline_weights
    from cloudseg.model.weights import load_weights, pack_weights
    from cloudseg.registry import register

    net, meta = read_baseline_weights(Path(path))
    data = pack_weights(net, meta)
    weights_id, version = id_from_hash("w", sha256_of(data)), 0
    loaded = load_weights(data)  # as strictly as any other file
    golden = pack_golden(loaded)  # runs the net once
    if not dry_run:
        runtime = open_runtime()
        companions = {"onnx": ("model.onnx", export_onnx(loaded)), "golden": (GOLDEN_FILE, golden)}
        registered = register(
            runtime.store,
            runtime.catalog,
            weights=data,
            metadata=meta.model_dump(mode="json"),
            companions=companions,
            run_id=None,
            snapshot_id=None,
            architecture=meta.architecture,
        )
        version = registered.version
        publish_stac(runtime)
    record = ImportRecord(
        weights_id=weights_id, version=version, architecture=meta.architecture, bands=list(meta.bands), source=path
    )
    log.ended("model import", record)
    return record
