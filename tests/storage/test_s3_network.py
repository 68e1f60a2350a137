"""An S3 server behind an unreliable network: a proxy drops or stalls connections, or loses responses."""

import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rasterio

from cloudseg.errors import StoreUnreachable
from cloudseg.raster.read import decoded, open_raster
from cloudseg.storage import S3Options
from cloudseg.storage.bucket import CHUNK
from cloudseg.storage.s3 import PART, S3Store
from tests.proxy import Proxy, proxy
from tests.seaweed import BUCKET, Seaweed

DATA = bytes(range(251)) * (6 * CHUNK // 251)


@pytest.fixture
def between(seaweed: Seaweed) -> Iterator[Proxy]:
    with proxy(seaweed.port) as one:
        yield one


@pytest.fixture
def behind(s3_env: dict[str, str], between: Proxy) -> S3Store:
    """The same store as `s3_store`, through the proxy."""
    return store_behind(s3_env, between, timeout_s=20)


def store_behind(s3_env: dict[str, str], between: Proxy, timeout_s: float = 1) -> S3Store:
    return S3Store.at(
        s3_env["CLOUDSEG_STORE_URL"], S3Options(endpoint=between.endpoint, timeout_s=timeout_s, attempts=3)
    )


def once(verdict: str, after: int) -> Callable[[int, int], str]:
    """Return a fault for the first connection that has carried `after` bytes."""
    used = threading.Event()

    def fault(connection: int, done: int) -> str:
        if done < after or used.is_set():
            return "pass"
        used.set()
        return verdict

    return fault


def always(verdict: str, after: int = 0) -> Callable[[int, int], str]:
    return lambda connection, done: verdict if done >= after else "pass"


@pytest.mark.parametrize(
    ("verdict", "after"), [("drop", 0), ("drop", 1000), ("drop", 2 * CHUNK), ("stall", 0), ("stall", 2 * CHUNK)]
)
def test_a_download_resumes_where_it_broke(
    s3_env: dict[str, str], s3_store: S3Store, between: Proxy, verdict: str, after: int
):
    stored = s3_store.put("a/b.bin", DATA)
    between.down = once(verdict, after)
    assert store_behind(s3_env, between).get("a/b.bin", stored.sha256) == DATA


def test_a_download_is_never_restarted_from_zero(behind: S3Store, s3_store: S3Store, between: Proxy):
    s3_store.put("a/b.bin", DATA)
    came = []

    def fault(connection: int, done: int) -> str:
        came.append((connection, done))
        return "drop" if done >= 2 * CHUNK and connection <= 2 else "pass"

    between.down = fault
    assert behind.get("a/b.bin") == DATA
    assert between.dropped == 2
    carried = {connection: max(done for number, done in came if number == connection) for connection, _ in came}
    assert sum(carried.values()) < len(DATA) + 2 * CHUNK


@pytest.mark.parametrize("verdict", ["drop", "stall"])
def test_a_store_behind_a_dead_network_is_unreachable_after_its_timeout(
    s3_env: dict[str, str],
    s3_store: S3Store,
    between: Proxy,
    verdict: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other processes have copies in the system's folder
    s3_store.put("a/b.bin", DATA)
    behind = store_behind(s3_env, between)
    between.down = always(verdict, 1000)
    for operation in (lambda: behind.get("a/b.bin"), lambda: behind.local_file("a/b.bin").__enter__()):
        with pytest.raises(StoreUnreachable) as caught:
            operation()
        assert caught.value.retry_helps
        assert "again" in caught.value.next_step
        assert between.timed_out == 0
    assert list(tmp_path.glob("cloudseg-work-object-*")) == []


def test_a_lost_response_creates_no_second_object(behind: S3Store, s3_store: S3Store, between: Proxy):
    between.down = once("drop", 0)
    stored = behind.put("a/b.bin", DATA)
    assert between.dropped == 1
    assert s3_store.get("a/b.bin", stored.sha256) == DATA
    assert list(s3_store.list_keys()) == ["a/b.bin"]


def test_a_lost_response_to_a_finished_upload_creates_no_second_object(
    seaweed: Seaweed, behind: S3Store, s3_store: S3Store, between: Proxy, tmp_path: Path
):
    path, lost = tmp_path / "big.bin", threading.Event()
    path.write_bytes(DATA * (2 * PART // len(DATA) + 1))
    complete = behind.bucket.call

    def lose_the_response(operation: str, name: str, **parameters: object) -> dict[str, object]:
        if operation == "complete_multipart_upload" and not lost.is_set():
            lost.set()
            between.down = once("drop", 0)
        return complete(operation, name, **parameters)

    behind.bucket.call = lose_the_response  # type: ignore[method-assign]
    stored = behind.put_file("a/b.bin", path)
    assert lost.is_set()
    assert s3_store.get("a/b.bin", stored.sha256) == path.read_bytes()
    assert not seaweed.client().list_multipart_uploads(Bucket=BUCKET, Prefix=s3_store.prefix).get("Uploads")


@pytest.mark.parametrize("after", [0, 5 * CHUNK])
def test_a_dropped_upload_is_sent_again(behind: S3Store, s3_store: S3Store, between: Proxy, tmp_path: Path, after: int):
    path = tmp_path / "big.bin"
    path.write_bytes(DATA * (2 * PART // len(DATA) + 1))
    between.up = once("drop", after)
    stored = behind.put_file("a/b.bin", path)
    assert between.dropped == 1
    assert s3_store.get("a/b.bin", stored.sha256) == path.read_bytes()


def test_an_upload_that_always_drops_leaves_nothing(
    seaweed: Seaweed, behind: S3Store, s3_store: S3Store, between: Proxy, tmp_path: Path
):
    path = tmp_path / "big.bin"
    path.write_bytes(DATA * (2 * PART // len(DATA) + 1))
    between.up = always("drop", CHUNK)
    with pytest.raises(StoreUnreachable) as caught:
        behind.put_file("a/b.bin", path)
    assert caught.value.retry_helps
    assert list(s3_store.list_keys()) == []
    assert not seaweed.client().list_multipart_uploads(Bucket=BUCKET, Prefix=s3_store.prefix).get("Uploads")


def test_a_raster_behind_a_dead_network_is_unreachable_and_not_corrupt(
    behind: S3Store, s3_store: S3Store, between: Proxy, synthetic_folder: Path
):
    s3_store.put_file("scenes/x.tif", next((synthetic_folder / "images").iterdir()))
    between.down = always("drop")
    with pytest.raises(StoreUnreachable), open_raster(behind.gdal_path("scenes/x.tif")):
        pass
    between.down = always("pass")
    path = behind.gdal_path("scenes/x.tif")
    with pytest.raises(StoreUnreachable) as caught, open_raster(path) as dataset, decoded(dataset):  # noqa: PT012
        between.down = always("drop")
        raise rasterio.errors.RasterioIOError("Read failed")
    assert caught.value.retry_helps
