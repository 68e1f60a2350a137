"""The contract of every store, tested for each kind. A new kind needs one line in `open_empty_store`."""

import multiprocessing
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import rasterio

from cloudseg.errors import ObjectCorrupt, ObjectExists, ObjectMissing
from cloudseg.keys import sha256_of
from cloudseg.raster.read import open_raster
from cloudseg.storage import LocalStore, Store

KINDS = ("local", "s3")
CONTEXT = multiprocessing.get_context("forkserver")
INVALID_KEYS = (
    "",
    "/",
    "/abs",
    "a//b",
    "a/",
    "../x",
    "a/../b",
    ".",
    "..",
    ".hidden",
    "a/.hidden",
    "UPPER",
    "a/B",
    "ü",
    "a b",
    "a\\b",
    "a\nb",
    "a\0b",
    "a?b",
    "%2e%2e",
    "-a",
    "_a",
    "x" * 201,
    "/".join(["abcdefgh"] * 60),
)


def open_empty_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if kind == "local":
        return LocalStore(tmp_path / "store")
    store: Store = request.getfixturevalue("s3_store")
    return store


@pytest.fixture(params=KINDS)
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_empty_store(request.param, request, tmp_path)


def test_put_then_get(any_store: Store):
    stored = any_store.put("scenes/ab/x.tif", b"bytes")
    assert (stored.key, stored.sha256, stored.size) == ("scenes/ab/x.tif", sha256_of(b"bytes"), 5)
    assert any_store.get("scenes/ab/x.tif") == b"bytes"
    assert any_store.get("scenes/ab/x.tif", sha256_of(b"bytes")) == b"bytes"


def test_empty_objects_are_objects(any_store: Store):
    any_store.put("a", b"")
    assert any_store.get("a") == b""
    assert any_store.exists("a")


def test_putting_the_same_bytes_again_changes_nothing(any_store: Store):
    assert any_store.put("a/b", b"one") == any_store.put("a/b", b"one")


def test_other_bytes_are_refused_and_change_nothing(any_store: Store):
    any_store.put("a/b", b"one")
    with pytest.raises(ObjectExists) as caught:
        any_store.put("a/b", b"two")
    assert caught.value.subject == "a/b"
    assert caught.value.found == sha256_of(b"one")
    assert caught.value.expected == sha256_of(b"two")
    assert any_store.get("a/b") == b"one"


def test_put_file_is_put(any_store: Store, tmp_path: Path):
    source = tmp_path / "source.bin"
    source.write_bytes(bytes(range(250)) * 12_000)
    stored = any_store.put_file("big/x.bin", source)
    assert (stored.size, stored.sha256) == (3_000_000, sha256_of(source.read_bytes()))
    assert any_store.get("big/x.bin") == source.read_bytes()
    assert any_store.put_file("big/x.bin", source) == stored
    source.write_bytes(b"other")
    with pytest.raises(ObjectExists):
        any_store.put_file("big/x.bin", source)


