"""Stage: add tiles and labels of a source to the catalog."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloudseg.errors import InputError, SettingsError
from cloudseg.records import IngestRecord
from cloudseg.runtime import Runtime, open_runtime, s3_options
from cloudseg.stages import log
from cloudseg.stages.stac import publish_stac

if TYPE_CHECKING:
    from cloudseg.ingest import DecodeLimits
    from cloudseg.ingest.stac_source.options import StacOptions
    from cloudseg.ingest.stac_source.search import Search


def ingest(
    source: str | None = None,
    *,
    layout: str | None = None,
    bands: list[str] | None = None,
    dry_run: bool = False,
    bbox: Sequence[float] | None = None,
    aoi: str | None = None,
    datetime: str | None = None,
    collections: Sequence[str] = (),
    max_cloud_cover: float | None = None,
    limit: int | None = None,
    whole: bool = False,
) -> IngestRecord:
    """Validate, store and catalog every scene and label of a source.

    Bad files are quarantined and never stop the others. Running it again adds nothing. The first label of a scene is
    accepted if its inbox is trusted (CLOUDSEG_TRUSTED_INBOXES); a correction waits for `accept_labels`.

    Args:
        source: A folder, `store://prefix` or `s3://bucket/prefix`, or `stac+https://…`: the landing page of a STAC
            API, a catalog, a collection or an item; None: the inbox of the settings.
        layout: Use only the layout of this name; None: try all.
        bands: Names of the bands of multi-band files, `-` for one that is not wanted.
        dry_run: Decode and check everything but write nothing; of a STAC source only list what would be fetched.
        bbox: STAC: west, south, east, north in degrees. Items that meet it, and of each only the part that it needs.
        aoi: STAC: the same by a GeoJSON file with polygons in longitude and latitude.
        datetime: STAC: a time, day, month or year, or two of them joined by `/`, `..` for an open end.
        collections: STAC: ids of collections; empty: all.
        max_cloud_cover: STAC: percent.
        limit: STAC: new items of this ingest at most; None: 100.
        whole: STAC: fetch whole files although an area is given.

    Raises:
        InputError: An argument is not valid, or an option of STAC is given for another source.
    """
    from cloudseg.ingest.pipeline import ingest_source
    from cloudseg.ingest.stac_source.search import make_search

    runtime = open_runtime()
    settings = runtime.settings
    inbox = source or _inbox(runtime)
    log.started("ingest", source=inbox, layout=layout, bands=bands, dry_run=dry_run)
    limits = decode_limits(runtime)
    stac = _stac_options(
        runtime,
        inbox,
        make_search(collections=collections, bbox=bbox, aoi=aoi, datetime=datetime, max_cloud_cover=max_cloud_cover),
        limit=limit,
        whole=whole,
    )
    record = ingest_source(
        runtime.store,
        runtime.catalog,
        inbox,
        layout=layout,
        bands=bands,
        limits=limits,
        # Each waits part of its time, for the disk and for processes to start. With one thread: one after the other.
        workers=runtime.threads + 1 if runtime.threads > 1 else 1,
        on_progress=log.progress("ingest"),
        dry_run=dry_run,
        s3=s3_options(settings),
        trusted_inboxes=settings.trusted_inboxes.split(),
        stac=stac,
    )
    if record.added and not dry_run:
        publish_stac(runtime, scene_ids=record.added)
    log.ended("ingest", record)
    return record


def _stac_options(
    runtime: Runtime, source: str, search: "Search", *, limit: int | None, whole: bool
) -> "StacOptions | None":
    """Return how a STAC source is read; None for another source.

    Raises:
        InputError: The limit is not positive, or an option of STAC is given for another source.
    """
    from cloudseg.ingest.stac_source.find_items import source_url
    from cloudseg.ingest.stac_source.hosts import HostPolicy
    from cloudseg.ingest.stac_source.http_client import HttpOptions
    from cloudseg.ingest.stac_source.options import DEFAULT_LIMIT, StacOptions
    from cloudseg.ingest.stac_source.search import Search

    if source_url(source) is None:
        if search != Search() or limit is not None or whole:
            raise InputError(
                "area, time, cloud cover, collections and limit choose items of a STAC source",
                subject=source,
                expected="stac+https://…",
                next_step="Leave these options out: every file of an inbox is ingested.",
            )
        return None
    if limit is not None and limit < 1:
        raise InputError("not a limit", subject="--limit", found=limit, expected="1 or more")
    settings = runtime.settings
    policy = HostPolicy(tuple(settings.stac_hosts.lower().split()), tuple(settings.stac_private_hosts.lower().split()))
    return StacOptions(
        (settings.stac_folder or runtime.home / "fetch").expanduser().absolute(),
        search,
        limit or DEFAULT_LIMIT,
        whole,
        min(settings.stac_max_item_mb << 20, settings.max_file_mb << 20),
        HttpOptions(policy, settings.stac_connections, settings.stac_timeout_s, token_url=settings.stac_token_url),
    )


def decode_limits(runtime: Runtime) -> "DecodeLimits":
    """Return what decoding one untrusted scene may cost by the settings."""
    from cloudseg.ingest import DecodeLimits

    settings = runtime.settings
    return DecodeLimits(
        timeout_s=settings.decode_timeout_s,
        memory_mb=settings.decode_memory_mb,
        max_pixels=settings.max_scene_pixels,
        max_bytes=settings.max_file_mb << 20,
        require_sandbox=settings.require_sandbox,
    )


def _inbox(runtime: Runtime) -> str:
    """Return the inbox of the settings. Create a missing folder, because an empty inbox is not an error.

    Raises:
        SettingsError: The folder cannot be created.
    """
    if "://" not in runtime.inbox:
        try:
            Path(runtime.inbox).mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            return runtime.inbox  # a single file
        except OSError as error:
            raise SettingsError(
                "the inbox folder cannot be created",
                subject=runtime.inbox,
                found=error.strerror,
                next_step="Set CLOUDSEG_INBOX to a folder.",
            ) from error
    return runtime.inbox
