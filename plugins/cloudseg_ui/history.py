"""The page of what was decided: promotions, rollbacks, verdicts, approvals, switches of readers."""

from collections.abc import Callable
from typing import Annotated

from cloudseg_ui.paging import PageNumber, Paging
from cloudseg_ui.shell import Render, Values
from cloudseg_ui.weights import reasons
from fastapi import FastAPI, Query, Request, Response

from cloudseg.catalog import model_rows
from cloudseg.catalog.history import KINDS, list_events
from cloudseg.runtime import Runtime


def history(runtime: Runtime, page: int, kind: str = "", actor: str = "") -> Values:
    """Return one page of what was decided, newest first.

    Args:
        runtime: catalog and store.
        page: number of the page.
        kind: only these; empty: all.
        actor: only by people whose name has this text in it; empty: all.
    """
    with runtime.catalog.read() as db:
        every = list_events(db)
        wanted = [event for event in every if kind in ("", event.kind) and actor.casefold() in event.actor.casefold()]
        paging = Paging(page, len(wanted), filters={"kind": kind, "actor": actor})
        shown = wanted[paging.offset : paging.offset + paging.size]
        versions = model_rows.list_versions(db)
        verdict_ids = {event.verdict_id for event in shown if event.verdict_id}
        why = {key: reasons(model_rows.get_verdict(db, key)) for key in verdict_ids}
    kinds = [("", "all"), *KINDS.items()]
    return {
        "events": shown,
        "versions": versions,
        "why": why,
        "paging": paging,
        "asked": {"kind": kind, "actor": actor},
        "kinds": kinds,
        "words": KINDS,
        "any": bool(every),
    }


def add_history(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the page to an app that has the login as a dependency of every route."""

    @app.get("/history")
    def history_page(
        request: Request,
        page: PageNumber = 1,
        kind: Annotated[str, Query(pattern=f"^({'|'.join(KINDS)}|)$")] = "",
        actor: Annotated[str, Query(max_length=100)] = "",
    ) -> Response:
        return render(request, "history.html", history(runtime(), page, kind, actor.strip()))
