"""Routes of files: a published object by id and asset name, or by its key in the store, with ranges."""

from typing import Annotated, Final

from fastapi import APIRouter, FastAPI, Path
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import Response

from cloudseg import keys
from cloudseg.catalog import tables as t
from cloudseg.errors import NotInCatalog
from cloudseg.records import StoredObject
from cloudseg.serve.context import Context, ItemId
from cloudseg.serve.object_response import object_response
from cloudseg.serve.tiles import find_item

PUBLISHED: Final = ("scenes/", "masks/", "models/", "snapshots/", keys.STAC_PREFIX)
"""Prefixes of what the STAC catalog refers to. Labels, chips, checkpoints and reports are not handed out."""
AssetName = Annotated[str, Path(pattern=r"^[a-z0-9_]{1,40}$")]


def add_files(app: FastAPI, context: Context) -> None:
    """Add the routes to an application."""
    router = APIRouter(tags=["Files"])

    @router.head("/assets/{item_id}/{name}", include_in_schema=False)
    @router.get("/assets/{item_id}/{name}")
    def asset(request: Request, item_id: ItemId, name: AssetName) -> Response:
        stored = _asset(context, item_id, name)
        return object_response(request, context.store, stored.key, stored.sha256, f"{item_id}_{name}")

    @router.head("/store/{key:path}", include_in_schema=False)
    @router.get("/store/{key:path}")
    def stored_object(request: Request, key: str) -> Response:
        if not keys.is_key(key) or not key.startswith(PUBLISHED) or not _may_be_published(context, key):
            raise NotInCatalog("no such object", subject=key[:100])
        return object_response(request, context.store, key, None, None)

    app.include_router(router)


def _may_be_published(context: Context, key: str) -> bool:
    """Return False for a scene that is kept for training only: its provider may not allow more."""
    if not key.startswith("scenes/"):
        return True
    s = t.scene.c
    with context.catalog.read() as db:
        return db.execute(select(s.scene_id).where(s.key == key, s.publishable).limit(1)).first() is not None


def _asset(context: Context, item_id: str, name: str) -> StoredObject:
    """Return the stored object of an asset.

    Raises:
        NotInCatalog: there is no such item or asset, or it is not published.
    """
    assets = _assets_of_weights(context, item_id) if item_id.startswith("w-") else _assets(context, item_id)
    if name not in assets:
        raise NotInCatalog("no such asset", subject=item_id, found=name, expected=", ".join(sorted(assets)))
    return assets[name]


def _assets(context: Context, item_id: str) -> dict[str, StoredObject]:
    found = find_item(context, item_id)
    assets = {"image": StoredObject(key=found.scene.key, sha256=found.scene.sha256, size=found.scene.size)}
    if found.mask is not None:
        mask = found.mask
        assets["mask"] = StoredObject(key=mask.key, sha256=mask.sha256, size=mask.size)
        assets |= {name: StoredObject.model_validate(stored) for name, stored in mask.companions.items()}
    return assets


def _assets_of_weights(context: Context, weights_id: str) -> dict[str, StoredObject]:
    w = t.weights.c
    with context.catalog.read() as db:
        row = db.execute(select(w.key, w.sha256, w.size, w.companions).where(w.weights_id == weights_id)).first()
    if row is None:
        raise NotInCatalog("no such weights", subject=weights_id)
    companions = {name: StoredObject.model_validate(stored) for name, stored in row.companions.items()}
    return {"weights": StoredObject(key=row.key, sha256=row.sha256, size=row.size), **companions}
