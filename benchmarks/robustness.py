"""How well models hold on other sensors and other radiometry: the protocol by which recipes are compared.

`CLOUDSEG_HOME=… python -m benchmarks.robustness [--data FOLDER]… [--recipe NAME] [WEIGHTS…]`.

The weights (`w-…`, `v31`; without any: the champion) are evaluated on the held-out scenes of one snapshot of the
scenes' own pixels, each as it is and in every variant of `cloudseg.evaluate.radiometry`. Data sets that the recipe
names in `data.held_out_sources` are held out whole, so that they are as foreign to the net as a user's sensor. `--data`
ingests folders first. Printed for each label source: the IoU in each variant, the worst of them, and the spread.
"""

import argparse

from cloudseg import stages
from cloudseg.catalog import model_rows
from cloudseg.dataset import build_snapshot
from cloudseg.evaluate.metrics import mean_rates, pool, rates
from cloudseg.evaluate.radiometry import AS_IT_IS, VARIANTS, WITHOUT_OPTIONAL
from cloudseg.evaluate.scene_result import SceneResult
from cloudseg.evaluate.slices import is_saturated
from cloudseg.evaluate.table import CountsTable, read_table
from cloudseg.metrics import share
from cloudseg.recipe import load_recipe
from cloudseg.records import Evaluation, Weights
from cloudseg.runtime import Runtime, open_runtime


def main() -> None:
    """Parse the command line, evaluate and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="*", default=["champion"], help="Models, such as v31; default: the champion.")
    parser.add_argument("--data", action="append", default=[], help="Folder of labeled scenes to ingest first.")
    parser.add_argument("--recipe", default="nightly", help="Recipe of the snapshot: bands, chips, held-out sources.")
    arguments = parser.parse_args()
    for folder in arguments.data:
        stages.ingest(folder)
    runtime = open_runtime()
    recipe = load_recipe(arguments.recipe)
    # Not averaged to the recipe's working pixels: from those of 30 m nobody can tell what a sensor of 20 m would give.
    whole = recipe.model_copy(update={"input": recipe.input.model_copy(update={"working_resolution_m": None})})
    snapshot_id = build_snapshot(runtime.store, runtime.catalog, whole).snapshot_id
    for name in arguments.weights:
        record = stages.evaluate(name, snapshot_id=snapshot_id)
        for line in describe(runtime, record.evaluation_id):
            print(line)


def describe(runtime: Runtime, evaluation_id: str) -> list[str]:
    """Return the tables of a stored evaluation as lines of Markdown."""
    with runtime.catalog.read() as db:
        evaluation = model_rows.get_evaluation(db, evaluation_id)
        weights = model_rows.get_weights(db, evaluation.weights_id)
    return [_headline(weights, evaluation), "", *_table(evaluation), "", *_plain(read_table(runtime.store, evaluation))]


def _headline(weights: Weights, evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    figures = ", ".join(f"{name.replace('_', ' ')} {metrics[name]:.3f}" for name in ("iou", "boundary_f1"))
    run = f", run {weights.run_id}" if weights.run_id else ""
    return (
        f"**{weights.weights_id}** (v{weights.version}{run}), evaluation {evaluation.evaluation_id} on "
        f"{evaluation.snapshot_id}: {metrics['scenes']} held-out scenes, {figures}, "
        f"threshold {evaluation.threshold:.3f}"
    )


def _table(evaluation: Evaluation) -> list[str]:
    names = [AS_IT_IS, *(variant.name for variant in VARIANTS)]
    if any(WITHOUT_OPTIONAL.name in row["iou"] for row in evaluation.metrics["robustness"].values()):
        names.append(WITHOUT_OPTIONAL.name)
    lines = [f"| IoU | scenes | {' | '.join(names)} | worst | spread |", "|---" * (len(names) + 4) + "|"]
    for source, row in evaluation.metrics["robustness"].items():
        # An evaluation that was stored by an earlier release may lack one.
        cells = " | ".join(f"{row['iou'][name]:.3f}" if name in row["iou"] else "" for name in names)
        lines.append(f"| {source} | {row['scenes']} | {cells} | **{row['worst']:.3f}** | {row['spread']:.3f} |")
    return lines


def _plain(table: CountsTable) -> list[str]:
    """Return further figures of each source as it is, and of its scenes without the saturated ones.

    Where snow, ice or cloud is white all over at the largest value of the file, no pixel says which of them it is.
    """
    lines = ["| as it is | scenes | IoU | BOA | scene-mean IoU | boundary F1 | false cloud on cloud-free scenes |"]
    lines.append("|---" * 7 + "|")
    for source in sorted({scene.source for scene in table.scenes}):
        own = [scene for scene in table.scenes if scene.source == source]
        lines.append(_row(source, own))
        unsaturated = [scene for scene in own if not is_saturated(scene)]
        if 0 < len(unsaturated) < len(own):
            lines.append(_row(f"{source}, without the saturated", unsaturated))
    return lines


def _row(name: str, scenes: list[SceneResult]) -> str:
    own = [scene.counts for scene in scenes]
    cloud_free = [counts for counts in own if counts.cloud == 0]
    clear, found = pool(cloud_free), rates(pool(own))
    false = f"{share(clear.fp, clear.pixels):.1%} of {len(cloud_free)} scenes" if cloud_free else "no such scene"
    figures = (found["iou"], found["balanced_accuracy"], mean_rates(own)["iou"], found["boundary_f1"])
    return f"| {name} | {len(own)} | {' | '.join(f'{figure:.3f}' for figure in figures)} | {false} |"


if __name__ == "__main__":
    main()
