"""Files of models, masks and scenes: the stored bytes, compared while they are sent, under a safe name."""

import base64
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from cloudseg.runtime import Runtime
from cloudseg.serve.object_response import CHUNK

LARGE = bytes(range(256)) * 3 * (CHUNK // 256) + b"end"
LOGIN = {"Authorization": "Bearer good"}


@pytest.fixture
def large(filled: Runtime) -> Runtime:
    """A model with a weights file of four chunks."""
    stored = filled.store.put("models/aa/large.safetensors", LARGE)
    with filled.catalog.begin() as db:
        row = (stored.key, stored.sha256, stored.size)
        db.exec_driver_sql("UPDATE weights SET key = ?, sha256 = ?, size = ? WHERE weights_id = 'w-1'", row)
    return filled


def damage(runtime: Runtime, key: str) -> None:
    path = Path(runtime.store.gdal_path(key).path)
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_large_file_has_the_bytes_of_its_checksum(client: TestClient, large: Runtime):
    answer = client.get("/weights/w-1/files/weights")
    assert answer.content == LARGE
    digest = base64.b64encode(hashlib.sha256(LARGE).digest()).decode()
    assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert answer.headers["content-length"] == str(len(LARGE))
    assert answer.headers["content-disposition"] == 'attachment; filename="w-1_weights.safetensors"'
    assert answer.headers["cache-control"].startswith("private")
    part = client.get("/weights/w-1/files/weights", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, LARGE[10:20])


@contextmanager
def served(app: object) -> Iterator[str]:
    """Serve an app on a free port of this machine; the test client would hide how a connection ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def test_a_damaged_file_is_never_sent_whole(client: TestClient, large: Runtime):
    with served(client.app) as address:
        url = f"{address}/weights/w-1/files/weights"
        assert httpx.get(url, headers=LOGIN).content == LARGE
        damage(large, "models/aa/large.safetensors")
        with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
            httpx.get(url, headers=LOGIN)
    damage(large, "masks/w-1/1.tif")
    answer = client.get("/masks/mk-1/files/mask")
    assert answer.status_code == 500, "a small file is compared before anything is sent"
    assert "do not match" in answer.text


def test_the_files_of_a_mask_and_its_scene(client: TestClient, filled: Runtime):
    page = client.get("/masks/mk-1").text
    assert 'href="/masks/mk-1/files/mask"' in page
    assert 'href="/masks/mk-1/files/thumbnail"' in page
    assert f"cp {filled.store.gdal_path('masks/w-1/1.tif').path} mk-1_mask.tif" in page
    answer = client.get("/masks/mk-1/files/mask")
    assert answer.content == b"mask1"
    assert answer.headers["content-type"].startswith("image/tiff")
    scene = "/scenes/sc-00000000000000000001/files/image"
    assert f'href="{scene}"' in page
    assert client.get(scene).content == b"scene"
    with filled.catalog.begin() as db:
        db.exec_driver_sql("UPDATE scene SET publishable = 0")
    assert client.get(scene).status_code == 404
    assert scene not in client.get("/masks/mk-1").text


def test_a_report_opens_alone_in_a_sandbox_and_downloads_as_a_file(client: TestClient, filled: Runtime):
    page = client.get("/weights/w-1").text
    assert 'href="/weights/w-1/report" data-airflow' in page, "a frame of Airflow opens no window"
    assert 'href="/weights/w-1/files/report"' in page
    answer = client.get("/weights/w-1/files/report")
    assert b"<h1>Report</h1>" in answer.content
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="w-1_report.html"'
    assert client.get("/weights/w-1/report").headers["content-security-policy"].startswith("sandbox")
    assert "files/report" not in client.get("/weights/w-2").text
    assert client.get("/weights/w-2/files/report").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/weights/w-1/files/nothing",
        "/weights/w-9/files/weights",
        "/weights/w-1/files/..%2Fcatalog.db",
        "/masks/mk-9/files/mask",
        "/masks/w-1/files/mask",
        "/masks/mk-1/files/MASK",
        "/scenes/sc-9/files/image",
        "/scenes/sc-00000000000000000001/files/label",
    ],
)
def test_nothing_else_is_handed_out(client: TestClient, filled: Runtime, path: str):
    assert client.get(path).status_code in (404, 422)


@pytest.mark.parametrize("path", ["/weights/w-1/files/weights", "/masks/mk-1/files/mask", "/scenes/sc-1/files/image"])
def test_no_file_without_login(filled: Runtime, client_of: Callable[[Callable[[], Runtime]], TestClient], path: str):
    assert client_of(lambda: filled).get(path, headers={"Authorization": ""}).status_code == 401
