"""Slices: groups of scenes on which a model can be poor although it is good on average."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from cloudseg.bands import ground_class
from cloudseg.evaluate.metrics import Counts, mean_rates, pool, rates
from cloudseg.evaluate.radiometry import VARIANTS, WITHOUT_OPTIONAL, in_variant
from cloudseg.evaluate.scene_result import SceneResult
from cloudseg.metrics import share
from cloudseg.records import Record

SATURATED_ABOVE: Final = 0.3
"""Share of saturated pixels above which a scene is saturated (snow, ice, thick cloud in 8-bit images)."""
NEARLY_CLEAR: Final = 0.05
"""Cloud fraction below which IoU depends on a few pixels; such a slice is compared by the recall of clear pixels."""
RADIOMETRY: Final = "radiometry"
"""Kind of the slices of radiometry variants."""
MOST_VALUES: Final = 24
"""A tag with more values than this identifies scenes rather than groups of them."""
_COVER: Final = (
    (0.05, "below 5 %"),
    (0.35, "5 to 35 %"),
    (0.65, "35 to 65 %"),
    (0.95, "65 to 95 %"),
    (1.01, "above 95 %"),
)


class Slice(Record):
    """Metrics of one group of scenes."""

    kind: str = Field(
        description="'sensor', 'cloud cover', 'ground', 'saturated', 'label', 'tag <name>', 'radiometry' or "
        "'radiometry of <label source>'"
    )
    value: str
    scenes: int
    places: int
    cloud_fraction: float
    pooled: dict[str, float]
    scene_mean: dict[str, float]
    measure: str = Field(description="what the gate compares: 'iou', or 'clear_recall' where there is hardly any cloud")
    score: float


def slice_of(kind: str, value: str, scenes: Sequence[SceneResult]) -> Slice:
    """Return the metrics of a group."""
    total = pool(scene.counts for scene in scenes)
    cloud_fraction = total.cloud / total.pixels if total.pixels else 0.0
    nearly_clear = cloud_fraction < NEARLY_CLEAR
    return Slice(
        kind=kind,
        value=value,
        scenes=len(scenes),
        places=len({scene.place for scene in scenes}),
        cloud_fraction=cloud_fraction,
        pooled=rates(total),
        scene_mean=mean_rates([scene.counts for scene in scenes]),
        measure="clear_recall" if nearly_clear else "iou",
        score=_clear_recall(total) if nearly_clear else rates(total)["iou"],
    )


def _clear_recall(counts: Counts) -> float:
    return share(counts.tn, counts.tn + counts.fp)


def all_slices(scenes: Sequence[SceneResult]) -> list[Slice]:
    """Return every slice, sorted by kind and value; the set depends on scenes and labels, not on the mask."""
    groups = slice_groups(scenes) | radiometry_groups(scenes)
    return [slice_of(kind, value, group) for (kind, value), group in sorted(groups.items())]


def slice_groups(scenes: Sequence[SceneResult]) -> dict[tuple[str, str], list[SceneResult]]:
    """Return the scenes of every slice by kind and value, sorted."""
    groups: dict[tuple[str, str], list[SceneResult]] = defaultdict(list)
    tags = _grouping_tags(scenes)
    for scene in scenes:
        for kind, value in _memberships(scene, tags):
            groups[kind, value].append(scene)
    return {key: groups[key] for key in sorted(groups)}


def radiometry_groups(scenes: Sequence[SceneResult]) -> dict[tuple[str, str], list[SceneResult]]:
    """Return the scenes in every radiometry variant, with the counts of it: all, and by label source if there are two.

    Empty for an evaluation that is older than the variants.
    """
    sources = {scene.source for scene in scenes}
    groups: dict[tuple[str, str], list[SceneResult]] = {}
    for variant in (*VARIANTS, WITHOUT_OPTIONAL):
        changed = in_variant(scenes, variant.name)
        of_kind = {RADIOMETRY: changed}
        if len(sources) > 1:
            of_kind |= {f"{RADIOMETRY} of {source}": [s for s in changed if s.source == source] for source in sources}
        groups |= {(kind, variant.name): group for kind, group in of_kind.items() if group}
    return groups


def is_radiometry(kind: str) -> bool:
    """Return whether a kind of slice is of radiometry variants."""
    return kind.partition(" of ")[0] == RADIOMETRY


def _memberships(scene: SceneResult, tags: Sequence[str]) -> list[tuple[str, str]]:
    found = [
        ("sensor", scene.sensor),
        ("label", scene.source),
        ("cloud cover", _class(scene.cloud_fraction, _COVER)),
        ("ground", ground_class(scene.ground_reflectance)),
        ("saturated", "more than 30 %" if is_saturated(scene) else "less than 30 %"),
    ]
    return found + [(f"tag {name}", str(scene.tags[name])) for name in tags if name in scene.tags]


def is_saturated(scene: SceneResult) -> bool:
    """Return whether more than 30 % of a scene's labeled pixels are saturated."""
    return scene.saturated_fraction > SATURATED_ABOVE


def _class(value: float, classes: Sequence[tuple[float, str]]) -> str:
    return next(name for below, name in classes if value < below)


def _grouping_tags(scenes: Sequence[SceneResult]) -> list[str]:
    """Return the tags that divide the scenes into groups.

    Excluded are tags that identify scenes, tags that all scenes share, and 'sensor' and 'cloud_cover', which have
    slices of their own.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for scene in scenes:
        for name, value in scene.tags.items():
            values[name].add(str(value))
    everywhere = {name for name in values if len(values[name]) == 1 and all(name in scene.tags for scene in scenes)}
    groups = (name for name, found in values.items() if len(found) <= MOST_VALUES and name not in everywhere)
    return sorted(name for name in groups if name not in ("sensor", "cloud_cover"))
