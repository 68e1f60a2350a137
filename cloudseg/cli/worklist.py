"""The command that lists what to label next."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.complete import names_of
from cloudseg.cli.output import reports, show_record
from cloudseg.records import Json


def _show_worklist(console: Console, record: Json) -> None:
    """Print a scene per line with the reason below it, then what was examined."""
    for item in record["items"]:
        head = f"{item['rank']:>3}  {item['scene_id']}  {item['scene']}  ({item['place']}, {item['sensor']})"
        first = item["windows"][0]
        at = f"row {first['row_off']}, column {first['col_off']}, {first['height']} x {first['width']} pixels"
        for line in (head, f"     {item['words']}", f"     {_windows(len(item['windows']))} {at}"):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not record["items"]:
        console.print("nothing to label: no published mask is in doubt")
    kept = {name: record[name] for name in ("worklist_id", "weights_id", "masked", "examined", "failed", "folder")}
    if record["second_opinion"] is not None:
        kept["second_opinion"] = record["second_opinion"]
    show_record(console, kept)


def _windows(count: int) -> str:
    return "one window, at" if count == 1 else f"{count} windows, the first at"


@click.command()
@click.option(
    "--count", type=click.IntRange(1, 1000), default=20, show_default=True, help="Scenes on the list, at most."
)
@click.option(
    "--scene",
    "scene_ids",
    multiple=True,
    metavar="SCENE",
    shell_complete=names_of("scene"),
    help="List this scene instead, by name or id, because its mask is wrong (repeatable).",
)
@click.option("--out", type=click.Path(file_okay=False), metavar="FOLDER", help="New folder to label them in QGIS.")
@click.option(
    "--weights",
    "weights_id",
    metavar="ID",
    shell_complete=names_of("weights"),
    help="Whose masks to examine; the champion's when not given.",
)
@click.option(
    "--predict",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    help="Scenes to mask with the challenger first, to compare the two models.",
)
@click.option(
    "--megapixels",
    type=click.IntRange(1, 1_000_000),
    default=2000,
    show_default=True,
    help="Millions of pixels to examine, the newest scenes of every place first.",
)
@click.option(
    "--second-opinion",
    is_flag=True,
    help="Also ask ukis-csmask (pip install 'cloudseg[teacher]') about labeled scenes, to find wrong labels.",
)
@reports(_show_worklist)
def worklist(
    count: int,
    scene_ids: tuple[str, ...],
    out: str | None,
    weights_id: str | None,
    predict: int,
    megapixels: int,
    second_opinion: bool,
) -> Any:
    """List the scenes and windows whose label would teach the model most.

    Reasons: label and mask contradict each other, pixels are cloud on nearly every date, two models disagree, the model
    is undecided; with --second-opinion a model of others contradicts the label as the mask does. With --out the list
    becomes a folder with a QGIS project: draw polygons, save, and `cloudseg ingest` that folder.
    """
    from cloudseg import stages

    return stages.worklist(
        count=count,
        scene_ids=scene_ids,
        out=out,
        weights_id=weights_id,
        predict=predict,
        megapixels=megapixels,
        second_opinion=second_opinion,
    )
