"""What a layout sees, and what it must be able to do."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cloudseg.bands import RGB
from cloudseg.ingest.candidate import Candidate, InboxFile, SourceFile, Stray
from cloudseg.ingest.inbox import Inbox, read_text

RASTER_SUFFIXES: Final = ("tif", "tiff", "jp2", "j2k")


@dataclass(frozen=True)
class View:
    """The files that no earlier layout took."""

    files: tuple[InboxFile, ...]
    bands: tuple[str | None, ...] | None
    """What `--bands` says; None where it was not given."""
    inbox: Inbox

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
        """Read a metadata file, at most one megabyte of it."""
        return read_text(self.inbox, file)


class Layout(Protocol):
    """A way in which files make scenes."""

    @property
    def name(self) -> str:
        """What `--layout` calls it and the scene's row remembers."""
        ...

    def find(self, view: View) -> list[Candidate | Stray]:
        """Return the scenes among the files, in any order. Opens no raster; knows nothing of the catalog."""
        ...


def chosen(sources: Mapping[str, SourceFile], bands: tuple[str | None, ...] | None) -> tuple[SourceFile, ...]:
    """Return the files of one-file-a-band scenes in canonical order (red, green, blue, others by name), or those asked for."""
    wanted = [band for band in bands or () if band] or [*RGB, *sorted(set(sources) - set(RGB))]
    return tuple(sources[band] for band in wanted if band in sources)


def missing_bands(sources: Iterable[str], bands: tuple[str | None, ...] | None) -> list[str]:
    """Return what a scene lacks: red, green and blue are the least, or what `--bands` asks for."""
    have = set(sources)
    return [band for band in (bands or RGB) if band and band not in have]


def incomplete(files: Iterable[InboxFile], have: Iterable[str], missing: list[str]) -> list[Candidate | Stray]:
    """Return strays for the files of a scene that lacks bands."""
    found = ", ".join(sorted(have)) or "none"
    return [
        Stray(
            file,
            f"the scene lacks {', '.join(missing)}: no file of this name for it lies beside",
            found=found,
            expected="one file each for " + ", ".join([*RGB]),
            next_step="Put the missing band files into the same folder.",
        )
        for file in files
    ]
