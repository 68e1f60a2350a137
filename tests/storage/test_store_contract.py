"""What every store must keep: one suite, run against each kind. A new kind joins by a line in `open_empty_store`."""

import multiprocessing
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloudseg.errors import ObjectCorrupt, ObjectExists, ObjectMissing
from cloudseg.keys import sha256_of
from cloudseg.storage import LocalStore, Store

KINDS = ("local",)
CONTEXT = multiprocessing.get_context("forkserver")
ODD_KEYS = (
    "", "/", "/abs", "a//b", "a/", "../x", "a/../b", ".", "..", ".hidden", "a/.hidden", "UPPER", "a/B", "ü", "a b", "a\\b", "a\nb",
    "a\0b", "a?b", "%2e%2e", "-a", "_a", "x" * 201, "/".join(["abcdefgh"] * 60),
)  # fmt: skip


def open_empty_store(kind: str, tmp_path: Path) -> Iterator[Store]:
    assert kind == "local"
    yield LocalStore(tmp_path / "store")


@pytest.fixture(params=KINDS)
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from open_empty_store(request.param, tmp_path)


def test_put_then_get(any_store: Store):
    stored = any_store.put("scenes/ab/x.tif", b"bytes")
    assert (stored.key, stored.sha256, stored.size) == ("scenes/ab/x.tif", sha256_of(b"bytes"), 5)
    assert any_store.get("scenes/ab/x.tif") == b"bytes"
    assert any_store.get("scenes/ab/x.tif", sha256_of(b"bytes")) == b"bytes"


def test_empty_objects_are_objects(any_store: Store):
    any_store.put("a", b"")
    assert any_store.get("a") == b""
    assert any_store.exists("a")


def test_the_same_bytes_again_change_nothing(any_store: Store):
    assert any_store.put("a/b", b"one") == any_store.put("a/b", b"one")


def test_other_bytes_are_refused_and_the_first_stay(any_store: Store):
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


def test_missing_objects_say_so(any_store: Store):
    for ask in (any_store.get, any_store.stat):
        with pytest.raises(ObjectMissing, match="a/b"):
            ask("a/b")
    with pytest.raises(ObjectMissing), any_store.local_file("a/b"):
        pass
    assert not any_store.exists("a/b")
    any_store.delete("a/b")


def test_a_folder_of_keys_is_no_object(any_store: Store):
    any_store.put("a/b/c", b"x")
    assert not any_store.exists("a/b")
    for ask in (any_store.get, any_store.stat):
        with pytest.raises(ObjectMissing):
            ask("a/b")
    any_store.delete("a/b")
    assert any_store.get("a/b/c") == b"x"


def test_below_an_object_is_nothing(any_store: Store):
    any_store.put("a", b"x")
    assert not any_store.exists("a/b")
    with pytest.raises(ObjectMissing):
        any_store.get("a/b")


def test_damage_is_detected(any_store: Store):
    any_store.replace("a", b"damaged")
    with pytest.raises(ObjectCorrupt) as caught:
        any_store.get("a", sha256_of(b"whole"))
    assert (caught.value.found, caught.value.expected) == (sha256_of(b"damaged"), sha256_of(b"whole"))


def test_stat_gives_size_and_time(any_store: Store):
    any_store.put("a", b"12345")
    size, written_at = any_store.stat("a")
    assert size == 5
    assert abs(datetime.now(UTC) - written_at) < timedelta(minutes=2)


def test_replace_makes_and_changes(any_store: Store):
    any_store.replace("models/champion.json", b"one")
    any_store.replace("models/champion.json", b"two")
    assert any_store.get("models/champion.json") == b"two"
    assert list(any_store.list_keys()) == ["models/champion.json"]


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


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_never_reach_the_store(any_store: Store, tmp_path: Path, key: str):
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for attempt in (
        lambda: any_store.put(key, b"x"), lambda: any_store.put_file(key, source), lambda: any_store.replace(key, b"x"),
        lambda: any_store.get(key), lambda: any_store.stat(key), lambda: any_store.exists(key), lambda: any_store.delete(key),
        lambda: any_store.gdal_path(key), lambda: any_store.uri_of(key),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="not an object key"):
            attempt()
    assert list(any_store.list_keys()) == []


def test_local_file_has_the_bytes(any_store: Store):
    any_store.put("a/b.bin", b"some bytes")
    with any_store.local_file("a/b.bin") as path:
        assert path.read_bytes() == b"some bytes"


def test_gdal_opens_objects(any_store: Store, synthetic_folder: Path):
    import rasterio

    image = next((synthetic_folder / "images").iterdir())
    any_store.put_file("scenes/ab/x.tif", image)
    with rasterio.open(any_store.gdal_path("scenes/ab/x.tif")) as through_store, rasterio.open(image) as plain:
        assert (through_store.read() == plain.read()).all()


def test_uris_hold_the_key(any_store: Store):
    assert any_store.uri_of("a/b.tif").startswith(any_store.uri)
    assert any_store.uri_of("a/b.tif").endswith("/a/b.tif")


# --- several processes ----------------------------------------------------------------------------------------------


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


def _race(task: object, store: Store, key: str, writers: int) -> list[tuple[str, int]]:
    gate, results = CONTEXT.Barrier(writers), CONTEXT.Queue()
    processes = [CONTEXT.Process(target=task, args=(store, key, number, gate, results)) for number in range(writers)]
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


def _replace_often(store: Store, letters: bytes, stop: object) -> None:
    turn = 0
    while not stop.is_set():
        store.replace("pointer", bytes([letters[turn % len(letters)]]) * 100_000)
        turn += 1


def test_readers_see_the_old_or_the_new_pointer(any_store: Store):
    any_store.replace("pointer", b"a" * 100_000)
    stop = CONTEXT.Event()
    writers = [CONTEXT.Process(target=_replace_often, args=(any_store, letters, stop)) for letters in (b"ab", b"cd")]
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