def test_put_file_without_file_leaves_nothing(any_store: Store, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        any_store.put_file("a", tmp_path / "absent")
    assert list(any_store.list_keys()) == []


def test_missing_objects_are_reported(any_store: Store):
    for read in (any_store.get, any_store.stat):
        with pytest.raises(ObjectMissing, match="a/b"):
            read("a/b")
    with pytest.raises(ObjectMissing), any_store.local_file("a/b"):
        pass
    assert not any_store.exists("a/b")
    any_store.delete("a/b")


def test_a_folder_of_keys_is_no_object(any_store: Store):
    any_store.put("a/b/c", b"x")
    assert not any_store.exists("a/b")
    for read in (any_store.get, any_store.stat):
        with pytest.raises(ObjectMissing):
            read("a/b")
    any_store.delete("a/b")
    assert any_store.get("a/b/c") == b"x"


def test_no_object_is_below_another(any_store: Store):
    any_store.put("a", b"x")
    assert not any_store.exists("a/b")
    with pytest.raises(ObjectMissing):
        any_store.get("a/b")


def test_corruption_is_detected(any_store: Store):
    any_store.replace("a", b"damaged")
    with pytest.raises(ObjectCorrupt) as caught:
        any_store.get("a", sha256_of(b"whole"))
    assert (caught.value.found, caught.value.expected) == (sha256_of(b"damaged"), sha256_of(b"whole"))


def test_stat_returns_size_and_time(any_store: Store):
    any_store.put("a", b"12345")
    size, written_at = any_store.stat("a")
    assert size == 5
    assert abs(datetime.now(UTC) - written_at) < timedelta(minutes=2)


def test_replace_creates_and_overwrites(any_store: Store):
    any_store.replace("models/champion.json", b"one")
    any_store.replace("models/champion.json", b"two")
    assert any_store.get("models/champion.json") == b"two"
    assert list(any_store.list_keys()) == ["models/champion.json"]


def test_compare_and_swap(any_store: Store):
    with pytest.raises((ObjectExists, ObjectMissing)):
        any_store.replace("pointer", b"one", expected=b"zero")
    assert not any_store.exists("pointer")
    any_store.replace("pointer", b"one")
    any_store.replace("pointer", b"two", expected=b"one")
    with pytest.raises(ObjectExists):
        any_store.replace("pointer", b"three", expected=b"one")
    assert any_store.get("pointer") == b"two"


def test_delete_frees_the_key(any_store: Store):
    any_store.put("a", b"one")
    any_store.delete("a")
    assert not any_store.exists("a")
    any_store.put("a", b"two")
    assert any_store.get("a") == b"two"


def test_list_is_sorted_and_by_prefix(any_store: Store):
    keys = ["a/b/1", "a/b/10", "a/b/2", "a/b.json", "a/c", "ab", "b/a"]
    for key in keys[::-1]:
        any_store.put(key, key.encode())
    assert list(any_store.list_keys()) == sorted(keys)
    assert list(any_store.list_keys("a/")) == sorted(key for key in keys if key.startswith("a/"))
    assert list(any_store.list_keys("a/b")) == ["a/b.json", "a/b/1", "a/b/10", "a/b/2"]
    assert list(any_store.list_keys("a/b/1")) == ["a/b/1", "a/b/10"]
    assert list(any_store.list_keys("zzz/")) == []


def test_lists_have_size_and_time(any_store: Store):
    any_store.put("a/b", b"12345")
    any_store.put("a/c", b"")
    listed = list(any_store.list_objects("a/"))
    assert [(entry.key, entry.size) for entry in listed] == [("a/b", 5), ("a/c", 0)]
    assert all(abs(datetime.now(UTC) - entry.written_at) < timedelta(minutes=2) for entry in listed)


@pytest.mark.parametrize("key", INVALID_KEYS)
def test_invalid_keys_never_reach_the_store(any_store: Store, tmp_path: Path, key: str):
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for attempt in (
        lambda: any_store.put(key, b"x"),
        lambda: any_store.put_file(key, source),
        lambda: any_store.replace(key, b"x"),
        lambda: any_store.get(key),
        lambda: any_store.stat(key),
        lambda: any_store.exists(key),
        lambda: any_store.delete(key),
        lambda: any_store.gdal_path(key),
        lambda: any_store.uri_of(key),
        lambda: any_store.link(key, 60),
    ):
        with pytest.raises(ValueError, match="not an object key"):
            attempt()
    assert list(any_store.list_keys()) == []


def test_local_file_has_the_bytes(any_store: Store):
    any_store.put("a/b.bin", b"some bytes")
    with any_store.local_file("a/b.bin") as path:
        assert path.read_bytes() == b"some bytes"


def test_a_local_file_is_compared_with_the_checksum_of_its_row(any_store: Store):
    stored = any_store.put("a/b.bin", b"some bytes")
    with any_store.local_file(stored.key, stored.sha256) as path:
        assert path.read_bytes() == b"some bytes"
    # Whoever changes an object may change the checksum in its metadata too: the row decides.
    changed = any_store.replace(stored.key, b"same bytes")
    with pytest.raises(ObjectCorrupt) as caught, any_store.local_file(stored.key, stored.sha256):
        pass
    assert (caught.value.subject, caught.value.found) == (stored.key, changed.sha256)
    assert caught.value.expected == stored.sha256


def test_gdal_opens_objects(any_store: Store, synthetic_folder: Path):
    image = next((synthetic_folder / "images").iterdir())
    any_store.put_file("scenes/ab/x.tif", image)
    with open_raster(any_store.gdal_path("scenes/ab/x.tif")) as through_store, rasterio.open(image) as plain:
        assert (through_store.read() == plain.read()).all()


def test_gdal_never_caches_what_was_missing(any_store: Store, synthetic_folder: Path):
    with pytest.raises(ObjectMissing, match="no object"), open_raster(any_store.gdal_path("scenes/ab/x.tif")):
        pass
    any_store.put_file("scenes/ab/x.tif", next((synthetic_folder / "images").iterdir()))
    with open_raster(any_store.gdal_path("scenes/ab/x.tif")) as dataset:
        assert dataset.count == 4


def test_an_object_that_is_no_raster_is_corrupt(any_store: Store):
    any_store.put("scenes/ab/x.tif", b"no raster")
    with (
        pytest.raises(ObjectCorrupt, match="not a readable GeoTIFF"),
        open_raster(any_store.gdal_path("scenes/ab/x.tif")),
    ):
        pass


def test_files_of_running_writers_are_not_cleared(any_store: Store):
    any_store.put("a", b"x")
    assert any_store.clear_abandoned() == 0
    assert any_store.get("a") == b"x"


def test_uris_contain_the_key(any_store: Store):
    assert any_store.uri_of("a/b.tif").startswith(any_store.uri)
    assert any_store.uri_of("a/b.tif").endswith("/a/b.tif")


# --- several processes ----------------------------------------------------------------------------------------------


def _credentials() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def _with_credentials(credentials: dict[str, str], task: object, *arguments: object) -> None:
    """Call `task` with the credentials of the test, which the fork server was started without."""
    os.environ.update(credentials)
    task(*arguments)


def _put_own(store: Store, key: str, number: int, gate: object, results: object) -> None:
    gate.wait()
    try:
        store.put(key, f"writer {number}".encode() * 5000)
        results.put(("won", number))
    except ObjectExists:
        results.put(("lost", number))


def _put_same(store: Store, key: str, number: int, gate: object, results: object) -> None:
    gate.wait()
    results.put(("won", store.put(key, b"same" * 5000).size))


def _swap(store: Store, key: str, number: int, gate: object, results: object) -> None:
    gate.wait()
    try:
        store.replace(key, f"writer {number}".encode(), expected=b"first")
        results.put(("won", number))
    except ObjectExists:
        results.put(("lost", number))


def _race(task: object, store: Store, key: str, writers: int) -> list[tuple[str, int]]:
    gate, results = CONTEXT.Barrier(writers), CONTEXT.Queue()
    processes = [
        CONTEXT.Process(target=_with_credentials, args=(_credentials(), task, store, key, number, gate, results))
        for number in range(writers)
    ]
    for process in processes:
        process.start()
    outcome = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return outcome


def test_of_twenty_writers_one_wins(any_store: Store):
    outcome = _race(_put_own, any_store, "race/x", 20)
    winners = [number for what, number in outcome if what == "won"]
    assert len(winners) == 1
    assert any_store.get("race/x") == f"writer {winners[0]}".encode() * 5000
    assert list(any_store.list_keys()) == ["race/x"]


def test_twenty_writers_of_the_same_bytes_all_win(any_store: Store):
    assert _race(_put_same, any_store, "race/y", 20) == [("won", 20_000)] * 20


def test_of_eight_swappers_one_wins(any_store: Store):
    any_store.put("pointer", b"first")
    winners = [number for what, number in _race(_swap, any_store, "pointer", 8) if what == "won"]
    assert len(winners) == 1
    assert any_store.get("pointer") == f"writer {winners[0]}".encode()


def _replace_repeatedly(store: Store, letters: bytes, stop: object) -> None:
    count = 0
    while not stop.is_set():
        store.replace("pointer", bytes([letters[count % len(letters)]]) * 100_000)
        count += 1


def test_readers_see_the_old_or_the_new_pointer(any_store: Store):
    any_store.replace("pointer", b"a" * 100_000)
    stop = CONTEXT.Event()
    writers = [
        CONTEXT.Process(target=_with_credentials, args=(_credentials(), _replace_repeatedly, any_store, letters, stop))
        for letters in (b"ab", b"cd")
    ]
    for writer in writers:
        writer.start()
    seen = set()
    for _ in range(300):
        data = any_store.get("pointer")
        assert len(data) == 100_000
        assert data == data[:1] * 100_000
        seen.add(data[:1])
    stop.set()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert seen <= {b"a", b"b", b"c", b"d"}
