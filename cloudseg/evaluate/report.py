"""The report: one HTML page that needs nothing else, the same figures as JSON, and the pictures as PNG files."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from cloudseg import __version__
from cloudseg.evaluate.charts import Chart, Series, chart
from cloudseg.evaluate.metrics import BINS, BOUNDARY_TOLERANCE, RATES, Counts, pool, rates
from cloudseg.evaluate.pictures import COLOURS, Choice
from cloudseg.evaluate.slices import Slice, all_slices, is_saturated
from cloudseg.evaluate.table import CountsTable, threshold_curve
from cloudseg.records import Epoch, Json, Run, Weights

_TITLES: Final = {
    "iou": "IoU of cloud",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "boundary_f1": "Boundary F1",
    "calibration_error": "Calibration error (lower is better)",
}
_TRIVIAL: Final = {"all_clear": "all clear", "all_cloud": "all cloud", "brightness": "brightness"}
_GROUPS: Final = {
    "best": "Best, of the scenes with some cloud and some ground",
    "worst": "Worst, by wrong pixels",
    "saturated": "Worst of the saturated scenes, which are kept out of the group above",
    "random": "Drawn at random",
}


@dataclass(frozen=True)
class Picture:
    """A triptych and the scene that it shows."""

    choice: Choice
    png: bytes


@dataclass(frozen=True)
class Subject:
    """What the report is about."""

    evaluation_id: str
    weights: Weights
    run: Run | None
    epochs: Sequence[Epoch]
    table: CountsTable
    metrics: Json
    cited: Sequence[str]


def report_json(subject: Subject) -> Json:
    """Return every figure of the page as JSON.

    Metrics, slices, threshold curve, reliability bins, training curves, sources.
    """
    total = pool(scene.counts for scene in subject.table.scenes)
    return {
        "format": "cloudseg-evaluation-1",
        "evaluation_id": subject.evaluation_id,
        "weights_id": subject.table.weights_id,
        "snapshot_id": subject.table.snapshot_id,
        "split": subject.table.split,
        "threshold": subject.table.threshold,
        "metrics": subject.metrics,
        "slices": [entry.as_json() for entry in all_slices(subject.table.scenes)],
        "threshold_curve": threshold_curve(subject.table.curve),
        "reliability": reliability(total),
        "epochs": [{"epoch": epoch.epoch, "step": epoch.step, **epoch.metrics} for epoch in subject.epochs],
        "sources": list(subject.cited),
    }


def reliability(counts: Counts) -> list[dict[str, float]]:
    """Return mean probability, share of cloud and pixels of every calibration bin that holds any."""
    bins = zip(counts.bin_pixels, counts.bin_cloud, counts.bin_probability, strict=True)
    return [
        {"probability": total / pixels, "cloud": cloud / pixels, "pixels": pixels}
        for pixels, cloud, total in bins
        if pixels
    ]


def report_html(subject: Subject, pictures: Sequence[Picture]) -> str:
    """Return the page. Everything that came from outside is escaped; nothing is loaded from elsewhere."""
    environment = Environment(
        loader=PackageLoader("cloudseg.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(_values(subject, pictures))


def _values(subject: Subject, pictures: Sequence[Picture]) -> dict[str, Any]:
    scenes = subject.table.scenes
    total = pool(scene.counts for scene in scenes)
    slices = all_slices(scenes)
    alike = {entry.kind for entry in slices if entry.scenes == len(scenes)}
    return {
        "weights": subject.weights,
        "evaluation": {"evaluation_id": subject.evaluation_id, "snapshot_id": subject.table.snapshot_id},
        "split_name": subject.table.split.replace("_", "-"),
        "metrics": subject.metrics,
        "bounds": subject.metrics["iou_bounds"],
        "columns": _columns(subject.metrics),
        "figure_rows": _figure_rows(subject.metrics),
        "bright_from": subject.table.bright_from_reflectance,
        "saturated": sum(is_saturated(scene) for scene in scenes),
        "confusion": {name: getattr(total, name) / total.pixels for name in ("tp", "fp", "fn", "tn")},
        "facts": _facts(subject),
        "curves": _training(subject.epochs),
        "reliability": _reliability_chart(total),
        "thresholds": _threshold_chart(subject.table),
        "operating": _operating_chart(subject.table),
        "slices": _in_order([entry for entry in slices if entry.kind not in alike]),
        "alike": [f"{entry.kind} {entry.value}" for entry in slices if entry.kind in alike],
        "pictures": _picture_groups(pictures),
        "colours": {name: f"rgb{colour}" for name, colour in COLOURS.items()},
        "cited": subject.cited,
        "tolerance": BOUNDARY_TOLERANCE,
        "bins": BINS,
        "code_version": __version__,
    }


def _columns(metrics: Json) -> list[dict[str, str]]:
    sharp = [{"title": "pooled", "sub": "without saturated"}, {"title": "scene mean", "sub": "without saturated"}]
    own = [{"title": "pooled", "sub": "all scenes"}, {"title": "scene mean", "sub": "all scenes"}]
    return (
        own
        + (sharp if _sharp(metrics) else [])
        + [{"title": _TRIVIAL[name], "sub": "pooled"} for name in metrics["trivial"]]
    )


def _sharp(metrics: Json) -> Json | None:
    """Return the figures without saturated scenes where that leaves some out, and leaves some."""
    sharp: Json | None = metrics["without_saturated"]
    return sharp if sharp and sharp["scenes"] < metrics["scenes"] else None


def _figure_rows(metrics: Json) -> list[Json]:
    sharp = _sharp(metrics)
    tables = [
        metrics,
        metrics["scene_mean"],
        *([sharp, sharp["scene_mean"]] if sharp else []),
        *metrics["trivial"].values(),
    ]
    compared = [metrics, *metrics["trivial"].values()]
    rows = []
    for rate in RATES:
        among = [table[rate] for table in compared if rate in table]
        best = max(among) if rate != "calibration_error" else None
        cells = [
            {"value": table.get(rate), "best": best is not None and table in compared and table.get(rate) == best}
            for table in tables
        ]
        rows.append({"title": _TITLES[rate], "cells": cells})
    return rows


def _facts(subject: Subject) -> list[tuple[str, str]]:
    meta, run = subject.weights.metadata, subject.run
    found = [
        ("Architecture", f"{subject.weights.architecture} {'-'.join(map(str, meta.get('widths', ())))}"),
        ("Bands", ", ".join(meta["bands"])),
        ("Threshold", f"{subject.table.threshold:.3f}"),
        ("Trained on", subject.weights.snapshot_id or "imported, not trained here"),
    ]
    if run is not None:
        found += [("Recipe", f"{run.recipe_name} ({run.recipe_hash[:12]})"), ("Run", run.run_id)]
        found += [("Device of the run", f"{run.device}: {run.device_reason}")]
    return [*found, ("File", f"{subject.weights.size:,} bytes".replace(",", " ")), ("SHA-256", subject.weights.sha256)]


def _training(epochs: Sequence[Epoch]) -> list[Chart]:
    def series(names: Mapping[str, tuple[str, int]]) -> list[Series]:
        return [(title, colour, _points(epochs, name)) for name, (title, colour) in names.items()]

    losses = series({"train_loss": ("training", 1), "validation_loss": ("validation", 2)})
    ious, rates_of_learning = series({"validation_iou": ("validation", 2)}), series({"lr": ("learning rate", 3)})
    steps, dots = (0.0, float(max((epoch.step for epoch in epochs), default=1))), len(epochs) <= 40
    found = [
        chart("Loss", "step", "loss", losses, x_range=steps, y_range=_from_zero(losses), dots=dots),
        chart("IoU on validation places", "step", "IoU", ious, x_range=steps, y_range=(0, 1), dots=dots),
        chart(
            "Learning rate",
            "step",
            "learning rate",
            rates_of_learning,
            x_range=steps,
            y_range=_from_zero(rates_of_learning),
            dots=dots,
        ),
    ]
    return [entry for entry in found if entry is not None]


def _from_zero(lines: Sequence[Series]) -> tuple[float, float] | None:
    """Return the range of a y axis that begins at 0, so that a small change does not look like a large one."""
    most = max((y for _, _, points in lines for _, y in points if math.isfinite(y)), default=0.0)
    return (0.0, 1.05 * most) if most > 0 else None


def _points(epochs: Sequence[Epoch], name: str) -> list[tuple[float, float]]:
    return [(epoch.step, epoch.metrics[name]) for epoch in epochs if isinstance(epoch.metrics.get(name), int | float)]


def _reliability_chart(total: Counts) -> Chart | None:
    most = max(*total.bin_pixels, 1)
    bars = [(n / BINS, (n + 1) / BINS, 0.9 * (pixels / most) ** 0.5) for n, pixels in enumerate(total.bin_pixels)]
    points = [(entry["probability"], entry["cloud"]) for entry in reliability(total)]
    return chart(
        "Reliability",
        "probability of the mask",
        "share of cloud",
        [("reliability", 1, points)],
        x_range=(0, 1),
        y_range=(0, 1),
        bars=bars,
        diagonal=True,
        dots=True,
    )


def _threshold_chart(table: CountsTable) -> Chart | None:
    points = threshold_curve(table.curve)
    lines: list[Series] = [
        (title, colour, [(point["threshold"], point[name]) for point in points])
        for name, title, colour in (("iou", "IoU", 1), ("precision", "precision", 3), ("recall", "recall", 2))
    ]
    marker = (table.threshold, f"threshold {table.threshold:.2f}")
    return chart("Rates by threshold", "threshold", "rate", lines, x_range=(0, 1), y_range=(0, 1), marker=marker)


def _operating_chart(table: CountsTable) -> Chart | None:
    points = sorted((point["false_cloud"], point["recall"]) for point in threshold_curve(table.curve))
    return chart(
        "Cloud found against false cloud",
        "share of clear called cloud",
        "share of cloud found",
        [("ROC", 4, points)],
        x_range=(0, 1),
        y_range=(0, 1),
        diagonal=True,
    )


def _in_order(slices: Sequence[Slice]) -> list[Slice]:
    """Cover and ground in their natural order, the rest by name."""
    natural = [
        "below 5 %",
        "5 to 35 %",
        "35 to 65 %",
        "65 to 95 %",
        "above 95 %",
        "dark",
        "medium",
        "bright",
        "no clear",
    ]
    rank = {start: n for n, start in enumerate(natural)}
    return sorted(
        slices, key=lambda s: (s.kind, next((n for start, n in rank.items() if s.value.startswith(start)), -1), s.value)
    )


def _picture_groups(pictures: Sequence[Picture]) -> list[Json]:
    groups = []
    for why, title in _GROUPS.items():
        shown = [_shown(picture) for picture in pictures if picture.choice.why == why]
        if shown:
            groups.append({"title": title, "pictures": shown})
    return groups


def _shown(picture: Picture) -> Json:
    scene = picture.choice.result
    found = rates(scene.counts)
    return {
        "name": scene.name,
        "place": scene.place,
        "iou": found["iou"],
        "wrong": 1 - found["accuracy"],
        "cloud_fraction": scene.cloud_fraction,
        "base64": base64.b64encode(picture.png).decode(),
    }
