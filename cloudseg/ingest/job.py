"""What passes between the service and the process that decodes: one JSON line each way, checked at both ends.

Never pickle: the process that decodes hostile bytes may have been taken over by them.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import AwareDatetime, Field

from cloudseg.bands import Radiometry
from cloudseg.records import Record


@dataclass(frozen=True)
class DecodeLimits:
    """What decoding one untrusted scene may cost."""

    timeout_s: float = 60.0
    """CPU time for a scene of up to `FREE_MEGAPIXELS`; a larger one gets more in proportion."""
    memory_mb: int = 3072
    """Address space of the process."""
    max_pixels: int = 400_000_000
    """Rows × columns of a band."""


FREE_MEGAPIXELS = 50.0
"""Millions of pixels × bands that the plain time limit covers; about 8 s of JPEG 2000 on one slow core."""
MOST_TIMES = 20.0
"""A scene never gets more than so many times the limit, whatever its header claims."""


class RasterJob(Record):
    """A private copy of one raster file, and what is known of its bands."""

    path: str
    shown: str = Field(description="its name in the inbox, for messages")
    bands: list[str | None] | None
    other_bands: list[list[str | None]] = Field(default_factory=list)
    radiometry: tuple[float, float, float | None, str] | None = None

    def known_radiometry(self) -> Radiometry | None:
        """Give scale and offset from the product id."""
        return Radiometry(*self.radiometry) if self.radiometry else None


class SceneJob(Record):
    """Decode files into a canonical scene."""

    kind: Literal["scene"] = "scene"
    name: str
    files: list[RasterJob]
    needs_georeference: bool
    time_in_tags: bool
    is_product: bool = Field(description="a product id says that it was observed")
    out: str = Field(description="where the canonical COG is to be written")
    folder: str = Field(description="private folder for unfinished files")
    max_pixels: int
    memory_mb: int


class LabelJob(Record):
    """Decode a file into a canonical label of a scene."""

    kind: Literal["label"] = "label"
    path: str
    shown: str
    source: str
    mappings: list[list[tuple[int, int]]]
    scene: str = Field(description="the canonical COG of the scene")
    needs_georeference: bool = Field(description="only the name ties it to the scene: it must say itself where it lies")
    out: str
    folder: str
    max_pixels: int
    memory_mb: int


class SceneFacts(Record):
    """What decoding found out about a scene."""

    radiometry: str
    crs: str | None
    transform: list[float]
    height: int
    width: int
    resolution_m: float | None
    bands: list[str]
    footprint_wkb_hex: str | None
    bounds: list[float] | None = Field(description="min_lon, min_lat, max_lon, max_lat")
    centre: list[float] | None = Field(description="lon, lat of the middle of the grid")
    valid_fraction: float
    acquired_at: AwareDatetime | None = Field(description="from the file's tags")
    tags: dict[str, str]


class LabelFacts(Record):
    """What decoding found out about a label."""

    source: str
    mapping: dict[str, int]
    cloud_fraction: float
    labelled_fraction: float


class Fault(Record):
    """A deliberate error, as `CloudsegError.as_record` gives it."""

    error: str
    what: str
    subject: str | None = None
    found: str | None = None
    expected: str | None = None
    next_step: str | None = None


class Answer(Record):
    """One line from the process that decodes."""

    ready: bool = False
    taken: list[str] = Field(default_factory=list, description="what the process has given up: 'network', 'files'")
    megapixels: float | None = Field(None, description="pixels x bands of the scene that is about to be read, in millions")
    scene: SceneFacts | None = None
    label: LabelFacts | None = None
    fault: Fault | None = None
