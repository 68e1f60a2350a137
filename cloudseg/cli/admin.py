"""Commands that care for the service: maintain, db, model, doctor."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.output import reports, show_record
from cloudseg.records import Json


def _damaged(record: Json) -> int:
    return 5 if record["missing"] else 0


@click.command()
@click.option("--dry-run/--apply", default=True, show_default=True, help="Tell only, or delete and repair.")
@click.option(
    "--orphan-hours", type=click.FloatRange(min=0), default=24.0, show_default=True, help="Leave younger orphans alone."
)
@click.option(
    "--checkpoint-days",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    help="Keep checkpoints of finished runs so long.",
)
@click.option(
    "--evaluation-days",
    type=click.FloatRange(min=0),
    default=90.0,
    show_default=True,
    help="Keep reports of never-champions so long.",
)
@click.option("--verify", is_flag=True, help="Read every object and compare its checksum (slow).")
@click.option("--as-of", metavar="TIME", help="Count ages from this moment (ISO 8601 with zone) instead of now.")
@reports(show_record, exit_code=_damaged)
def maintain(
    dry_run: bool, orphan_hours: float, checkpoint_days: float, evaluation_days: float, verify: bool, as_of: str | None
) -> Any:
    """Collect orphans, expire checkpoints and reports, repair the champion's pointer, look for missing objects.

    Deletes nothing unless --apply is given. The exit code is 5 where an object is missing or damaged.
    """
    from cloudseg import stages

    return stages.maintain(
        dry_run=dry_run,
        orphan_hours=orphan_hours,
        checkpoint_days=checkpoint_days,
        evaluation_days=evaluation_days,
        verify=verify,
        as_of=as_of,
    )


@click.group()
def db() -> None:
    """Look after the catalog's schema."""


@db.command()
@click.option("--dry-run", is_flag=True, help="Tell what would be done and write nothing.")
@reports(show_record)
def upgrade(dry_run: bool) -> Any:
    """Bring the catalog to the newest schema. The embedded SQLite catalog does this by itself."""
    from cloudseg import stages
    from cloudseg.stages.plan import plan_upgrade

    return plan_upgrade() if dry_run else stages.upgrade_catalog()


def _show_roles(console: Console, record: Json) -> None:
    if "sql" in record:
        console.print(record["sql"], markup=False, highlight=False, soft_wrap=True)
    else:
        show_record(console, record)


@db.command()
@click.option("--dry-run", is_flag=True, help="Print the SQL and run nothing.")
@reports(_show_roles)
def roles(dry_run: bool) -> Any:
    """Create the roles cloudseg_app, cloudseg_airflow and gis_reader on PostgreSQL and grant what each may do."""
    from cloudseg import stages
    from cloudseg.stages.plan import plan_roles

    return plan_roles() if dry_run else stages.make_roles()


@click.group()
def model() -> None:
    """Bring weights in."""


@model.command("import")
@click.argument("path", type=click.Path(exists=True, dir_okay=False), metavar="FILE")
@click.option("--dry-run", is_flag=True, help="Read the file and write nothing.")
@reports(show_record)
def import_weights(path: str, dry_run: bool) -> Any:
    """Register the seed project's weights (FILE.pth, tensors only.

    Nothing is unpickled) with their own preprocessing.
    """
    from cloudseg import stages

    return stages.import_weights(path, dry_run=dry_run)


def _show_checks(console: Console, record: Json) -> None:
    for check in record["checks"]:
        console.print(
            f"{'ok   ' if check['ok'] else 'FAULT'} {check['name']:<9} {check['detail']}", markup=False, highlight=False
        )


@click.command()
@click.option(
    "--device/--no-device", default=True, show_default=True, help="Look at the device too, which loads torch."
)
@reports(_show_checks, exit_code=lambda record: 0 if record["ok"] else 1)
def doctor(device: bool) -> Any:
    """Check settings, catalog, migrations, store, recipes and device."""
    from cloudseg import stages

    return stages.doctor(device=device)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False), metavar="FOLDER")
@reports(show_record)
def backup(folder: str) -> Any:
    """Copy catalog and store into FOLDER, from whatever server they are on; again, and only what is new is copied.

    FOLDER is then an embedded home: CLOUDSEG_HOME=FOLDER cloudseg masks.
    """
    from cloudseg import stages

    return stages.backup(folder)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False), metavar="FOLDER")
@reports(show_record)
def restore(folder: str) -> Any:
    """Bring the backup in FOLDER into the empty catalog and the store that the settings name, of whatever kind."""
    from cloudseg import stages

    return stages.restore(folder)
