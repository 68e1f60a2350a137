"""Register weights: bytes first, row last. Called by the trainer and by the import of external weights."""

import json
import logging
from collections.abc import Mapping

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows
from cloudseg.catalog.extent import Extent, training_extent
from cloudseg.catalog.session import fetch_one, now
from cloudseg.catalog.tables import weights as weights_table
from cloudseg.errors import InputError
from cloudseg.publish import StagedObject, publish, stage_object
from cloudseg.records import Json, StoredObject, Weights
from cloudseg.registry.card import model_card
from cloudseg.stac.assets import item_bytes
from cloudseg.stac.model import weights_item
from cloudseg.storage import Store

log = logging.getLogger(__name__)


def register(
    store: Store,
    catalog: Catalog,
    *,
    weights: bytes,
    metadata: Json,
    companions: Mapping[str, tuple[str, bytes]],
    run_id: str | None,
    snapshot_id: str | None,
    architecture: str,
    figures: Mapping[str, object] | None = None,
) -> Weights:
    """Store published weights with their assets and return their row; the same bytes again change nothing.

    Args:
        store: destination of the safetensors file and the assets, content-addressed.
        catalog: destination of the row, under the next version.
        weights: the safetensors file; its header contains `metadata` too.
        metadata: everything that prediction needs (the fields of `cloudseg.model.meta.WeightsMeta`); card and item
            read `architecture`, `bands`, `clip`, `mean`, `std`, `threshold` and, where there, `widths`,
            `total_parameters`, `working_resolution_m`, `recipe_name`, `recipe_hash`, `code_version` and `metrics`.
        companions: name ('onnx', 'golden' ...) to file name and bytes. The card and the STAC item are added here
            unless the caller provides them.
        run_id: the run that made them, None for imported weights.
        snapshot_id: what they were trained on, None for imported weights.
        architecture: name of the class of the net.
        figures: for the card, in addition to those in the metadata: what was measured after the weights were packed.

    Raises:
        InputError: the metadata hold no threshold in 0..1.
        StateError: the run has registered other weights.
        NotInCatalog: run or snapshot are unknown.
    """
    sha256 = keys.sha256_of(weights)
    weights_id = keys.id_from_hash("w", sha256)
    with catalog.read() as db:
        known = fetch_one(db, Weights, weights_table.select().where(weights_table.c.weights_id == weights_id))
    if known is not None:
        return known
    _check_threshold(weights_id, metadata)
    with catalog.read() as db:
        extent = training_extent(db, snapshot_id)
    packed = stage_object(weights, keys.weights)
    assets = _assets(
        packed.stored, metadata, companions, extent, {**(metadata.get("metrics") or {}), **(figures or {})}
    )
    row = Weights(
        weights_id=weights_id,
        version=0,
        run_id=run_id,
        snapshot_id=snapshot_id,
        architecture=architecture,
        **packed.stored.model_dump(),
        companions={name: item.stored.as_json() for name, item in assets.items()},
        metadata=metadata,
        created_at=now(),
    )
    registered = publish(store, catalog, {"weights": packed, **assets}, lambda db, _: model_rows.add_weights(db, row))
    log.info("registered %s as version %d", weights_id, registered.version)
    return registered


def restage_asset(weights: Weights, item: bytes, name: str, file_name: str, data: bytes) -> dict[str, StagedObject]:
    """Return an asset of registered weights with other bytes, and their STAC item, which names its checksum.

    Args:
        weights: the row.
        item: the bytes of their item, which keeps everything else.
        name: of the asset, such as `golden`.
        file_name: such as `golden.safetensors`.
        data: the bytes of the asset.
    """
    asset = stage_object(data, lambda sha256: keys.weights_asset(weights.sha256, file_name, sha256))
    own = StoredObject(key=weights.key, sha256=weights.sha256, size=weights.size)
    described = weights_item(weights=own, companions={name: asset.stored}, metadata=weights.metadata)
    values = json.loads(item)
    values["assets"][name] = json.loads(item_bytes(described))["assets"][name]
    stated = stage_object(
        keys.canonical_json(values), lambda sha256: keys.weights_asset(weights.sha256, "item.json", sha256)
    )
    return {name: asset, "item": stated}


def _check_threshold(weights_id: str, metadata: Json) -> None:
    threshold = metadata.get("threshold")
    if not isinstance(threshold, float | int) or not 0 <= threshold <= 1:
        raise InputError(
            "weights cannot be published without a threshold",
            subject=weights_id,
            found=threshold,
            expected="a probability in 0..1",
            next_step="Choose the threshold on validation places and put it into the metadata.",
        )


def _assets(
    weights: StoredObject,
    metadata: Json,
    companions: Mapping[str, tuple[str, bytes]],
    extent: Extent,
    figures: Mapping[str, object],
) -> dict[str, StagedObject]:
    """Return all assets of the weights; the STAC item is made last because it lists the others."""
    assets: dict[str, StagedObject] = {}

    def add(name: str, file_name: str, data: bytes) -> None:
        assets[name] = stage_object(data, lambda sha256: keys.weights_asset(weights.sha256, file_name, sha256))

    for name, (file_name, data) in sorted(companions.items()):
        add(name, file_name, data)
    if "card" not in assets:
        add("card", "card.md", model_card(metadata, figures, weights=weights, extent=extent).encode())
    if "item" not in assets:
        listed = {name: item.stored for name, item in assets.items()}
        add(
            "item",
            "item.json",
            item_bytes(weights_item(weights=weights, companions=listed, metadata=metadata, extent=extent)),
        )
    return assets
