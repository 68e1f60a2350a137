"""The STAC item of published weights, with the Machine Learning Model extension v1.5.2.

The item beside the weights has relative links: it is in the same folder as what it describes, wherever the store is.
The one in the catalog (`cloudseg.stac.items`) adds to it what changes with time. The `mlm:*`
fields are set by name: pystac's classes (1.4.1) allow one `value_scaling` per input, the extension one per band.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final

import pystac
from shapely.geometry import box, mapping

from cloudseg import keys
from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA, REFLECTANCE_SCALE
from cloudseg.catalog.extent import NO_EXTENT, Extent
from cloudseg.recipe import Model
from cloudseg.records import Json, StoredObject
from cloudseg.stac.assets import add_asset

_EXTENSIONS: Final = (
    "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
)
# As in the examples of the MLM specification for "any time".
_BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_ASSETS: Final = {
    "weights": (
        "application/octet-stream; application=safetensors",
        "Parameters with their metadata",
        ["mlm:model", "mlm:weights"],
        "safetensors",
    ),
    "onnx": ("application/octet-stream; application=onnx", "ONNX export", ["mlm:model"], "onnx"),
    "int8": (
        "application/octet-stream; application=onnx",
        "ONNX export in int8, for CPUs with VNNI",
        ["mlm:model"],
        "onnx",
    ),
    "card": ("text/markdown", "Model card", ["metadata"], None),
    "golden": (
        "application/octet-stream; application=safetensors",
        "Golden sample: what a clean process must reproduce",
        ["data"],
        None,
    ),
}


def weights_item(
    *,
    weights: StoredObject,
    companions: Mapping[str, StoredObject],
    metadata: Json,
    extent: Extent = NO_EXTENT,
    href: Callable[[str], str] = lambda key: f"./{PurePosixPath(key).name}",
) -> pystac.Item:
    """Return the item of weights.

    Args:
        weights: the safetensors object; the item's id is the weights id.
        companions: name to stored object, listed as assets.
        metadata: the metadata block of the weights.
        extent: bounds (lon/lat) and times of the training scenes; its geometry is null where nothing is known.
        href: returns the address of a stored object by its key.
    """
    weights_id = keys.id_from_hash("w", weights.sha256)
    item = span_item(weights_id, extent, _properties(weights_id, metadata), list(_EXTENSIONS))
    descriptions = _descriptions(metadata)
    for name, stored in {"weights": weights, **dict(sorted(companions.items()))}.items():
        media_type, title, roles, artifact_type = _ASSETS.get(name, ("application/octet-stream", name, ["data"], None))
        asset = pystac.Asset(
            href=href(stored.key),
            title=title,
            description=descriptions.get(name),
            media_type=media_type,
            roles=roles,
            extra_fields={
                **({"mlm:artifact_type": artifact_type} if artifact_type else {}),
                **({"bands": _bands(metadata)} if name == "weights" else {}),
            },
        )
        add_asset(item, name, stored, asset)
    return item


def span_item(item_id: str, extent: Extent, properties: Json, extensions: list[str]) -> pystac.Item:
    """Return an item over the bounds and times of scenes; its geometry is null where nothing is known."""
    return pystac.Item(
        id=item_id,
        # A null geometry must not have a bounding box (GeoJSON, STAC item specification).
        geometry=mapping(box(*extent.bounds)) if extent.bounds else None,
        bbox=list(extent.bounds) if extent.bounds else None,
        datetime=None,
        start_datetime=extent.begins_at or _BEGINNING,
        end_datetime=extent.ends_at or _END,
        properties=properties,
        stac_extensions=extensions,
    )


def _properties(weights_id: str, metadata: Json) -> Json:
    properties: Json = {
        "title": f"Cloud mask weights {weights_id}",
        "description": "A U-Net that predicts the probability of cloud for every pixel of a multispectral scene.",
        # MLM 1.5 requires the bands here, and STAC 1.1 allows them here only if an asset has bands too.
        "bands": _bands(metadata),
        "mlm:name": weights_id,
        "mlm:architecture": metadata["architecture"],
        "mlm:framework": "PyTorch",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:accelerator": "amd64",
        "mlm:accelerator_constrained": False,
        "mlm:accelerator_summary": "A CPU suffices; a CUDA GPU is used if there is one.",
        "mlm:pretrained": True,
        "mlm:input": [_input(metadata)],
        "mlm:output": [_output(metadata)],
        "mlm:hyperparameters": _hyperparameters(metadata),
    }
    if (parameters := metadata.get("total_parameters")) is not None:
        properties["mlm:total_parameters"] = parameters
    if metadata.get("encoder_weights") is not None:
        properties["mlm:pretrained_source"] = f"encoder initialized with {metadata['encoder_weights']}"
    return properties


def _bands(metadata: Json) -> list[Json]:
    return [{"name": band} for band in metadata["bands"]]


def _input(metadata: Json) -> Json:
    """Return `mlm:input`: reflectance x 10 000, scaled and clipped before the z-score of each band."""
    bands: list[str] = list(metadata["bands"])
    means, stds = _per_band(metadata["mean"], bands), _per_band(metadata["std"], bands)
    return {
        "name": "canonical scene",
        "description": (
            f"Input of the net. `dn` is top-of-atmosphere reflectance x {REFLECTANCE_SCALE} (uint16, 0 where "
            "nothing was observed); pre-processing and z-score make it float32, and pixels without observation are 0 "
            f"after both.{_optional_bands(metadata)}"
        ),
        "bands": bands,
        "input": {
            "shape": [-1, len(bands), -1, -1],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "pre_processing_function": {"format": "python", "expression": _reflectance(metadata)},
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": std} for mean, std in zip(means, stds, strict=True)
        ],
        "resize_type": None,
    }


def _reflectance(metadata: Json) -> str:
    scale, offset = metadata.get("scale", 1 / REFLECTANCE_SCALE), metadata.get("offset", 0.0)
    return f"numpy.minimum(dn * {scale!r} + {offset!r}, {metadata['clip']!r})"


def _optional_bands(metadata: Json) -> str:
    optional = ", ".join(metadata.get("optional_bands", ()))
    return f" A scene may lack {optional}: a missing band is 0 after both." if optional else ""


def _per_band(values: list[float], bands: list[str]) -> list[float]:
    return list(values) * len(bands) if len(values) == 1 else list(values)


def _output(metadata: Json) -> Json:
    return {
        "name": "mask",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, 1, -1, -1],
            "dim_order": ["batch", "channel", "height", "width"],
            "data_type": "float32",
        },
        "description": "Logit of cloud; the mask is where its sigmoid reaches the threshold.",
        "classification:classes": [
            {"value": MASK_CLEAR, "name": "clear", "description": "No cloud"},
            {"value": MASK_CLOUD, "name": "cloud", "description": "Cloud"},
            {"value": MASK_NO_DATA, "name": "no_data", "description": "Not observed", "nodata": True},
        ],
        "post_processing_function": {
            "format": "python",
            "expression": f"1 / (1 + numpy.exp(-logit)) >= {metadata['threshold']}",
        },
    }


def _hyperparameters(metadata: Json) -> Json:
    names = (
        "threshold",
        "widths",
        "dropout",
        "encoder_weights",
        "optional_bands",
        "working_resolution_m",
        "recipe_name",
        "recipe_hash",
        "snapshot_id",
        "run_id",
        "code_version",
    )
    return {name: metadata[name] for name in names if metadata.get(name) is not None}


def _descriptions(metadata: Json) -> dict[str, str]:
    """Return input and output of each file: the ONNX graph includes pre- and post-processing, the parameters do not."""
    bands, optional = ", ".join(metadata["bands"]), ", ".join(metadata.get("optional_bands", ()))
    missing = (
        f"A scene may lack {optional}: 0 there, in all pixels, means that the band is missing. " if optional else ""
    )
    sides = f"height and width multiples of {_multiple(metadata)}" if metadata.get("widths") else "any height and width"
    return {
        "weights": "Parameters of the net that mlm:input and mlm:output describe: normalized float32 in, logits out; "
        f"{sides}. The metadata of the file hold everything that is needed to build and use the net.",
        "onnx": "Pre-processing, net and sigmoid in one graph. "
        f"In: `dn` uint16 (batch, {bands}, height, width), reflectance x {REFLECTANCE_SCALE}, 0 = no data, {sides}. "
        f"{missing}"
        "Out: `probability` of cloud, float32 (batch, height, width), undefined at pixels without data. "
        "mlm:input and mlm:output do not describe this file.",
        "int8": "Input and output of the ONNX export, computed with unsigned 8-bit activations and signed 8-bit "
        "weights (QDQ): for CPUs that sum these exactly (VNNI, Arm's dot product). Its mask agreed with that of the "
        "parameters when it was published.",
        "golden": "`dn` uint16 (1, band, height, width) and the `probability` float32 (1, height, width) that the net "
        "predicted for it.",
    }


def _multiple(metadata: Json) -> int:
    described = {name: metadata[name] for name in ("architecture", "bands", "widths")}
    return Model.model_validate(described).multiple
