"""Compose a cloud-free picture from published masks and their scenes, window by window.

Methods:
- `clearest`: each pixel is copied from the clear observation with the highest score in meters,
  `min(distance to cloud or no data, cap_m) - meters_per_day * |days from the wanted time|`. Pixels near clouds are
  often haze or shadow that no mask has. Best-available-pixel composites, too, score distance to cloud and day of the
  year, with other curves (Griffiths et al. 2013, "A pixel-based Landsat compositing algorithm for large area land cover
  mapping", IEEE JSTARS 6(5); White et al. 2014, Canadian Journal of Remote Sensing 40(3)). Of equal scores the scene
  nearest to the wanted time is taken, then the one acquired first, then the smaller scene id.
- `median`: the median of the clear observations, band by band; of an even number the mean of the middle two, rounded up
  at a half.

Memory depends on the size of a window and the number of scenes over it, not on the size of the composite.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rasterio.features import geometry_mask
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow

from cloudseg.bands import MASK_CLEAR, NO_DATA, REFLECTANCE_SCALE
from cloudseg.errors import DataError, InputError
from cloudseg.gis.extras import import_extra
from cloudseg.gis.mask_of_scene import MaskOfScene
from cloudseg.gis.observations import Observation, clear_distance, observe, read_bands, read_classes
from cloudseg.gis.output_file import new_file
from cloudseg.gis.plan import Plan, output_files, plan_tags
from cloudseg.grid import Window
from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.scratch import scratch_directory
from cloudseg.storage import Store

OnProgress = Callable[..., None]

_MOST_HALO: Final = 1024
"""Pixels around a window that are read for the distance to cloud, at most."""
_MOST_MASKS: Final = 65_535
"""The scene index is uint16, and 0 is none."""
_STACK_VALUES: Final = 32 << 20
"""Values of a stack for the median, at most: 64 MB, and as much again while it is filled."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

UInt16 = npt.NDArray[np.uint16]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """A composed window."""

    bands: UInt16
    """Reflectance × 10 000 `(band, row, col)`, 0 no data."""
    count: UInt16
    """Clear observations `(row, col)`."""
    scene: UInt16
    """Index of the chosen scene from 1 `(row, col)`, 0 none; all 0 for the median."""


@dataclass(frozen=True)
class Written:
    """Files of a composite."""

    files: Sequence[Path]
    filled_fraction: float
    """Pixels with data, of those inside."""


def write_composite(
    out: Path, store: Store, plan: Plan, *, tags: dict[str, str], on_progress: OnProgress | None = None
) -> Written:
    """Write a composite as COGs: `out` with the bands, `<stem>.count.tif`, and `<stem>.scene.tif` if scenes are chosen.

    The files appear when all of them are complete, `out` last. The same masks and plan give the same bytes.

    Args:
        out: of the bands.
        store: of masks and scenes, which are read by windows.
        plan: what to compose.
        tags: what the caller adds to the tags of every file.
        on_progress: called with the number of windows that are done and their total.

    Raises:
        InputError: the plan does not fit, or a file cannot be written.
        SettingsError: scipy is not installed.
        StoreError: a mask or a scene cannot be read.
    """
    _check(plan)
    finals = output_files(out, plan.method)
    names = list(finals)
    all_tags = {**tags, **plan_tags(plan)}
    with scratch_directory("composite") as folder, ExitStack() as stack:
        parts = {name: stack.enter_context(new_file(finals[name])) for name in names}
        tiled = {name: folder / f"{name}.tif" for name in names}
        filled, inside = _draw(store, plan, tiled, on_progress)
        for name in names:
            write_cog(
                parts[name],
                tiled[name],
                resampling="average" if name == "bands" else "nearest",
                tags={**all_tags, "CLOUDSEG_ENCODING": _ENCODINGS[name]},
                predictor=name == "bands",
            )
            tiled[name].unlink()
    return Written([*(finals[name] for name in names[1:]), out], filled / inside if inside else 0.0)


_ENCODINGS: Final = {
    "bands": f"reflectance = value / {REFLECTANCE_SCALE}; 0 = no data",
    "count": "clear observations",
    "scene": "band 1: place in CLOUDSEG_SCENE_IDS, from 1; band 2: days from 1970-01-01 to its acquisition; 0 = none",
}


