"""Predict the scenes of a split one by one and count: a row of facts and counts for every scene."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA, NO_DATA
from cloudseg.dataset.chips import ChipSet
from cloudseg.errors import DataError, EmptySplit
from cloudseg.evaluate import brightness
from cloudseg.evaluate.metrics import Counts, count
from cloudseg.evaluate.mosaic import read_mosaic, window_of
from cloudseg.evaluate.panels import Canvas
from cloudseg.evaluate.radiometry import MOST_SCENES as MOST_VARIANT_SCENES
from cloudseg.evaluate.radiometry import ORIGINAL, VARIANTS, WITHOUT_OPTIONAL, Variant
from cloudseg.evaluate.risk import count_steps
from cloudseg.evaluate.scene_result import CURVE_BINS, LabelUse, SceneResult
from cloudseg.evaluate.small_masks import MOST_SCENES, SIDE, encode_small
from cloudseg.grid import Window, decimation, iter_strips
from cloudseg.model.pixels import fill_missing, observed
from cloudseg.model.predictor import Predictor
from cloudseg.model.windows import BUDGET_BYTES, PaddedWindow, plan_windows
from cloudseg.raster.probability import STEPS, classify, encode_probability
from cloudseg.raster.resample import Bools, UInt16, downsample, scene_window, working_shape
from cloudseg.records import Chip, Scene, Split
from cloudseg.scratch import reserve_file, scratch_directory

OnProgress = Callable[[int, int], None]
UInt8 = npt.NDArray[np.uint8]
_STRIP_ROWS: Final = 512
"""Rows of the snapshot's pixels that are read or upsampled at a time."""


@dataclass(frozen=True)
class Facts:
    """What the catalog holds about a scene and the labels that the snapshot has of it."""

    scene: Scene
    source: str
    """Source of the newest label."""
    source_uri: str
    """Addresses of the labels' files."""
    labels: tuple[LabelUse, ...] = ()
    """The labels, oldest first."""


