"""What a layout finds: files that together may become a scene, and perhaps its label. Nothing has been opened yet."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cloudseg.bands import Radiometry
from cloudseg.errors import BadScene, InputError
from cloudseg.ingest.class_mappings import ClassMapping
from cloudseg.ingest.inbox_file import InboxFile


@dataclass(frozen=True)
class SourceFile:
    """A raster file of a scene and the names of its bands."""

    file: InboxFile
    bands: tuple[str | None, ...] | None = None
    """A name of `bands.BAND_NAMES` for each band of the file, None for a band that is not wanted.

    None for the whole tuple: the decoder reads the names from the file.
    """
    other_bands: tuple[tuple[str | None, ...], ...] = ()
    """The same for files of this format with another number of bands."""
    radiometry: Radiometry | None = None
    """From the product id or the metadata file; None: the decoder derives it from the file or from the data type."""
    sidecars: tuple[InboxFile, ...] = ()
    """Files beside it that GDAL reads together with it: `<name>.msk`, `<name>.aux.xml`."""
    georeference_beside: tuple[str, ...] = ()
    """Names of files beside it that may hold its georeference, which is read from the raster only; for messages."""


QualityKind = Literal["landsat_qa_pixel", "hls_fmask", "planet_udm2", "sentinel2_scl"]
"""How the values of a quality layer are read: `cloudseg.ingest.quality`."""


@dataclass(frozen=True)
class QualityFile:
    """A quality layer of a product that says where nothing was observed."""

    file: InboxFile
    kind: QualityKind


@dataclass(frozen=True)
class LabelFile:
    """A reference mask of a scene."""

    file: InboxFile
    source: str
    """Who made it; a tag LABEL_SOURCE in the file overrides this."""
    mappings: tuple[ClassMapping, ...]
    """The decoder uses the first one that covers every value of the file."""
    sidecars: tuple[InboxFile, ...] = ()
    """Files that are read together with it: `<name>.msk`, `<name>.aux.xml`, or the other files of a Shapefile."""

    def claimed_files(self) -> tuple[InboxFile, ...]:
        """Return the file and its sidecars."""
        return (self.file, *self.sidecars)


@dataclass(frozen=True)
class Candidate:
    """Files that together may become one scene."""

    name: str
    layout: str
    files: tuple[SourceFile, ...]
    """In band order; their bytes in this order determine the scene's id."""
    label: LabelFile | None = None
    quality: tuple[QualityFile, ...] = ()
    """Quality layers; pixels that they state as not observed become no data."""
    extra_files: tuple[InboxFile, ...] = ()
    """Further files of the product, metadata among them: claimed but not decoded."""
    sensor: str = "unknown"
    acquired_at: datetime | None = None
    time_in_tags: bool = False
    """Whether TIFFTAG_DATETIME is the acquisition time (it may also be the time of writing)."""
    place: str | None = None
    """From the product id; None: the MGRS square of the center."""
    needs_georeference: bool = True
    """False: accept a raster without CRS, for training and evaluation only; its masks are never published."""
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> str:
        """Path of the first file, for sorting."""
        return self.files[0].file.path

    def read_as(self) -> tuple[str, ...]:
        """Return what, besides the bytes, decides whether the files are tried again after they were quarantined.

        A scene that was refused on a guess is tried again when metadata states the same scale.
        """
        guessed = any(source.radiometry and source.radiometry.guessed for source in self.files)
        return (self.layout, "guessed") if guessed else (self.layout,)

    def claimed_paths(self) -> set[str]:
        """Return the paths that no other layout may use."""
        label = {file.path for file in self.label.claimed_files()} if self.label else set()
        return {file.path for file in (*self.pixel_files(), *self.extra_files)} | label

    def pixel_files(self) -> list[InboxFile]:
        """Return the files whose bytes determine the scene, each once: bands with sidecars, then quality layers."""
        of_bands = [file for source in self.files for file in (source.file, *source.sidecars)]
        return list(dict.fromkeys([*of_bands, *(layer.file for layer in self.quality)]))


@dataclass(frozen=True)
class UnmatchedFile:
    """A file that makes no scene, with the reason; a label may still belong to a scene in the catalog."""

    file: InboxFile
    what: str
    found: str | None = None
    expected: str | None = None
    next_step: str = ""
    error: type[InputError] = BadScene
    """Class of the quarantine entry's error."""
    label: LabelFile | None = None
    """The file as a label of a scene in the catalog (`cloudseg.ingest.label_scene`); quarantined if there is none."""
    extra_files: tuple[InboxFile, ...] = ()
    """Further files that this entry covers: claimed, without an entry of their own."""

    def reason(self) -> InputError:
        """Return the error of its quarantine entry."""
        return self.error(
            self.what, subject=self.file.path, found=self.found, expected=self.expected, next_step=self.next_step
        )

    @property
    def path(self) -> str:
        """Path of the file, for sorting."""
        return self.file.path

    def claimed_paths(self) -> set[str]:
        """Return the paths of the file and of the others that the entry covers."""
        label = self.label.sidecars if self.label else ()
        return {file.path for file in (self.file, *self.extra_files, *label)}
