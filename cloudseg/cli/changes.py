"""The command that compares the masks of two models."""

from typing import Any

import click

from cloudseg.cli.complete import names_of
from cloudseg.cli.output import reports, show_record
from cloudseg.records import Json


def _some_failed(record: Json) -> int:
    return 3 if record.get("failed") else 0


@click.command()
@click.argument("before", metavar="WEIGHTS_A", shell_complete=names_of("weights"))
@click.argument("after", metavar="WEIGHTS_B", shell_complete=names_of("weights"))
@click.option("--out", type=click.Path(file_okay=False), metavar="FOLDER", required=True, help="New folder.")
@click.option(
    "--scene",
    "scene_ids",
    multiple=True,
    metavar="SCENE",
    shell_complete=names_of("scene"),
    help="Compare this scene only, by name or id (repeatable).",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Scenes, latest acquisition first.",
)
@reports(show_record, exit_code=_some_failed)
def changes(before: str, after: str, out: str, scene_ids: tuple[str, ...], limit: int) -> Any:
    """Compare the masks of WEIGHTS_A and WEIGHTS_B (`w-…`, `v31`, `champion`) pixel by pixel.

    FOLDER gets `changes.html` (how many pixels flipped by sensor and ground, and which labels lie behind it),
    `changes.json`, and a change map of each scene as a COG.
    """
    from cloudseg import stages

    return stages.changes(before, after, out=out, scene_ids=scene_ids, limit=limit)
