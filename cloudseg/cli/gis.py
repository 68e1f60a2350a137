"""Commands for analysts: cloud statistics of polygons, composites."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.complete import names_of
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
_DATE_COLUMNS = (
    "area",
    "date",
    "cloud_fraction",
    "valid_fraction",
    "valid_m2",
    "cloud_m2",
    "masks",
    "mask_ids",
)
_WEIGHTS = click.option(
    "--weights",
    "weights_id",
    metavar="ID",
    shell_complete=names_of("weights"),
    help="Masks by these weights; when not given, those that readers see.",
)
_AS_OF = click.option(
    "--as-of", metavar="TIME", help="Masks that readers saw at this time (ISO 8601 with zone) instead of now."
)
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")


def _show_stats(console: Console, record: Json) -> None:
    """Print a line for each polygon and scene, then what was read."""
    if record["out"] is None:
        show_rows("rows", _COLUMNS if record["by"] == "scene" else _DATE_COLUMNS)(console, record)
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
@_AS_OF
@click.option(
    "--name-column", metavar="NAME", help="Column that names the polygons; name, id, fid or code when not given."
)
@click.option(
    "--by",
    type=click.Choice(["scene", "date"]),
    default="scene",
    show_default=True,
    help="A row for each scene, or for each day: then ground under several scenes counts once.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write the rows to a .csv, .json or .parquet file."
)
@_OVERWRITE
@reports(_show_stats, exit_code=_some_failed)
def stats(aoi: str, **options: Any) -> Any:
    """Report the share of cloud inside polygons, for each polygon, scene and date.

    Pixels that a polygon covers in part count by that part. Areas are in square meters on the ground. Published masks
    are read by windows and nothing is changed.
    """
    from cloudseg import stages

    return stages.stats(aoi, **options)


def _parse_bbox(context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise click.BadParameter(f"{text!r} is not WEST,SOUTH,EAST,NORTH in degrees.", context, option)
    return numbers


def _parse_bands(context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


@click.command()
@click.option(
    "--bbox",
    callback=_parse_bbox,
    metavar="W,S,E,N",
    help="Place in degrees of longitude and latitude; W > E across 180°.",
)
@click.option(
    "--aoi",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Polygons instead of --bbox; outside of them is no data.",
)
@click.option(
    "--datetime",
    required=True,
    metavar="INTERVAL",
    help="Acquired then: 2024-06, 2024-06-01/2024-06-30, 2024-06-01/..",
)
@click.option("--out", required=True, type=click.Path(dir_okay=False), metavar="FILE", help="The GeoTIFF to write.")
@click.option(
    "--method",
    type=click.Choice(["clearest", "median"]),
    default="clearest",
    show_default=True,
    help="The pixel farthest from cloud, or the median of the clear ones.",
)
@click.option(
    "--date", metavar="DAY", help="Wanted day of the clearest pixel; the middle of the interval when not given."
)
@click.option(
    "--bands", callback=_parse_bands, metavar="NAMES", help="red,green,blue; those that every scene has by default."
)
@click.option(
    "--buffer-m",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Pixels at most this far from cloud or no data are not clear.",
)
@click.option(
    "--distance-cap-m",
    type=click.FloatRange(1),
    default=1000.0,
    show_default=True,
    help="Distance to cloud beyond which a pixel is no better.",
)
@click.option(
    "--meters-per-day",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="Distance to cloud that a day farther from the wanted day has to bring.",
)
@click.option(
    "--resolution-m", type=click.FloatRange(0.01), help="Side of a pixel; the commonest of the scenes by default."
)
@click.option(
    "--crs", metavar="EPSG:N", help="Of the composite, in meters; the commonest of the scenes when not given."
)
@_WEIGHTS
@_AS_OF
@_OVERWRITE
@reports(show_record)
def composite(bands: tuple[str, ...], **options: Any) -> Any:
    """Write a cloud-free composite of several dates as a cloud-optimized GeoTIFF.

    Beside it: FILE.count.tif, how many observations of a pixel are clear, and for the clearest pixel FILE.scene.tif,
    which scene and day it is from. Memory does not grow with the area.
    """
    from cloudseg import stages

    return stages.composite(bands=bands, **options)
