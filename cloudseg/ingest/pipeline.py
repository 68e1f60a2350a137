"""Ingest of a whole inbox: bytes first, row last; a bad file never stops the others.

Known bytes are recognized by their hash and not decoded again, so the whole inbox may be ingested every few minutes.
After a kill at any point, the next ingest completes the work; two concurrent ones add everything exactly once.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final

from cloudseg.bands import BAND_NAMES
from cloudseg.catalog import Catalog
from cloudseg.errors import InputError
from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.context import IngestContext, Outcome
from cloudseg.ingest.inbox import NoInbox, open_inbox
from cloudseg.ingest.inbox_file import escape_name
from cloudseg.ingest.ingest_candidate import ingest_candidate
from cloudseg.ingest.job import DecodeLimits
from cloudseg.ingest.label_life import EVERY_INBOX
from cloudseg.ingest.layouts import find_candidates
from cloudseg.ingest.pool import DecoderPool
from cloudseg.ingest.stac_source.find_items import PREFIX, source_url
from cloudseg.ingest.stac_source.options import StacOptions
from cloudseg.records import IngestRecord
from cloudseg.scratch import scratch_directory
from cloudseg.storage import S3Options, Store

log = logging.getLogger(__name__)
SKIP_BAND: Final = "-"
"""Placeholder in `--bands` for a band of the file that is not wanted."""

STAC_LAYOUT: Final = "stac"

OnProgress = Callable[[int, int, str, str], object]
"""Called with done, total, the scene's name and its status ('added', 'known', 'removed', 'labelled', 'quarantined')."""


def ingest_source(
    store: Store,
    catalog: Catalog,
    source: str,
    *,
    layout: str | None = None,
    bands: Sequence[str] | None = None,
    limits: DecodeLimits,
    workers: int,
    on_progress: OnProgress | None = None,
    dry_run: bool = False,
    s3: S3Options | None = None,
    trusted_inboxes: Sequence[str] = (EVERY_INBOX,),
    stac: StacOptions | None = None,
) -> IngestRecord:
    """Add every scene and label of a source to the catalog.

    A second ingest of the same files adds nothing and decodes nothing.

    Args:
        store: Destination of the canonical rasters.
        catalog: Destination of the rows.
        source: A folder, `store://prefix`, `s3://bucket/prefix`, or `stac+https://…` of a STAC API or catalog.
        layout: Use only the layout of this name; None: try all.
        bands: Names of the bands of multi-band files, `-` for one that is not wanted; selects the bands of scenes with
            one file per band.
        limits: What decoding one scene may cost.
        workers: Number of decoder processes and threads.
        on_progress: Called after every scene.
        dry_run: Decode and check everything but write nothing.
        s3: Credentials and endpoint for `s3://` sources.
        trusted_inboxes: Prefixes of inboxes whose first label of a scene is accepted at once; `*`: all.
        stac: Which items of a STAC source are wanted, and where unfinished copies are kept.

    Raises:
        InputError: There is no such source, band or layout.
        StoreError: The store is not available.
        CatalogUnreachable: The catalog is not available.
    """
    begun = time.monotonic()
    if (url := source_url(source)) is not None:
        return _ingest_stac(store, catalog, url, stac, layout, bands, limits, workers, on_progress, dry_run)
    inbox = open_inbox(source, store, s3 or S3Options())
    items = find_candidates(inbox, layout=layout, bands=parse_bands(bands))
    with (
        scratch_directory("ingest") as folder,
        DecoderPool(limits, min(max(1, workers), max(1, len(items))), folder) as decoders,
    ):
        context = IngestContext(store, catalog, inbox, decoders, limits, folder, dry_run, tuple(trusted_inboxes))
        outcomes = _ingest_all(context, items, workers, on_progress)
    record = _to_record(inbox.uri, outcomes, time.monotonic() - begun)
    _log_record(record)
    if not items:
        log.info("no rasters or labels found in %s", inbox.uri)
    return record


