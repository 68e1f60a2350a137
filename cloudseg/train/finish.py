"""The end of a training: choose the threshold, pack, export, register."""

from cloudseg.catalog import Catalog
from cloudseg.model.export import export_onnx
from cloudseg.model.golden import GOLDEN_FILE, pack_golden
from cloudseg.model.weights import WeightsMeta, load_weights, pack_weights
from cloudseg.records import Chip, Weights
from cloudseg.registry import register
from cloudseg.storage import Store
from cloudseg.train.trainer import Setting, Trainer, describe_net
from cloudseg.train.validate import choose_threshold, describe


def pack_result(trainer: Trainer, sources: tuple[str, ...]) -> tuple[bytes, WeightsMeta]:
    """Give the weights file of a finished training; every process of the group calls it, all get the same bytes.

    The threshold is chosen on all validation chips with the net that is published.
    """
    setting, recipe, run = trainer.setting, trainer.setting.recipe, trainer.setting.run
    net, step = trainer.final_net()
    counted = trainer.count(trainer.predictor(net), setting.validation_chips)
    threshold = choose_threshold(counted)
    lineage = {
        "snapshot_id": run.snapshot_id, "run_id": run.run_id, "parent_weights_id": run.parent_weights_id, "recipe_name": run.recipe_name,
        "recipe_hash": run.recipe_hash, "seed": recipe.seed, "steps": step, "sources": sources,
    }  # fmt: skip
    meta = describe_net(recipe, net, threshold=threshold).model_copy(update=lineage | {"metrics": describe(counted, threshold)})
    return pack_weights(net, meta), meta


def register_result(store: Store, catalog: Catalog, setting: Setting, data: bytes, meta: WeightsMeta) -> Weights:
    """Register the weights with their ONNX twin and golden tile; card and STAC item are added by the registry."""
    loaded = load_weights(data)
    chip = _most_mixed(setting.validation_chips)
    golden = pack_golden(loaded, setting.chip_set.pixels(chip)[:, : chip.height, : chip.width])
    return register(
        store, catalog, weights=data, metadata=meta.model_dump(mode="json"),
        companions={"onnx": ("model.onnx", export_onnx(loaded)), "golden": (GOLDEN_FILE, golden)},
        run_id=setting.run.run_id, snapshot_id=setting.run.snapshot_id, architecture=meta.architecture,
    )  # fmt: skip


def _most_mixed(chips: list[Chip]) -> Chip:
    """Give the chip whose cloud fraction is nearest to one half: both classes are in it if they are anywhere."""
    return min(chips, key=lambda chip: (abs(chip.cloud_fraction - 0.5), chip.chip_id))
