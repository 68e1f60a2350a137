"""The pages of masks: those that a filter leaves, scenes that wait for one, and one mask with its lineage."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from cloudseg_ui.downloads import list_downloads, mask_objects
from cloudseg_ui.mask_filter import MaskFilter, understand
from cloudseg_ui.paging import SIZE, TokenPaging
from cloudseg_ui.shell import FOR_A_DAY, Render, Values
from fastapi import FastAPI, Query, Request, Response
from pydantic import Field
from sqlalchemy import Connection

from cloudseg.catalog import mask_search, model_rows, scene_rows
from cloudseg.catalog.lineage import lineage_of_mask
from cloudseg.catalog.mask_query import NEWEST_FIRST, Found
from cloudseg.catalog.session import now
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.raster.brightness import radiometry_of
from cloudseg.records import Promise, Promotion
from cloudseg.runtime import Runtime


class Asked(MaskFilter):
    """The address of a page of masks."""

    after: Annotated[str, Field(max_length=2000)] = ""
    """Token of the page before."""
    seen: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Rows of the pages before."""


def masks(runtime: Runtime, asked: Asked) -> Values:
    """Return one page of what a filter leaves, newest first; a filter that is not understood leaves nothing."""
    typed = asked.model_dump(include=set(MaskFilter.model_fields))
    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
        try:
            wanted = understand(db, asked)
            page = mask_search.search(db, wanted.query, limit=SIZE, token=asked.after or None)
        except (InputError, NotInCatalog) as error:
            return {"asked": typed, "paging": TokenPaging(0, 0, None, filters=typed), "error": error, "rows": []}
        paging = TokenPaging(asked.seen, len(page.rows), page.token, filters=typed)
        if not paging.active:
            paging = replace(paging, total=mask_search.count_every_mask(db))
        return {
            "asked": typed,
            "at": now(),
            "error": None,
            "paging": paging,
            "words": wanted.words,
            "by_acquisition": wanted.query.sort == NEWEST_FIRST,
            "waits_for": wanted.waits_for,
            "has_champion": champion is not None,
            "rows": page.rows if wanted.waits_for else [card(row, champion) for row in page.rows],
        }


def newest_masks(db: Connection, champion: Promotion | None, limit: int) -> list[Values]:
    """Return the cards of the masks that were made last."""
    found = mask_search.search(db, understand(db, MaskFilter()).query, limit=limit)
    return [card(row, champion) for row in found.rows]


def card(found: Found, champion: Promotion | None) -> Values:
    """Return what a card of the gallery shows."""
    is_champions = (
        found.weights is not None and champion is not None and champion.weights_id == found.weights.weights_id
    )
    return {"mask": found.mask, "scene": found.scene, "is_champions": is_champions}


def mask(runtime: Runtime, mask_id: str) -> Values:
    """Return a mask with its lineage.

    Raises:
        NotInCatalog: the mask is unknown.
    """
    with runtime.catalog.read() as db:
        found = model_rows.get_mask(db, mask_id)
        scene = scene_rows.get_scene(db, found.scene_id)
        weights = model_rows.get_weights(db, found.weights_id)
        line = lineage_of_mask(db, mask_id)
    splits: dict[str, int] = {}
    for label in line["labels"]:
        splits[label["split"]] = splits.get(label["split"], 0) + 1
    notes = {
        name: scene.tags[name] for name in ("synthetic", "georeference", "source", "warped") if scene.tags.get(name)
    }
    return {
        "mask": found,
        "missing_bands": weights.missing_bands(scene.bands),
        "radiometry": radiometry_of(weights.metadata, found.brightness),
        "promise": Promise.model_validate(found.promise).sentences() if found.promise else {},
        "line": line,
        "splits": splits,
        "notes": notes,
        "publishable": scene.publishable,
        "acquired_at": scene.acquired_at,
        "files": list_downloads(runtime.store, f"/masks/{mask_id}", mask_id, mask_objects(found)),
    }


def thumbnail(runtime: Runtime, mask_id: str) -> tuple[bytes, str]:
    """Return the thumbnail of a mask and its media type: WebP, or PNG for a mask of an earlier release.

    Raises:
        NotInCatalog: the mask is unknown.
        ObjectMissing: the store lacks the thumbnail.
        ObjectCorrupt: its bytes do not match their checksum.
    """
    with runtime.catalog.read() as db:
        stored = model_rows.get_mask(db, mask_id).companions["thumbnail"]
    media_type = "image/webp" if stored["key"].endswith(".webp") else "image/png"
    return runtime.store.get(stored["key"], stored["sha256"]), media_type


def add_masks(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the pages to an app that has the login as a dependency of every route."""

    @app.get("/masks")
    def masks_page(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        found = masks(runtime(), asked)
        answer = render(request, "masks.html", found)
        answer.status_code = found["error"].http_status if found["error"] else answer.status_code
        return answer

    @app.get("/masks/{mask_id}")
    def mask_page(request: Request, mask_id: str) -> Response:
        return render(request, "mask.html", mask(runtime(), mask_id))

    @app.get("/masks/{mask_id}/thumbnail")
    def thumbnail_picture(mask_id: str) -> Response:
        content, media_type = thumbnail(runtime(), mask_id)
        return Response(content, media_type=media_type, headers=FOR_A_DAY)
