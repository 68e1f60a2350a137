"""Stage: bring tiles and labels of a source into the catalog."""

from pathlib import Path

from cloudseg.errors import SettingsError
from cloudseg.records import IngestRecord
from cloudseg.runtime import Runtime, open_runtime, s3_options
from cloudseg.stages import log


def ingest(
    source: str | None = None, *, layout: str | None = None, bands: list[str] | None = None, dry_run: bool = False
) -> IngestRecord:
    """Validate, store and catalog every scene and label under `source`; None means the inbox of the settings.

    `layout` names one instead of trying all; `bands` names the bands of files that do not say. Bad files go to
    quarantine and never stop the others. Running twice adds nothing the second time; `dry_run` writes nothing.
    """
    from cloudseg.ingest import DecodeLimits, ingest_source

    runtime = open_runtime()
    settings = runtime.settings
    where = source or _inbox(runtime)
    log.started("ingest", source=where, layout=layout, bands=bands, dry_run=dry_run)
    limits = DecodeLimits(
        timeout_s=settings.decode_timeout_s, memory_mb=settings.decode_memory_mb, max_pixels=settings.max_scene_pixels
    )
    record = ingest_source(
        runtime.store,
        runtime.catalog,
        where,
        layout=layout,
        bands=bands,
        limits=limits,
        workers=runtime.threads,
        on_progress=log.progress("ingest"),
        dry_run=dry_run,
        s3=s3_options(settings),
    )
    log.ended("ingest", record)
    return record


def _inbox(runtime: Runtime) -> str:
    """Return the inbox; a folder that is not there yet is made, for an empty inbox is no error."""
    if "://" not in runtime.inbox:
        try:
            Path(runtime.inbox).mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            return runtime.inbox  # a single file is an inbox too
        except OSError as error:
            raise SettingsError(
                "the inbox cannot be made",
                subject=runtime.inbox,
                found=error.strerror,
                next_step="Set CLOUDSEG_INBOX to a folder.",
            ) from error
    return runtime.inbox
