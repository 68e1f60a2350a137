"""Routes of files: a published object by id and asset name, or by its key in the store, with ranges."""

import mimetypes
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Path
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from cloudseg import keys
from cloudseg.catalog import tables as t
from cloudseg.errors import NotInCatalog
from cloudseg.records import StoredObject
from cloudseg.serve.context import BRIEF, Context, ItemId, cache_headers, is_cached
from cloudseg.serve.tiles import find_item
from cloudseg.storage.local import LocalStore
from cloudseg.storage.s3 import S3Store

PUBLISHED: Final = ("scenes/", "masks/", "models/", "snapshots/", keys.STAC_PREFIX)
"""Prefixes of what the STAC catalog refers to. Labels, chips, checkpoints and reports are not handed out."""
_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_TYPES: Final = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".qml": "application/xml",
    ".webp": "image/webp",
}
AssetName = Annotated[str, Path(pattern=r"^[a-z0-9_]{1,40}$")]


def add_files(app: FastAPI, context: Context) -> None:
    """Add the routes to an application."""
    router = APIRouter(tags=["Files"])

    @router.head("/assets/{item_id}/{name}", include_in_schema=False)
    @router.get("/assets/{item_id}/{name}")
    def asset(request: Request, item_id: ItemId, name: AssetName) -> Response:
        stored = _asset(context, item_id, name)
        return _respond(request, context, stored.key, stored.sha256, f"{item_id}_{name}")

    @router.head("/store/{key:path}", include_in_schema=False)
    @router.get("/store/{key:path}")
    def stored_object(request: Request, key: str) -> Response:
        if not keys.is_key(key) or not key.startswith(PUBLISHED) or not _may_be_published(context, key):
            raise NotInCatalog("no such object", subject=key[:100])
        return _respond(request, context, key, None, None)

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


def _respond(request: Request, context: Context, key: str, sha256: str | None, name: str | None) -> Response:
    """Return an object, or the part of it that a range asks for.

    Raises:
        ObjectMissing: the store lacks it.
    """
    size, written_at = context.store.stat(key)
    etag = (sha256 or keys.sha256_of(f"{key} {size} {written_at.timestamp()}".encode()))[:32]
    # Documents of the STAC catalog and the champion's pointer are replaced; everything else is named by its content.
    brief = key.startswith(keys.STAC_PREFIX) or key in keys.REPLACED
    headers = cache_headers(etag, brief=brief)
    if brief:
        headers["Cache-Control"] = BRIEF
    if is_cached(request, etag):
        return Response(status_code=304, headers=headers)
    ending = key[key.rfind(".") :]
    media_type = _TYPES.get(ending) or mimetypes.guess_type(key)[0] or "application/octet-stream"
    if media_type in ("text/html", "image/svg+xml"):
        media_type = "application/octet-stream"  # nothing of the store runs in the page's origin
    if name is not None:
        headers["Content-Disposition"] = f'attachment; filename="{name}{ending}"'
    store: Any = context.store
    if isinstance(store, LocalStore):
        return FileResponse(store.gdal_path(key).path, media_type=media_type, headers=headers)
    if isinstance(store, S3Store):
        return _from_bucket(request, store, key, size, headers | {"Content-Type": media_type})
    raise NotInCatalog("the store hands out no files", subject=key)


def _from_bucket(request: Request, store: S3Store, key: str, size: int, headers: dict[str, str]) -> Response:
    """Return an object of a bucket as a stream. Several ranges at once are answered with the whole object."""
    begin, end, status = 0, size - 1, 200
    condition = request.headers.get("if-range")
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked and asked[1] + asked[2] and (condition is None or condition == headers["ETag"]):
        begin = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        end = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
        if begin > end:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
        status = 206
    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(end - begin + 1 if size else 0)}
    if request.method == "HEAD" or size == 0:
        return Response(status_code=status, headers=headers)
    return StreamingResponse(_chunks(store, key, begin, end), status_code=status, headers=headers)


def _chunks(store: S3Store, key: str, begin: int, end: int) -> Iterator[bytes]:
    answer = store.bucket.call("get_object", store.prefix + keys.checked(key), Range=f"bytes={begin}-{end}")
    body = answer["Body"]
    try:
        yield from body.iter_chunks(1 << 18)
    finally:
        body.close()
