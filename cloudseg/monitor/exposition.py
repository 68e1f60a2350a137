"""The figures as metrics of Prometheus: names, units, labels, and the text that a scrape gets.

Names follow prometheus.io/docs/practices/naming: prefix, base unit (seconds, bytes, ratio), times as Unix timestamps.
All are gauges, because they are read from rows, and rows can be deleted. A figure that is None has no sample.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from pydantic import BaseModel

from cloudseg.monitor.figures import Figures

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format (prometheus.io/docs/instrumenting/exposition_formats)."""
PREFIX: Final = "cloudseg_"


class Metric(NamedTuple):
    """A metric, its labels, and where in the figures each sample is."""

    name: str
    labels: tuple[str, ...]
    samples: Mapping[tuple[str, ...], str]
    """Values of the labels to the path of a figure, such as `masks.total`."""
    help: str


def _one(name: str, path: str) -> Metric:
    return Metric(name, (), {(): path}, _meaning(path))


def _of_models(name: str, field: str) -> Metric:
    samples: dict[tuple[str, ...], str] = {(role,): f"{role}.{field}" for role in ("champion", "challenger")}
    return Metric(name, ("role",), samples, _meaning(f"champion.{field}"))


def describe(path: str) -> str:
    """Return the description of a figure, from its field.

    Args:
        path: such as `masks.total`.
    """
    model: type[BaseModel] = Figures
    for name in path.split("."):
        field = model.model_fields[name]
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return field.description or ""


def _meaning(path: str) -> str:
    """Return what a figure is, without its source."""
    return describe(path).partition(". Source")[0].partition(";")[0]


_WINDOWS: Final = {"1d": "day", "7d": "week"}
METRICS: Final = (
    _of_models("model_version", "version"),
    _of_models("model_held_out_iou_ratio", "iou"),
    _of_models("model_held_out_iou_lower_ratio", "iou_lower"),
    _of_models("model_held_out_iou_upper_ratio", "iou_upper"),
    _one("champion_since_timestamp_seconds", "champion_since"),
    _one("masks", "masks.total"),
    Metric(
        "masks_made",
        ("window",),
        {("1d",): "masks.last_day", ("7d",): "masks.last_week"},
        "masks published in the window, those of the backfill too",
    ),
    _one("masks_outside_training_last_week", "masks.outside_last_week"),
    _one("masks_compared_with_training_last_week", "masks.compared_last_week"),
    _one("masks_waiting", "masks.waiting"),
    _one("masks_waiting_since_timestamp_seconds", "masks.oldest_waiting_at"),
    _one("scenes_without_champion_mask", "masks.without_champion"),
    Metric(
        "mask_latency_seconds",
        ("window", "percentile"),  # promtool keeps the label `quantile` for summaries
        {
            (window, percentile): f"latency_{name}.{field}"
            for window, name in _WINDOWS.items()
            for percentile, field in (("50", "p50_s"), ("95", "p95_s"))
        },
        "seconds from the ingest of a scene to its first mask, of scenes that were ingested in the window and have one",
    ),
    Metric(
        "mask_latency_scenes",
        ("window",),
        {(w,): f"latency_{name}.scenes" for w, name in _WINDOWS.items()},
        "scenes that were ingested in the window and have a mask",
    ),
    _one("ingest_newest_timestamp_seconds", "ingest.newest_at"),
    _one("quarantine_files", "ingest.quarantine"),
    _one("quarantine_files_added_last_day", "ingest.quarantine_last_day"),
    _one("scenes_added_last_day", "ingest.scenes_last_day"),
    _one("night_newest_timestamp_seconds", "night.newest_at"),
    _one("retrain_due_since_timestamp_seconds", "night.due_since"),
    _one("labels_proposed", "labels.proposed"),
    _one("labels_new", "labels.new"),
    _one("approvals_waiting", "approvals.waiting"),
    _one("approvals_waiting_since_timestamp_seconds", "approvals.oldest_at"),
    Metric("alerts_open", ("alert",), {("*",): "alerts"}, _meaning("alerts")),
    _one("store_bytes", "bytes.store"),
    _one("catalog_bytes", "bytes.catalog"),
    Metric(
        "training_seconds",
        ("device", "window"),
        {
            ("gpu", "1d"): "compute.gpu_s",
            ("cpu", "1d"): "compute.cpu_s",
            ("gpu", "7d"): "compute.gpu_week_s",
            ("cpu", "7d"): "compute.cpu_week_s",
        },
        "seconds of training, over all tries and without pauses, by runs that began in the window",
    ),
    _one("night_cost", "compute.night_cost"),
    _one("mask_cost", "compute.mask_cost"),
    _one("figures_timestamp_seconds", "at"),
)
"""Every metric of `cloudseg metrics`, in its order; the path `alerts` has a sample for each name of an alert."""


def metrics_text(figures: Figures) -> str:
    """Return the figures in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(figures))
    return generate_latest(registry).decode()


class _Collector:
    """What prometheus_client asks for the metrics."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every metric, also one without a sample: that it exists can be seen then."""
        for metric in METRICS:
            family = GaugeMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
            for labels, path in metric.samples.items():
                found = _look_up(self._figures, path)
                if isinstance(found, Mapping):
                    for name, value in found.items():
                        family.add_metric([name], value)
                elif found is not None:
                    family.add_metric(list(labels), _number(found))
            yield family


def _look_up(figures: Figures, path: str) -> object:
    found: object = figures
    for name in path.split("."):
        found = None if found is None else getattr(found, name)
    return found


def _number(value: object) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, int | float):
        return float(value)
    raise TypeError(f"{value!r} is no figure")
