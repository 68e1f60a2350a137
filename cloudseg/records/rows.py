"""The rows of the catalog: a class has exactly the columns of its table (`cloudseg.catalog.tables`)."""

from collections.abc import Collection
from typing import Literal

from pydantic import AwareDatetime, Field

from cloudseg.records.base import Json, Record

Split = Literal["train", "validation", "held_out"]
RunStatus = Literal["running", "finished", "failed"]
Outcome = Literal["PROMOTE", "HOLD", "REJECT"]
LabelState = Literal["proposed", "accepted", "rejected", "withdrawn"]
ReaderMode = Literal["newest", "complete", "hold"]
AlertSeverity = Literal["info", "warning", "critical"]


class Scene(Record):
    """One acquisition over one footprint, as ingested: a canonical COG (uint16, reflectance x 10 000, 0 = no data)."""

    scene_id: str = Field(description="first 20 hex digits of source_sha256, prefixed 'sc-'")
    name: str = Field(description="the provider's name; for people, not unique")
    layout: str
    sensor: str = Field(description="'sentinel-2-l1c', 'sentinel-2-l2a', 'landsat-8-l1', 'unknown' ...")
    radiometry: str = Field(description="where scale and offset come from (cloudseg.bands)")
    acquired_at: AwareDatetime | None
    place: str = Field(description="'mgrs:31UDQ', 'wrs2:199026' or 'block:...': the unit of the split")
    crs: str | None = Field(description="'EPSG:n' or WKT; None if the layout allows no georeference")
    transform: list[float] = Field(description="affine a, b, c, d, e, f: CRS units from (col, row)")
    height: int
    width: int
    resolution_m: float | None = Field(description="ground size of a pixel in meters, mean of both axes")
    bands: list[str]
    footprint_wkb: bytes | None = Field(
        description="valid pixels as WKB (multi)polygon, lon/lat EPSG:4326, split at 180"
    )
    min_lon: float | None
    min_lat: float | None
    max_lon: float | None = Field(description="smaller than min_lon if the footprint crosses the antimeridian")
    max_lat: float | None
    valid_fraction: float
    publishable: bool = Field(description="False: may train and be evaluated, no mask is ever published")
    source_uri: str
    source_sha256: str = Field(description="over the source files' bytes in band order and how they were read")
    key: str
    sha256: str
    size: int
    tags: Json = Field(description="strings: 'biome', 'cloud_cover', 'synthetic' ...; each may slice an evaluation")
    created_at: AwareDatetime


class SceneBrightness(Record):
    """How bright a scene is, measured once from an overview; drift compares it with that of the training scenes."""

    scene_id: str
    reflectance: float | None = Field(
        description="mean of red, green and blue (of all bands where one is missing) over the valid pixels; None: the "
        "scene has no valid pixel, or could not be read"
    )
    created_at: AwareDatetime


class Label(Record):
    """A mask made by people on the grid of its scene: uint8 COG, 0 clear, 1 cloud, 255 no data."""

    label_id: str = Field(description="'lb-' and 20 hex digits over scene, source and bytes")
    scene_id: str
    version: int = Field(
        description="1, 2, ... within a scene; a pixel has the class of the highest accepted one that is not 255 there"
    )
    source: str = Field(description="who made it: 's2-cloud-mask-catalogue', '38-cloud', 'analyst:<name>' ...")
    class_mapping: Json = Field(description="source value (as text) to 0, 1 or 255")
    cloud_fraction: float = Field(description="of the labeled valid pixels")
    labelled_fraction: float = Field(description="pixels that are 0 or 1, of all")
    source_uri: str
    source_sha256: str
    key: str
    sha256: str
    size: int
    created_at: AwareDatetime
    corrects_mask_id: str | None = Field(None, description="the published mask that was edited to make this label")


class LabelEvent(Record):
    """One step in the life of a label; the one with the highest sequence is its state."""

    label_id: str
    sequence: int = Field(description="1, 2, ... within a label")
    state: LabelState = Field(description="only accepted labels enter snapshots")
    actor: str = Field(description="who decided: 'ingest file:///inbox', 'cli', a user's name, 'migration'")
    reason: str
    created_at: AwareDatetime


class Place(Record):
    """The split of a place, decided once."""

    place: str
    split: Split
    decided_at: AwareDatetime


class Quarantined(Record):
    """An incoming file that could not become a scene or a label."""

    quarantine_id: str = Field(
        description="'qu-' and 20 hex digits over source_uri, the bytes' checksum and how they were read"
    )
    name: str
    source_uri: str
    source_sha256: str
    error: str = Field(description="class of the error")
    what: str
    found: str | None
    expected: str | None
    next_step: str
    created_at: AwareDatetime


