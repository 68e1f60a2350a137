"""Messages between the service and its decoder processes: JSON lines, validated at both ends.

Never pickle: malicious bytes may have compromised the process that decodes them.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from cloudseg.bands import BAND_NAMES, Radiometry
from cloudseg.ingest.candidate import QualityKind
from cloudseg.ingest.inbox_file import MAX_BYTES
from cloudseg.records import Record


@dataclass(frozen=True)
class DecodeLimits:
    """What decoding one untrusted scene may cost."""

    timeout_s: float = 60.0
    """CPU time for a scene of up to `FREE_MEGAPIXELS`; a larger one gets proportionally more."""
    memory_mb: int = 3072
    """Address space of the process."""
    max_pixels: int = 400_000_000
    """Rows × columns of a band."""
    max_bytes: int = MAX_BYTES
    """Size of one file of an inbox, and of the canonical raster without compression."""
    require_sandbox: bool = False
    """Whether ingest stops if the kernel does not allow every restriction in `cloudseg.ingest.probe`."""


FREE_MEGAPIXELS = 50.0
"""Millions of pixels × bands that the plain time limit covers; about 8 s of JPEG 2000 on one slow core."""
OUTPUT_NAME: Final = "canonical.tif"
"""Name of the raster that the writer leaves in its folder."""
MAX_LIMIT_FACTOR = 20.0
"""A scene never gets more than this multiple of the limit, whatever its header claims."""


def is_epsg(crs: str) -> bool:
    """Return whether a CRS is 'EPSG:n', which needs no parser."""
    return re.fullmatch(r"EPSG:[0-9]{1,6}", crs) is not None


class RasterJob(Record):
    """A private copy of one raster file, and what is known about its bands."""

    path: str = Field(description="its sidecars lie beside it: <path>.msk, <path>.aux.xml")
    display_name: str = Field(description="path in the inbox, escaped, for messages")
    bands: list[str | None] | None
    other_bands: list[list[str | None]] = Field(default_factory=list)
    georeference_beside: list[str] = Field(default_factory=list, description="names of world files, for messages")
    radiometry: tuple[float, float, float | None, str, bool] | None = None

    def known_radiometry(self) -> Radiometry | None:
        """Return the radiometry from the product id or metadata, or None."""
        return Radiometry(*self.radiometry) if self.radiometry else None


class QualityJob(Record):
    """A private copy of a quality layer."""

    path: str
    display_name: str
    kind: QualityKind


class SceneJob(Record):
    """Decode files into a canonical scene."""

    kind: Literal["scene"] = "scene"
    name: str
    files: list[RasterJob]
    quality: list[QualityJob] = Field(default_factory=list)
    needs_georeference: bool
    time_in_tags: bool
    is_product: bool = Field(description="whether the sensor is known from a product id")
    sensor: str = Field("unknown", description="from a product id")
    out: str = Field(description="path of the canonical COG to write")
    folder: str = Field(description="folder of this job with the copies; the decoder can read nothing else")
    max_pixels: int
    memory_mb: int


class PublishedMask(Record):
    """A private copy of a mask of the label's scene, to notice a label that is that mask."""

    mask_id: str
    path: str


class LabelTagsJob(Record):
    """Read what a label says about itself, to find the scene that it belongs to."""

    kind: Literal["label_tags"] = "label_tags"
    path: str
    display_name: str
    folder: str = Field(description="folder of this job with the copies; the decoder can read nothing else")
    max_pixels: int
    memory_mb: int


class SceneGrid(Record):
    """The grid of a scene, as its row says."""

    crs: str | None
    transform: list[float]
    height: int
    width: int


class LabelJob(Record):
    """Decode a file into the canonical label of a scene."""

    kind: Literal["label"] = "label"
    path: str = Field(
        description="a raster, its sidecars beside it: <path>.msk, <path>.aux.xml; or polygons, by the suffix"
    )
    display_name: str
    scene_id: str = Field(description="of the scene that the label is decoded for")
    source: str
    mappings: list[list[tuple[int, int]]]
    scene: str = Field(description="the canonical COG of the scene")
    grid: SceneGrid | None = Field(None, description="of the scene, from the catalog; None: the decoder reads it")
    masks: list[PublishedMask] = Field(default_factory=list)
    needs_georeference: bool = Field(
        description="whether the file must have a CRS: only its name connects it to the scene"
    )
    out: str
    folder: str
    max_pixels: int
    memory_mb: int


def _is_known(band: str) -> str:
    if band not in BAND_NAMES:
        raise ValueError(f"unknown band {band!r}")
    return band


