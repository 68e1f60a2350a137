"""Hand out an object of the store as a stream: whole with its checksum compared, or the part that a range asks for.

Memory: a chunk. Used by `cloudseg serve` and by the pages in the Airflow UI.
"""

import base64
import hashlib
import logging
import mimetypes
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from cloudseg import keys
from cloudseg.errors import NotInCatalog, ObjectCorrupt
from cloudseg.serve.cache import BRIEF, cache_headers, is_cached
from cloudseg.storage import Store
from cloudseg.storage.local import LocalStore
from cloudseg.storage.protocol import compare
from cloudseg.storage.s3 import S3Store

log = logging.getLogger(__name__)
CHUNK: Final = 1 << 18
_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_TYPES: Final = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".qml": "application/xml",
    ".webp": "image/webp",
}


def object_response(request: Request, store: Store, key: str, sha256: str | None, name: str | None) -> Response:
    """Return an object, or the part of it that a range asks for.

    A whole object with a checksum is compared while it is sent. If it is damaged, its last chunk is never sent, so that
    the client sees a download that failed, and an error is logged; a small one is an error before anything is sent.

    Args:
        request: with range and conditions.
        store: holds the object.
        key: of the object.
        sha256: checksum in its row, None if no row holds one.
        name: of the file to save, without ending; None: the answer is to be shown.

    Raises:
        ObjectMissing: the store lacks it.
        ObjectCorrupt: a small object does not match its checksum.
    """
    size, written_at = store.stat(key)
    etag = (sha256 or keys.sha256_of(f"{key} {size} {written_at.timestamp()}".encode()))[:32]
    # Documents of the STAC catalog and the champion's pointer are replaced; everything else is named by its content.
    brief = key.startswith(keys.STAC_PREFIX) or key in keys.REPLACED
    headers = cache_headers(etag, brief=brief)
    if brief:
        headers["Cache-Control"] = BRIEF
    if is_cached(request, etag):
        return Response(status_code=304, headers=headers)
    headers["Content-Type"] = _media_type(key)
    if name is not None:
        headers["Content-Disposition"] = f'attachment; filename="{_file_name(key, name)}"'
    if request.method == "GET" and "range" not in request.headers and sha256 is not None:
        return _whole(store, key, sha256, size, headers)
    if isinstance(store, LocalStore):
        return FileResponse(store.gdal_path(key).path, headers=headers)
    if isinstance(store, S3Store):
        return _from_bucket(request, store, key, size, headers)
    raise NotInCatalog("the store hands out no files", subject=key)


def _media_type(key: str) -> str:
    ending = key[key.rfind(".") :]
    media_type = _TYPES.get(ending) or mimetypes.guess_type(key)[0] or "application/octet-stream"
    # Nothing of the store runs in the page's origin.
    return "application/octet-stream" if media_type in ("text/html", "image/svg+xml") else media_type


def _file_name(key: str, name: str) -> str:
    return f"{_UNSAFE.sub('_', name)[:150]}{_UNSAFE.sub('', key[key.rfind('.') :])}"


def _whole(store: Store, key: str, sha256: str, size: int, headers: dict[str, str]) -> Response:
    # RFC 9530: the checksum of the whole representation.
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    headers |= {"Repr-Digest": f"sha-256=:{digest}:", "Accept-Ranges": "bytes", "Content-Length": str(size)}
    if size <= CHUNK:
        return Response(store.get(key, sha256), headers=headers)
    chunks = _local_chunks(store, key) if isinstance(store, LocalStore) else _chunks(store, key, 0, size - 1)
    return StreamingResponse(_compared(chunks, key, sha256), headers=headers)


def _compared(chunks: Iterable[bytes], key: str, sha256: str) -> Iterator[bytes]:
    """Yield chunks, the last one only if all of them match the checksum.

    Raises:
        ObjectCorrupt: they do not.
    """
    found, held = hashlib.sha256(), b""
    for chunk in chunks:
        found.update(chunk)
        if held:
            yield held
        held = chunk
    try:
        compare(key, found.hexdigest(), sha256)
    except ObjectCorrupt as error:
        log.error("a download was broken off: %s", error)
        raise
    yield held


def _local_chunks(store: LocalStore, key: str) -> Iterator[bytes]:
    with open(store.gdal_path(key).path, "rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


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


def _chunks(store: Any, key: str, begin: int, end: int) -> Iterator[bytes]:
    answer = store.bucket.call("get_object", store.prefix + keys.checked(key), Range=f"bytes={begin}-{end}")
    body = answer["Body"]
    try:
        yield from body.iter_chunks(CHUNK)
    finally:
        body.close()
