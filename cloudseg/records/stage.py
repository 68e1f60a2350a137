"""What stages return, and what passes through Airflow: ids and counts, never arrays.

If a list of ids may grow long, a DAG passes on the first 20 and the count (`shortened` in dags/cloudseg_dagkit.py),
so that no XCom has more than a few kilobytes.
"""

from typing import Literal

from pydantic import Field

from cloudseg.records.base import Json, Record
from cloudseg.records.rows import LabelState, Outcome, ReaderMode


class IngestRecord(Record):
    """What one ingest did."""

    source: str
    added: list[str] = Field(description="scene ids that are new")
    labelled: list[str] = Field(description="label ids that are new")
    proposed: list[str] = Field(
        default_factory=list, description="those of them that wait: `cloudseg labels list --state proposed`"
    )
    known: int = Field(description="scenes that already existed")
    removed: int = Field(0, description="scenes that `cloudseg remove scene` removed: passed over")
    quarantined: list[str] = Field(description="quarantine ids that are new")
    empty_layers: list[str] = Field(
        default_factory=list, description="label layers without a polygon: nothing is drawn yet, passed over"
    )
    still_quarantined: int = Field(
        0,
        description="bad files that an earlier ingest quarantined and whose bytes are the same; not tried again",
    )
    notes: list[str] = Field(
        default_factory=list,
        description="labels that change nothing yet: those that wait, and known files, and why; "
        "of a STAC source what a dry run would fetch, and what could not be read",
    )
    seconds: float


class LabelDecisionRecord(Record):
    """Labels that were accepted, rejected or withdrawn."""

    state: LabelState = Field(description="what was decided")
    changed: list[str] = Field(description="label ids that are in this state now and were not before")
    unchanged: list[str] = Field(description="label ids that were in this state already")
    waiting: int = Field(description="labels that wait for a decision now")
    notes: list[str] = Field(description="by scene: which versions are in use now")


DecisionName = Literal[
    "promote",
    "decline",
    "roll_back",
    "accept_label",
    "reject_label",
    "withdraw_label",
    "release",
    "switch_readers",
    "switch_readers_back",
]
"""What a person decides in Airflow: the decisions of the DAG `cloudseg_decide`, whose tasks have these ids."""


class DecisionPlan(Record):
    """What a decision would change; nothing is written yet."""

    decision: DecisionName
    names: list[str] = Field(description="what it is about, by the names that people see: `v31`, a scene's name")
    changes: list[str] = Field(description="what would change, one sentence each")
    arguments: Json = Field(description="of the stage, with ids instead of names; without actor and reason")
    asked_by: str | None = Field(description="who requested the approval of a challenger that waits for one")


class QuarantineReleaseRecord(Record):
    """Files that were released from quarantine: the next ingest that finds them tries them again."""

    released: list[str] = Field(description="quarantine ids that this call released")
    unchanged: list[str] = Field(description="ids that were released before and are not in quarantine again")
    left: int = Field(description="entries that are in quarantine now")


class SnapshotRecord(Record):
    """A snapshot that exists now."""

    snapshot_id: str
    created: bool
    counts: Json


class TrainRecord(Record):
    """Weights that a run made."""

    run_id: str
    snapshot_id: str
    weights_id: str
    steps: int
    epochs: int
    resumed_from_step: int | None
    seconds: float
    images_per_s: float | None = Field(None, description="chips per second while training, mean of the epochs")
    metrics: Json


class EvaluateRecord(Record):
    """The evaluation of weights on the held-out places."""

    evaluation_id: str
    weights_id: str
    snapshot_id: str
    threshold: float
    metrics: Json
    report_key: str
    report_uri: str


class PredictFileRecord(Record):
    """The mask of a file that is in no catalog."""

    source: str
    mask: str = Field(description="path of the mask: 0 clear, 1 cloud, 255 no data")
    probability: str | None = Field(description="path of the probability: value / 250, 255 no data")
    weights_id: str
    threshold: float
    arithmetic: str = Field(description="fp32, bf16 or int8")
    bands: list[str] = Field(description="of the file, in order; those that the model does not read too")
    missing_bands: list[str] = Field(description="optional bands of the model that the file lacks")
    radiometry: str = Field(description="where scale and offset come from")
    brightness: Literal["inside", "outside", "unknown"] = Field(
        description="whether the brightness of the file is one that the training scenes had"
    )
    brightness_note: str = Field(description="which percentile is outside and by how much, or why it is unknown")
    resolution_m: float | None
    cloud_fraction: float = Field(description="of the pixels with data")
    valid_fraction: float
    seconds: float


class PromoteRecord(Record):
    """The verdict and whether it was applied."""

    verdict_id: str | None = Field(description="None: champion without a verdict, promoted manually")
    outcome: Outcome | None
    promoted: bool
    champion_id: str | None
    challenger_id: str
    challenger: str = Field(description="its name: `v31`")
    champion: str | None = Field(description="the name of the champion: `v30`; None: there is none")
    reasons: list[str]


class RetrainRecord(Record):
    """All four steps of a retraining."""

    skipped: str | None = Field(description="the reason when nothing was done")
    snapshot: SnapshotRecord | None = None
    train: TrainRecord | None = None
    evaluate: EvaluateRecord | None = None
    promote: PromoteRecord | None = None


class PredictRecord(Record):
    """Masks that exist now."""

    weights_id: str
    masks: list[str] = Field(description="mask ids, in the order of the scenes")
    created: int
    failed: Json = Field(description="scene id to what went wrong; the other scenes were done")
    outside: list[str] = Field(
        default_factory=list,
        description="scenes that are not as bright as the training scenes: which percentile, found and expected",
    )
    seconds: float