KnownBand = Annotated[str, AfterValidator(_is_known)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Short = Annotated[str, Field(max_length=300)]
Lon = Annotated[float, Field(ge=-360, le=360)]
Lat = Annotated[float, Field(ge=-90, le=90)]


class WindowedPixels(Record):
    """The first line of the stream of pixels from the decoder to the writer: in which windows they follow."""

    rows: int = Field(ge=1, le=1024, description="of a window; those of the last row of windows may have fewer")
    cols: int = Field(ge=1, le=16_384)


CanonicalTag = Literal["RADIOMETRY", "RADIOMETRY_GUESS", "RESAMPLED", "WARPED"]
"""Tags of the canonical raster that the decoder may set."""


class ScenePixels(WindowedPixels):
    """The raster that the pixels make. Every value is bounded, because a compromised decoder may send anything."""

    crs: Annotated[str, Field(max_length=20_000)] | None
    transform: Annotated[list[Finite], Field(min_length=6, max_length=6)]
    height: int = Field(ge=1, le=200_000)
    width: int = Field(ge=1, le=200_000)
    bands: Annotated[list[KnownBand], Field(min_length=1, max_length=64)]
    tags: dict[CanonicalTag, Annotated[str, Field(max_length=5_000)]]


class SceneReading(Record):
    """What the decoder read about a scene besides its pixels; nothing else knows it."""

    radiometry: Annotated[str, Field(max_length=5_000)]
    acquired_at: AwareDatetime | None = Field(description="from the file's tags")
    tags: Annotated[dict[Short, Short], Field(max_length=64)]


class LabelReading(Record):
    """What the decoder read about a label besides its classes."""

    source: Short
    mapping: Annotated[dict[Short, Literal[0, 1, 255]], Field(max_length=70_000)]
    corrects_mask_id: Short | None = Field(None, description="the published mask that was edited to make this label")


class WrittenScene(Record):
    """What the writer of a canonical scene measured on its pixels and grid."""

    crs: Annotated[str, Field(max_length=20_000)] | None
    transform: Annotated[list[Finite], Field(min_length=6, max_length=6)]
    height: int = Field(ge=1, le=2**31 - 1)
    width: int = Field(ge=1, le=2**31 - 1)
    resolution_m: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    bands: Annotated[list[KnownBand], Field(min_length=1, max_length=64)]
    footprint_wkb_hex: Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2})*$", max_length=1 << 22)] | None
    bounds: tuple[Lon, Lat, Lon, Lat] | None = Field(description="min_lon, min_lat, max_lon, max_lat")
    center: tuple[Lon, Lat] | None = Field(description="lon, lat of the center of the grid")
    valid_fraction: Fraction


class LabelTags(Record):
    """What a label says about itself: tags of a raster; metadata or attributes of polygons. Untrusted text."""

    scene: Short | None = Field(None, description="SCENE_ID or CLOUDSEG_SCENE_ID")
    scene_name: Short | None = Field(None, description="CLOUDSEG_SCENE_NAME")
    product_id: Short | None = Field(None, description="PRODUCT_ID")
    acquired_at: Short | None = Field(None, description="ACQUIRED_AT")
    mask_id: Short | None = Field(None, description="CLOUDSEG_MASK_ID: the published mask that the file was made from")
    source: Short | None = Field(None, description="LABEL_SOURCE: who made it")
    confirms: Short | None = Field(None, description="LABEL_CONFIRMS: a published mask that a person found right")
    shape: tuple[int, int] | None = Field(None, description="height and width of a raster with a CRS")
    transform: Annotated[list[Finite], Field(min_length=6, max_length=6)] | None = Field(
        None, description="affine a, b, c, d, e, f of a raster with a CRS"
    )


class WrittenLabel(Record):
    """What the writer of a canonical label counted."""

    cloud_fraction: Fraction
    labelled_fraction: Fraction


class SceneFacts(SceneReading, WrittenScene):
    """Facts about a scene: what was read from its files, and what was measured on the raster that was written."""


class LabelFacts(LabelReading, WrittenLabel):
    """Facts about a label."""


class ProbeJob(Record):
    """Try what the sandbox must deny."""

    kind: Literal["probe"] = "probe"
    folder: str
    file: str = Field(description="a file outside the folder")
    port: int = Field(description="of a TCP server on this machine")
    socket: str = Field(description="path of a Unix socket outside the folder")
    abstract_socket: str
    process: int = Field(description="a process of this user")


READY: Final = b"r"
"""What a supervisor sends when its writer has started."""
TASK, NEXT, END = b"t", b"n", b"e"
"""What the service sends to a supervisor: a task, with the descriptor of the decoder's answers; the task is done; it is
done, and the writer ends too."""


class WriterSetup(Record):
    """What a writer process may use for all of its tasks."""

    read: str = Field(description="folder in which it may read")
    write: str = Field(description="folder in which it may also write")
    memory_mb: int
    max_bytes: int


class Task(Record):
    """What the service asks of a new decoder process and the writer process beside it."""

    job: SceneJob | LabelJob | LabelTagsJob | ProbeJob = Field(discriminator="kind")
    out: str = Field(description="an empty folder in that of the writer")
    scene: str | None = Field(None, description="the scene of a label, where the writer can read it")
    timeout_s: float
    memory_mb: int
    max_bytes: int
    alone: bool = Field(False, description="whether the writer has no other task, so that it may parse text")


def pixel_pipe(out: str) -> str:
    """Return the path of the named pipe between decoder and writer, in a task's `out`."""
    return str(Path(out) / "pixels")


class Started(Record):
    """Ids of the processes that work on a task."""

    decoder: int
    writer: int


class Ended(Record):
    """Exit statuses of the same processes; negative: ended by that signal. None: it waits for the next task."""

    decoder: int
    writer: int | None


class DecodeFailure(Record):
    """An error of the decoder, in the form of `CloudsegError.as_record`."""

    error: str
    what: str
    subject: str | None = None
    found: str | None = None
    expected: str | None = None
    next_step: str | None = None


class Answer(Record):
    """One line from a decoder process."""

    restrictions: list[str] | None = Field(None, description="in force, of `cloudseg.ingest.probe.RESTRICTIONS`")
    megapixels: float | None = Field(
        None, description="pixels x bands of the scene that is about to be read, in millions"
    )
    scene: SceneReading | None = None
    label: LabelReading | None = None
    label_tags: LabelTags | None = None
    written_scene: WrittenScene | None = None
    written_label: WrittenLabel | None = None
    failure: DecodeFailure | None = None
    needs_own_writer: bool = Field(False, description="the writer would have to parse text, but has other tasks")
    cut_off: bool = Field(False, description="the writer ended before it had every pixel; its answer says why")
