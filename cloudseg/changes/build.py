"""Compare the masks of two models scene by scene, and write the folder with maps, figures and page."""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from cloudseg.bands import ground_class
from cloudseg.catalog import Catalog, change_rows, label_rows, model_rows, scene_rows
from cloudseg.catalog.change_rows import MaskedTwice
from cloudseg.catalog.label_rows import SnapshotDifference
from cloudseg.changes.measure import NAMES, Counts, ground_reflectance, read_pictures, write_change_map
from cloudseg.changes.page import Picture, change_page, picture_png
from cloudseg.errors import CloudsegError, InputError, NotInCatalog
from cloudseg.records import Json, Weights, utc_iso
from cloudseg.storage import Store, whole_object

log = logging.getLogger(__name__)
MAPS: Final = "maps"
PAGE: Final = "changes.html"
FIGURES: Final = "changes.json"
_PICTURES: Final = 12
"""Scenes that the page shows: those with the largest share of flipped pixels."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class SceneChange:
    """What flipped in a scene."""

    scene: MaskedTwice
    ground: str
    counts: Counts

    def as_json(self) -> Json:
        """Return it for the figures."""
        acquired_at = self.scene.acquired_at
        facts = {**self.scene._asdict(), "acquired_at": utc_iso(acquired_at) if acquired_at else None}
        return {**facts, "ground": self.ground, "map": f"{MAPS}/{self.scene.scene_id}.tif", **counts_json(self.counts)}


@dataclass
class Comparison:
    """All that the page shows."""

    before: Weights
    after: Weights
    labels: list[SnapshotDifference]
    """That only one of the two models was trained on, the newest first."""
    scenes: list[SceneChange] = field(default_factory=list)
    """The largest share of flipped pixels first."""
    failed: Json = field(default_factory=dict)

    def total(self) -> Counts:
        """Return the counts of all scenes."""
        return _sum(change.counts for change in self.scenes)

    def by_sensor(self) -> dict[str, Counts]:
        """Return the counts of the scenes of each sensor."""
        return self._by(lambda change: change.scene.sensor)

    def by_ground(self) -> dict[str, Counts]:
        """Return the counts of the scenes of each class of ground."""
        return self._by(lambda change: change.ground)

    def _by(self, key: Callable[[SceneChange], str]) -> dict[str, Counts]:
        groups: dict[str, list[Counts]] = {}
        for change in self.scenes:
            groups.setdefault(key(change), []).append(change.counts)
        return {name: _sum(groups[name]) for name in sorted(groups)}

    def flipped_at(self, place: str) -> int:
        """Return the flipped pixels of the scenes of a place."""
        return sum(change.counts.flipped for change in self.scenes if change.scene.place == place)


def compare_models(
    store: Store,
    catalog: Catalog,
    *,
    before: Weights,
    after: Weights,
    scene_ids: Sequence[str],
    limit: int,
    folder: Path,
    on_progress: OnProgress,
) -> Comparison:
    """Compare the masks of two models, and write the folder; it appears complete or not at all.

    A scene that cannot be compared is recorded, and the others go on.

    Args:
        store: of scenes and masks.
        catalog: of their rows.
        before: a model.
        after: another one.
        scene_ids: only these scenes; none: all that both have masked.
        limit: scenes at most, the latest acquisitions.
        folder: path of the new folder; an empty one may exist.
        on_progress: called with the scenes done and all of them.

    Raises:
        InputError: the folder is not empty, or it cannot be written.
        NotInCatalog: a scene has no mask of both models, or no scene has.
        StoreUnreachable: the store does not answer.
    """
    with catalog.read() as db:
        twice = change_rows.list_masked_twice(db, before.weights_id, after.weights_id, scene_ids=scene_ids, limit=limit)
        labels = label_rows.list_difference(db, before.snapshot_id, after.snapshot_id)
    _check_found(twice, scene_ids, before, after)
    comparison = Comparison(before, after, labels)
    beside = _make_beside(folder)
    try:
        (beside / MAPS).mkdir()
        for done, scene in enumerate(twice, start=1):
            try:
                comparison.scenes.append(_compare(store, catalog, scene, comparison, beside))
            except CloudsegError as error:
                if error.retry_helps:
                    raise
                log.warning("scene %s is not compared: %s", scene.scene_id, error)
                comparison.failed[scene.scene_id] = error.as_record()
            on_progress(done, len(twice))
        comparison.scenes.sort(key=lambda change: (-change.counts.flipped_fraction, change.scene.scene_id))
        _write(store, catalog, comparison, beside)
        beside.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return comparison


def counts_json(counts: Counts) -> Json:
    """Return the counts of a group for the figures."""
    return {**asdict(counts), "pixels": counts.pixels, "flipped_fraction": round(counts.flipped_fraction, 6)}


def _sum(each: Iterable[Counts]) -> Counts:
    return sum(each, Counts())


def _check_found(twice: list[MaskedTwice], scene_ids: Sequence[str], before: Weights, after: Weights) -> None:
    missing = sorted(set(scene_ids) - {scene.scene_id for scene in twice})
    if missing or not twice:
        raise NotInCatalog(
            "no mask of both models",
            subject=", ".join(missing) or "every scene",
            expected=f"masks of {before.weights_id} and of {after.weights_id}",
            next_step="`cloudseg predict --weights` makes the mask of a scene, `cloudseg backfill` those of many.",
        )


def _make_beside(folder: Path) -> Path:
    """Create the folder in which everything is written, beside the one that it becomes."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                "the folder of a comparison must be new",
                subject=str(folder),
                found="a file" if folder.is_file() else f"{len(list(folder.iterdir()))} files",
                expected="no such folder, or an empty one",
                next_step="Choose another name, or delete it.",
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(
            "the folder cannot be written", subject=str(folder), found=error.strerror, next_step="Choose another one."
        ) from error


