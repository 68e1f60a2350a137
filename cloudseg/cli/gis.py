"""Commands for analysts: cloud statistics of polygons, composites."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.output import reports, show_record, show_rows
from cloudseg.records import Json

_COLUMNS = (
    "area",
    "date",
    "cloud_fraction",
    "covered_fraction",
    "no_data_fraction",
    "valid_m2",
    "cloud_m2",
    "sensor",
    "scene_id",
    "mask_id",
    "model_version",
)
_WEIGHTS = click.option(
    "--weights",
    "weights_id",
    metavar="ID",
    help="Masks by these weights; when not given, of each scene the mask of the newest champion.",
)
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")


def _show_stats(console: Console, record: Json) -> None:
    """Print a line for each polygon and scene, then what was read."""
    if record["out"] is None:
        show_rows("rows", _COLUMNS)(console, record)
    show_record(console, {name: value for name, value in record.items() if name != "rows"})


def _some_failed(record: Json) -> int:
    return 3 if record["failed"] else 0


@click.command()
@click.option(
    "--aoi",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Polygons: GeoJSON, GeoPackage, FlatGeobuf, Shapefile or GeoParquet, in any CRS.",
)
@click.option("--datetime", metavar="INTERVAL", help="Acquired then: 2024-06, 2024-06-01/2024-06-30, 2024-06-01/..")
@_WEIGHTS
@click.option(
    "--name-column", metavar="NAME", help="Column that names the polygons; name, id, fid or code when not given."
)
@click.option(
    "--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write the rows to a .csv, .json or .parquet file."
)
@_OVERWRITE
@reports(_show_stats, exit_code=_some_failed)
def stats(
    aoi: str, datetime: str | None, weights_id: str | None, name_column: str | None, out: str | None, overwrite: bool
) -> Any:
    """Report the share of cloud inside polygons, for each polygon, scene and date.

    Pixels that a polygon covers in part count by that part. Areas are in square meters on the ground. Published masks
    are read by windows and nothing is changed.
    """
    from cloudseg import stages

    return stages.stats(
        aoi, datetime=datetime, weights_id=weights_id, name_column=name_column, out=out, overwrite=overwrite
    )
