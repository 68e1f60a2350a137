"""Predict the chips of one scene after the other and count: a row of facts and counts for every scene."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cloudseg.bands import MASK_NO_DATA
from cloudseg.dataset.chips import ChipSet
from cloudseg.errors import DataError, EmptySplit
from cloudseg.evaluate import brightness
from cloudseg.evaluate.context import look_around
from cloudseg.evaluate.metrics import Counts, count
from cloudseg.evaluate.resample import average_down, bring_up
from cloudseg.evaluate.windows import inside, owned_windows, window_of
from cloudseg.grid import decimation
from cloudseg.model.normalize import observed
from cloudseg.model.predictor import Predictor
from cloudseg.records import Chip, Json, Record, Scene, Split

CURVE_BINS = 100
"""Steps of the threshold curve."""
Progress = Callable[[int, int], None]
Float = npt.NDArray[np.float32]


class SceneResult(Record):
    """What the report and the gate know about a scene; no second prediction is ever needed."""

    scene_id: str
    name: str
    place: str
    sensor: str
    source: str = Field(description="who made the label")
    tags: Json
    cloud_fraction: float = Field(description="of the labelled pixels")
    ground_reflectance: float | None = Field(
        description="median of the clear pixels' visible bands, None where all is cloud"
    )
    saturated_fraction: float = Field(description="labelled pixels near the scene's maximum in every visible band")
    counts: Counts
    bright: Counts | None = Field(description="the brightness threshold's mask on the same pixels; only tp, fp, fn, tn")


@dataclass(frozen=True)
class Facts:
    """What the catalog knows of a scene, by scene id."""

    scene: Scene
    source: str
    """Who made its label."""
    source_uri: str
    """Where its label came from."""


class Evaluator:
    """Weights at work on the chips of a snapshot."""

    def __init__(
        self, chips: ChipSet, predictor: Predictor, *, snapshot_id: str, snapshot_resolution_m: float | None
    ) -> None:
        """Raise DataError where the snapshot lacks a band that the weights need."""
        self.chips = chips
        self.predictor = predictor
        missing = [band for band in predictor.meta.bands if band not in chips.bands]
        if missing:
            raise DataError(
                "the snapshot lacks bands that these weights need",
                subject=f"{predictor.weights_id} on {snapshot_id}",
                found=" ".join(chips.bands),
                expected=" ".join(predictor.meta.bands),
                next_step="Evaluator on a snapshot that was made with these bands.",
            )
        self._bands = [chips.bands.index(band) for band in predictor.meta.bands]
        self._resolution_m = snapshot_resolution_m

    def factor(self, scene: Scene) -> int:
        """Return how many of the snapshot's pixels make one of the net's along an axis.

        A snapshot that is coarser than the net's own working resolution is used as it is, like a coarse scene.
        """
        if scene.resolution_m is None:
            return 1
        chip_resolution_m = scene.resolution_m * decimation(scene.resolution_m, self._resolution_m)
        return decimation(chip_resolution_m, self.predictor.meta.working_resolution_m)

    def iter_probabilities(self, of_scene: list[Chip], factor: int) -> Iterator[tuple[Chip, Float]]:
        """Yield chip and probability `(row, col)` of its pixels inside the scene, one chip at a time.

        The net sees around the chip what it would see in the whole scene, so that the cut into chips shows nowhere: a
        snapshot that was cut for another recipe is as fair to these weights as their own.
        """
        meta = self.predictor.meta
        # One more block of pixels: bringing up interpolates between its middle and the next one's.
        margin, step = (meta.receptive_radius + 1) * factor, meta.multiple * factor
        for chip in of_scene:
            view = look_around(self.chips, of_scene, chip, bands=self._bands, margin=margin, step=step)
            coarse = average_down(view.dn[np.newaxis], factor)
            probability = bring_up(self.predictor.probability(coarse, observed(coarse)), factor, *view.dn.shape[1:])
            yield chip, probability[0][view.chip]

    def evaluate_scene(
        self, of_scene: list[Chip], facts: Facts, bright_from: int | None
    ) -> tuple[SceneResult, npt.NDArray[np.int64]]:
        """Count a scene; also give pixels by label (clear, cloud) and probability step for the threshold curve."""
        positions = brightness.visible(self.chips.bands)
        saturation = brightness.Saturation(self.chips, of_scene, positions)
        counts, curve, saturated = Counts(), np.zeros((2, CURVE_BINS), np.int64), 0
        clear, cloud = brightness.histograms(
            np.zeros((len(self.chips.bands), 0, 0), np.uint16), np.zeros((0, 0), np.uint8), positions
        )
        owned = {
            chip.chip_id: part
            for chip, part in zip(of_scene, owned_windows([window_of(c) for c in of_scene]), strict=True)
        }
        for chip, probability in self.iter_probabilities(of_scene, self.factor(facts.scene)):
            part = inside(owned[chip.chip_id], window_of(chip))
            label, dn = (
                self.chips.label(chip)[: chip.height, : chip.width],
                self.chips.pixels(chip)[:, : chip.height, : chip.width],
            )
            counts += count(probability, label, self.predictor.meta.threshold, part)
            curve += _curve(probability[part], label[part])
            more_clear, more_cloud = brightness.histograms(dn[:, *part], label[part], positions)
            clear, cloud = clear + more_clear, cloud + more_cloud
            saturated += saturation.count(dn[:, *part], label[part] != MASK_NO_DATA)
        bright = None if bright_from is None else Counts.model_validate(brightness.above(clear, cloud, bright_from))
        return _result(of_scene[0], facts, counts, bright, brightness.median_reflectance(clear), saturated), curve


def _result(
    chip: Chip, facts: Facts, counts: Counts, bright: Counts | None, ground: float | None, saturated: int
) -> SceneResult:
    return SceneResult(
        scene_id=chip.scene_id,
        name=facts.scene.name,
        place=chip.place,
        sensor=facts.scene.sensor,
        source=facts.source,
        tags=chip.tags,
        cloud_fraction=counts.cloud / counts.pixels,
        ground_reflectance=ground,
        saturated_fraction=saturated / counts.pixels,
        counts=counts,
        bright=bright,
    )


def _curve(probability: Float, label: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    step = np.minimum((probability * CURVE_BINS).astype(np.intp), CURVE_BINS - 1)
    return np.stack([np.bincount(step[label == value], minlength=CURVE_BINS) for value in (0, 1)])


def chips_by_scene(chips: ChipSet, split: Split, snapshot_id: str) -> dict[str, list[Chip]]:
    """Return the chips of each scene of a split, in the order of scene ids. Raises EmptySplit."""
    of_split = sorted(chips.of(split), key=lambda chip: (chip.scene_id, chip.row_off, chip.col_off))
    if not of_split:
        raise EmptySplit(
            f"the snapshot has no {split} chips",
            subject=snapshot_id,
            found=f"{len(chips.chips)} chips of other splits",
            next_step="Ingest labelled scenes of more places and build a new snapshot.",
        )
    return {scene_id: list(group) for scene_id, group in groupby(of_split, key=lambda chip: chip.scene_id)}


@dataclass(frozen=True)
class SplitCounts:
    """All scenes of a split."""

    scenes: list[SceneResult]
    curve: npt.NDArray[np.int64]
    """Pixels `(2, CURVE_BINS)`: clear and cloud by probability step, pooled."""
    bright_from: int | None
    """Brightness bin from which on the trivial mask says cloud, None where the snapshot trains on nothing."""


def evaluate_scenes(
    judge: Evaluator, scenes: Mapping[str, list[Chip]], facts: Mapping[str, Facts], on_progress: Progress | None
) -> SplitCounts:
    """Count every scene, one in memory at a time."""
    bright_from = brightness.tune_threshold(judge.chips)
    results, curve = [], np.zeros((2, CURVE_BINS), np.int64)
    for done, (scene_id, of_scene) in enumerate(scenes.items(), start=1):
        result, part = judge.evaluate_scene(of_scene, facts[scene_id], bright_from)
        results.append(result)
        curve += part
        if on_progress is not None:
            on_progress(done, len(scenes))
    return SplitCounts(results, curve, bright_from)