def _compare(store: Store, catalog: Catalog, scene: MaskedTwice, of: Comparison, folder: Path) -> SceneChange:
    with catalog.read() as db:
        row = scene_rows.get_scene(db, scene.scene_id)
        old, new = (model_rows.get_mask(db, mask_id) for mask_id in (scene.before_mask_id, scene.after_mask_id))
    out = folder / MAPS / f"{scene.scene_id}.tif"
    tags = {
        "CLOUDSEG_SCENE_ID": scene.scene_id,
        "CLOUDSEG_SCENE_NAME": scene.name,
        "CLOUDSEG_BEFORE_MASK_ID": scene.before_mask_id,
        "CLOUDSEG_AFTER_MASK_ID": scene.after_mask_id,
        "CLOUDSEG_BEFORE_WEIGHTS_ID": of.before.weights_id,
        "CLOUDSEG_AFTER_WEIGHTS_ID": of.after.weights_id,
        "CLOUDSEG_CLASSES": ", ".join(f"{value}: {name}" for value, name in NAMES.items()),
    }
    with (
        whole_object(store, row, f"scene {row.scene_id}") as pixels,
        whole_object(store, old, f"mask {old.mask_id}") as before,
        whole_object(store, new, f"mask {new.mask_id}") as after,
    ):
        counts = write_change_map(str(before), str(after), out, tags=tags)
        ground = ground_class(ground_reflectance(str(pixels), out))
    return SceneChange(scene, ground, counts)


def _write(store: Store, catalog: Catalog, comparison: Comparison, folder: Path) -> None:
    figures = figures_of(comparison)
    text = json.dumps(figures, ensure_ascii=False, indent=1, allow_nan=False)
    (folder / FIGURES).write_text(text + "\n", "utf-8")
    pictures = []
    for change in comparison.scenes[:_PICTURES]:
        if change.counts.flipped:
            with catalog.read() as db:
                row = scene_rows.get_scene(db, change.scene.scene_id)
            with whole_object(store, row, f"scene {row.scene_id}") as pixels:
                dn, classes = read_pictures(str(pixels), folder / MAPS / f"{row.scene_id}.tif")
            pictures.append(Picture(change.as_json(), picture_png(dn, classes)))
    (folder / PAGE).write_text(change_page(figures, pictures), "utf-8")


def figures_of(comparison: Comparison) -> Json:
    """Return everything that the page shows as JSON."""
    groups = {
        "by_sensor": comparison.by_sensor(),
        "by_ground": comparison.by_ground(),
    }
    return {
        "format": "cloudseg-changes-1",
        "before": _model(comparison.before),
        "after": _model(comparison.after),
        "total": counts_json(comparison.total()),
        **{kind: {name: counts_json(counts) for name, counts in found.items()} for kind, found in groups.items()},
        "labels": [_label(comparison, entry) for entry in comparison.labels],
        "scenes": [change.as_json() for change in comparison.scenes],
        "failed": comparison.failed,
    }


def _model(weights: Weights) -> Json:
    return {"weights_id": weights.weights_id, "version": weights.version, "snapshot_id": weights.snapshot_id}


def _label(comparison: Comparison, entry: SnapshotDifference) -> Json:
    return {
        "label_id": entry.label.label_id,
        "version": entry.label.version,
        "source": entry.label.source,
        "added": entry.added,
        "split": entry.split,
        "scene_id": entry.label.scene_id,
        "scene": entry.scene_name,
        "place": entry.place,
        "flipped_at_place": comparison.flipped_at(entry.place),
    }