class QuarantineRelease(Record):
    """A release of a file from quarantine: the next ingest that finds the file tries it again."""

    quarantine_id: str = Field(description="of the entry, which the release deleted")
    sequence: int = Field(description="1, 2, ... within an id: the file may end in quarantine again")
    name: str
    source_uri: str
    error: str
    what: str
    actor: str = Field(description="who decided: 'cli', 'airflow:<user>' ...")
    reason: str
    created_at: AwareDatetime


class Snapshot(Record):
    """A frozen list of chips with their split; the manifest in the store holds the chips."""

    snapshot_id: str = Field(description="'sn-' and 20 hex digits of the content hash")
    manifest_key: str
    manifest_sha256: str
    chip_size: int
    bands: list[str]
    working_resolution_m: float | None
    counts: Json = Field(description="by split: chips, scenes, places, cloud_fraction; 'chips' in total")
    created_at: AwareDatetime


class SnapshotLabel(Record):
    """A label that a snapshot holds."""

    snapshot_id: str
    label_id: str
    split: Split


class Run(Record):
    """One training."""

    run_id: str
    snapshot_id: str
    recipe_name: str
    recipe_hash: str
    recipe: Json
    parent_weights_id: str | None = Field(description="warm start from these weights")
    seed: int
    status: RunStatus
    device: str
    device_reason: str
    error: str | None
    created_at: AwareDatetime
    finished_at: AwareDatetime | None


class Epoch(Record):
    """Progress of a run, one row per epoch, so that it can be followed."""

    run_id: str
    epoch: int
    step: int
    metrics: Json = Field(description="train_loss, validation_loss, validation_iou, images_per_s, lr ...")
    created_at: AwareDatetime


class Checkpoint(Record):
    """The state of a run after a step: one safetensors object."""

    run_id: str
    step: int
    key: str
    sha256: str
    size: int
    created_at: AwareDatetime


class Weights(Record):
    """Published parameters: safetensors with everything needed to predict in its metadata, and its assets."""

    weights_id: str = Field(description="'w-' and 20 hex digits of the safetensors' sha256")
    version: int = Field(description="1, 2, ... in order of registration")
    run_id: str | None = Field(description="None for imported weights")
    snapshot_id: str | None
    architecture: str
    key: str
    sha256: str
    size: int
    companions: Json = Field(description="assets: name ('onnx', 'card', 'item', 'golden') to StoredObject")
    metadata: Json = Field(description="the same block that is inside the weights file")
    created_at: AwareDatetime

    @property
    def required_bands(self) -> list[str]:
        """Bands that a scene must have."""
        optional = self.metadata.get("optional_bands", ())
        return [band for band in self.metadata["bands"] if band not in optional]

    def missing_bands(self, bands: Collection[str]) -> list[str]:
        """Return the optional bands that are not among these of a scene: the net sees 0 there."""
        return [band for band in self.metadata.get("optional_bands", ()) if band not in bands]


class Evaluation(Record):
    """Weights evaluated on one split of one snapshot."""

    evaluation_id: str = Field(description="'ev-' and 20 hex digits over weights, snapshot and split")
    weights_id: str
    snapshot_id: str
    split: Split
    threshold: float
    metrics: Json
    report: Json = Field(description="name ('html', 'json', 'counts', ...) to StoredObject")
    created_at: AwareDatetime


class Verdict(Record):
    """The outcome of comparing challenger and champion, with reasons."""

    verdict_id: str = Field(description="'ve-' and 20 hex digits of the canonical JSON")
    challenger_id: str
    champion_id: str | None
    outcome: Outcome
    body: Json = Field(description="canonical JSON: figures, limits, reasons")
    created_at: AwareDatetime


class Decision(Record):
    """A verdict PROMOTE that waits for manual approval ('asked'), or a manual rejection ('declined').

    An approval is a promotion.
    """

    verdict_id: str
    decision: Literal["asked", "declined"]
    actor: str
    reason: str
    created_at: AwareDatetime


class Promotion(Record):
    """One change of the champion; the newest generation is the champion."""

    generation: int
    weights_id: str
    previous_weights_id: str | None
    action: Literal["promote", "rollback"]
    verdict_id: str | None
    actor: str
    reason: str
    created_at: AwareDatetime


