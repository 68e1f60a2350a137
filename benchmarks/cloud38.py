"""The protocol of 38-Cloud (Mohajerani and Saeedi 2018, 2019) for published weights, by whoever has the data set.

`python -m benchmarks.cloud38 FOLDER --weights NAME [--json FILE]`. FOLDER is the test part of the data set: patches
`red_patch_<n>_<row>_by_<col>_<scene>.TIF` with green, blue and nir beside them or in `test_red/`, `test_green/` …, and
for each scene one mask of the whole scene, a TIFF whose name ends with the scene's id.

1. Each of the 9201 patches is predicted alone.
2. The patches of a scene are put together by their row and column, which count from 1. The number before them and the
   order of the file names are not used.
3. The scenes were padded symmetrically to whole patches: the same is cut off at both sides, of an odd rest the smaller
   half at the top and at the left.
4. Cloud is where the probability is greater than 12/255, the threshold of the published scores; the table of the
   weights' own threshold (reached, not exceeded: as in published masks) follows.
5. Precision, recall, specificity, Jaccard index and overall accuracy of each scene from its own counts, over all its
   pixels. The black margins belong to them: there is no cloud in the label, and no data in the mask, which is clear.
6. The figure of a data set is the plain mean over the 20 scenes. The pooled figure, from the sum of all counts, is
   printed beside it: one net has a Jaccard index of 78.5 or 87.3 depending on the protocol, so a figure without its
   protocol says nothing.

A rate of 0/0 (a scene without cloud in label or mask) is 1, as everywhere in this project (`cloudseg.metrics`), and
marked; the published scripts leave it undefined.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from cloudseg.api.model import Model, load
from cloudseg.errors import CloudsegError, InputError
from cloudseg.ingest.products.landsat import landsat_product
from cloudseg.metrics import share
from cloudseg.raster.read import open_raster
from cloudseg.records import GdalPath

OFFICIAL: Final = 12 / 255
SCENES, PATCHES = 20, 9201
"""Of the whole test part."""
_PATCH: Final = re.compile(r"(red|green|blue|nir)_patch_\d+_(\d+)_by_(\d+)_(L.+)", re.I | re.A)
_RESOLUTION_M: Final = 30.0
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Patch:
    """A patch: its place in the grid of its scene, both counted from 1, and a file for each band."""

    scene: str
    row: int
    col: int
    bands: Mapping[str, Path]


@dataclass(frozen=True)
class Counts:
    """Pixels of a mask and its label."""

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)


RATES: Final[Mapping[str, Callable[[Counts], tuple[int, int]]]] = {
    "precision": lambda c: (c.tp, c.tp + c.fp),
    "recall": lambda c: (c.tp, c.tp + c.fn),
    "specificity": lambda c: (c.tn, c.tn + c.fp),
    "jaccard": lambda c: (c.tp, c.tp + c.fp + c.fn),
    "accuracy": lambda c: (c.tp + c.tn, c.tp + c.fp + c.fn + c.tn),
}
"""Numerator and denominator of each rate."""


def rates(counts: Counts) -> dict[str, float]:
    """Return every rate, 0..1; 0/0 is 1."""
    return {name: share(*parts(counts)) for name, parts in RATES.items()}


def undefined(counts: Counts) -> list[str]:
    """Return the names of the rates that are 0/0."""
    return [name for name, parts in RATES.items() if parts(counts)[1] == 0]


def scene_mean(scenes: Sequence[Counts]) -> dict[str, float]:
    """Return the plain mean of each rate over scenes, however large they are."""
    each = [rates(counts) for counts in scenes]
    return {name: sum(one[name] for one in each) / len(each) for name in RATES}


def pooled(scenes: Sequence[Counts]) -> dict[str, float]:
    """Return the rates of the sum of all counts."""
    return rates(sum(scenes, Counts(0, 0, 0, 0)))


def find_patches(folder: Path) -> dict[str, list[Patch]]:
    """Return the patches of each scene, by row and column.

    Raises:
        InputError: there is none, or a scene lacks some.
    """
    files: dict[tuple[str, int, int], dict[str, Path]] = {}
    for path in _tiffs(folder):
        if found := _PATCH.fullmatch(path.stem):
            key = found[4], int(found[2]), int(found[3])
            files.setdefault(key, {})[found[1].lower()] = path
    if not files:
        raise InputError(
            "no patches", subject=str(folder), expected="red_patch_<n>_<row>_by_<col>_<scene>.TIF, or in test_red/ …"
        )
    scenes: dict[str, list[Patch]] = {}
    for (scene, row, col), bands in sorted(files.items()):
        scenes.setdefault(scene, []).append(Patch(scene, row, col, bands))
    for scene, patches in scenes.items():
        _check_grid(scene, patches)
    return scenes


def _check_grid(scene: str, patches: Sequence[Patch]) -> None:
    there = {(patch.row, patch.col) for patch in patches}
    height, width = max(row for row, _ in there), max(col for _, col in there)
    lacking = [(row, col) for row in range(1, height + 1) for col in range(1, width + 1) if (row, col) not in there]
    if lacking:
        row, col = lacking[0]
        raise InputError(
            "a scene lacks patches",
            subject=scene,
            found=f"{len(there)} patches, none at row {row}, column {col}",
            expected=f"{height} rows of {width}",
            next_step="Unpack the test part of the data set again.",
        )


def find_truth(folder: Path, scene: str) -> Path:
    """Return the mask of a whole scene: the only other TIFF whose name ends with the scene's id.

    Raises:
        InputError: there is none, or more than one.
    """
    found = [
        path for path in _tiffs(folder) if path.stem.endswith(scene) and not re.match(r"[a-z]+_patch_", path.stem, re.I)
    ]
    if len(found) != 1:
        raise InputError(
            "not one mask of the whole scene",
            subject=scene,
            found=", ".join(str(path.relative_to(folder)) for path in found) or "none",
            expected=f"one TIFF named …{scene}.TIF that is no patch",
        )
    return found[0]


def _tiffs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".tif", ".tiff"})


def stitch(parts: Iterator[tuple[Patch, Bools]]) -> Bools:
    """Put the masks of the patches of a scene together, by row and column."""
    placed = {(patch.row, patch.col): mask for patch, mask in parts}
    height, width = max(row for row, _ in placed), max(col for _, col in placed)
    return np.block([[placed[row, col] for col in range(1, width + 1)] for row in range(1, height + 1)])


def crop(stitched: Bools, shape: tuple[int, int]) -> Bools:
    """Cut the symmetric padding off.

    Raises:
        InputError: the scene is larger than its patches together.
    """
    spare = [whole - wanted for whole, wanted in zip(stitched.shape, shape, strict=True)]
    if min(spare) < 0:
        raise InputError(
            "the mask of the scene is larger than its patches", found=str(shape), expected=str(stitched.shape)
        )
    top, left = (one // 2 for one in spare)
    return stitched[top : top + shape[0], left : left + shape[1]]


def count(mask: Bools, truth: Bools) -> Counts:
    """Return the counts over all pixels of a scene, its black margins included."""
    cells = (mask & truth, mask & ~truth, ~mask & truth, ~mask & ~truth)
    return Counts(*(int(np.count_nonzero(cell)) for cell in cells))


def above(probability: Floats, threshold: float) -> Bools:
    """Return where the probability exceeds the threshold; where there are no data (NaN) it does not."""
    return probability > np.float32(threshold)


def reaches(probability: Floats, threshold: float) -> Bools:
    """Return where the probability is the threshold or more, as in published masks; NaN is not."""
    return probability >= np.float32(threshold)


def evaluate(
    folder: Path, predict: Callable[[Patch], Floats], cloud: Mapping[str, Callable[[Floats], Bools]]
) -> Iterator[tuple[str, dict[str, Counts]]]:
    """Yield each scene with its counts.

    Args:
        folder: of the test part.
        predict: returns the probability `(row, col)` of a patch.
        cloud: by name, what makes a mask of a probability; a patch is predicted once.

    Raises:
        InputError: patches or masks are missing or do not fit.
    """
    for scene, patches in find_patches(folder).items():
        truth = _read_truth(find_truth(folder, scene))
        masks: dict[str, list[Bools]] = {name: [] for name in cloud}
        for patch in patches:
            probability = predict(patch)
            for name, mask_of in cloud.items():
                masks[name].append(mask_of(probability))
        stitched = {name: stitch(zip(patches, found, strict=True)) for name, found in masks.items()}
        yield scene, {name: count(crop(mask, truth.shape), truth) for name, mask in stitched.items()}


def _read_truth(path: Path) -> Bools:
    with open_raster(GdalPath(str(path))) as dataset:
        truth: Bools = dataset.read(1) != 0
        return truth


def predictor(model: Model) -> Callable[[Patch], Floats]:
    """Return the function that predicts a patch as Landsat Level-1 numbers, scaled as at ingest."""

    def predict(patch: Patch) -> Floats:
        product = landsat_product(patch.scene)
        scale = product.radiometry if product else None
        if scale is None:
            raise InputError("not the id of a Landsat 8 scene", subject=patch.scene)
        lacking = [band for band in model.bands if band not in patch.bands]
        if lacking:
            raise InputError(
                "a patch lacks a band", subject=str(patch), found=", ".join(patch.bands), expected=lacking[0]
            )
        planes = []
        for band in model.bands:
            with open_raster(GdalPath(str(patch.bands[band]))) as dataset:
                planes.append(dataset.read(1))
        return model.predict(
            np.stack(planes), bands=model.bands, resolution_m=_RESOLUTION_M, scale=scale.scale, offset=scale.offset
        ).probability

    return predict


def main() -> int:
    """Parse the command line, evaluate and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="test part of the data set")
    parser.add_argument("--weights", help="as cloudseg.load takes them: id, version, file; default: the champion")
    parser.add_argument("--json", type=Path, help="also write the counts of every scene to this file")
    options = parser.parse_args()
    try:
        model = load(options.weights)
        cloud: dict[str, Callable[[Floats], Bools]] = {
            "official": lambda probability: above(probability, OFFICIAL),
            "own": lambda probability: reaches(probability, model.threshold),
        }
        found = {}
        for scene, counts in evaluate(options.folder, predictor(model), cloud):
            found[scene] = counts
            print(f"{len(found)}: {scene}", file=sys.stderr, flush=True)
        patches = sum(map(len, find_patches(options.folder).values()))
    except CloudsegError as error:
        print(error, file=sys.stderr)
        return 1
    console = Console(width=None if sys.stdout.isatty() else 140)
    words = {
        "official": "probability > 12/255 (official)",
        "own": f"probability >= {model.threshold:.3f} (the weights')",
    }
    for name, title in words.items():
        console.print(_table(title, {scene: counts[name] for scene, counts in found.items()}))
    print(f"{model.weights_id}: {len(found)} of {SCENES} scenes, {patches} of {PATCHES} patches")
    if (len(found), patches) != (SCENES, PATCHES):
        print("not the whole test part: these are no figures of 38-Cloud")
    if options.json:
        every = {scene: {name: asdict(one) for name, one in counts.items()} for scene, counts in found.items()}
        options.json.write_text(json.dumps(every, indent=1), encoding="utf-8")
    return 0


def _table(title: str, scenes: Mapping[str, Counts]) -> Table:
    table = Table("scene", *RATES, title=title, caption="percent; * is 0/0, counted as 100")
    for scene, counts in scenes.items():
        none = undefined(counts)
        table.add_row(scene, *(_percent(value) + "*" * (name in none) for name, value in rates(counts).items()))
    table.add_section()
    for name, summary in (("mean of the scenes", scene_mean), ("pooled", pooled)):
        table.add_row(name, *map(_percent, summary(list(scenes.values())).values()))
    marked = Counter(name for counts in scenes.values() for name in undefined(counts))
    table.add_row("scenes with 0/0", *(str(marked[name]) for name in RATES))
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
