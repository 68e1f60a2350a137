"""The whole way of an inbox into the catalog: bytes first, row last, one bad tile never stops the others.

Known bytes are recognised by their hash and not decoded again, so the whole inbox may be ingested every few minutes.
Killed anywhere, the next ingest finishes the work; two at once add everything exactly once.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final

from cloudseg.bands import BAND_NAMES
from cloudseg.catalog import Catalog
from cloudseg.errors import InputError
from cloudseg.ingest.candidate import Candidate, Stray
from cloudseg.ingest.inbox import open_inbox
from cloudseg.ingest.job import DecodeLimits
from cloudseg.ingest.layouts import find_candidates
from cloudseg.ingest.pool import DecoderPool
from cloudseg.ingest.work import Outcome, Work, take
from cloudseg.records import IngestRecord
from cloudseg.scratch import scratch_directory
from cloudseg.storage import S3Options, Store

log = logging.getLogger(__name__)
NOT_WANTED: Final = "-"
"""Stands in `--bands` for a band of the file that is not wanted."""

Progress = Callable[[int, int, str, str], object]
"""Called with done, total, the name of the scene and what became of it ('added', 'known', 'quarantined')."""


def ingest_source(
    store: Store,
    catalog: Catalog,
    source: str,
    *,
    layout: str | None = None,
    bands: Sequence[str] | None = None,
    limits: DecodeLimits,
    workers: int,
    on_progress: Progress | None = None,
    dry_run: bool = False,
    s3: S3Options | None = None,
) -> IngestRecord:
    """Bring every scene and label below a folder, `store://prefix` or `s3://bucket/prefix` into the catalog.

    `layout` asks only that one; `bands` names the bands of multi-band files, `-` for one that is not wanted, or picks
    bands of one-file-a-band scenes. `workers` processes decode at once, each within `limits`. A second ingest of the
    same files adds nothing and decodes nothing. A dry run decodes and checks everything but writes nothing. Raises
    InputError for no such source, unknown bands or layout; StoreError, CatalogUnreachable.
    """
    begun = time.monotonic()
    inbox = open_inbox(source, store, s3 or S3Options())
    items = find_candidates(inbox, layout=layout, bands=_checked_bands(bands))
    with (
        scratch_directory("ingest") as folder,
        DecoderPool(limits, min(max(1, workers), max(1, len(items))), folder) as decoders,
    ):
        work = Work(store, catalog, inbox, decoders, limits, folder, dry_run)
        outcomes = _take_all(work, items, workers, on_progress)
    record = _record(inbox.uri, outcomes, time.monotonic() - begun)
    log.info(
        "%d scenes and %d labels added, %d scenes known, %d files newly quarantined%s",
        len(record.added),
        len(record.labelled),
        record.known,
        len(record.quarantined),
        ": `cloudseg quarantine` tells why" if record.quarantined else "",
    )
    if not items:
        log.info("nothing in %s looks like a raster or a label", inbox.uri)
    return record


def _take_all(work: Work, items: list[Candidate | Stray], workers: int, on_progress: Progress | None) -> list[Outcome]:
    """Return the outcomes in the order of the items, whichever ends first.

    Labels without a scene beside them come last, when every scene of this inbox is in the catalog.
    """
    found: dict[int, Outcome] = {}

    def tell(index: int, outcome: Outcome) -> None:
        found[index] = outcome
        if on_progress is not None:
            on_progress(len(found), len(items), outcome.name, outcome.word)

    alone = [isinstance(item, Stray) and item.label is not None for item in items]
    for turn in (False, True):
        _take_some(work, {index: items[index] for index, later in enumerate(alone) if later == turn}, workers, tell)
    return [found[index] for index in range(len(items))]


def _take_some(
    work: Work, items: dict[int, Candidate | Stray], workers: int, tell: Callable[[int, Outcome], None]
) -> None:
    """Take the items in several threads; tell of each when it is done."""
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="ingest") as threads:
        futures = {threads.submit(take, work, item): index for index, item in items.items()}
        try:
            for future in as_completed(futures):
                tell(futures[future], future.result())
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _record(source: str, outcomes: list[Outcome], seconds: float) -> IngestRecord:
    added = [outcome.scene_id for outcome in outcomes if outcome.scene == "added" and outcome.scene_id]
    return IngestRecord(
        source=source,
        added=list(dict.fromkeys(added)),
        labelled=[outcome.label_id for outcome in outcomes if outcome.label_id],
        known=sum(outcome.scene == "known" for outcome in outcomes),
        quarantined=[one for outcome in outcomes for one in outcome.quarantined],
        still_quarantined=sum(outcome.still_quarantined for outcome in outcomes),
        seconds=round(seconds, 3),
    )


def _checked_bands(bands: Sequence[str] | None) -> tuple[str | None, ...] | None:
    if not bands:
        return None
    unknown = [band for band in bands if band != NOT_WANTED and band not in BAND_NAMES]
    if unknown:
        raise InputError(
            "unknown bands", subject="--bands", found=", ".join(unknown), expected=", ".join((*BAND_NAMES, NOT_WANTED))
        )
    return tuple(None if band == NOT_WANTED else band for band in bands)
