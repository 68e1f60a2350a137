"""The whole way of an inbox into the catalog: bytes first, row last, one bad tile never stops the others.

Known bytes are recognised by their hash and not decoded again, so the whole inbox may be ingested every few minutes.
Killed anywhere, the next ingest finishes the work; two at once add everything exactly once.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
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
from cloudseg.storage import Store

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
) -> IngestRecord:
    """Bring every scene and label below a folder, or below `store://prefix`, into the catalog.

    `layout` asks only that one; `bands` names the bands of multi-band files, `-` for one that is not wanted, or picks
    bands of one-file-a-band scenes. `workers` processes decode at once, each within `limits`. A second ingest of the same
    files adds nothing and decodes nothing. A dry run decodes and checks everything but writes nothing.
    Raises InputError for no such source, unknown bands or layout; StoreError, CatalogUnreachable.
    """
    begun = time.monotonic()
    inbox = open_inbox(source, store)
    items = find_candidates(inbox, layout=layout, bands=_checked_bands(bands))
    with (
        tempfile.TemporaryDirectory(prefix="cloudseg-ingest-") as folder,
        DecoderPool(limits, min(max(1, workers), max(1, len(items)))) as decoders,
    ):
        work = Work(store, catalog, inbox, decoders, limits, Path(folder), dry_run)
        outcomes = _take_all(work, items, workers, on_progress)
    record = _record(inbox.uri, outcomes, time.monotonic() - begun)
    log.info("%d scenes added, %d known, %d newly quarantined", len(record.added), record.known, len(record.quarantined))
    return record


def _take_all(work: Work, items: list[Candidate | Stray], workers: int, on_progress: Progress | None) -> list[Outcome]:
    """Give the outcomes in the order of the items, whichever ends first."""
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="ingest") as threads:
        futures: dict[Future[Outcome], int] = {threads.submit(take, work, item): index for index, item in enumerate(items)}
        found: dict[int, Outcome] = {}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                outcome = found[futures[future]] = future.result()
                if on_progress is not None:
                    on_progress(done, len(items), outcome.name, outcome.word)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return [found[index] for index in range(len(items))]


def _record(source: str, outcomes: list[Outcome], seconds: float) -> IngestRecord:
    added = [outcome.scene_id for outcome in outcomes if outcome.scene == "added" and outcome.scene_id]
    return IngestRecord(
        source=source, added=list(dict.fromkeys(added)), labelled=[outcome.label_id for outcome in outcomes if outcome.label_id],
        known=sum(outcome.scene == "known" for outcome in outcomes),
        quarantined=[one for outcome in outcomes for one in outcome.quarantined],
        still_quarantined=sum(outcome.still_quarantined for outcome in outcomes), seconds=round(seconds, 3),
    )  # fmt: skip


def _checked_bands(bands: Sequence[str] | None) -> tuple[str | None, ...] | None:
    if not bands:
        return None
    unknown = [band for band in bands if band != NOT_WANTED and band not in BAND_NAMES]
    if unknown:
        raise InputError("unknown bands", subject="--bands", found=", ".join(unknown), expected=", ".join((*BAND_NAMES, NOT_WANTED)))
    return tuple(None if band == NOT_WANTED else band for band in bands)
