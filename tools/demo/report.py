"""The summary of what a demo has made, read from its catalog."""

import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.markup import escape
from sqlalchemy import Connection

from cloudseg.catalog import model_rows, scene_rows
from cloudseg.records import Evaluation, Json, Weights
from cloudseg.storage import Store
from tools.demo.home import DemoHome

_SHOWN_MASKS: Final = 4
_MORE: Final = 4
"""Times the training budget that is suggested when it was too small."""


def summarize(home: DemoHome) -> Json:
    """Return the figures and paths of what the demo made, ready for JSON."""
    catalog, store = home.catalog(), home.store()
    with catalog.read() as db:
        newest = next(iter(model_rows.list_weights(db, limit=1)), None)
        champion = model_rows.find_champion(db)
        labels = scene_rows.list_newest_labels(db)
        labeled = {label.scene_id for label in labels}
        masks = model_rows.list_masks(db, weights_id=champion.weights_id) if champion else []
        masks.sort(key=lambda mask: mask.scene_id in labeled)  # masks of scenes without a label first
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
                for mask in masks
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
        "held_out_iou": float(evaluation.metrics["iou"]) if evaluation else None,
        "verdict": verdict.outcome if verdict else None,
        "reasons": list(verdict.body.get("reasons", [])) if verdict else [],
        "report": _report(store, evaluation),
    }


def _report(store: Store, evaluation: Evaluation | None) -> str | None:
    return _path(store, evaluation.report["html"]["key"]) if evaluation else None


def _path(store: Store, key: str) -> str:
    """Return the path of an object of the demo's local store."""
    return unquote(urlsplit(store.uri_of(key)).path)


def print_summary(made: Json, home: DemoHome, console: Console, *, running: bool, minutes: float | None = None) -> None:
    """Print what was made, one fact per line, with paths that can be copied.

    Args:
        made: The record of `summarize`.
        home: The demo's folders and login.
        console: Where to print.
        running: Print the login and what to try next, too: Airflow keeps running.
        minutes: The training budget that was used; None: not known.
    """
    more = "a larger training budget: make demo MINUTES=" + (f"{_MORE * minutes:g}" if minutes else "10")
    lines = [*_facts(made, more), ("", ""), *_masks(made["masks"])]
    if running:
        lines += [("", ""), *_next_steps(home, has_champion=made["champion_id"] is not None, more=more)]
    for name, value in lines:
        console.print(f"[bold]{name:<14}[/]{escape(value)}", soft_wrap=True)


def _next_steps(home: DemoHome, *, has_champion: bool, more: str) -> list[tuple[str, str]]:
    login = f"user {home.user}, password {home.password}"
    manual = "trigger cloudseg_retrain with approval 'require manual approval', then open Browse > Required Actions"
    dropped = f"copy a GeoTIFF into {home.inbox}: it is ingested within five minutes, and "
    first = [dropped + "masked right after"] if has_champion else [more, dropped + "masked once there is a champion"]
    return [
        ("Airflow UI", f"{home.ui_url}   {login}   (the plugin's page: Browse > Cloud masks)"),
        ("Try next", first[0]),
        *[("", text) for text in first[1:]],
        ("", manual),
        ("", f"CLOUDSEG_HOME={home.root} {_command()} models   (also: champion, history, masks, scenes, lineage MASK)"),
        ("", "after Ctrl-C, `make ui` starts this Airflow again with what is there now"),
    ]


def _command() -> str:
    """Return the path of the `cloudseg` script, relative where possible: it is seldom on the PATH."""
    script = Path(sys.executable).parent / "cloudseg"
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def _facts(made: Json, more: str) -> list[tuple[str, str]]:
    no_champion = f"none: no weights were promoted; the verdict says why. Try {more}"
    rows = [("Scenes", f"{made['scenes']}, {made['labels']} with a label, {made['quarantined']} entries in quarantine")]
    weights: dict[str, Any] | None = made["weights"]
    if weights is None:
        return [*rows, ("Weights", "none")]
    iou = weights["held_out_iou"]
    return [
        *rows,
        ("Weights", f"version {weights['version']}, {weights['weights_id']}"),
        ("", weights["path"]),
        ("Held-out IoU", f"{iou:.3f} (cloud, held-out places)" if iou is not None else "not evaluated"),
        ("Verdict", str(weights["verdict"] or "none")),
        *[("", f"- {reason}") for reason in weights["reasons"]],
        ("Report", weights["report"] or "none"),
        ("Masks", f"{len(made['masks'])} by champion {made['champion_id']}" if made["champion_id"] else no_champion),
    ]


def _masks(masks: list[Json]) -> list[tuple[str, str]]:
    shown = [
        ("", f"{mask['scene']}, {mask['cloud_fraction']:.0%} cloud\n{'':16}{mask['path']}")
        for mask in masks[:_SHOWN_MASKS]
    ]
    more = len(masks) - _SHOWN_MASKS
    return shown + ([("", f"… and {more} more")] if more > 0 else [])
