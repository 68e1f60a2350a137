"""The end of a training: choose the threshold, pack, export, encode_probability, register."""

import logging
from typing import Final

import numpy as np

from cloudseg.catalog import Catalog
from cloudseg.model.export import export_onnx
from cloudseg.model.golden import GOLDEN_FILE, pack_golden
from cloudseg.model.predictor import INT8
from cloudseg.model.quantize import CALIBRATION_CHIPS, INT8_FILE, RANGES, Agreement, agreement, quantize
from cloudseg.model.weights import LoadedModel, WeightsMeta, load_weights, pack_weights
from cloudseg.records import Chip, Weights
from cloudseg.registry import register
from cloudseg.storage import Store
from cloudseg.train.trainer import Setting, Trainer, describe_net
from cloudseg.train.validate import choose_threshold, describe

log = logging.getLogger(__name__)
_COMPARED_CHIPS: Final = 48
"""Validation chips on which int8 is compared with fp32: 7 million pixels of 384 x 384 chips, seconds of work."""


def pack_result(trainer: Trainer, sources: tuple[str, ...]) -> tuple[bytes, WeightsMeta]:
    """Return the weights file of a finished training; every process of the group calls it, all get the same bytes.

    The threshold is chosen on all validation chips with the net that is published.
    """
    setting, recipe, run = trainer.setting, trainer.setting.recipe, trainer.setting.run
    net, step = trainer.final_net()
    counted = trainer.count(trainer.predictor(net), setting.validation_chips)
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
    }
    meta = describe_net(recipe, net, threshold=threshold).model_copy(
        update=lineage | {"metrics": describe(counted, threshold)}
    )
    return pack_weights(net, meta), meta


def register_result(store: Store, catalog: Catalog, setting: Setting, data: bytes, meta: WeightsMeta) -> Weights:
    """Register the weights with their ONNX twin, golden tile and, where it agrees, int8 file.

    The registry adds card and STAC item.
    """
    loaded = load_weights(data)
    chip = _most_mixed(setting.validation_chips)
    golden = pack_golden(loaded, setting.chip_set.pixels(chip)[:, : chip.height, : chip.width])
    companions = {"onnx": ("model.onnx", export_onnx(loaded)), "golden": (GOLDEN_FILE, golden)}
    int8, figures = _int8(setting, loaded)
    return register(
        store,
        catalog,
        weights=data,
        metadata=meta.model_dump(mode="json"),
        companions=companions | int8,
        run_id=setting.run.run_id,
        snapshot_id=setting.run.snapshot_id,
        architecture=meta.architecture,
        figures=figures,
    )


def _int8(setting: Setting, loaded: LoadedModel) -> tuple[dict[str, tuple[str, bytes]], dict[str, float]]:
    """Return the int8 companion, none where it disagrees or cannot be made, and the figures for the card."""
    run_id = setting.run.run_id
    try:
        int8, agreed = _quantized(setting, loaded)
    except Exception:
        # An extra for speed must not lose a night of training: the weights predict without it.
        log.warning("run %s: int8 is not published, it cannot be made", run_id, exc_info=True)
        return {}, {}
    log.info("run %s: int8 is %s: %s", run_id, "published" if agreed.is_good else "not published, it disagrees", agreed)
    figures = {
        "int8_mask_iou_against_fp32": agreed.mask_iou,
        "int8_validation_iou_change": agreed.label_iou - agreed.label_iou_fp32,
    }
    return ({INT8: (INT8_FILE, int8)} if agreed.is_good else {}), figures


def _quantized(setting: Setting, loaded: LoadedModel) -> tuple[bytes, Agreement]:
    """Calibrate on training chips, compare on validation chips.

    Of both ways to find ranges take the one that agrees better.
    """
    chips = setting.chip_set
    calibration = [np.array(chips.pixels(chip)) for chip in _spread(setting.train_chips, CALIBRATION_CHIPS)]
    compared = [
        (np.array(chips.pixels(chip)), np.array(chips.label(chip)))
        for chip in _spread(setting.validation_chips, _COMPARED_CHIPS)
    ]
    files = [quantize(loaded, calibration, ranges) for ranges in RANGES]
    return max(((int8, agreement(loaded, int8, compared)) for int8 in files), key=lambda found: found[1].mask_iou)


def _spread(chips: list[Chip], count: int) -> list[Chip]:
    """Return at most `count` chips, evenly from the list ordered by place, so that many places are among them."""
    ordered = sorted(chips, key=lambda chip: (chip.place, chip.chip_id))
    return ordered if len(ordered) <= count else [ordered[number * len(ordered) // count] for number in range(count)]


def _most_mixed(chips: list[Chip]) -> Chip:
    """Return the chip whose cloud fraction is nearest to one half: both classes are in it if they are anywhere."""
    return min(chips, key=lambda chip: (abs(chip.cloud_fraction - 0.5), chip.chip_id))
