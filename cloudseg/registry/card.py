"""The model card: what the weights are, what they were made from and how good they are, in Markdown."""

import re
from collections.abc import Mapping

from cloudseg import keys
from cloudseg.catalog.extent import NO_EXTENT, Extent
from cloudseg.records import Json, StoredObject

_DESCRIPTION = (
    ("architecture", "Architecture"),
    ("widths", "Channels of each level"),
    ("total_parameters", "Parameters"),
    ("encoder_weights", "Encoder initialized with"),
    ("bands", "Bands, in this order"),
    ("optional_bands", "Bands that a scene may lack"),
    ("working_resolution_m", "Working resolution (m)"),
    ("clip", "Clip (reflectance)"),
    ("mean", "Mean (reflectance)"),
    ("std", "Standard deviation (reflectance)"),
    ("threshold", "Threshold, chosen on validation places"),
    ("recipe_name", "Recipe"),
    ("recipe_hash", "Recipe hash"),
    ("snapshot_id", "Snapshot"),
    ("run_id", "Run"),
    ("parent_weights_id", "Warm start from"),
    ("sources", "Labels from"),
    ("steps", "Optimizer steps"),
    ("code_version", "Version of cloudseg"),
)


def model_card(
    metadata: Json, metrics: Mapping[str, object], *, weights: StoredObject | None = None, extent: Extent = NO_EXTENT
) -> str:
    """Return the card.

    Args:
        metadata: the metadata block of the weights.
        metrics: figures by name; nested values are omitted.
        weights: the safetensors object, for its id, size and checksum.
        extent: bounds and times of the training scenes.
    """
    parts = [
        f"# Cloud mask weights `{keys.id_from_hash('w', weights.sha256)}`" if weights else "# Cloud mask weights",
        "A U-Net that predicts the probability of cloud for every pixel of a multispectral satellite scene.",
        _table("What they are", _description(metadata) + _file(weights)),
        _table("Figures at the end of the training (validation places)", _figures(metrics)),
        _table("Training scenes", _training(extent)),
        _OPTIONAL if metadata.get("optional_bands") else "",
        _USAGE,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_OPTIONAL = """## Scenes that lack a band

A band that a scene may lack is 0 in the net's input where it is missing, as it was in a share of the training samples.
In the ONNX export that is a band whose digital numbers are 0 where the other bands are not. Figures and promises of
these weights are those of scenes with all bands."""

_USAGE = """## How to use them

Input is top-of-atmosphere reflectance. `x = (min(reflectance, clip) - mean) / std` for each band, 0 where nothing was
observed; the net outputs a logit, its sigmoid is the probability of cloud, and a pixel is cloud where that reaches the
threshold. All of these parameters are in the file's metadata; `cloudseg predict` applies them. The ONNX export
includes all of this: digital numbers (reflectance x 10 000, uint16, 0 = no data) in, probability out.

## Limits

Clouds only: cloud shadow counts as clear. Bright ground (snow, ice, sand, roofs, sun glint) and thin cirrus are where
these masks err most; the evaluation report shows figures for those slices. Held-out figures are in the evaluation, not
here: weights are immutable and are evaluated after they are written."""


def _description(metadata: Json) -> list[tuple[str, object]]:
    return [(title, metadata[name]) for name, title in _DESCRIPTION if metadata.get(name) not in (None, [], ())]


def _file(weights: StoredObject | None) -> list[tuple[str, object]]:
    return [("File", f"{weights.size} bytes, SHA-256 `{weights.sha256}`")] if weights else []


def _figures(metrics: Mapping[str, object]) -> list[tuple[str, object]]:
    return [
        (name, value if isinstance(value, str) else round(value, 4))
        for name, value in sorted(metrics.items())
        if isinstance(value, int | float | str)
    ]


def _training(extent: Extent) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [("Scenes", extent.scenes)] if extent.scenes else []
    if extent.bounds is not None:
        found.append(("Bounds (west, south, east, north)", ", ".join(f"{value:.3f}" for value in extent.bounds)))
    if extent.begins_at is not None and extent.ends_at is not None:
        found.append(("Acquired", f"{extent.begins_at:%Y-%m-%d} to {extent.ends_at:%Y-%m-%d}"))
    return found


def _table(title: str, lines: list[tuple[str, object]]) -> str:
    if not lines:
        return ""
    body = "\n".join(f"| {name} | {_cell(value)} |" for name, value in lines)
    return f"## {title}\n\n| | |\n|---|---|\n{body}"


def _cell(value: object) -> str:
    """Return a value as one table cell.

    A bar or a line break in it must not end the cell, nothing in it is a tag, a link or a picture.
    """
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return re.sub(r"[\\|\[\]]", r"\\\g<0>", " ".join(text.split())).replace("<", "&lt;")
