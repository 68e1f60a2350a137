"""Write the mask of a user's file: the rasters that the service would publish, without a catalog."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from cloudseg import __version__
from cloudseg.api.user_file import UserRaster
from cloudseg.errors import InputError
from cloudseg.model.predictor import Predictor
from cloudseg.model.windows import BUDGET_BYTES
from cloudseg.predict.clean import cleaned_drawing, cleaning_tags, ground_of
from cloudseg.predict.draw import OnProgress, draw_rasters, plan_scene
from cloudseg.predict.scene import ENCODING
from cloudseg.raster.brightness import compare_brightness
from cloudseg.raster.cleaning import Cleaning
from cloudseg.raster.cog import write_cog
from cloudseg.records import PredictFileRecord, Promise
from cloudseg.scratch import scratch_directory
from cloudseg.stac.mask import MaskFacts, class_names

_AS_DRAWN: Final = Cleaning()


def write_mask(
    predictor: Predictor,
    raster: UserRaster,
    out: Path,
    probability: Path | None,
    *,
    version: int | None,
    cleaning: Cleaning = _AS_DRAWN,
    promise: Promise | None = None,
    budget_bytes: int = BUDGET_BYTES,
    on_progress: OnProgress | None = None,
) -> PredictFileRecord:
    """Write the mask, and the probability if a path is given; each file appears complete or not at all.

    Args:
        predictor: the weights.
        raster: what is masked.
        out: path of the mask.
        probability: path of the probability; None: it is not written.
        version: of the weights in the catalog, for the tags.
        cleaning: what is done to the mask that the model draws.
        promise: of the weights, for the tags; None: none is known.
        budget_bytes: memory of one forward pass.
        on_progress: called after every window.

    Raises:
        InputError: a path cannot be written, a value of the cleaning is out of range, or a pixel has no known size.
    """
    cleaning.check()
    began = time.monotonic()
    outputs = [out] if probability is None else [out, probability]
    _check_outputs(Path(raster.grid.scene_id), outputs)
    if cleaning.changes_areas:
        ground_of(raster.grid, cleaning)  # before the work, not after it
    with scratch_directory("file") as folder:
        drawn = [folder / "mask.tif", folder / "probability.tif"]
        facts = draw_rasters(
            raster.open,
            raster.grid,
            predictor,
            plan_scene(raster.grid, predictor, bands=raster.bands, budget_bytes=budget_bytes),
            mask=drawn[0],
            probability=drawn[1],
            on_progress=on_progress,
        )
        facts = cleaned_drawing(drawn[0], drawn[1], facts, cleaning, raster.grid, folder)
        # The promise was measured with all bands.
        facts = replace(facts, promise=None if facts.missing_bands else promise)
        tags = _tags(predictor, raster, facts, version)
        with _complete(out) as part:
            write_cog(part, drawn[0], resampling="mode", tags={**tags, "CLOUDSEG_CLASSES": class_names()})
        if probability is not None:
            with _complete(probability) as part:
                write_cog(part, drawn[1], resampling="average", tags={**tags, "CLOUDSEG_ENCODING": ENCODING})
    radiometry = compare_brightness(predictor.meta.brightness, facts.brightness)
    return PredictFileRecord(
        source=raster.grid.scene_id,
        mask=str(out),
        probability=None if probability is None else str(probability),
        weights_id=str(predictor.weights_id),
        threshold=facts.threshold,
        arithmetic=facts.arithmetic,
        bands=raster.bands,
        missing_bands=list(facts.missing_bands),
        radiometry=raster.radiometry,
        brightness=radiometry.flag,
        brightness_note=radiometry.note,
        resolution_m=raster.grid.resolution_m,
        cloud_fraction=facts.cloud_fraction,
        valid_fraction=facts.valid_fraction,
        seconds=round(time.monotonic() - began, 3),
    )


def _check_outputs(source: Path, outputs: list[Path]) -> None:
    for path in outputs:
        if not path.parent.is_dir():
            raise InputError("no such folder", subject=str(path), next_step=f"mkdir -p {path.parent}")
        if not os.access(path.parent, os.W_OK):
            raise InputError("the folder cannot be written", subject=str(path.parent))
        if path.is_dir() or (path.exists() and path.samefile(source)):
            raise InputError(
                "a folder, or the file that is masked", subject=str(path), expected="the path of a new file"
            )
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise InputError("mask and probability have the same path", subject=str(outputs[0]))


@contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """Yield the path of a hidden file beside it, which replaces it when the block ends without an error."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part.tif")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _tags(predictor: Predictor, raster: UserRaster, facts: MaskFacts, version: int | None) -> dict[str, str]:
    """Return tags like those of a published mask, without ids of a catalog."""
    tags = {
        "WEIGHTS_ID": predictor.weights_id,
        "MODEL_VERSION": version,
        "SNAPSHOT_ID": predictor.meta.snapshot_id,
        "RECIPE": predictor.meta.recipe_name,
        "RECIPE_HASH": predictor.meta.recipe_hash,
        "THRESHOLD": repr(facts.threshold),
        "ARITHMETIC": facts.arithmetic,
        "CLOUD_FRACTION": f"{facts.cloud_fraction:.6f}",
        "VALID_FRACTION": f"{facts.valid_fraction:.6f}",
        "SCALE": raster.radiometry,
        "SOFTWARE": f"cloudseg {__version__}",
    }
    return {
        **{f"CLOUDSEG_{name}": str(value) for name, value in tags.items() if value is not None},
        **facts.bands_tags,
        **compare_brightness(predictor.meta.brightness, facts.brightness).tags(),
        **(facts.promise.tags() if facts.promise else {}),
        **cleaning_tags(facts, predictor.meta.threshold),
    }