def _check(plan: Plan) -> None:
    """Raise InputError or SettingsError if a composite would fail later."""
    import_extra("scipy.ndimage")
    if plan.halo > _MOST_HALO:
        raise InputError(
            "the distance to cloud reaches over too many pixels",
            subject="cap_m, buffer_m",
            found=f"{plan.halo} pixels of {plan.grid.resolution_m:g} m",
            expected=f"at most {_MOST_HALO} pixels",
            next_step="Choose a smaller distance or a coarser resolution.",
        )
    if len(plan.masks) > _MOST_MASKS:
        raise InputError(
            "there are too many masks",
            subject="datetime",
            found=len(plan.masks),
            expected=f"at most {_MOST_MASKS}",
            next_step="Choose a shorter time or a smaller place.",
        )


def _draw(store: Store, plan: Plan, paths: dict[str, Path], on_progress: OnProgress | None) -> tuple[int, int]:
    """Write the windows to tiled files; return the number of pixels with data and of pixels inside."""
    observations = [observe(mask, plan.grid) for mask in plan.masks]
    day_of = np.array([0, *((seen.acquired_at - _EPOCH).days for seen in observations)], np.uint16)
    windows = [Window(*span) for span in _spans(plan)]
    filled = inside = 0
    with ExitStack() as stack:
        out = {name: stack.enter_context(_create(path, name, plan)) for name, path in paths.items()}
        out["bands"].scales = (1 / REFLECTANCE_SCALE,) * len(plan.bands)
        for number, window in enumerate(windows, start=1):
            block, here = compose(store, plan, observations, window), _inside(plan, window)
            for name, values in _layers(block, here, day_of, with_scene="scene" in out):
                out[name].write(values, window=_raster_window(window))
            filled, inside = filled + int(((block.bands[0] != NO_DATA) & here).sum()), inside + int(here.sum())
            if on_progress is not None:
                on_progress(number, len(windows), "windows")
    return filled, inside


def _spans(plan: Plan) -> Iterator[tuple[int, int, int, int]]:
    """Yield row, column, height and width of windows that begin at multiples of the block size."""
    for row in range(0, plan.grid.height, plan.block):
        for col in range(0, plan.grid.width, plan.block):
            yield row, col, min(plan.block, plan.grid.height - row), min(plan.block, plan.grid.width - col)


def _layers(block: Block, here: Bool, day_of: UInt16, *, with_scene: bool) -> Iterator[tuple[str, UInt16]]:
    """Yield the bands of each file, without what is outside of the polygons."""
    yield "bands", block.bands * here
    yield "count", (block.count * here)[np.newaxis]
    if with_scene:
        scene = block.scene * here
        yield "scene", np.stack([scene, day_of[scene]])


def _create(path: Path, name: str, plan: Plan) -> Any:
    descriptions = {"bands": plan.bands, "count": ["clear observations"], "scene": ["scene", "day"]}[name]
    return create_tiled(
        path,
        height=plan.grid.height,
        width=plan.grid.width,
        count=len(descriptions),
        dtype="uint16",
        crs=plan.grid.crs.to_wkt(),
        transform=plan.grid.transform,
        nodata=None if name == "count" else 0,
        descriptions=descriptions,
    )


def _inside(plan: Plan, window: Window) -> Bool:
    if plan.inside is None:
        return np.ones((window.height, window.width), np.bool_)
    transform = plan.grid.transform @ Affine.translation(window.col_off, window.row_off)
    outside: Bool = geometry_mask([plan.inside], (window.height, window.width), transform)
    return ~outside


