"""Commands of the pipeline: ingest, snapshot, train, evaluate, promote, rollback, retrain, predict."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.complete import complete_path, complete_recipe, names_of
from cloudseg.cli.options import cleaning_options
from cloudseg.cli.output import reports, show_parts, show_record
from cloudseg.raster.thresholds import Threshold
from cloudseg.records import Json

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would be done without writing.")
_RECIPE = click.option(
    "--recipe",
    shell_complete=complete_recipe,
    default="nightly",
    show_default=True,
    help="Name of a shipped recipe, or path of a .toml file.",
)
_MINUTES = click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Training budget in minutes; that of the recipe when not given.",
)
_SNAPSHOT = click.option(
    "--snapshot",
    "snapshot_id",
    metavar="ID",
    shell_complete=names_of("snapshot"),
    help="Snapshot to evaluate on; that of the training when not given.",
)
_ACTOR = click.option("--actor", default="cli", show_default=True, help="Who decides; stored in the promotion history.")
_REASON = click.option("--reason", default="", help="Why; stored in the promotion history.")


def numbers(option: str, text: str) -> list[float]:
    """Return the numbers of an option's value that are divided by commas.

    Raises:
        UsageError: They are no numbers.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise click.UsageError(f"{option} takes numbers divided by commas, not {text!r}.") from error


def _show_ingest(console: Console, record: Json) -> None:
    """Print the record, then what it says about labels, one note per line."""
    show_record(console, {name: value for name, value in record.items() if name != "notes"})
    for note in record["notes"]:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


@click.command()
@click.argument("source", required=False, shell_complete=complete_path)
@click.option("--layout", help="Layout of the files; detected when not given.")
@click.option(
    "--bands",
    metavar="A,B,…",
    help="Band names in file order if the files do not name them, for example red,green,blue.",
)
@click.option("--bbox", metavar="W,S,E,N", help="STAC: area in degrees; of each item only the part that it needs.")
@click.option(
    "--aoi",
    metavar="FILE",
    shell_complete=complete_path,
    help="STAC: area as polygons of a GeoJSON file in longitude and latitude.",
)
@click.option(
    "--datetime",
    metavar="TIME",
    help="STAC: a day, month, year or time, or a range: 2024-06-01/2024-06-30, 2024-06/.. (open end).",
)
@click.option("--collection", "collections", multiple=True, metavar="ID", help="STAC: collection; may be repeated.")
@click.option("--max-cloud-cover", type=click.FloatRange(0, 100), metavar="PERCENT", help="STAC: of eo:cloud_cover.")
@click.option("--limit", type=click.IntRange(min=1), help="STAC: new items to ingest at most; 100 when not given.")
@click.option("--whole", is_flag=True, help="STAC: fetch whole files although an area is given.")
@_DRY_RUN
@reports(_show_ingest)
def ingest(
    source: str | None, layout: str | None, bands: str | None, bbox: str | None, dry_run: bool, **stac: Any
) -> Any:
    """Ingest the tiles and labels in SOURCE (default: the inbox).

    SOURCE is a folder, store://prefix, s3://bucket/prefix, or stac+https://… of a STAC API, static catalog, collection
    or item. Of a STAC source, choose items by area, time, cloud cover and collection; what is known is not fetched
    again, and a run that was stopped continues.

    Files that cannot be used are listed in the quarantine with the reason; the others are ingested. A file with the
    same content as an earlier one adds no second scene. Corrected labels wait for `cloudseg labels accept`.
    """
    from cloudseg import stages

    return stages.ingest(
        source,
        layout=layout,
        bands=bands.split(",") if bands else None,
        bbox=numbers("--bbox", bbox) if bbox else None,
        dry_run=dry_run,
        **stac,
    )


@click.command()
@_RECIPE
@_DRY_RUN
@reports(show_record)
def snapshot(recipe: str, dry_run: bool) -> Any:
    """Cut the accepted labels into a frozen snapshot of training chips, as the recipe defines them.

    The same labels and recipe produce the same snapshot.
    """
    from cloudseg import stages

    return stages.snapshot(recipe, dry_run=dry_run)


@click.command()
@click.argument("snapshot_id", shell_complete=names_of("snapshot"))
@_RECIPE
@click.option(
    "--run-id",
    metavar="ID",
    shell_complete=names_of("run"),
    help="Run to start or resume; derived from snapshot, recipe and champion when not given.",
)
@_MINUTES
@_DRY_RUN
@reports(show_record)
def train(snapshot_id: str, recipe: str, run_id: str | None, minutes: float | None, dry_run: bool) -> Any:
    """Train on SNAPSHOT_ID and register the weights. An interrupted run resumes from its newest checkpoint."""
    from cloudseg import stages
    from cloudseg.stages.plan import plan_train

    call = plan_train if dry_run else stages.train
    return call(snapshot_id, recipe=recipe, run_id=run_id, minutes=minutes)


