"""Commands that write published masks for other programs."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.complete import names_of
from cloudseg.cli.options import cleaning_options, together
from cloudseg.cli.output import reports, show_record
from cloudseg.records import Json


def _some_failed(record: Json) -> int:
    return 3 if record.get("failed") else 0


def _show(console: Console, record: Json) -> None:
    """Print the record without the names of all rasters."""
    show_record(console, {name: value for name, value in record.items() if name != "files"})


_CHOICE = together(
    click.option(
        "--mask",
        "mask_ids",
        multiple=True,
        metavar="ID",
        shell_complete=names_of("mask"),
        help="This mask, of any model (repeatable).",
    ),
    click.option(
        "--scene",
        "scenes",
        multiple=True,
        metavar="NAME",
        shell_complete=names_of("scene"),
        help="Name or id of a scene (repeatable).",
    ),
    click.option(
        "--bbox",
        type=float,
        nargs=4,
        metavar="W S E N",
        help="Masks whose footprint touches this box, in degrees; W > E crosses 180°.",
    ),
    click.option(
        "--datetime",
        "interval",
        metavar="TIME",
        help="When scenes were acquired: 2024, 2024-05, 2024-05-01/2024-06-30, 2024-05-01T10:00:00Z/..",
    ),
    click.option(
        "--weights",
        "weights_id",
        metavar="ID",
        shell_complete=names_of("weights"),
        help="Whose masks; those that readers see when not given.",
    ),
    click.option(
        "--as-of", metavar="TIME", help="Masks that readers saw at this time (ISO 8601 with zone) instead of now."
    ),
)
_CLEANING = cleaning_options(default=0.0)
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what exists.")


@click.group()
def export() -> None:
    """Write published masks as polygons, footprints or cleaned rasters.

    Without --mask, --scene, --bbox and --datetime: every mask that readers see.
    """


@export.command("clouds")
@click.argument("out", type=click.Path(dir_okay=False), metavar="FILE")
@_CHOICE
@_CLEANING
@click.option(
    "--crs",
    type=click.Choice(["native", "EPSG:4326"]),
    default="EPSG:4326",
    show_default=True,
    help="Of the polygons; native is that of the scenes, which must be one.",
)
@_OVERWRITE
@reports(_show, exit_code=_some_failed)
def export_clouds(out: str, bbox: tuple[float, ...] | None, **settings: Any) -> Any:
    """Write clouds as polygons with holes to FILE: .gpkg, .fgb or .parquet (GeoParquet).

    What is asked for is done in this order: threshold, small clouds, small clear areas, buffer.
    """
    from cloudseg import stages

    return stages.export_clouds(out, bbox=bbox or None, **settings)


@export.command("masks")
@click.argument("out", type=click.Path(file_okay=False), metavar="FOLDER")
@_CHOICE
@_CLEANING
@_OVERWRITE
@reports(_show, exit_code=_some_failed)
def export_masks(out: str, bbox: tuple[float, ...] | None, **settings: Any) -> Any:
    """Write masks after cleaning to FOLDER, as GeoTIFFs with QGIS styles; their tags hold the settings."""
    from cloudseg import stages

    return stages.export_masks(out, bbox=bbox or None, **settings)


@export.command("footprints")
@click.argument("out", type=click.Path(dir_okay=False), metavar="FILE")
@_CHOICE
@_OVERWRITE
@reports(_show)
def export_footprints(out: str, bbox: tuple[float, ...] | None, **settings: Any) -> Any:
    """Write footprints of masks with the addresses of their files to FILE: .gpkg, .fgb or .parquet."""
    from cloudseg import stages

    return stages.export_footprints(out, bbox=bbox or None, **settings)
