"""Failures of a local store: killed writers, full disks, unexpected files, missing folders."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloudseg.errors import ObjectExists, SettingsError, StoreUnreachable
from cloudseg.storage import LocalStore, open_store

KILLED_IN_THE_MIDDLE = """
import sys, os, pathlib
from cloudseg.storage import LocalStore
store = LocalStore(pathlib.Path(sys.argv[1]))
os.mkfifo(sys.argv[2])
print("ready", flush=True)
if sys.argv[3] == "put_file":
    store.put_file("a/x.bin", pathlib.Path(sys.argv[2]))
else:
    os.fsync = lambda _: (print("syncing", flush=True), __import__("time").sleep(60))
    store.put("a/x.bin", b"1" * 1_000_000)
"""


def test_killed_while_copying_leaves_no_object(tmp_path: Path):
    root, pipe = tmp_path / "store", tmp_path / "pipe"
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_IN_THE_MIDDLE, root, pipe, "put_file"], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    feed = os.open(pipe, os.O_WRONLY)
    os.write(feed, b"half an object")
    _kill_when(lambda: any((root / ".incoming").iterdir()), writer)
    os.close(feed)
    _assert_no_object(root)


def test_killed_before_the_bytes_are_durable_leaves_no_object(tmp_path: Path):
    root = tmp_path / "store"
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_IN_THE_MIDDLE, root, tmp_path / "pipe", "put"], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert [writer.stdout.readline().strip() for _ in range(2)] == [b"ready", b"syncing"]
    _kill_when(lambda: True, writer)
    _assert_no_object(root)


def _kill_when(reached: object, writer: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    assert writer.wait(30) == -signal.SIGKILL
    writer.stdout.close()


def _assert_no_object(root: Path) -> None:
    store = LocalStore(root)
    assert list(store.list_keys()) == []
    assert not store.exists("a/x.bin")
    store.put("a/x.bin", b"the next writer")
    assert store.get("a/x.bin") == b"the next writer"


def test_abandoned_writes_are_deleted_after_a_day(tmp_path: Path):
    store = LocalStore(tmp_path)
    old, young = tmp_path / ".incoming" / "old", tmp_path / ".incoming" / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    assert store.clear_abandoned() == 1
    assert (old.exists(), young.exists()) == (False, True)
    assert list(store.list_keys()) == []


def test_a_full_disk_is_a_store_error_and_leaves_nothing(store: LocalStore):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for write in (store.put, store.replace):
            with pytest.raises(StoreUnreachable, match="writing to the store failed") as caught:
                write("a/x", b"1" * 200_000)
            assert caught.value.retry_helps
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(store.list_keys()) == []
    assert list((store.root / ".incoming").iterdir()) == []


def test_a_deleted_folder_is_a_store_error(store: LocalStore):
    shutil.rmtree(store.root)
    with pytest.raises(StoreUnreachable, match="cannot be written") as caught:
        store.put("a", b"x")
    assert caught.value.subject == store.uri


def test_a_root_that_is_a_file_is_a_store_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreUnreachable, match="cannot be created"):
            LocalStore(root)


def test_no_key_is_a_prefix_folder_of_another(store: LocalStore):
    store.put("a/b", b"x")
    with pytest.raises(ObjectExists, match="needs a directory"):
        store.put("a/b/c", b"x")
    with pytest.raises(ObjectExists, match="a folder of other objects"):
        store.put("a", b"x")
    assert list(store.list_keys()) == ["a/b"]


def test_unexpected_files_are_no_objects(store: LocalStore):
    store.put("a/b", b"x")
    for name in (".DS_Store", "a/Thumbs.db", "a/ü"):
        (store.root / name).write_bytes(b"")
    assert list(store.list_keys()) == ["a/b"]
    with pytest.raises(ValueError, match="not an object key"):
        store.list_keys("../")


def test_objects_are_readable_by_other_users(store: LocalStore):
    store.put("a", b"x")
    store.replace("b", b"x")
    assert [oct((store.root / name).stat().st_mode & 0o777) for name in ("a", "b")] == ["0o644", "0o644"]


def test_putting_the_same_bytes_again_updates_the_time(store: LocalStore):
    store.put("a", b"x")
    os.utime(store.root / "a", (0, 0))
    before = time.time() - 1  # file systems round
    store.put("a", b"x")
    assert store.stat("a")[1].timestamp() > before


def test_open_store_accepts_folders_and_file_urls(tmp_path: Path):
    for url in (str(tmp_path / "a"), (tmp_path / "a").as_uri(), f"file://localhost{tmp_path}/a"):
        assert open_store(url).uri == (tmp_path / "a").as_uri()
    assert open_store((tmp_path / "a ü?").as_uri()).uri == (tmp_path / "a ü?").as_uri()


def test_open_store_refuses_unsupported_schemes():
    with pytest.raises(SettingsError, match=r"CLOUDSEG_STORE_URL.*found ftp"):
        open_store("ftp://host/folder")