class DrainRecord(Record):
    """What one of several workers masked."""

    worker: str
    weights_ids: list[str] = Field(description="whose masks it made, in this order")
    masks: list[str] = Field(description="mask ids, in the order in which their scenes were drawn")
    created: int
    failed: Json = Field(description="scene id to what went wrong; tried again an hour later or later")
    time_is_over: bool = Field(description="True: scenes may be left; False: none is")
    seconds: float


class ExportRecord(Record):
    """Masks that were exported."""

    path: str
    masks: int
    features: int = Field(description="polygons in the file, or rasters in the folder")
    files: Json = Field(default_factory=dict, description="mask id to the name of its raster")
    failed: Json = Field(description="mask id to what went wrong; the other masks were done")
    seconds: float


class MaintainRecord(Record):
    """What maintenance found and, unless it was a dry run, did."""

    dry_run: bool
    orphans: list[str]
    orphan_bytes: int
    expired_checkpoints: int
    expired_evaluations: int = 0
    repaired: list[str]
    missing: list[str] = Field(description="objects that a row names but the store lacks or holds damaged")
    verified: int = Field(0, description="objects that were read and compared with the checksum of their row")
    stac: int = Field(0, description="documents of the static STAC catalog that were wrong, missing or left over")
    removals: int = Field(0, description="interrupted removals of scenes, whose objects are deleted now")


class RemoveRecord(Record):
    """What the removal of a scene deletes, deleted, or leaves."""

    dry_run: bool
    scene_id: str
    name: str | None = Field(description="None if it was removed before")
    removal_id: str | None = Field(description="None if it is a dry run")
    already: bool = Field(description="its rows were deleted by an earlier call")
    labels: list[str] = Field(description="ids of the labels that go")
    masks: list[str] = Field(description="ids of the masks that go, with their assets")
    evaluations: list[str] = Field(description="ids of the evaluations that go: their reports may show the scene")
    quarantined: int = Field(description="entries of the quarantine that go")
    snapshots: list[str] = Field(description="ids of the snapshots that are retired: manifest and chips go")
    golden: list[str] = Field(description="ids of weights whose golden sample is replaced by a synthetic one")
    objects: int = Field(description="objects of the store that go")
    bytes: int
    kept: list[str] = Field(description="keys that stay, because another scene has the same bytes")
    weights: list[str] = Field(description="ids of the weights that were trained on it; they stay")
    descendants: list[str] = Field(description="ids of weights that began from those, by warm starts; they stay")
    sources: list[str] = Field(description="addresses of its files, which are not touched")


class ReadersRecord(Record):
    """Whose masks readers see."""

    mode: ReaderMode
    weights_id: str | None = Field(description="whose masks they see; None before the first champion")
    model_version: int | None
    masks: int = Field(description="how many they see")
    since: str | None = Field(description="ISO 8601; None: no decision was made, it is the newest champion")
    sequence: int | None = Field(description="the decision; `cloudseg readers back` takes back the newest")
    actor: str | None
    reason: str | None
    champion_id: str | None
    lost: int = Field(description="scenes that they see and that have no mask of the champion yet")
    pending: list[Json] = Field(description="decisions that take effect later")
    history: list[Json] = Field(description="decisions, newest first")


class BackfillPlanRecord(Record):
    """The plan of a night."""

    skip: str | None = Field(description="the reason when nothing is to be done")
    backfill_id: str | None
    weights_id: str | None
    night: str
    megapixels: int
    scenes: int = Field(description="scenes of the plan, masked ones included")
    waiting: int = Field(description="publishable scenes that lack a mask of these weights, those of the plan included")


class Month(Record):
    """Progress of the scenes that were acquired in a month."""

    month: str = Field(description="'2024-06'; 'unknown' where a scene has no time")
    done: int
    total: int


class BackfillRecord(Record):
    """How far the masks of weights are, and whether readers were switched to them."""

    weights_id: str | None
    skip: str | None = None
    backfill_id: str | None = None
    night: str | None = None
    planned: int = Field(0, description="scenes of this night's plan")
    created: int = Field(0, description="masks that this call made")
    failed: Json = Field(default_factory=dict, description="scene id to what went wrong; tried again after all others")
    done: int = Field(description="scenes that have a mask of these weights")
    total: int = Field(description="scenes that can have one")
    months: list[Month] = Field(description="the same by month of acquisition, newest first")
    touched: list[str] = Field(default_factory=list, description="months of the scenes of this night's plan")
    switched: bool = Field(description="readers see these weights now, because of this call")
    readers_see: str | None
    seconds: float


class ChangesRecord(Record):
    """Where two models disagree on the scenes that both have masked."""

    before_id: str = Field(description="weights, the first argument")
    after_id: str = Field(description="weights, the second argument")
    scenes: int
    flipped_scenes: int = Field(description="scenes with at least one pixel of another class")
    pixels: int = Field(description="pixels that both masks cover")
    clear_to_cloud: int = Field(description="pixels")
    cloud_to_clear: int = Field(description="pixels")
    by_sensor: Json = Field(description="the same for each sensor")
    by_ground: Json = Field(description="the same for each class of ground, as in the slices of an evaluation")
    labels_added: int = Field(description="labels that only the second model was trained on")
    labels_removed: int = Field(description="labels that only the first model was trained on")
    failed: Json = Field(description="scene id to what went wrong; the other scenes were compared")
    folder: str
    seconds: float


class WatchRecord(Record):
    """What one look at the whole service found."""

    began: list[str] = Field(description="ids of the alerts that this look opened")
    ended: list[str] = Field(description="ids of the alerts that this look resolved")
    open: int = Field(description="alerts that hold now")
    unknown: list[str] = Field(description="names of the alerts that could not be looked at, and why")
    messages: list[Json] = Field(description="to send now; `record_sent` says afterwards that they were")
