"""The counts table of an evaluation: one row per scene, stored, so that report and gate need no other prediction."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from cloudseg.evaluate.bootstrap import spread
from cloudseg.evaluate.metrics import Counts, mean_rates, pool, rates
from cloudseg.evaluate.radiometry import robustness
from cloudseg.evaluate.scene_result import CURVE_BINS, SceneResult
from cloudseg.evaluate.slices import is_saturated
from cloudseg.records import Evaluation, Json, Record, Split
from cloudseg.storage import Store

_DRAWS: Final = 2000


class CountsTable(Record):
    """The counts of an evaluation."""

    format: Literal["cloudseg-counts-1"] = "cloudseg-counts-1"
    weights_id: str
    snapshot_id: str
    split: Split
    threshold: float
    bright_from_reflectance: float | None = Field(
        description="the trivial brightness mask is cloud from this reflectance on; tuned on training places"
    )
    scenes: list[SceneResult]
    curve: tuple[list[int], list[int]] = Field(description="clear and cloud pixels by probability step, pooled")


def read_table(store: Store, evaluation: Evaluation) -> CountsTable:
    """Read the table of an evaluation.

    Raises:
        ObjectMissing: the store lacks it.
        ObjectCorrupt: its bytes do not match their checksum.
    """
    stored = evaluation.report["counts"]
    return CountsTable.model_validate_json(store.get(stored["key"], stored["sha256"]))


def trivial_masks(scenes: Sequence[SceneResult]) -> dict[str, list[Counts]]:
    """Return the counts of the trivial masks by scene: all clear, all cloud and, if it was tuned, brightness."""
    masks: dict[str, Callable[[SceneResult], Counts]] = {
        "all_clear": lambda scene: Counts(fn=scene.counts.cloud, tn=scene.counts.pixels - scene.counts.cloud),
        "all_cloud": lambda scene: Counts(tp=scene.counts.cloud, fp=scene.counts.pixels - scene.counts.cloud),
    }
    found = {name: [mask(scene) for scene in scenes] for name, mask in masks.items()}
    bright = [scene.bright for scene in scenes if scene.bright is not None]
    return found | ({"brightness": bright} if len(bright) == len(scenes) else {})


def headline(scenes: Sequence[SceneResult]) -> Json:
    """Return the metrics of an evaluation: pooled ones at the top level, the rest nested; rounded to 6 digits.

    `robustness` holds the IoU of each label source in each radiometry variant (`cloudseg.evaluate.radiometry`),
    `without_saturated` is None where every scene is saturated, `iou_bounds` (5 % and 95 % bootstrap quantiles of the
    pooled IoU) if there is only one place.
    """
    unsaturated = [scene for scene in scenes if not is_saturated(scene)]
    total = pool(scene.counts for scene in scenes)
    return {
        **rounded(rates(total)),
        "iou_bounds": _bounds(scenes),
        "scene_mean": rounded(mean_rates([scene.counts for scene in scenes])),
        "without_saturated": _pooled_and_mean(unsaturated) if unsaturated else None,
        "trivial": {name: _trivial(counts) for name, counts in trivial_masks(scenes).items()},
        "robustness": rounded(robustness(scenes)),
        "scenes": len(scenes),
        "places": len({scene.place for scene in scenes}),
        "pixels": total.pixels,
        "cloud_fraction": round(total.cloud / total.pixels, 6),
    }


def _bounds(scenes: Sequence[SceneResult]) -> list[float] | None:
    """Return the 5 % and 95 % quantiles of the pooled IoU over draws of places, None for a single place."""
    if len({scene.place for scene in scenes}) < 2:
        return None
    low, high = spread([(scene.place, scene.counts) for scene in scenes], confidence=0.95, samples=_DRAWS, seed=0)
    return [round(low, 6), round(high, 6)]


def _pooled_and_mean(scenes: Sequence[SceneResult]) -> Json:
    total = pool(scene.counts for scene in scenes)
    return {
        **rounded(rates(total)),
        "scene_mean": rounded(mean_rates([scene.counts for scene in scenes])),
        "scenes": len(scenes),
        "places": len({scene.place for scene in scenes}),
    }


def _trivial(counts: Sequence[Counts]) -> Json:
    """Return the rates of a trivial mask: it has no probability, and its edges are not counted."""
    pooled, mean = rates(pool(counts)), mean_rates(counts)
    kept = ("iou", "f1", "precision", "recall", "accuracy", "balanced_accuracy")
    return {
        **rounded({name: pooled[name] for name in kept}),
        "scene_mean": rounded({name: mean[name] for name in kept}),
    }


def rounded(value: Any) -> Any:
    """Return JSON with every float rounded to 6 digits, so that its hash does not depend on the machine's last bit."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def threshold_curve(curve: tuple[list[int], list[int]]) -> list[dict[str, float]]:
    """Return IoU, precision, recall and false positive rate (`false_cloud`) at every threshold 0, 1/100 … 1."""
    clear, cloud = curve
    points, fp, tp = [], sum(clear), sum(cloud)
    clear_all, cloud_all = fp, tp
    for step in range(CURVE_BINS + 1):
        found = rates(Counts(tp=tp, fp=fp, fn=cloud_all - tp, tn=clear_all - fp))
        false_cloud = fp / clear_all if clear_all else 0.0
        points.append(
            {
                "threshold": step / CURVE_BINS,
                "false_cloud": false_cloud,
                **{n: found[n] for n in ("iou", "precision", "recall")},
            }
        )
        if step < CURVE_BINS:
            fp, tp = fp - clear[step], tp - cloud[step]
    return points
