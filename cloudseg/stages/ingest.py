"""Stage: add tiles and labels of a source to the catalog."""

from pathlib import Path
from typing import TYPE_CHECKING

from cloudseg.errors import SettingsError
from cloudseg.records import IngestRecord
from cloudseg.runtime import Runtime, open_runtime, s3_options
from cloudseg.stages import log
from cloudseg.stages.stac import publish_stac

if TYPE_CHECKING:
    from cloudseg.ingest import DecodeLimits


def ingest(
    source: str | None = None, *, layout: str | None = None, bands: list[str] | None = None, dry_run: bool = False
) -> IngestRecord:
    """Validate, store and catalog every scene and label of a source.

    Bad files are quarantined and never stop the others. Running it again adds nothing. The first label of a scene is
    accepted if its inbox is trusted (CLOUDSEG_TRUSTED_INBOXES); a correction waits for `accept_labels`.

    Args:
        source: A folder, `store://prefix` or `s3://bucket/prefix`; None: the inbox of the settings.
        layout: Use only the layout of this name; None: try all.
        bands: Names of the bands of multi-band files, `-` for one that is not wanted.
        dry_run: Decode and check everything but write nothing.
    """
    from cloudseg.ingest.pipeline import ingest_source

    runtime = open_runtime()
    settings = runtime.settings
    inbox = source or _inbox(runtime)
    log.started("ingest", source=inbox, layout=layout, bands=bands, dry_run=dry_run)
    limits = decode_limits(runtime)
    record = ingest_source(
        runtime.store,
        runtime.catalog,
        inbox,
        layout=layout,
        bands=bands,
        limits=limits,
        workers=runtime.threads,
        on_progress=log.progress("ingest"),
        dry_run=dry_run,
        s3=s3_options(settings),
        trusted_inboxes=settings.trusted_inboxes.split(),
    )
    if record.added and not dry_run:
        publish_stac(runtime, scene_ids=record.added)
    log.ended("ingest", record)
    return record


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