@click.command()
@click.argument("weights_id", shell_complete=names_of("weights"))
@_SNAPSHOT
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "held_out"]),
    default="held_out",
    show_default=True,
    help="Split to evaluate on; held_out is the test split.",
)
@_DRY_RUN
@reports(show_record)
def evaluate(weights_id: str, snapshot_id: str | None, split: Any, dry_run: bool) -> Any:
    """Evaluate WEIGHTS_ID on a split of a snapshot, by default the held-out one, and store the report.

    WEIGHTS_ID is `w-…`, `v31` or `champion`.
    """
    from cloudseg import stages
    from cloudseg.stages.plan import plan_evaluate

    call = plan_evaluate if dry_run else stages.evaluate
    return call(weights_id, snapshot_id=snapshot_id, split=split)


@click.command()
@click.argument("weights_id", shell_complete=names_of("weights"))
@_SNAPSHOT
@click.option(
    "--apply/--no-apply", default=True, show_default=True, help="Promote if the verdict is PROMOTE, or only compare."
)
@click.option("--force", is_flag=True, help="Promote despite the verdict or an earlier rejection; needs --reason.")
@click.option("--ask", is_flag=True, help="Only compare, and record that a verdict PROMOTE waits for manual approval.")
@click.option("--decline", is_flag=True, help="Only compare, and record a manual rejection; needs --reason.")
@click.option("--automatic", is_flag=True, help="Unattended: do not promote what waits for approval or was rejected.")
@_ACTOR
@_REASON
@_DRY_RUN
@reports(show_record)
def promote(
    weights_id: str,
    snapshot_id: str | None,
    apply: bool,
    force: bool,
    ask: bool,
    decline: bool,
    automatic: bool,
    actor: str,
    reason: str,
    dry_run: bool,
) -> Any:
    """Compare WEIGHTS_ID (`w-…` or `v31`) with the champion and make it champion if the verdict is PROMOTE.

    HOLD and REJECT are verdicts, not errors: the exit code is 0 and the record holds the reasons. Weights that wait
    for approval (`--ask`, or `cloudseg retrain --no-auto-promote`) are approved by `cloudseg promote WEIGHTS_ID` and
    rejected by `cloudseg promote WEIGHTS_ID --decline --reason TEXT`.
    """
    from cloudseg import stages
    from cloudseg.stages.plan import PromotionKind, plan_promote

    if force and (ask or decline or automatic or not apply):
        raise click.UsageError("--force cannot be combined with --no-apply, --ask, --decline or --automatic.")
    if dry_run:
        kinds: list[tuple[PromotionKind, bool]] = [
            ("decline", decline),
            ("ask", ask),
            ("compare", not apply),
            ("automatic", automatic),
            ("force", force),
        ]
        kind: PromotionKind = next((kind for kind, is_asked in kinds if is_asked), "promote")
        return plan_promote(weights_id, snapshot_id=snapshot_id, kind=kind, reason=reason)
    if decline:
        return stages.decline(weights_id, snapshot_id=snapshot_id, actor=actor, reason=reason)
    if ask:
        return stages.request_approval(weights_id, snapshot_id=snapshot_id, actor=actor, reason=reason)
    if not apply:
        return stages.compare(weights_id, snapshot_id=snapshot_id)
    if automatic:
        return stages.promote_unattended(weights_id, snapshot_id=snapshot_id, actor=actor, reason=reason)
    return stages.promote(weights_id, snapshot_id=snapshot_id, force=force, actor=actor, reason=reason)


@click.command()
@click.argument("champion_id", required=False, shell_complete=names_of("weights"))
@_ACTOR
@click.option("--reason", required=True, help="Why; stored in the promotion history.")
@_DRY_RUN
@reports(show_record)
def rollback(champion_id: str | None, actor: str, reason: str, dry_run: bool) -> Any:
    """Replace the current champion with the previous one; the history keeps both changes.

    CHAMPION_ID is the champion to replace: with it the command is safe to repeat. Without it the current champion is
    replaced, and a second call rolls back one champion further.
    """
    from cloudseg import stages
    from cloudseg.stages.plan import plan_rollback

    return plan_rollback(champion_id) if dry_run else stages.rollback(champion_id, actor=actor, reason=reason)


