"""The command that compares two models by their evaluations."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.complete import names_of
from cloudseg.cli.output import reports, show_record, show_rows
from cloudseg.records import Json

_SIDES = (
    "version",
    "weights_id",
    "evaluated_on",
    "threshold",
    "parameters",
    "bytes",
    "training.images_per_s",
    "int8.why",
)
_show_models = show_rows("models", ["model", *_SIDES[:-1]], below=[_SIDES[-1]])
_show_slices = show_rows(
    "slices",
    ["kind", "value", "difference", "lower", "upper", "a", "b", "scenes", "places", "measure", "enough", "fell"],
)
_show_places = show_rows(
    "by_place", ["place", "difference", "lower", "upper", "a", "b", "scenes", "measure", "enough", "cloud_fraction"]
)
_show_scenes = show_rows("scenes", ["scene_id", "name", "wrong_a", "wrong_b", "iou_a", "iou_b", "place", "sensor"])
_show_recipe = show_rows("recipe", ["key", "a", "b"])


def _show(console: Console, record: Json) -> None:
    """Print the conclusion, then models, slices, places, the scenes that differ most and the recipes' differences."""
    verdict = record["verdict"]
    difference = {name: {key: f"{value:+.4f}" for key, value in found.items()} for name, found in _shown(record)}
    reasons = f"{verdict['outcome']} on {verdict['challenger']}: {'; '.join(verdict['reasons'])}" if verdict else None
    show_record(
        console,
        {
            "conclusion": record["conclusion"]["text"],
            "compared": record["compared"]["note"],
            "on one snapshot": record["compared"]["command"],
            **difference,
            "gate": reasons,
        },
    )
    models = [{"model": side.upper(), **record[side]} for side in ("a", "b")]
    for title, show, part in (
        ("models", _show_models, {"models": models}),
        ("slices (A - B)", _show_slices, record),
        ("places (A - B)", _show_places, record),
        ("scenes that differ most (share of wrong pixels, IoU)", _show_scenes, record),
    ):
        console.print(f"\n{title}", style="bold underline")
        show(console, part)
    console.print("\nrecipes", style="bold underline")
    if record["recipe"] is None:
        console.print("imported weights have no recipe")
    elif record["recipe"]:
        _show_recipe(console, record)
    else:
        console.print("no key differs")


def _shown(record: Json) -> list[tuple[str, Json]]:
    names = {"pooled": "IoU, A - B", "scene_mean": "IoU of scenes, A - B"}
    return [(title, record["difference"][name]) for name, title in names.items()]


@click.command()
@click.argument("a", metavar="WEIGHTS_A", shell_complete=names_of("weights"))
@click.argument("b", metavar="WEIGHTS_B", shell_complete=names_of("weights"))
@reports(_show)
def compare(a: str, b: str) -> Any:
    """Compare WEIGHTS_A and WEIGHTS_B (`w-…`, `v31` or `champion`) on the held-out scenes that both were evaluated on.

    The statistics are the gate's: paired differences of IoU, A minus B, with one-sided bounds, for all scenes, each
    slice and each place. Nothing is evaluated: if an evaluation is missing, the message names the command. `cloudseg
    changes` compares published masks instead, pixel by pixel.
    """
    from cloudseg import stages

    return stages.compare_models(a, b)
