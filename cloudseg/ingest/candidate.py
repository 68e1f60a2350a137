"""What a layout finds: files that together may become a scene, and perhaps its label. Nothing has been opened yet."""

from dataclasses import dataclass, field
from datetime import datetime

from cloudseg.bands import Radiometry


@dataclass(frozen=True, order=True)
class InboxFile:
    """A file of an inbox. It is opened through its inbox only, never by this name."""

    path: str
    """Relative to the inbox, parts joined by `/`."""
    uri: str = field(compare=False)
    """For people and for the catalog."""
    fault: str | None = field(default=None, compare=False)
    """Why it must not be opened at all (a link that leads out, a pipe); None for a plain file."""

    @property
    def folder(self) -> str:
        """The path without its last part; empty at the top."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def suffix(self) -> str:
        """The last suffix in lower case, without the dot."""
        return self.name.rpartition(".")[2].lower() if "." in self.name else ""


@dataclass(frozen=True)
class SourceFile:
    """A raster file of a scene and what its bands are called."""

    file: InboxFile
    bands: tuple[str | None, ...] | None = None
    """A name of `bands.BAND_NAMES` for each band of the file, None for one that is not wanted; None: ask the file."""
    other_bands: tuple[tuple[str | None, ...], ...] = ()
    """The same for files of that format with another number of bands."""
    radiometry: Radiometry | None = None
    """From the product id or the metadata file; None: ask the file, then what its numbers allow."""


@dataclass(frozen=True)
class ClassMapping:
    """What the values of a label mean: one row of the table of mappings."""

    values: tuple[tuple[int, int], ...]
    """Pairs of source value and 0 clear, 1 cloud or 255 none."""

    def as_dict(self) -> dict[int, int]:
        """Source value to class."""
        return dict(self.values)


@dataclass(frozen=True)
class LabelFile:
    """The mask that people made of a scene."""

    file: InboxFile
    source: str
    """Who made it; a tag LABEL_SOURCE of the file says it better."""
    mappings: tuple[ClassMapping, ...]
    """The first one that knows every value of the file is taken."""


@dataclass(frozen=True)
class Candidate:
    """Files that together may become one scene."""

    name: str
    layout: str
    files: tuple[SourceFile, ...]
    """In band order; their bytes in this order make the scene's id."""
    label: LabelFile | None = None
    companions: tuple[InboxFile, ...] = ()
    """Metadata files that were read to understand the rasters; nothing else looks at them."""
    sensor: str = "unknown"
    acquired_at: datetime | None = None
    time_in_tags: bool = False
    """TIFFTAG_DATETIME is the time of acquisition (else it may be the time of writing)."""
    place: str | None = None
    """Where the product id says it; None: the MGRS square of the centre."""
    needs_georeference: bool = True
    """False: a raster without CRS is accepted; it may train and be evaluated, no mask of it is ever published."""
    tags: tuple[tuple[str, str], ...] = ()

    def claimed(self) -> set[str]:
        """Paths that no other layout may take."""
        label = {self.label.file.path} if self.label else set()
        return {source.file.path for source in self.files} | {file.path for file in self.companions} | label


@dataclass(frozen=True)
class Stray:
    """A file that makes no scene here, with the reason; a label may still belong to a scene that the catalog knows."""

    file: InboxFile
    what: str
    found: str | None = None
    expected: str | None = None
    next_step: str = ""
    label: LabelFile | None = None
    """The file as a label; it goes to the newest scene called `scene_name`, and to quarantine where there is none."""
    scene_name: str = ""


BINARY = ClassMapping(((0, 0), (1, 1), (255, 255)))
"""0 clear, 1 cloud, 255 no label: the canonical classes themselves."""
BINARY_255 = ClassMapping(((0, 0), (255, 1)))
"""38-Cloud's published masks: 0 clear, 255 cloud."""
CLOUDSEN12 = ClassMapping(((0, 0), (1, 1), (2, 1), (3, 0)))
"""CloudSEN12 (Aybar et al. 2022): 0 clear, 1 thick cloud, 2 thin cloud, 3 cloud shadow. A shadow is ground: clear."""
L8_BIOME = ClassMapping(((0, 255), (64, 0), (128, 0), (192, 1), (255, 1)))
"""L8 Biome (Foga et al. 2017): 0 fill, 64 cloud shadow, 128 clear, 192 thin cloud, 255 cloud."""
