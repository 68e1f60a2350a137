"""The layouts that ingest knows, in the order in which they may claim files. One small file each: docs/layouts.md.

A layout looks at names only (and at small metadata texts); pixels are opened by `cloudseg.ingest.decode`, elsewhere.
"""

from typing import Final

from cloudseg.errors import LayoutUnknown
from cloudseg.ingest.candidate import Candidate, InboxFile, Stray
from cloudseg.ingest.inbox import Inbox
from cloudseg.ingest.layouts import cloud38, cloudsen12, landsat, multiband, oncloudn, pairs, sentinel2
from cloudseg.ingest.layouts.view import RASTER_SUFFIXES, Layout, View

LAYOUTS: Final[tuple[Layout, ...]] = (
    pairs.Pairs(),
    cloudsen12.CloudSen12(),
    oncloudn.OnCloudN(),
    cloud38.Cloud38(),
    landsat.LandsatBands(),
    sentinel2.Sentinel2Bands(),
    multiband.MultiBand(),
)
"""Order matters: the last takes every raster that nobody wanted."""

_COMPANIONS: Final = frozenset(
    "md txt xml json geojson html csv pdf jpg jpeg png gml safe met dtd xsd gfs ovr msk tfw tifw j2w prj qml qgz sha256 md5".split()  # noqa: SIM905
)
"""Suffixes of files that lie beside rasters and are passed over in silence; every other stranger is quarantined."""


def layout_names() -> list[str]:
    """List the names that `--layout` takes."""
    return [layout.name for layout in LAYOUTS]


def find_candidates(
    inbox: Inbox, *, layout: str | None = None, bands: tuple[str | None, ...] | None = None
) -> list[Candidate | Stray]:
    """Return what the files of an inbox may become, sorted by path. Every raster is either in a candidate or a stray.

    `layout` asks only that one; `bands` names the bands of multi-band files. Raises LayoutUnknown for a wrong name.
    """
    asked = [known for known in LAYOUTS if layout in (None, known.name)]
    if not asked:
        raise LayoutUnknown("no such layout", subject=str(layout), expected=", ".join(layout_names()))
    files = inbox.list_files()
    found: list[Candidate | Stray] = [
        Stray(file, file.fault) for file in files if file.fault and file.suffix not in _COMPANIONS
    ]
    left = [file for file in files if not file.fault]
    for known in asked:
        more = known.find(View(tuple(left), bands, inbox))
        taken = {
            path for item in more for path in (item.claimed() if isinstance(item, Candidate) else {item.file.path})
        }
        left = [file for file in left if file.path not in taken]
        found += more
    found += [_stranger(file) for file in left if file.suffix not in _COMPANIONS]
    return sorted(found, key=_path_of)


def _path_of(item: Candidate | Stray) -> str:
    return item.files[0].file.path if isinstance(item, Candidate) else item.file.path


def _stranger(file: InboxFile) -> Stray:
    return Stray(
        file,
        "no layout recognises this file",
        found=f"a name that ends in .{file.suffix}" if file.suffix else "a name without suffix",
        expected=", ".join(f".{suffix}" for suffix in RASTER_SUFFIXES),
        next_step="docs/layouts.md shows what an inbox may hold.",
    )
