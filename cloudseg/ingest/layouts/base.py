"""The interface of a layout, the files that it receives, and helpers for scenes with one file per band."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cloudseg.bands import RGB
from cloudseg.errors import BadScene, InputError
from cloudseg.ingest.candidate import Candidate, SourceFile, UnmatchedFile
from cloudseg.ingest.inbox_file import Inbox, InboxFile, read_text
from cloudseg.ingest.layouts.stac_items import StacItems

RASTER_SUFFIXES: Final = ("tif", "tiff", "jp2", "j2k")


@dataclass(frozen=True)
class FileListing:
    """The files that no earlier layout has claimed."""

    files: tuple[InboxFile, ...]
    bands: tuple[str | None, ...] | None
    """Value of `--bands`; None if it was not given."""
    inbox: Inbox
    items: StacItems
    """The STAC items of the inbox."""

    @property
    def rasters(self) -> list[InboxFile]:
        """Files whose suffix is that of a raster."""
        return [file for file in self.files if file.suffix in RASTER_SUFFIXES]

    def by_folder(self) -> dict[str, dict[str, InboxFile]]:
        """Return the rasters by folder and lower-case name."""
        folders: dict[str, dict[str, InboxFile]] = defaultdict(dict)
        for file in self.rasters:
            folders[file.folder].setdefault(file.name.lower(), file)
        return dict(folders)

    def text(self, file: InboxFile) -> str:
        """Return the text of a metadata file, at most one megabyte of it."""
        return read_text(self.inbox, file)


class Layout(Protocol):
    """A convention of names and folders by which files make scenes."""

    @property
    def name(self) -> str:
        """Value of `--layout`; stored in the scene's row."""
        ...

    def find(self, listing: FileListing) -> list[Candidate | UnmatchedFile]:
        """Return the scenes among the files, in any order. Must not open rasters or use the catalog."""
        ...


def select_sources(sources: Mapping[str, SourceFile], bands: tuple[str | None, ...] | None) -> tuple[SourceFile, ...]:
    """Return the files of a scene with one file per band, in band order.

    Args:
        sources: The files by band name.
        bands: Value of `--bands`; None: red, green, blue, then the others by name.
    """
    wanted = [band for band in bands or () if band] or [*RGB, *sorted(set(sources) - set(RGB))]
    return tuple(sources[band] for band in wanted if band in sources)


def missing_bands(available: Iterable[str], bands: tuple[str | None, ...] | None) -> list[str]:
    """Return the bands that a scene lacks.

    Args:
        available: Names of the bands that it has.
        bands: Value of `--bands`; None: red, green and blue are required.
    """
    have = set(available)
    return [band for band in (bands or RGB) if band and band not in have]


def incomplete_scene(
    files: Iterable[InboxFile], available: Iterable[str], missing: list[str]
) -> list[Candidate | UnmatchedFile]:
    """Return the files of a scene that lacks bands as one unmatched file.

    Args:
        files: The scene's files.
        available: Names of the bands that it has.
        missing: Names of the bands that it lacks.
    """
    error = BadScene(
        f"the scene lacks {', '.join(missing)}: there is no file for it in the same folder",
        found=", ".join(sorted(available)) or "none",
        expected=f"one file each for {', '.join(RGB)}",
        next_step="Put the missing band files into the same folder.",
    )
    return [unusable_product(files, error)]


def unusable_product(files: Iterable[InboxFile], error: InputError) -> UnmatchedFile:
    """Return the files of a product as one unmatched file: one quarantine entry for all of them.

    Args:
        files: The product's files; the entry is that of the first raster by path.
        error: The reason; if its subject is one of the files, the entry names it.
    """
    first, *others = sorted(files, key=lambda file: (file.suffix not in RASTER_SUFFIXES, file.path))
    is_of_file = any(error.subject in (file.name, file.path) for file in (first, *others))
    found = ", ".join(part for part in (error.subject if is_of_file else None, error.found) if part)
    return UnmatchedFile(
        first,
        error.what,
        found=found or None,
        expected=error.expected,
        next_step=error.next_step,
        error=type(error),
        extra_files=tuple(others),
    )