def _ingest_stac(
    store: Store,
    catalog: Catalog,
    url: str,
    options: StacOptions | None,
    layout: str | None,
    bands: Sequence[str] | None,
    limits: DecodeLimits,
    workers: int,
    on_progress: OnProgress | None,
    dry_run: bool,
) -> IngestRecord:
    """Ingest the items of a STAC source; see `ingest_source`."""
    from cloudseg.ingest.stac_source.run import ingest_items

    begun = time.monotonic()
    if layout not in (None, STAC_LAYOUT):
        raise InputError(
            "a STAC source has a layout of its own", subject="--layout", found=layout, expected=STAC_LAYOUT
        )
    if options is None:
        raise InputError("a STAC source needs a folder for unfinished copies", subject=url)
    outcomes: list[Outcome] = []

    def record_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if on_progress is not None:
            on_progress(len(outcomes), len(outcomes), outcome.name, outcome.status)

    with scratch_directory("ingest") as folder, DecoderPool(limits, max(1, workers), folder) as decoders:
        context = IngestContext(store, catalog, NoInbox(f"{PREFIX}{url}"), decoders, limits, folder, dry_run)
        threads = max(1, workers, options.http.connections)
        ingest_items(context, url, options, bands=parse_bands(bands), threads=threads, on_outcome=record_outcome)
    record = _to_record(escape_name(context.inbox.uri), outcomes, time.monotonic() - begun)
    _log_record(record)
    if not outcomes:
        log.info("no item of %s is wanted", record.source)
    return record


def _log_record(record: IngestRecord) -> None:
    log.info(
        "%d scenes and %d labels added, %d scenes known, %d files newly quarantined%s",
        len(record.added),
        len(record.labelled),
        record.known,
        len(record.quarantined),
        " (see `cloudseg quarantine`)" if record.quarantined else "",
    )
    if record.empty_layers:
        log.info(
            "nothing drawn yet, passed over: %d label layers (%s)",
            len(record.empty_layers),
            ", ".join(record.empty_layers[:5]),
        )
    for note in record.notes:
        log.info("%s", note)


def _ingest_all(
    context: IngestContext, items: list[Candidate | UnmatchedFile], workers: int, on_progress: OnProgress | None
) -> list[Outcome]:
    """Return the outcomes in the order of the items.

    Labels without a scene next to them are ingested last, when every scene of this inbox is in the catalog.
    """
    outcomes: dict[int, Outcome] = {}

    def record_outcome(index: int, outcome: Outcome) -> None:
        outcomes[index] = outcome
        if on_progress is not None:
            on_progress(len(outcomes), len(items), outcome.name, outcome.status)

    is_label_only = [isinstance(item, UnmatchedFile) and item.label is not None for item in items]
    for labels in (False, True):
        batch = {index: items[index] for index, label_only in enumerate(is_label_only) if label_only == labels}
        _ingest_batch(context, batch, workers, record_outcome)
    return [outcomes[index] for index in range(len(items))]


def _ingest_batch(
    context: IngestContext,
    items: dict[int, Candidate | UnmatchedFile],
    workers: int,
    record_outcome: Callable[[int, Outcome], None],
) -> None:
    """Ingest the items in several threads and call `record_outcome` as each completes."""
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="ingest") as threads:
        futures = {threads.submit(ingest_candidate, context, item): index for index, item in items.items()}
        try:
            for future in as_completed(futures):
                record_outcome(futures[future], future.result())
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _to_record(source: str, outcomes: list[Outcome], seconds: float) -> IngestRecord:
    added = [outcome.scene_id for outcome in outcomes if outcome.scene == "added" and outcome.scene_id]
    return IngestRecord(
        source=source,
        added=list(dict.fromkeys(added)),
        labelled=[outcome.label_id for outcome in outcomes if outcome.label_id],
        proposed=[outcome.label_id for outcome in outcomes if outcome.label_id and outcome.proposed],
        notes=[note for outcome in outcomes for note in outcome.notes],
        known=sum(outcome.scene == "known" for outcome in outcomes),
        removed=sum(outcome.scene == "removed" for outcome in outcomes),
        quarantined=[entry_id for outcome in outcomes for entry_id in outcome.quarantined],
        empty_layers=[outcome.empty_layer for outcome in outcomes if outcome.empty_layer],
        still_quarantined=sum(outcome.still_quarantined for outcome in outcomes),
        seconds=round(seconds, 3),
    )


def parse_bands(bands: Sequence[str] | None) -> tuple[str | None, ...] | None:
    """Return the band names with None for `-`; None if no bands are given.

    Raises:
        InputError: A band is not in `bands.BAND_NAMES`.
    """
    if not bands:
        return None
    unknown = [band for band in bands if band != SKIP_BAND and band not in BAND_NAMES]
    if unknown:
        raise InputError(
            "unknown bands", subject="--bands", found=", ".join(unknown), expected=", ".join((*BAND_NAMES, SKIP_BAND))
        )
    return tuple(None if band == SKIP_BAND else band for band in bands)
