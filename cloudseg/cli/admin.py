"""Commands for administrators: maintain, db, model, doctor, backup, restore."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.output import reports, show_record
from cloudseg.records import Json


def _damaged(record: Json) -> int:
    return 5 if record["missing"] else 0


@click.command()
@click.option("--dry-run/--apply", default=True, show_default=True, help="Only report, or delete and repair.")
@click.option(
    "--orphan-hours",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    help="Keep orphans that are younger.",
)
@click.option(
    "--checkpoint-days",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    help="Keep checkpoints of finished runs for this long.",
)
@click.option(
    "--evaluation-days",
    type=click.FloatRange(min=0),
    default=90.0,
    show_default=True,
    help="Keep evaluations of weights that were never champion for this long.",
)
@click.option("--verify", is_flag=True, help="Read every object and compare its checksum (slow).")
@click.option(
    "--verify-parts",
    type=click.IntRange(0, 366),
    default=0,
    show_default=True,
    help="Read one of so many parts of the store, the one read longest ago, and compare checksums.",
)
@click.option("--as-of", metavar="TIME", help="Compute ages at this time (ISO 8601 with time zone) instead of now.")
@reports(show_record, exit_code=_damaged)
def maintain(
    dry_run: bool,
    orphan_hours: float,
    checkpoint_days: float,
    evaluation_days: float,
    verify: bool,
    verify_parts: int,
    as_of: str | None,
) -> Any:
    """Delete orphaned and expired objects, repair the champion pointer, report missing objects.

    Without --apply nothing is changed. The exit code is 5 if an object is missing or damaged.
    """
    from cloudseg import stages

    return stages.maintain(
        dry_run=dry_run,
        orphan_hours=orphan_hours,
        checkpoint_days=checkpoint_days,
        evaluation_days=evaluation_days,
        verify=verify,
        verify_parts=verify_parts,
        as_of=as_of,
    )


@click.group()
def db() -> None:
    """Manage the schema and the roles of the catalog."""


@db.command()
@click.option("--dry-run", is_flag=True, help="Show what would be done without writing.")
@reports(show_record)
def upgrade(dry_run: bool) -> Any:
    """Migrate the catalog to the newest schema. The embedded SQLite catalog is migrated automatically."""
    from cloudseg import stages
    from cloudseg.stages.plan import plan_upgrade

    return plan_upgrade() if dry_run else stages.upgrade_catalog()


def _show_roles(console: Console, record: Json) -> None:
    if "sql" in record:
        console.print(record["sql"], markup=False, highlight=False, soft_wrap=True)
    else:
        show_record(console, record)


@db.command()
@click.option("--dry-run", is_flag=True, help="Print the SQL without running it.")
@reports(_show_roles)
def roles(dry_run: bool) -> Any:
    """Create the PostgreSQL roles cloudseg_app, cloudseg_airflow and gis_reader and grant their privileges."""
    from cloudseg import stages
    from cloudseg.stages.plan import plan_roles

    return plan_roles() if dry_run else stages.make_roles()


@click.group()
def model() -> None:
    """Import weights."""


@model.command("import")
@click.argument("path", type=click.Path(exists=True, dir_okay=False), metavar="FILE")
@click.option("--dry-run", is_flag=True, help="Read the file without writing.")
@reports(show_record)
def import_weights(path: str, dry_run: bool) -> Any:
    """Register weights of the baseline project (a .pth FILE) together with their preprocessing.

    Only tensors are loaded from FILE; no pickled code is run.
    """
    from cloudseg import stages

    return stages.import_weights(path, dry_run=dry_run)


def _show_checks(console: Console, record: Json) -> None:
    for check in record["checks"]:
        status = "FAIL " if not check["ok"] else "warn " if check["warning"] else "ok   "
        console.print(f"{status} {check['name']:<9} {check['detail']}", markup=False, highlight=False)


@click.command()
@click.option("--device/--no-device", default=True, show_default=True, help="Check the device, too; this loads torch.")
@reports(_show_checks, exit_code=lambda record: 0 if record["ok"] else 1)
def doctor(device: bool) -> Any:
    """Check settings, catalog, migrations, store, recipes and device."""
    from cloudseg import stages

    return stages.doctor(device=device)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False), metavar="FOLDER")
@reports(show_record)
def backup(folder: str) -> Any:
    """Copy catalog and store into FOLDER. A repeated backup copies only what is new.

    FOLDER can then be used as an embedded home: CLOUDSEG_HOME=FOLDER cloudseg masks.
    """
    from cloudseg import stages

    return stages.backup(folder)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False), metavar="FOLDER")
@click.option(
    "--rehearse",
    is_flag=True,
    help="Restore into a temporary home instead (in TMPDIR, as large as the backup), compare every object, measure.",
)
@reports(show_record)
def restore(folder: str, rehearse: bool) -> Any:
    """Restore the backup in FOLDER into an empty catalog and store, embedded or on servers."""
    from cloudseg import stages

    return stages.rehearse_restore(folder=folder) if rehearse else stages.restore(folder)
