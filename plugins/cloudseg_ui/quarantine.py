"""The pages of files in quarantine: by reason, of one reason, and one file.

Nothing is released here: the pages link to the decision `release` (`decide.py`).
"""

from collections.abc import Callable
from typing import Annotated, Final

from cloudseg_ui.paging import PageNumber, Paging
from cloudseg_ui.shell import Render, Values
from fastapi import FastAPI, Path, Request, Response

from cloudseg.catalog import quarantine_rows
from cloudseg.runtime import Runtime

_RELEASES: Final = 20
EntryId = Annotated[str, Path(max_length=100)]
"""Id of an entry: 'qu-' and hex digits; another one is answered with 404."""


def groups(runtime: Runtime) -> Values:
    """Return the quarantine by reason, and the newest releases."""
    with runtime.catalog.read() as db:
        return {
            "groups": quarantine_rows.list_groups(db),
            "total": quarantine_rows.count_quarantined(db),
            "releases": quarantine_rows.list_releases(db, limit=_RELEASES),
        }


def of_reason(runtime: Runtime, quarantine_id: str, page: int) -> Values:
    """Return one page of the files with the reason of an entry, newest first.

    Raises:
        NotInCatalog: there is no such entry, or it was released.
    """
    with runtime.catalog.read() as db:
        entry = quarantine_rows.get_quarantined(db, quarantine_id)
        paging = Paging(page, quarantine_rows.count_of_reason(db, entry.error, entry.what))
        return {
            "like": entry,
            "paging": paging,
            "entries": quarantine_rows.list_of_reason(
                db, entry.error, entry.what, limit=paging.size, offset=paging.offset
            ),
        }


def one(runtime: Runtime, quarantine_id: str) -> Values:
    """Return an entry with its earlier releases.

    Raises:
        NotInCatalog: there is no such entry, or it was released.
    """
    with runtime.catalog.read() as db:
        entry = quarantine_rows.get_quarantined(db, quarantine_id)
        return {
            "entry": entry,
            "alike": quarantine_rows.count_of_reason(db, entry.error, entry.what),
            "releases": quarantine_rows.list_releases(db, quarantine_id),
        }


def add_quarantine(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the pages to an app that has the login as a dependency of every route."""

    @app.get("/quarantine")
    def quarantine_page(request: Request) -> Response:
        return render(request, "quarantine.html", groups(runtime()))

    @app.get("/quarantine/{quarantine_id}")
    def entry_page(request: Request, quarantine_id: EntryId) -> Response:
        return render(request, "quarantine_entry.html", one(runtime(), quarantine_id))

    @app.get("/quarantine/{quarantine_id}/alike")
    def reason_page(request: Request, quarantine_id: EntryId, page: PageNumber = 1) -> Response:
        return render(request, "quarantine_reason.html", of_reason(runtime(), quarantine_id, page))