class Evaluator:
    """Evaluation of the scenes of a snapshot with one model: predicts and counts."""

    def __init__(
        self,
        chips: ChipSet,
        predictor: Predictor,
        *,
        snapshot_id: str,
        snapshot_resolution_m: float | None,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        """Check that the snapshot fits the model.

        Args:
            chips: the snapshot's chips.
            predictor: the model.
            snapshot_id: names the snapshot in errors.
            snapshot_resolution_m: pixel size that finer scenes were downsampled to in the snapshot, None for their own.
            budget_bytes: bounds one forward pass and determines the windows, as in `cloudseg.predict`.

        Raises:
            DataError: the snapshot lacks a band that the weights need.
        """
        self.chips = chips
        self.predictor = predictor
        missing = [band for band in predictor.meta.required_bands if band not in chips.bands]
        if missing:
            raise DataError(
                "the snapshot lacks bands that these weights need",
                subject=f"{predictor.weights_id} on {snapshot_id}",
                found=" ".join(chips.bands),
                expected=" ".join(predictor.meta.required_bands),
                next_step="Evaluate on a snapshot that was made with these bands.",
            )
        self._read_bands = predictor.meta.bands_to_read(chips.bands)
        self._bands = [chips.bands.index(band) for band in self._read_bands]
        self._optional = [predictor.meta.bands.index(band) for band in predictor.meta.optional_bands]
        self._resolution_m = snapshot_resolution_m
        self._budget_bytes = budget_bytes

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants that scenes are predicted in, besides as they are."""
        can_drop = self._optional and self._read_bands == self.predictor.meta.bands
        return (*VARIANTS, WITHOUT_OPTIONAL) if can_drop else VARIANTS

    def factor(self, scene: Scene, coarser: int = 1) -> int:
        """Return how many of the snapshot's pixels are one pixel of the net along an axis.

        A snapshot that is coarser than the net's working resolution is used as it is, like a coarse scene.

        Args:
            scene: the scene.
            coarser: as if the sensor were that much coarser: the pixels that the net would see of such a scene, or the
                snapshot's where those are coarser. A net for 30 m would see a sensor of 20 m as it is, and a snapshot
                of 30 m holds nothing finer of one of 10 m.
        """
        working_m = self.predictor.meta.working_resolution_m
        if scene.resolution_m is None:
            return coarser
        if coarser == 1:
            return decimation(scene.resolution_m * self._chip_factor(scene), working_m)
        wanted = coarser * decimation(scene.resolution_m * coarser, working_m)
        return max(1, round(wanted / self._chip_factor(scene)))

    def _chip_factor(self, scene: Scene) -> int:
        """Return how many scene pixels are one pixel of the snapshot along an axis."""
        return decimation(scene.resolution_m, self._resolution_m)

    def iter_probabilities(
        self, of_scene: list[Chip], scene: Scene, variant: Variant = ORIGINAL
    ) -> Iterator[tuple[Chip, UInt8]]:
        """Yield each chip with the encoded probability `(row, col)` of its pixels inside the scene.

        What is evaluated is what is published: the scene is cut into the windows of `cloudseg.predict`, resampled and
        encoded by the same functions. On a snapshot of scene pixels the values are those of the published raster, bit
        for bit; on one of the net's working pixels they are those that the published raster is interpolated from. So
        they do not depend on how the snapshot was cut into chips, and weights can be evaluated on the snapshot of
        another recipe. Outside the chips no pixel is labeled, and the input is no data.

        Memory: one forward pass, and a byte for each pixel of the scene in a temporary file.
        """
        with scratch_directory("evaluate") as folder:
            height, width = self._shape(scene)
            reserve_file(folder / "probability", height * width)
            steps = np.memmap(folder / "probability", np.uint8, "r+", shape=(height, width))
            for window in self._windows(scene, variant):
                for strip, part in self._iter_strips(of_scene, scene, window, variant):
                    steps[strip.slices] = part
            for chip in of_scene:
                yield chip, np.array(steps[window_of(chip).slices])

    def _shape(self, scene: Scene) -> tuple[int, int]:
        """Return height and width of a scene in the snapshot's pixels."""
        return working_shape(scene.height, scene.width, self._chip_factor(scene))

    def _windows(self, scene: Scene, variant: Variant) -> list[PaddedWindow]:
        factor = self.factor(scene, variant.coarser)
        height, width = working_shape(*self._shape(scene), factor)
        total = factor * self._chip_factor(scene)
        return plan_windows(self.predictor, height, width, total, budget_bytes=self._budget_bytes)

    def _iter_strips(
        self, of_scene: list[Chip], scene: Scene, window: PaddedWindow, variant: Variant
    ) -> Iterator[tuple[Window, UInt8]]:
        """Yield the encoded probability under the core of a window, strip by strip, in the snapshot's pixels."""
        factor, shape = self.factor(scene, variant.coarser), self._shape(scene)
        target = scene_window(window.core, factor, *shape)
        if all(window_of(chip).overlap(target) is None for chip in of_scene):
            return
        dn, seen = self._read(of_scene, window.padded, factor, shape, variant)
        filled = fill_missing(dn, self._read_bands, self.predictor.meta.bands)
        if variant.drops_optional:
            filled[self._optional] = NO_DATA
        probability = self.predictor.probability(filled[np.newaxis], seen[np.newaxis])[0]
        for strip in iter_strips(target, _STRIP_ROWS):
            valid = observed(read_mosaic(self.chips, of_scene, strip, self._bands))
            fine = window.upsample(probability, seen, strip, factor)
            subject = f"weights {self.predictor.weights_id} on scene {scene.scene_id}"
            yield strip, encode_probability(fine, valid, subject=subject)

    def _read(
        self, of_scene: list[Chip], window: Window, factor: int, shape: tuple[int, int], variant: Variant
    ) -> tuple[UInt16, Bools]:
        """Return the net's pixels `(band, row, col)` of a window, downsampled by strips, and which were observed."""
        dn = np.empty((len(self._bands), window.height, window.width), np.uint16)
        seen = np.empty((window.height, window.width), np.bool_)
        for strip in iter_strips(window, max(1, _STRIP_ROWS // factor)):
            rows, _ = strip.within(window)
            fine = read_mosaic(self.chips, of_scene, scene_window(strip, factor, *shape), self._bands)
            dn[:, rows], seen[rows] = downsample(variant.apply(fine), factor)
        return dn, seen

    def evaluate_scene(
        self, of_scene: list[Chip], facts: Facts, bright_from: int | None, variants: Sequence[Variant] = ()
    ) -> tuple[SceneResult, npt.NDArray[np.int64], bytes]:
        """Predict and count a scene.

        Args:
            of_scene: chips of the scene.
            facts: of the scene.
            bright_from: threshold of the brightness mask (`brightness.tune_threshold`), None for no such mask.
            variants: radiometry variants to predict and count too.

        Returns:
            The scene's row, its pixels `(2, STEPS + 1)` by label (clear, cloud) and step of the probability, and its
            reduced label and mask (`small_masks`).
        """
        positions = brightness.visible(self.chips.bands)
        saturation = brightness.Saturation(self.chips, of_scene, positions)
        counts, curve, saturated = Counts(), np.zeros((2, STEPS + 1), np.int64), 0
        clear, cloud = brightness.histograms(
            np.zeros((len(self.chips.bands), 0, 0), np.uint16), np.zeros((0, 0), np.uint8), positions
        )
        canvas = Canvas([window_of(chip) for chip in of_scene], side=SIDE, shape=self._shape(facts.scene))
        for (chip, steps), owned in zip(self.iter_probabilities(of_scene, facts.scene), canvas.owned, strict=True):
            part = owned.within(window_of(chip))
            label, dn = (
                self.chips.label(chip)[: chip.height, : chip.width],
                self.chips.pixels(chip)[:, : chip.height, : chip.width],
            )
            counts += count(steps, label, self.predictor.meta.threshold, part)
            canvas.put(window_of(chip), owned, label, classify(steps, self.predictor.meta.threshold))
            curve += count_steps(steps[part], label[part])
            more_clear, more_cloud = brightness.histograms(dn[:, *part], label[part], positions)
            clear, cloud = clear + more_clear, cloud + more_cloud
            saturated += saturation.count(dn[:, *part], label[part] != MASK_NO_DATA)
        bright = None if bright_from is None else Counts.model_validate(brightness.above(clear, cloud, bright_from))
        result = _result(of_scene[0], facts, counts, bright, brightness.median_reflectance(clear), saturated)
        cells = {v.name: self._count_variant(of_scene, facts.scene, v, canvas.owned) for v in variants}
        result = result.model_copy(update={"variants": cells})
        return result, curve, encode_small(canvas.label, canvas.mask)

    def _count_variant(
        self, of_scene: list[Chip], scene: Scene, variant: Variant, owned: Sequence[Window]
    ) -> tuple[int, int, int, int]:
        """Return tp, fp, fn and tn of a scene in a variant, against the same labels."""
        cells = np.zeros((2, 2), np.int64)
        for (chip, steps), own in zip(self.iter_probabilities(of_scene, scene, variant), owned, strict=True):
            part = own.within(window_of(chip))
            label = self.chips.label(chip)[: chip.height, : chip.width][part]
            mask = classify(steps[part], self.predictor.meta.threshold) == MASK_CLOUD
            for value in (MASK_CLEAR, MASK_CLOUD):
                cells[value] += np.bincount(mask[label == value], minlength=2)
        (tn, fp), (fn, tp) = cells.tolist()
        return tp, fp, fn, tn


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
        labels=list(facts.labels),
    )


def _curve(steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return pixels `(2, CURVE_BINS)` from pixels `(2, STEPS + 1)`."""
    which = np.minimum(np.arange(STEPS + 1) * CURVE_BINS // STEPS, CURVE_BINS - 1)
    return np.stack([np.bincount(which, weights=row, minlength=CURVE_BINS).astype(np.int64) for row in steps])


def chips_by_scene(chips: ChipSet, split: Split, snapshot_id: str) -> dict[str, list[Chip]]:
    """Return the chips of each scene of a split, in the order of scene ids.

    Raises:
        EmptySplit: the snapshot has no chips of this split.
    """
    of_split = sorted(chips.of(split), key=lambda chip: (chip.scene_id, chip.row_off, chip.col_off))
    if not of_split:
        raise EmptySplit(
            f"the snapshot has no {split} chips",
            subject=snapshot_id,
            found=f"{len(chips.chips)} chips of other splits",
            next_step="Ingest labeled scenes of more places and build a new snapshot.",
        )
    return {scene_id: list(group) for scene_id, group in groupby(of_split, key=lambda chip: chip.scene_id)}


@dataclass(frozen=True)
class SplitCounts:
    """Counts of all scenes of a split."""

    scenes: list[SceneResult]
    curve: npt.NDArray[np.int64]
    """Pixels `(2, CURVE_BINS)`: clear and cloud by probability step, pooled."""
    bright_from: int | None
    """Threshold of the trivial brightness mask, a bin (`brightness.tune_threshold`); None without training chips."""
    small: dict[str, bytes]
    """Reduced label and mask of the first scenes (`small_masks`), by scene id."""
    places: dict[str, npt.NDArray[np.int64]]
    """Pixels `(2, STEPS + 1)` of each place: clear and cloud by step of the probability (`cloudseg.evaluate.risk`)."""


def evaluate_scenes(
    evaluator: Evaluator, scenes: Mapping[str, list[Chip]], facts: Mapping[str, Facts], on_progress: OnProgress | None
) -> SplitCounts:
    """Predict and count every scene, one in memory at a time; `on_progress` gets scenes done and the total."""
    bright_from = brightness.tune_threshold(evaluator.chips)
    results, small, places = [], dict[str, bytes](), dict[str, npt.NDArray[np.int64]]()
    for done, (scene_id, of_scene) in enumerate(scenes.items(), start=1):
        variants = evaluator.variants if done <= MOST_VARIANT_SCENES else ()
        result, part, png = evaluator.evaluate_scene(of_scene, facts[scene_id], bright_from, variants)
        results.append(result)
        places[result.place] = part + places[result.place] if result.place in places else part
        if len(small) < MOST_SCENES:
            small[scene_id] = png
        if on_progress is not None:
            on_progress(done, len(scenes))
    return SplitCounts(results, _curve(np.sum(list(places.values()), axis=0)), bright_from, small, places)
