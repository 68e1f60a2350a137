"""Ingest of a STAC source: find items, ingest them in several threads, stop at the limit."""

import itertools
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from cloudseg.ingest.context import IngestContext, Outcome
from cloudseg.ingest.stac_source.fetch_item import remove_abandoned
from cloudseg.ingest.stac_source.find_items import FoundItem, ItemFinder
from cloudseg.ingest.stac_source.http_client import HttpClient
from cloudseg.ingest.stac_source.ingest_item import StacContext, ingest_item
from cloudseg.ingest.stac_source.options import StacOptions
from cloudseg.ingest.stac_source.signing import Signer

log = logging.getLogger(__name__)


def ingest_items(
    context: IngestContext,
    url: str,
    options: StacOptions,
    *,
    bands: tuple[str | None, ...] | None,
    threads: int,
    on_outcome: Callable[[Outcome], object],
) -> None:
    """Ingest the wanted items of a source, until so many were new as the limit allows.

    Args:
        context: What the ingest shares; its inbox is not used.
        url: Address of the catalog, without `stac+`.
        options: Which items are wanted.
        bands: Value of `--bands`.
        threads: Items at a time.
        on_outcome: Called after every item.

    Raises:
        InputError: The address is no STAC, or is not allowed, or does not answer.
        StoreError: The store is not available.
        CatalogUnreachable: The catalog is not available.
    """
    client = HttpClient(options.http)
    remove_abandoned(options.folder)
    shared = StacContext(context, client, Signer(client, options.http.token_url), options, bands)
    finder = ItemFinder(client, url, options.search)
    items = _distinct(finder.find())
    left = options.limit
    with ThreadPoolExecutor(threads, thread_name_prefix="stac") as pool:
        # Known items do not count, so a batch may leave room for more; its size bounds what runs after an error.
        try:
            while left > 0 and (batch := list(itertools.islice(items, min(left, 4 * threads)))):
                for outcome in pool.map(lambda found: ingest_item(shared, found), batch):
                    left -= outcome.scene not in ("known", "removed") and not outcome.still_quarantined
                    on_outcome(outcome)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if left <= 0:
        log.info("stopped after %d new items (--limit)", options.limit)
    for error in finder.unread:
        on_outcome(Outcome(error.subject, notes=[f"a part of the catalog could not be read: {error}"]))


def _distinct(items: Iterator[FoundItem]) -> Iterator[FoundItem]:
    """Yield the items, each address once: a page may repeat what the one before had."""
    seen: set[str] = set()
    for found in items:
        if found.uri not in seen:
            seen.add(found.uri)
            yield found
