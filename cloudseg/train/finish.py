"""The end of a training: choose the threshold, pack the weights, export, quantize, register."""

import logging
from typing import Final

import numpy as np
import numpy.typing as npt

from cloudseg.catalog import Catalog
from cloudseg.model.export import export_onnx
from cloudseg.model.golden import GOLDEN_FILE, REFERENCE_DEVICE, pack_golden
from cloudseg.model.int8 import CALIBRATION_CHIPS, Quantized, make_int8
from cloudseg.model.int8_net import INT8_ASSET, INT8_FILE
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.pixels import fill_missing
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import LoadedModel, load_weights, pack_weights
from cloudseg.recipe import Recipe
from cloudseg.records import Chip, Run, Weights
from cloudseg.registry import register
from cloudseg.storage import Store
from cloudseg.train.brightness import training_brightness
from cloudseg.train.data import TrainingData
from cloudseg.train.trainer import Trainer, describe_net
from cloudseg.train.validate import Validator, choose_threshold, validation_metrics

log = logging.getLogger(__name__)
_COMPARED_CHIPS: Final = 48
"""Validation chips on which int8 is compared with fp32: 7 million pixels of 384 x 384 chips, seconds of work."""


def pack_result(
    trainer: Trainer, validator: Validator, data: TrainingData, run: Run, recipe: Recipe, sources: tuple[str, ...]
) -> tuple[bytes, WeightsMeta]:
    """Return the weights file of a finished training and its metadata.

    All processes call it together and get the same bytes. The threshold is chosen on all validation chips with the net
    that is published.

    Args:
        trainer: at its end.
        validator: of the same data.
        data: what it was trained on.
        run: the row, for the lineage.
        recipe: of the run, under today's names.
        sources: where the labels come from.
    """
    log.info("finishing: choosing the threshold on all validation chips")
    net, step = trainer.final_net()
    counted = validator.count(trainer.predictor(net))
    threshold = choose_threshold(counted)
    lineage = {
        "snapshot_id": run.snapshot_id,
        "run_id": run.run_id,
        "parent_weights_id": run.parent_weights_id,
        "recipe_name": run.recipe_name,
        "recipe_hash": run.recipe_hash,
        "seed": recipe.seed,
        "steps": step,
        "sources": sources,
        "brightness": training_brightness(data),
    }
    meta = describe_net(recipe, net, threshold=threshold)
    meta = meta.model_copy(update=lineage | {"metrics": validation_metrics(counted, threshold)})
    return pack_weights(net, meta), meta


def register_result(
    store: Store, catalog: Catalog, run: Run, data: TrainingData, packed: bytes, meta: WeightsMeta
) -> Weights:
    """Register the weights with their ONNX export, golden sample and, if it agrees with fp32, int8 file.

    The registry adds model card and STAC item.
    """
    log.info("finishing: exporting to ONNX")
    loaded = load_weights(packed)
    chip = _most_mixed(data.validation)
    golden = pack_golden(loaded, data.chip_set.pixels(chip)[:, : chip.height, : chip.width])
    assets = {"onnx": ("model.onnx", export_onnx(loaded)), "golden": (GOLDEN_FILE, golden)}
    log.info("finishing: quantizing to int8")
    int8, figures = _int8(loaded, data, run.run_id)
    log.info("finishing: registering the weights")
    return register(
        store,
        catalog,
        weights=packed,
        metadata=meta.model_dump(mode="json"),
        companions=assets | int8,
        run_id=run.run_id,
        snapshot_id=run.snapshot_id,
        architecture=meta.architecture,
        figures=figures,
    )


def _int8(
    loaded: LoadedModel, data: TrainingData, run_id: str
) -> tuple[dict[str, tuple[str, bytes]], dict[str, object]]:
    """Return the int8 asset, none if it disagrees or cannot be made, and the figures for the card."""
    try:
        made = _quantized(loaded, data)
    except Exception:
        # An extra for speed must not lose a night of training: the weights predict without it.
        log.warning("run %s: int8 is not published, it cannot be made", run_id, exc_info=True)
        return {}, {}
    agreed = made.agreement
    verdict = f"published ({made.method})" if agreed.is_good else "not published, it disagrees"
    log.info("run %s: int8 is %s: %s", run_id, verdict, agreed)
    figures: dict[str, object] = {
        "int8_method": str(made.method),
        "int8_mask_iou_against_fp32": agreed.mask_iou,
        "int8_validation_iou_change": agreed.label_iou - agreed.label_iou_fp32,
    }
    return ({INT8_ASSET: (INT8_FILE, made.data)} if agreed.is_good else {}), figures


def _quantized(loaded: LoadedModel, data: TrainingData) -> Quantized:
    """Calibrate on training chips and compare with fp32 on validation chips, both also without optional bands."""
    chips, meta = data.chip_set, loaded.meta
    calibration = [
        pixels
        for chip in _spread(data.train, CALIBRATION_CHIPS)
        for pixels in _as_it_may_come(chips.pixels(chip), meta)
    ]
    compared = [
        (pixels, np.array(chips.label(chip)))
        for chip in _spread(data.validation, _COMPARED_CHIPS)
        for pixels in _as_it_may_come(chips.pixels(chip), meta)
    ]
    return make_int8(loaded, TorchPredictor(loaded, REFERENCE_DEVICE), calibration, compared)


def _as_it_may_come(dn: npt.NDArray[np.uint16], meta: WeightsMeta) -> list[npt.NDArray[np.uint16]]:
    """Return the pixels of a chip, and if the weights have optional bands also as of a scene that lacks these."""
    with_all = np.array(dn)
    if not meta.optional_bands:
        return [with_all]
    required = [meta.bands.index(band) for band in meta.required_bands]
    return [with_all, fill_missing(with_all[required], meta.required_bands, meta.bands)]


def _spread(chips: list[Chip], count: int) -> list[Chip]:
    """Return at most `count` chips, evenly from the list ordered by place, so that many places are among them."""
    ordered = sorted(chips, key=lambda chip: (chip.place, chip.chip_id))
    return ordered if len(ordered) <= count else [ordered[number * len(ordered) // count] for number in range(count)]


def _most_mixed(chips: list[Chip]) -> Chip:
    """Return the chip whose cloud fraction is nearest to one half: both classes are in it if they are in any."""
    return min(chips, key=lambda chip: (abs(chip.cloud_fraction - 0.5), chip.chip_id))