def compose(store: Store, plan: Plan, observations: Sequence[Observation], window: Window) -> Block:
    """Return a composed window of the grid.

    Args:
        store: of masks and scenes.
        plan: what to compose.
        observations: of all of its masks, in their order.
        window: of the grid.

    Raises:
        StoreError: a mask or a scene cannot be read.
    """
    near = [(index, seen) for index, seen in enumerate(observations, start=1) if seen.window.overlap(window)]
    if plan.method == "clearest":
        return _clearest(store, plan, near, window)
    rows = max(1, _STACK_VALUES // max(1, len(near) * len(plan.bands) * window.width))
    strips = [
        Window(window.row_off + row, window.col_off, min(rows, window.height - row), window.width)
        for row in range(0, window.height, rows)
    ]
    parts = [_median(store, plan, near, strip) for strip in strips]
    return Block(
        np.concatenate([part.bands for part in parts], axis=1),
        np.concatenate([part.count for part in parts]),
        np.concatenate([part.scene for part in parts]),
    )


_Near = Sequence[tuple[int, Observation]]


def _clearest(store: Store, plan: Plan, near: _Near, window: Window) -> Block:
    shape = (window.height, window.width)
    best, scene, count = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    for index, seen in sorted(near, key=lambda found: _preference(plan, found[1])):
        distance = _distance(store, plan, seen, window)
        clear = distance > plan.buffer_m
        count += clear
        score = np.minimum(distance, np.float32(plan.cap_m)) - np.float32(plan.meters_per_day * _days(plan, seen))
        better = clear & (score > best)
        best[better], scene[better] = score[better], index
    bands = np.zeros((len(plan.bands), *shape), np.uint16)
    for index, seen in near:
        chosen = scene == index
        if chosen.any():
            found = read_bands(store, seen, plan.grid, window, list(plan.bands))
            np.copyto(bands, found, where=chosen)
    # Interpolation at the edge of a scene can lack a value where its mask is clear.
    lacking = (bands == NO_DATA).any(axis=0)
    bands[:, lacking], scene[lacking] = NO_DATA, 0
    return Block(bands, count, scene)


def _median(store: Store, plan: Plan, near: _Near, window: Window) -> Block:
    shape = (window.height, window.width)
    missing = np.uint16(np.iinfo(np.uint16).max)
    stack = np.full((len(near), len(plan.bands), *shape), missing, np.uint16)
    count = np.zeros(shape, np.uint16)
    for place, (_, seen) in enumerate(near):
        if plan.buffer_m > 0:
            clear = _distance(store, plan, seen, window) > plan.buffer_m
        else:
            clear = read_classes(store, seen, plan.grid, window) == MASK_CLEAR
        if clear.any():
            found = read_bands(store, seen, plan.grid, window, list(plan.bands))
            clear &= (found != NO_DATA).all(axis=0)
            np.copyto(stack[place], found, where=clear)
            count += clear
    bands = np.zeros((len(plan.bands), *shape), np.uint16)
    if near:
        stack.sort(axis=0)  # missing values are the largest, so the first `count` are the observations
        low, high = (np.maximum(count, 1) - 1) // 2, np.minimum(count // 2, len(near) - 1)
        pair = [np.take_along_axis(stack, at[np.newaxis, np.newaxis].astype(np.intp), axis=0)[0] for at in (low, high)]
        middle = (pair[0].astype(np.uint32) + pair[1] + 1) // 2
        bands = np.where(count > 0, middle, NO_DATA).astype(np.uint16)
    return Block(bands, count, np.zeros(shape, np.uint16))


def _distance(store: Store, plan: Plan, seen: Observation, window: Window) -> npt.NDArray[np.float32]:
    """Return the distance to cloud or no data in a window, in meters, capped where farther does not matter."""
    halo = plan.halo
    wider = Window(window.row_off - halo, window.col_off - halo, window.height + 2 * halo, window.width + 2 * halo)
    classes = read_classes(store, seen, plan.grid, wider)
    reach = max(plan.cap_m, plan.buffer_m + plan.grid.resolution_m)
    return clear_distance(classes, plan.grid.resolution_m, reach)[window.within(wider)]


def _days(plan: Plan, seen: Observation) -> float:
    return abs((seen.acquired_at - plan.target).total_seconds()) / 86_400


def _preference(plan: Plan, seen: Observation) -> tuple[float, datetime, str]:
    return _days(plan, seen), seen.acquired_at, seen.mask.scene_id


def _raster_window(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col_off, window.row_off, window.width, window.height)


def common_bands(masks: Sequence[MaskOfScene], wanted: Sequence[str] | None) -> list[str]:
    """Return the bands of a composite: the wanted ones, or those that every scene has, in the order of the first.

    Raises:
        DataError: a scene lacks a wanted band, or the scenes have no band in common.
    """
    common = [band for band in masks[0].bands if all(band in mask.bands for mask in masks)]
    lacking = [mask for mask in masks if any(band not in mask.bands for band in wanted or ())]
    if lacking or not (wanted or common):
        first = lacking[0] if lacking else masks[0]
        raise DataError(
            "a scene lacks bands" if lacking else "the scenes have no band in common",
            subject=first.scene_id,
            found=", ".join(first.bands),
            expected=", ".join(wanted or ()) or None,
            next_step="Choose bands that every scene has with --bands, or a time with scenes of one sensor.",
        )
    return list(dict.fromkeys(wanted)) if wanted else common
