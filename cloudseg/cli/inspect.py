"""Commands that show the content of the catalog."""

from typing import Any

import click
from rich.console import Console
from rich.tree import Tree

from cloudseg.cli.complete import names_of
from cloudseg.cli.options import together
from cloudseg.cli.output import reports, show_rows
from cloudseg.records import Json

_LIMIT = click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Number of rows, newest first."
)

_SUCH = together(
    click.option(
        "--name",
        metavar="NAME",
        shell_complete=names_of("scene"),
        help="Only scenes of this name; * stands for any letters: 'alps_*'.",
    ),
    click.option("--place", metavar="PLACE", help="Only scenes of this place; * stands for any letters."),
    click.option(
        "--datetime",
        "interval",
        metavar="TIME",
        help="Only scenes acquired then: 2024, 2024-05, 2024-05-01/2024-06-30, 2024-05-01T10:00:00Z/..",
    ),
)


@click.command()
@_SUCH
@_LIMIT
@reports(show_rows("scenes", ["scene_id", "name", "place", "acquired_at", "sensor", "height", "width", "publishable"]))
def scenes(**such: Any) -> Any:
    """List scenes, newest first."""
    from cloudseg import stages

    return {"scenes": stages.scenes(**such)}


@click.command()
@_LIMIT
@reports(
    show_rows(
        "models",
        [
            "version",
            "weights_id",
            "alias",
            "verdict",
            "decision",
            "held_out.iou",
            "held_out.f1",
            "recipe",
            "created_at",
        ],
    )
)
def models(limit: int) -> Any:
    """List registered weights with verdict and held-out metrics, newest first; the champion always, last if older."""
    from cloudseg import stages

    return {"models": stages.models(limit=limit)}


@click.command()
@_LIMIT
@reports(
    show_rows(
        "runs",
        ["run_id", "status", "recipe_name", "epoch.epoch", "epoch.step", "snapshot_id"],
        below=["epoch.metrics", "error"],
    )
)
def runs(limit: int) -> Any:
    """List training runs with their newest epoch, also while they run."""
    from cloudseg import stages

    return {"runs": stages.runs(limit=limit)}


@click.command()
@click.option(
    "--weights",
    "weights_id",
    metavar="ID",
    shell_complete=names_of("weights"),
    help="Only masks predicted with these weights.",
)
@click.option("--as-of", metavar="TIME", help="What readers saw at this time (ISO 8601 with zone), one mask a scene.")
@_SUCH
@click.option("--min-cloud", type=click.FloatRange(0, 1), metavar="FRACTION", help="At least this much cloud, 0 to 1.")
@click.option("--max-cloud", type=click.FloatRange(0, 1), metavar="FRACTION", help="At most this much cloud, 0 to 1.")
@_LIMIT
@click.option(
    "--link",
    is_flag=True,
    help="Add a presigned URL that needs no login, for QGIS or a browser (stores on S3 only).",
)
@click.option(
    "--expires",
    "hours",
    type=click.FloatRange(0.01, 168),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Lifetime of the URLs.",
)
@reports(
    show_rows(
        "masks",
        [
            "mask_id",
            "scene",
            "cloud_fraction",
            "valid_fraction",
            "radiometry",
            "disputed",
            "weights_id",
            "current",
            "successor",
        ],
        below=["uri", "link"],
    )
)
def masks(link: bool, hours: float, **such: Any) -> Any:
    """List published masks, newest first, and which mask of the same scene followed."""
    from cloudseg import stages

    link_s = round(hours * 3600) if link else None
    return {"masks": stages.masks(link_s=link_s, **such)}


@click.command()
@click.option(
    "--release",
    multiple=True,
    metavar="ID",
    shell_complete=names_of("quarantine"),
    help="Release this entry, so that the next ingest tries its file again (repeatable).",
)
@click.option("--same-reason", is_flag=True, help="With --release: also every other entry with the same reason.")
@click.option("--actor", default="cli", show_default=True, help="With --release: who decides; kept with the release.")
@click.option("--reason", default="", help="With --release: why; kept with the release.")
@click.option("--dry-run", is_flag=True, help="With --release: show what would be released without releasing it.")
@_LIMIT
@reports(show_rows("quarantine", ["quarantine_id", "name"], below=["what", "found", "expected", "next_step"]))
def quarantine(release: tuple[str, ...], same_reason: bool, actor: str, reason: str, dry_run: bool, limit: int) -> Any:
    """List files that could not be ingested, with the reason; with --release, those that are left."""
    from cloudseg import stages

    if release:
        who = {"actor": actor, "reason": reason}
        record = stages.release_from_quarantine(release, same_reason=same_reason, dry_run=dry_run, **who)
        if dry_run:
            every = stages.quarantine(limit=None)
            return {"quarantine": [entry for entry in every if entry["quarantine_id"] in record.released]}
    return {"quarantine": stages.quarantine(limit=limit)}


def _show_lineage(console: Console, record: Json) -> None:
    """Print mask, weights, run, snapshot, labels and scenes as a tree."""
    mask, weights, run, frozen = record["mask"], record["weights"], record["run"], record["snapshot"]
    disputed = "  disputed: a label corrects it" if mask["disputed"] else ""
    tree = Tree(f"mask {mask['mask_id']}  sha256 {mask['sha256']}{disputed}")
    scene = record["scene"]
    tree.add(f"of scene {scene['name']}  {scene['scene_id']}  source sha256 {scene['source_sha256']}")
    model = tree.add(f"by weights {weights['weights_id']}  version {weights['version']}  {weights['architecture']}")
    if run is not None:
        model.add(
            f"trained by run {run['run_id']}  recipe {run['recipe_name']} {run['recipe_hash'][:12]}  on {run['device']}"
        )
    for ancestor in record["ancestors"]:
        parent = f"{ancestor['weights_id']}  version {ancestor['version']}  snapshot {ancestor['snapshot_id']}"
        model.add(f"warm start from {parent}")
    if frozen is not None:
        source = model.add(f"on snapshot {frozen['snapshot_id']}  {len(record['labels'])} labels")
        for label in record["labels"]:
            since = "" if label["state"] == "accepted" else f", now {label['state']}"
            name = f"label {label['label_id']} v{label['version']} ({label['source']}{since})"
            source.add(f"{label['split']}: {name} of {label['scene']['name']}  {label['scene']['scene_id']}")
    console.print(tree, markup=False, highlight=False)


@click.command()
@click.argument("mask_id", shell_complete=names_of("mask"))
@reports(_show_lineage)
def lineage(mask_id: str) -> Any:
    """Show the lineage of MASK_ID: scene, weights, training run, snapshot and labels, with checksums."""
    from cloudseg import stages

    return stages.lineage(mask_id)
