"""What a demo has made, told to a person: read from the catalog, so it is what really is there."""

import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.markup import escape
from sqlalchemy import Connection

from cloudseg.catalog import model_rows, scene_rows
from cloudseg.demo.home import Home
from cloudseg.records import Evaluation, Json, Weights
from cloudseg.storage import Store

_SHOWN_MASKS: Final = 4
_NO_CHAMPION: Final = "none: no weights were good enough for a champion; a larger --minutes helps"


def summary(home: Home) -> Json:
    """Return the figures and places of what lies in the demo's catalog: JSON-able."""
    catalog, store = home.catalog(), home.store()
    with catalog.read() as db:
        newest = next(iter(model_rows.list_weights(db, limit=1)), None)
        champion = model_rows.find_champion(db)
        labels = scene_rows.list_newest_labels(db)
        labelled = {label.scene_id for label in labels}
        drawn = model_rows.list_masks(db, weights_id=champion.weights_id) if champion else []
        drawn.sort(
            key=lambda mask: mask.scene_id in labelled
        )  # the unlabelled ones first: nobody had drawn those before
        return {
            "scenes": scene_rows.count_scenes(db),
            "labels": len(labels),
            "quarantined": len(scene_rows.list_quarantined(db)),
            "weights": _weights(db, store, newest) if newest else None,
            "champion_id": champion.weights_id if champion else None,
            "masks": [
                {
                    "scene": scene_rows.get_scene(db, mask.scene_id).name,
                    "cloud_fraction": mask.cloud_fraction,
                    "path": _path(store, mask.key),
                }
                for mask in drawn
            ],
        }


def _weights(db: Connection, store: Store, weights: Weights) -> Json:
    evaluation = next(
        (found for found in model_rows.list_evaluations(db, weights.weights_id) if found.split == "held_out"), None
    )
    verdict = model_rows.find_verdict(db, weights.weights_id)
    return {
        "weights_id": weights.weights_id,
        "version": weights.version,
        "path": _path(store, weights.key),
        "held_out_iou": held_out_iou(evaluation.metrics) if evaluation else None,
        "verdict": verdict.outcome if verdict else None,
        "reasons": list(verdict.body.get("reasons", [])) if verdict else [],
        "report": _report(store, evaluation),
    }


def held_out_iou(metrics: Json) -> float:
    """Return the pooled IoU (cloud) of an evaluation."""
    return float(metrics["iou"])


def _report(store: Store, evaluation: Evaluation | None) -> str | None:
    return _path(store, evaluation.report["html"]["key"]) if evaluation else None


def _path(store: Store, key: str) -> str:
    """Return the plain path of an object of the demo's local store."""
    return unquote(urlsplit(store.uri_of(key)).path)


def print_summary(made: Json, home: Home, console: Console, *, running: bool) -> None:
    """Print what was made, where, how to log in and what to try next.

    One fact a line, paths whole, so that they can be copied.
    """
    lines = [*_facts(made), ("", ""), *_masks(made["masks"])]
    if running:
        lines += [("", ""), *_next_steps(home)]
    for name, value in lines:
        console.print(f"[bold]{name:<14}[/]{escape(value)}", soft_wrap=True)


def _next_steps(home: Home) -> list[tuple[str, str]]:
    return [
        (
            "Airflow UI",
            f"{home.ui_url}   user {home.user}, password {home.password}   (the page: Browse > Cloud masks)",
        ),
        ("Try next", f"drop a GeoTIFF into {home.inbox}: it has a mask within five minutes"),
        (
            "",
            "trigger cloudseg_retrain by its form with approval 'ask a person first', then see Browse > Required Actions",
        ),
        ("", f"CLOUDSEG_HOME={home.root} {_command()} models   (also: scenes, masks, lineage MASK, quarantine)"),
    ]


def _command() -> str:
    """Return the command as it can be typed here: the environment of the demo is seldom on the PATH."""
    script = Path(sys.executable).parent / "cloudseg"
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def _facts(made: Json) -> list[tuple[str, str]]:
    rows = [("Scenes", f"{made['scenes']}, {made['labels']} with a label, {made['quarantined']} entries in quarantine")]
    weights: dict[str, Any] | None = made["weights"]
    if weights is None:
        return [*rows, ("Weights", "none")]
    iou = weights["held_out_iou"]
    return [
        *rows,
        ("Weights", f"version {weights['version']}, {weights['weights_id']}"),
        ("", weights["path"]),
        ("Held-out IoU", f"{iou:.3f} (cloud, places never trained on)" if iou is not None else "not evaluated"),
        ("Verdict", str(weights["verdict"] or "none")),
        *[("", f"- {reason}") for reason in weights["reasons"]],
        ("Report", weights["report"] or "none"),
        ("Masks", f"{len(made['masks'])} by champion {made['champion_id']}" if made["champion_id"] else _NO_CHAMPION),
    ]


def _masks(masks: list[Json]) -> list[tuple[str, str]]:
    shown = [
        ("", f"{mask['scene']}, {mask['cloud_fraction']:.0%} cloud\n{'':16}{mask['path']}")
        for mask in masks[:_SHOWN_MASKS]
    ]
    more = len(masks) - _SHOWN_MASKS
    return shown + ([("", f"… and {more} more")] if more > 0 else [])