@click.command()
@_RECIPE
@_MINUTES
@click.option("--force", is_flag=True, help="Train even if no label is new.")
@click.option(
    "--auto-promote/--no-auto-promote",
    default=True,
    show_default=True,
    help="Promote by the verdict, or wait for manual approval.",
)
@click.option("--run-id", metavar="ID", shell_complete=names_of("run"), help="Run to start or resume.")
@_DRY_RUN
@reports(show_parts)
def retrain(
    recipe: str, minutes: float | None, force: bool, auto_promote: bool, run_id: str | None, dry_run: bool
) -> Any:
    """Run snapshot, train, evaluate and promote; skipped, with the reason, if no label is new."""
    from cloudseg import stages

    if dry_run:
        from cloudseg.recipe import load_recipe

        load_recipe(recipe).with_minutes(minutes)  # refused as by the call itself
        plan = stages.plan_retrain(recipe, force=force)
        end = "promote by the verdict" if auto_promote else "leave a verdict PROMOTE to a person"
        would = f"cut a snapshot, train, evaluate, {end}" if plan["skip"] is None else "train nothing"
        return {"would": would, **plan}
    return stages.retrain(recipe, minutes=minutes, force=force, auto_promote=auto_promote, run_id=run_id)


def _some_failed(record: Json) -> int:
    return 3 if record.get("failed") else 0


@click.command()
@click.argument("scene_ids", nargs=-1, metavar="SCENE…", shell_complete=names_of("scene"))
@click.option("--new", is_flag=True, help="All scenes without a mask of these weights.")
@click.option(
    "--drain",
    is_flag=True,
    help="Draw scenes without a mask until none is left; any number of workers may, on any machines.",
)
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="With --drain: after these, draw no further scene."
)
@click.option(
    "--worker",
    metavar="NAME",
    help="With --drain: name of this worker, such as the id of the job; if it is killed, a new process of that name "
    "takes up its scene at once.",
)
@click.option(
    "--weights",
    metavar="ID",
    shell_complete=names_of("weights"),
    help="Weights to use, by id or version (v31); the champion's when not given. With --file also a weights file, or "
    "its https, s3 or file URL.",
)
@click.option(
    "--file",
    metavar="PATH",
    shell_complete=complete_path,
    help="Mask this GeoTIFF or JPEG 2000 file instead; no catalog is needed.",
)
@click.option("--out", metavar="PATH", shell_complete=complete_path, help="With --file: the mask to write.")
@click.option(
    "--probability", metavar="PATH", shell_complete=complete_path, help="With --file: also write the probability here."
)
@click.option(
    "--bands",
    metavar="A,B,…",
    help="With --file: band names in file order if the file does not name them (- for one that is not wanted).",
)
@click.option(
    "--resolution",
    "resolution_m",
    type=click.FloatRange(min=0, min_open=True),
    help="With --file: ground size of a pixel in meters if the file has no CRS.",
)
@cleaning_options(default=None)
@_DRY_RUN
@reports(show_record, exit_code=_some_failed)
def predict(
    scene_ids: tuple[str, ...],
    new: bool,
    drain: bool,
    minutes: float | None,
    worker: str | None,
    weights: str | None,
    file: str | None,
    dry_run: bool,
    threshold: Threshold | None,
    min_area_m2: float | None,
    min_hole_m2: float | None,
    buffer_m: float | None,
    **of_file: Any,
) -> Any:
    """Predict and publish the masks of the given scenes (names or ids), or of all new ones. Existing masks are kept.

    With --drain this is one of any number of workers, none of which draws what another one draws: by default the masks
    that are missing of the weights whose masks readers see.

    With --file the mask of a file of your own is written to --out, and nothing is published.

    With --threshold, --min-area-m2, --min-hole-m2 or --buffer-m the mask has an id of its own; where readers see
    another one of the same weights they go on seeing that. Their defaults are the settings CLOUDSEG_THRESHOLD,
    CLOUDSEG_MIN_AREA_M2, CLOUDSEG_MIN_HOLE_M2 and CLOUDSEG_BUFFER_M.
    """
    from cloudseg import stages
    from cloudseg.stages.plan import plan_masks

    cleaning: dict[str, Any] = {
        "threshold": threshold,
        "min_area_m2": min_area_m2,
        "min_hole_m2": min_hole_m2,
        "buffer_m": buffer_m,
    }
    if file is not None:
        if scene_ids or new or drain or dry_run or of_file["out"] is None:
            raise click.UsageError(
                "--file needs --out, and cannot be combined with scenes, --new, --drain or --dry-run."
            )
        bands = of_file.pop("bands")
        return stages.predict_file(
            file, weights=weights, bands=bands.split(",") if bands else None, **of_file, **cleaning
        )
    if any(value is not None for value in of_file.values()):
        raise click.UsageError("--out, --probability, --bands and --resolution need --file.")
    if drain:
        if scene_ids or new or dry_run:
            raise click.UsageError("--drain cannot be combined with scenes, --new or --dry-run.")
        return stages.drain(minutes=minutes, weights_id=weights, worker=worker, **cleaning)
    if minutes is not None or worker is not None:
        raise click.UsageError("--minutes and --worker need --drain.")
    call = plan_masks if dry_run else stages.predict
    return call(scene_ids, new=new, weights_id=weights, **cleaning)