class Mask(Record):
    """A published mask of a scene by certain weights, with its probability layer, thumbnail and STAC item."""

    mask_id: str = Field(description="'mk-' and 20 hex digits over scene_id, weights_id and cleaning, if any")
    scene_id: str
    weights_id: str
    threshold: float
    cloud_fraction: float = Field(description="of the valid pixels")
    valid_fraction: float
    key: str
    sha256: str
    size: int
    companions: Json = Field(
        description=(
            "assets: name ('probability', 'thumbnail', 'item', 'mask_style', 'probability_style') to StoredObject"
        )
    )
    created_at: AwareDatetime
    cleaning: str = Field(
        "",
        description="what was done to the mask that the model draws, as canonical JSON (cloudseg.raster.cleaning); "
        "empty: nothing",
    )
    is_variant: bool = Field(
        False,
        description="True: asked for beside the mask that these weights already had of the scene, which readers go on "
        "seeing",
    )
    radiometry: Literal["inside", "outside", "unknown"] = Field(
        "unknown", description="whether the brightness of the scene is one that the training scenes had"
    )
    brightness: list[float] | None = Field(
        None,
        description="reflectance at percentiles 1, 5, 25 and 50 of the scene's brightness; None: not measured",
    )
    promise: Json | None = Field(
        None,
        description="careful, balanced and generous threshold (cloudseg.records.Promise) of the weights when it "
        "was made; None: they had no evaluation on held-out places",
    )


class PredictionLease(Record):
    """A scene that waits for a mask by certain weights: free, or held by one worker until a time of the database.

    Free is every row whose time is over. The row is deleted once the mask is published.
    """

    weights_id: str
    cleaning: str = Field(description="the mask's (`mask.cleaning`) where just that one is wanted; empty: any mask")
    scene_id: str
    until: AwareDatetime = Field(description="by the database's clock; no worker draws the scene before it")
    worker: str | None = Field(description="who drew it last; None: nobody")
    failures: int = Field(description="how often drawing its mask failed, or its worker ended without a result")
    error: Json | None = Field(description="of the last failure; None while a worker holds it, or nobody has")


class ReaderSwitch(Record):
    """One decision about whose masks readers see; of those in effect, the one with the highest sequence rules.

    Without one, readers see the masks of the newest champion.
    """

    sequence: int
    action: Literal["switch", "back"]
    mode: ReaderMode = Field(
        description="newest: the newest champion's, whoever that is; complete: those of these weights until the masks "
        "of a newer champion are complete; hold: those of these weights until somebody switches"
    )
    weights_id: str | None = Field(description="None for mode newest")
    effective_at: AwareDatetime = Field(description="from when readers see them; created_at or later")
    actor: str
    reason: str
    created_at: AwareDatetime


class Backfill(Record):
    """The plan of one night: which scenes get a mask of these weights; its scenes are rows of their own."""

    backfill_id: str = Field(description="'bf-' and 20 hex digits over weights_id and night")
    weights_id: str
    night: str = Field(description="the date, or any other name; the budget is that of a night")
    megapixels: int = Field(description="the budget, in millions of scene pixels")
    created_at: AwareDatetime


class BackfillScene(Record):
    """A scene of a plan."""

    backfill_id: str
    position: int = Field(description="0, 1, ... in the order in which they are masked")
    scene_id: str


class Removal(Record):
    """A scene that was removed with everything made from it; the same bytes are not ingested again.

    It holds nothing of the scene but the hash of its source, from which its id follows.
    """

    removal_id: str = Field(description="'rm-' and 20 hex digits over scene_id and how often it was removed before")
    scene_id: str
    source_sha256: str
    actor: str
    reason: str
    pending: Json | None = Field(
        description="keys, STAC documents and months that are still to be deleted or written anew; None once it is"
    )
    finished_at: AwareDatetime | None = Field(description="when the last object was deleted")
    lifted_at: AwareDatetime | None = Field(description="since when the bytes may be ingested again")
    lifted_by: str | None
    lift_reason: str | None
    created_at: AwareDatetime


class RetiredSnapshot(Record):
    """A snapshot that held a removed scene: its manifest and chips are deleted, its row stays for the lineage."""

    snapshot_id: str
    removal_id: str
    labels: int = Field(description="labels of the removed scene that it held")
    created_at: AwareDatetime


class Alert(Record):
    """Something that holds or happened and that somebody should know, and which messages about it were sent.

    Of one name and subject at most one alert is open.
    """

    alert_id: str = Field(description="'al-' and 20 hex digits over name, subject and opened_at")
    name: str = Field(description="kind of alert (cloudseg.monitor.alerts), and its anchor in the runbook")
    subject: str = Field(description="what it is about: a task, a folder, an id; empty: the service")
    severity: AlertSeverity
    sentence: str
    link: str = Field(description="page that shows it; empty: none is known")
    facts: Json
    opened_at: AwareDatetime
    seen_at: AwareDatetime = Field(description="when it was last found to hold")
    resolved_at: AwareDatetime | None = Field(None, description="None: it is open; an event ends when it happens")
    sent: int = Field(0, description="messages that every channel got; the next one is number sent + 1")
    sent_at: AwareDatetime | None = Field(None, description="when the last of them was complete")
    sent_severity: AlertSeverity | None = Field(None, description="severity that it had then")
    delivered: list[str] = Field(default_factory=list, description="channels that got the next message already")
    claimed_at: AwareDatetime | None = Field(None, description="when a process began to send the next message")
    settled: bool = Field(False, description="nothing more will be sent")
