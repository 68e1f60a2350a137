"""Stages: write published masks for other programs, as polygons, footprints or cleaned rasters."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cloudseg.errors import CloudsegError, InputError
from cloudseg.records import ExportRecord, Json, ThresholdName
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.thresholds import threshold_of_mask

if TYPE_CHECKING:
    from cloudseg.catalog.mask_query import Found
    from cloudseg.export.choose import Selection
    from cloudseg.export.work import CleanedMask
    from cloudseg.raster.cleaning import Cleaning
    from cloudseg.raster.components import Advance
    from cloudseg.raster.thresholds import Threshold

Crs = Literal["native", "EPSG:4326"]


def export_clouds(
    out: str,
    *,
    mask_ids: Sequence[str] = (),
    scenes: Sequence[str] = (),
    bbox: Sequence[float] | None = None,
    interval: str | None = None,
    weights_id: str | None = None,
    as_of: str | None = None,
    threshold: "Threshold | None" = None,
    min_area_m2: float = 0.0,
    min_hole_m2: float = 0.0,
    buffer_m: float = 0.0,
    crs: Crs = "EPSG:4326",
    overwrite: bool = False,
) -> ExportRecord:
    """Write the clouds of masks as polygons, one for each connected cloud.

    A mask that cannot be read is listed under `failed`, and the others are written.

    Args:
        out: `.gpkg`, `.fgb` or `.parquet`; it appears complete or not at all.
        mask_ids: masks; of any weights.
        scenes: names or ids of scenes.
        bbox: west, south, east, north in degrees; footprints that touch it count, and clouds are not cut at it.
        interval: time of acquisition, such as 2024-05 or 2024-05-01/2024-06-30.
        weights_id: whose masks; by default those that readers see.
        as_of: what readers saw at this moment (ISO 8601 with zone), such as 2026-11-22T02:00:00Z; None is now.
        threshold: probability from which a pixel is cloud, instead of the model's; or `careful`, `balanced` or
            `generous`, which each model has for itself: a mask without such a threshold is listed under `failed`.
        min_area_m2: clouds smaller than this are left out.
        min_hole_m2: clear areas smaller than this become cloud.
        buffer_m: by how much clouds are widened.
        crs: EPSG:4326, or native: that of the scenes, which must be one.
        overwrite: replace a file that exists.

    Raises:
        InputError: an argument is wrong, no mask is chosen, or the scenes have several CRSs.
        NotInCatalog: a mask, a scene or the weights are unknown, or readers see no masks yet.
        SettingsError: GeoParquet needs a library that is not installed.
    """
    from cloudseg.export.choose import Selection
    from cloudseg.export.layers import CLOUD_COLUMNS, CLOUDS, check_on_earth, iter_clouds
    from cloudseg.export.vector_file import LONLAT, check_output, polygon_file

    began = time.monotonic()
    cleaning, name = _asked(threshold, min_area_m2, min_hole_m2, buffer_m)
    path = Path(out)
    check_output(path, overwrite=overwrite)
    runtime = open_runtime()
    work = _Work(runtime, Selection(mask_ids, scenes, bbox, interval, weights_id, as_of), cleaning, name, passes=1)
    lonlat = crs != "native"
    log.started("export_clouds", out=out, masks=work.count, crs=crs, **_settings(cleaning, name))
    about = {key: text for key, text in cleaning.tags(0).items() if not key.endswith("THRESHOLD")}
    about |= {"CLOUDSEG_THRESHOLD": _threshold_words(threshold)}
    with polygon_file(
        path, CLOUDS, CLOUD_COLUMNS, LONLAT if lonlat else work.only_crs(), about, overwrite=overwrite
    ) as writer:

        def write(mask: "CleanedMask", advance: "Advance") -> None:
            if lonlat:
                check_on_earth(mask)
            for geometry, row in iter_clouds(mask, lonlat=lonlat, advance=advance):
                writer.add(geometry, row)

        done = work.each(write)
    return _ended("export_clouds", path, done, writer.count, {}, work.failed, began)


def export_masks(
    out: str,
    *,
    mask_ids: Sequence[str] = (),
    scenes: Sequence[str] = (),
    bbox: Sequence[float] | None = None,
    interval: str | None = None,
    weights_id: str | None = None,
    as_of: str | None = None,
    threshold: "Threshold | None" = None,
    min_area_m2: float = 0.0,
    min_hole_m2: float = 0.0,
    buffer_m: float = 0.0,
    overwrite: bool = False,
) -> ExportRecord:
    """Write masks after cleaning as cloud-optimized GeoTIFFs with QGIS styles.

    Args:
        out: a folder; it is made if it is missing.
        mask_ids: masks; of any weights.
        scenes: names or ids of scenes.
        bbox: west, south, east, north in degrees; footprints that touch it count.
        interval: time of acquisition, such as 2024-05 or 2024-05-01/2024-06-30.
        weights_id: whose masks; by default those that readers see.
        as_of: what readers saw at this moment (ISO 8601 with zone), such as 2026-11-22T02:00:00Z; None is now.
        threshold: probability from which a pixel is cloud, instead of the model's; or `careful`, `balanced` or
            `generous`, which each model has for itself: a mask without such a threshold is listed under `failed`.
        min_area_m2: clouds smaller than this become clear.
        min_hole_m2: clear areas smaller than this become cloud.
        buffer_m: by how much clouds are widened.
        overwrite: replace rasters that exist; without it they are listed under `failed`.

    Raises:
        InputError: an argument is wrong or no mask is chosen.
        NotInCatalog: a mask, a scene or the weights are unknown, or readers see no masks yet.
    """
    from cloudseg.export.choose import Selection
    from cloudseg.export.raster_file import raster_name, write_cleaned

    began = time.monotonic()
    cleaning, name = _asked(threshold, min_area_m2, min_hole_m2, buffer_m)
    runtime, folder = open_runtime(), Path(out)
    work = _Work(runtime, Selection(mask_ids, scenes, bbox, interval, weights_id, as_of), cleaning, name, passes=0)
    log.started("export_masks", out=out, masks=work.count, **_settings(cleaning, name))
    files: dict[str, str] = {}
    with _writes(folder):
        folder.mkdir(parents=True, exist_ok=True)

        def write(mask: "CleanedMask", _: "Advance") -> None:
            name = raster_name(mask)
            if (folder / name).exists() and not overwrite:
                raise InputError(
                    "the file exists", subject=str(folder / name), next_step="Replace it with --overwrite."
                )
            write_cleaned(mask, folder)
            files[mask.mask.mask_id] = name

        done = work.each(write)
    return _ended("export_masks", folder, done, len(files), files, work.failed, began)


def export_footprints(
    out: str,
    *,
    mask_ids: Sequence[str] = (),
    scenes: Sequence[str] = (),
    bbox: Sequence[float] | None = None,
    interval: str | None = None,
    weights_id: str | None = None,
    as_of: str | None = None,
    overwrite: bool = False,
) -> ExportRecord:
    """Write the footprints of masks in lon/lat, with the facts of the masks and the addresses of their files.

    Args:
        out: `.gpkg`, `.fgb` or `.parquet`; it appears complete or not at all.
        mask_ids: masks; of any weights.
        scenes: names or ids of scenes.
        bbox: west, south, east, north in degrees; footprints that touch it count.
        interval: time of acquisition, such as 2024-05 or 2024-05-01/2024-06-30.
        weights_id: whose masks; by default those that readers see.
        as_of: what readers saw at this moment (ISO 8601 with zone), such as 2026-11-22T02:00:00Z; None is now.
        overwrite: replace a file that exists.

    Raises:
        InputError: an argument is wrong or no mask is chosen.
        NotInCatalog: a mask, a scene or the weights are unknown, or readers see no masks yet.
        SettingsError: GeoParquet needs a library that is not installed.
    """
    from cloudseg.export.choose import Selection, iter_chosen
    from cloudseg.export.layers import FOOTPRINT_COLUMNS, FOOTPRINTS, footprint_row
    from cloudseg.export.vector_file import LONLAT, polygon_file
    from cloudseg.stac.links import href

    began = time.monotonic()
    path, runtime = Path(out), open_runtime()
    selection = Selection(mask_ids, scenes, bbox, interval, weights_id, as_of)
    log.started("export_footprints", out=out)
    with polygon_file(path, FOOTPRINTS, FOOTPRINT_COLUMNS, LONLAT, {}, overwrite=overwrite) as writer:
        for found in iter_chosen(runtime.catalog, selection):
            row = footprint_row(found, lambda key: href(runtime.store, runtime.settings, key))
            if row is not None:
                writer.add(*row)
        if not writer.count:
            raise _nothing()
    return _ended("export_footprints", path, writer.count, writer.count, {}, {}, began)


class _Work:
    """The masks of a selection, one after the other, with progress in rows."""

    def __init__(
        self,
        runtime: Runtime,
        selection: "Selection",
        cleaning: "Cleaning",
        name: ThresholdName | None,
        *,
        passes: int,
    ) -> None:
        """Count the masks.

        Args:
            runtime: store and catalog.
            selection: which masks.
            cleaning: what to do with them.
            name: of the threshold, which then each mask has for itself.
            passes: how often every row is passed after the cleaning.
        """
        from cloudseg.export.choose import iter_chosen

        self._runtime, self._cleaning, self._name = runtime, cleaning, name
        self._chosen: Callable[[], Iterator[Found]] = lambda: iter_chosen(runtime.catalog, selection)
        self._passes = cleaning.passes + passes
        self._crs = set[str]()
        self.count, self._rows = 0, 0
        for found in self._chosen():
            self.count += 1
            self._rows += found.scene.height * self._passes
            self._crs.add(found.scene.crs or "")
        if not self.count:
            raise _nothing()
        self.failed: Json = {}

    def only_crs(self) -> str:
        """Return the CRS of the scenes.

        Raises:
            InputError: they have several.
        """
        if len(self._crs) > 1:
            raise InputError(
                "a layer has one CRS, and the scenes have several",
                subject="native",
                found=", ".join(sorted(crs[:40] for crs in self._crs)[:8]),
                next_step="Use --crs EPSG:4326, or export the scenes of each CRS to a file of its own.",
            )
        return next(iter(self._crs))

    def each(self, write: "Callable[[CleanedMask, Advance], None]") -> int:
        """Call a function with each mask after cleaning, and return how many were done."""
        from cloudseg.export.work import cleaned_mask

        report, done, rows = log.progress("export"), 0, 0
        for found in self._chosen():
            passed = 0

            def advance(count: int) -> None:
                nonlocal passed
                passed += count
                report(rows + passed, self._rows, "rows")  # noqa: B023 - called before the loop goes on

            try:
                with cleaned_mask(self._runtime.store, found, self._cleaning_of(found), advance) as mask:
                    write(mask, advance)
                done += 1
            except CloudsegError as error:
                if error.retry_helps:
                    raise
                log.log.warning("mask %s is not exported: %s", found.id, error)
                self.failed[found.id] = error.as_record()
            rows += found.scene.height * self._passes
        return done

    def _cleaning_of(self, found: "Found") -> "Cleaning":
        if self._name is None or found.mask is None or found.weights is None:
            return self._cleaning
        threshold = threshold_of_mask(self._runtime, self._name, found.mask, found.weights)
        return replace(self._cleaning, threshold=threshold)


@contextmanager
def _writes(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError("the folder cannot be written", subject=str(folder), found=error.strerror or error) from error


def _nothing() -> InputError:
    return InputError(
        "no mask is chosen", next_step="`cloudseg masks` lists the masks; name others, or a larger area or time."
    )


def _asked(
    threshold: "Threshold | None", min_area_m2: float, min_hole_m2: float, buffer_m: float
) -> tuple["Cleaning", ThresholdName | None]:
    """Return what is done to every mask, and the name of the threshold if it has one.

    Raises:
        InputError: a value is out of range, or there is no such name.
    """
    from cloudseg.raster.cleaning import Cleaning
    from cloudseg.raster.thresholds import split_threshold

    number, name = split_threshold(threshold)
    cleaning = Cleaning(number, min_area_m2, min_hole_m2, buffer_m)
    cleaning.check()
    return cleaning, name


def _threshold_words(threshold: "Threshold | None") -> str:
    if threshold is None:
        return "of each model"
    return f"{threshold} of each model" if isinstance(threshold, str) else repr(threshold)


def _settings(cleaning: "Cleaning", name: ThresholdName | None) -> Json:
    return {**{key: value for key, value in vars(cleaning).items() if value}, **({"threshold": name} if name else {})}


def _ended(stage: str, path: Path, masks: int, features: int, files: Json, failed: Json, began: float) -> ExportRecord:
    record = ExportRecord(
        path=str(path),
        masks=masks,
        features=features,
        files=files,
        failed=failed,
        seconds=round(time.monotonic() - began, 3),
    )
    log.ended(stage, record)
    return record
