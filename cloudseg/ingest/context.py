"""What the ingest of one candidate needs, and what it reports."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cloudseg.catalog import Catalog
from cloudseg.ingest.inbox_file import Inbox
from cloudseg.ingest.job import DecodeLimits
from cloudseg.ingest.pool import DecoderPool
from cloudseg.storage import Store


@dataclass(frozen=True)
class IngestContext:
    """What every candidate of one ingest shares. Safe to use from several threads."""

    store: Store
    catalog: Catalog
    inbox: Inbox
    decoders: DecoderPool
    limits: DecodeLimits
    folder: Path
    """Scratch directory for copies and unfinished files."""
    dry_run: bool
    trusted_inboxes: tuple[str, ...] = ("*",)
    """Prefixes of the inboxes whose first label of a scene is accepted at once; `*`: all."""


@dataclass
class Outcome:
    """The result of one candidate or unmatched file. Filled in while it is processed."""

    name: str
    scene: Literal["added", "known", "removed", "none"] = "none"
    """'none' also for a label without its scene."""
    scene_id: str | None = None
    label_id: str | None = None
    """Set for a new label only."""
    proposed: bool = False
    """Whether that label waits for a person."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about labels that change nothing yet."""
    quarantined: list[str] = field(default_factory=list)
    """Ids of new quarantine entries."""
    empty_layer: str | None = None
    """Path of a layer of polygons in which nothing has been drawn yet."""
    still_quarantined: int = 0
    """Unchanged files that were already in quarantine."""

    @property
    def status(self) -> str:
        """'added', 'known', 'removed', 'labeled' or 'quarantined', for the progress line."""
        if self.quarantined or self.still_quarantined:
            return "quarantined"
        return self.scene if self.scene != "none" else "labeled" if self.label_id else "known"
