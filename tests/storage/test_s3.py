"""S3 only: multipart uploads, presigned URLs, conditional writes, credentials, and secrets that are never printed."""

import logging
import pickle
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cloudseg.errors import (
    InputError,
    ObjectCorrupt,
    ObjectExists,
    ObjectMissing,
    SettingsError,
    StoreRefused,
    StoreUnreachable,
)
from cloudseg.keys import sha256_of
from cloudseg.raster.read import open_raster
from cloudseg.storage import LocalStore, S3Options, open_store
from cloudseg.storage.s3 import PART, S3Store
from tests.proxy import proxy
from tests.seaweed import BUCKET, SECRET_KEY, Seaweed

BIG = bytes(range(256)) * (PART // 256) + b"one part and a bit" * 1000


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of two parts."""
    path = tmp_path / "big.bin"
    path.write_bytes(BIG)
    return path


def uploads(seaweed: Seaweed, store: S3Store) -> list[str]:
    found = seaweed.client().list_multipart_uploads(Bucket=BUCKET, Prefix=store.prefix)
    return [upload["Key"] for upload in found.get("Uploads", [])]


def test_large_files_are_uploaded_in_parts(seaweed: Seaweed, s3_store: S3Store, big: Path):
    stored = s3_store.put_file("shards/x.bin", big)
    assert (stored.sha256, stored.size) == (sha256_of(BIG), len(BIG))
    head = seaweed.client().head_object(Bucket=BUCKET, Key=f"{s3_store.prefix}shards/x.bin", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-2"')
    assert head["ChecksumSHA256"].endswith("-2")  # the server has verified the SHA-256 of each part
    assert head["Metadata"]["sha256"] == stored.sha256
    with s3_store.local_file("shards/x.bin") as copy:
        assert copy.read_bytes() == BIG
    assert not copy.exists()
    assert s3_store.put_file("shards/x.bin", big) == stored
    big.write_bytes(BIG + b"other")
    with pytest.raises(ObjectExists):
        s3_store.put_file("shards/x.bin", big)
    assert uploads(seaweed, s3_store) == []


def test_a_file_that_changes_while_it_is_stored_leaves_nothing(
    seaweed: Seaweed, s3_store: S3Store, big: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(s3_store, "_holds", lambda stored: big.write_bytes(b"!" + BIG[1:]) == 0)
    with pytest.raises(ObjectCorrupt, match="changed while it was stored"):
        s3_store.put_file("shards/x.bin", big)
    assert list(s3_store.list_keys()) == []
    assert uploads(seaweed, s3_store) == []


def test_corrupt_bytes_are_detected_without_an_expected_checksum(seaweed: Seaweed, s3_store: S3Store):
    seaweed.client().put_object(
        Bucket=BUCKET, Key=f"{s3_store.prefix}a.tif", Body=b"rotten", Metadata={"sha256": sha256_of(b"sound")}
    )
    with pytest.raises(ObjectCorrupt):
        s3_store.get("a.tif")
    with pytest.raises(ObjectCorrupt), s3_store.local_file("a.tif"):
        pass


def test_objects_without_checksum_metadata_are_compared_by_their_bytes(seaweed: Seaweed, s3_store: S3Store):
    seaweed.client().put_object(Bucket=BUCKET, Key=f"{s3_store.prefix}inbox/a.tif", Body=b"theirs")
    assert s3_store.get("inbox/a.tif") == b"theirs"
    assert s3_store.put("inbox/a.tif", b"theirs").sha256 == sha256_of(b"theirs")
    with pytest.raises(ObjectExists):
        s3_store.put("inbox/a.tif", b"ours")


def test_a_store_is_limited_to_its_prefix(seaweed: Seaweed, s3_env: dict[str, str]):
    options, base = S3Options(endpoint=seaweed.endpoint), s3_env["CLOUDSEG_STORE_URL"]
    one, other, whole = (S3Store.at(url, options) for url in (f"{base}/one", f"{base}/one2/", f"s3://{BUCKET}"))
    one.put("a", b"1")
    other.put("a", b"2")
    assert (list(one.list_keys()), one.get("a"), one.uri, other.uri) == (["a"], b"1", f"{base}/one", f"{base}/one2")
    assert whole.get(f"{base.removeprefix(f's3://{BUCKET}/')}/one2/a") == b"2"
    assert one.uri_of("a") == f"{base}/one/a"


def test_abandoned_uploads_are_cleared_after_a_day(
    seaweed: Seaweed, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
):
    client = seaweed.client()
    client.create_multipart_upload(Bucket=BUCKET, Key=f"{s3_store.prefix}shards/x.bin")
    assert s3_store.clear_abandoned() == 0
    monkeypatch.setattr("cloudseg.storage.s3.ABANDONED_AFTER_S", -60)
    assert s3_store.clear_abandoned() == 1
    assert uploads(seaweed, s3_store) == []


def test_links_read_one_object_until_they_expire(s3_store: S3Store, synthetic_folder: Path):
    image = next((synthetic_folder / "images").iterdir())
    s3_store.put_file("masks/a/mask.tif", image)
    s3_store.put("masks/a/other.tif", b"secret")
    link = s3_store.link("masks/a/mask.tif", 2)
    with urllib.request.urlopen(link) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (image.read_bytes(), "image/tiff")
    with (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
        rasterio.open(f"/vsicurl/{s3_store.link('masks/a/mask.tif', 60)}") as dataset,
    ):
        assert dataset.count == 4
    for altered in (link.replace("mask.tif", "other.tif"), link.replace("X-Amz-Expires=2", "X-Amz-Expires=600")):
        assert status(altered) == 403
    time.sleep(2.5)
    assert status(link) == 403


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_links_use_the_public_endpoint(s3_env: dict[str, str]):
    options = S3Options(endpoint=s3_env["CLOUDSEG_S3_ENDPOINT"], link_endpoint="https://data.example.org")
    assert (
        S3Store.at(s3_env["CLOUDSEG_STORE_URL"], options)
        .link("a.tif", 60)
        .startswith(f"https://data.example.org/{BUCKET}/")
    )


def test_links_that_would_last_too_long_are_refused(s3_store: S3Store, store: LocalStore):
    for seconds in (0, 7 * 24 * 3600 + 1):
        with pytest.raises(InputError, match="do not last that long"):
            s3_store.link("a", seconds)
    with pytest.raises(InputError, match="local store has no links") as caught:
        store.link("a", 60)
    assert caught.value.found == store.uri_of("a")


OPERATIONS = ("put", "get", "stat", "exists", "list", "delete", "copy", "raster", "replace")


def perform(store: S3Store, what: str) -> object:
    """Perform one operation of a store."""
    if what == "copy":
        with store.local_file("a/b"):
            return None
    if what == "raster":
        with open_raster(store.gdal_path("a/b.tif")):
            return None
    operations = {
        "put": lambda: store.put("a/b", b"x"),
        "list": lambda: list(store.list_keys()),
        "replace": lambda: store.replace("a/b", b"x"),
    }
    return operations.get(what, lambda: getattr(store, what)("a/b"))()


def test_a_missing_bucket_is_reported(s3_env: dict[str, str]):
    store = S3Store.at("s3://no-such-bucket/x", S3Options(endpoint=s3_env["CLOUDSEG_S3_ENDPOINT"]))
    for what in OPERATIONS:
        with pytest.raises(StoreRefused, match="no such bucket") as caught:
            perform(store, what)
        assert not caught.value.retry_helps
        assert "no-such-bucket" in caught.value.subject
        assert "CLOUDSEG_STORE_URL" in caught.value.next_step


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_reported_and_not_shown(
    s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, wrong: str
):
    monkeypatch.setenv(wrong, "hidden-0815")
    store = S3Store.at(s3_env["CLOUDSEG_STORE_URL"], S3Options(endpoint=s3_env["CLOUDSEG_S3_ENDPOINT"]))
    for what in OPERATIONS:
        with pytest.raises(StoreRefused, match="rejects these credentials") as caught:
            perform(store, what)
        assert not caught.value.retry_helps
        assert "hidden-0815" not in str(caught.value) + repr(caught.value.as_record())


def test_missing_credentials_are_reported(s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    store = S3Store.at(s3_env["CLOUDSEG_STORE_URL"], S3Options(endpoint=s3_env["CLOUDSEG_S3_ENDPOINT"]))
    with pytest.raises(StoreRefused, match="no usable credentials"):
        store.put("a", b"x")


def test_nothing_that_is_secret_is_logged_or_shown(
    s3_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    synthetic_folder: Path,
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CPL_DEBUG", "ON")
    store = S3Store.at(s3_env["CLOUDSEG_STORE_URL"], S3Options(endpoint=s3_env["CLOUDSEG_S3_ENDPOINT"]))
    store.put_file("a/x.tif", next((synthetic_folder / "images").iterdir()))
    path = store.gdal_path("a/x.tif")
    with open_raster(path) as dataset:
        dataset.read(1)
    link = store.link("a/x.tif", 60)
    output = (
        caplog.text
        + "".join(capfd.readouterr())
        + repr(path)
        + repr(store.__dict__)
        + pickle.dumps(store).decode("latin-1")
    )
    assert SECRET_KEY not in output
    assert link.rpartition("X-Amz-Signature=")[2] not in output
    assert "Signature=" not in output


def test_a_store_can_be_pickled(s3_store: S3Store):
    s3_store.put("a", b"x")
    copy = pickle.loads(pickle.dumps(s3_store))  # noqa: S301 -- what multiprocessing does
    assert copy.get("a") == b"x"


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://UPPER",
        "s3://b",
        "s3://1.2.3.4",
        "s3://bucket/../x",
        "s3://bucket/a//b",
        "s3://k:v@bucket",
        "s3://bucket?x=1",
    ],
)
def test_invalid_urls_are_refused(url: str):
    with pytest.raises(SettingsError) as caught:
        open_store(url)
    assert "k:v" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["localhost:8333", "ftp://host", "http://", "http://key:secret@host:1"])
def test_invalid_endpoints_are_refused_and_not_repeated(endpoint: str):
    with pytest.raises(SettingsError, match="CLOUDSEG_S3_ENDPOINT") as caught:
        open_store("s3://bucket/x", S3Options(endpoint=endpoint))
    assert "secret" not in str(caught.value)


def test_missing_certificates_are_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="CLOUDSEG_S3_CA_BUNDLE"):
        open_store("s3://bucket/x", S3Options(endpoint="https://host", ca_bundle=tmp_path / "none.pem"))


def test_gdal_gets_the_settings_of_boto3(monkeypatch: pytest.MonkeyPatch, s3_env: dict[str, str]):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    own = S3Store.at(
        "s3://bucket/x", S3Options(endpoint="https://data.example.org/s3", region="eu-central-1")
    ).gdal_path("a.tif")
    assert (own.path, str(own)) == ("/vsis3/bucket/x/a.tif",) * 2
    wanted = {
        "AWS_S3_ENDPOINT": "data.example.org/s3",
        "AWS_HTTPS": "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_REGION": "eu-central-1",
        "AWS_SESSION_TOKEN": "token",
    }
    assert {name: own.options[name] for name in wanted} == wanted
    amazon = S3Store.at("s3://bucket/x", S3Options(region="eu-central-1")).gdal_path("a.tif")
    assert (amazon.options["AWS_S3_ENDPOINT"], amazon.options["AWS_VIRTUAL_HOSTING"]) == (
        "s3.eu-central-1.amazonaws.com",
        "TRUE",
    )


def test_rasters_are_read_by_ranges(seaweed: Seaweed, s3_env: dict[str, str], tmp_path: Path):
    path = tmp_path / "x.tif"
    rng = np.random.default_rng(0)
    profile = {
        "driver": "COG",
        "height": 2048,
        "width": 2048,
        "count": 1,
        "dtype": "uint8",
        "compress": "DEFLATE",
        "blocksize": 512,
    }
    with rasterio.open(path, "w", **profile, crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0)) as out:
        out.write(rng.integers(0, 255, (2048, 2048), "uint8"), 1)
    received = [0]

    def count(connection: int, done: int) -> str:
        received[0] = max(received[0], done)
        return "pass"

    with proxy(seaweed.port, down=count) as between:
        store = S3Store.at(s3_env["CLOUDSEG_STORE_URL"], S3Options(endpoint=between.endpoint))
        store.put_file("scenes/x.tif", path)
        with open_raster(store.gdal_path("scenes/x.tif")) as dataset:
            dataset.read(1, window=((1000, 1256), (1000, 1256)))
    assert path.stat().st_size > 4_000_000
    assert received[0] < 1_000_000


def test_server_errors_are_translated():
    from botocore.exceptions import ClientError

    from cloudseg.storage.s3_errors import translate_s3_errors

    for code, status_code, kind in (
        ("PermanentRedirect", 301, StoreRefused),
        ("RequestTimeTooSkewed", 403, StoreRefused),
        ("Whatever", 400, StoreRefused),
        ("AccessDenied", 403, StoreRefused),
        ("SlowDown", 503, StoreUnreachable),
        ("InternalError", 500, StoreUnreachable),
        ("InsufficientStorage", 507, StoreUnreachable),
        ("NoSuchKey", 404, ObjectMissing),
        ("PreconditionFailed", 412, ObjectExists),
    ):
        answer = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status_code}}
        with pytest.raises(kind) as caught, translate_s3_errors("s3://b", "a"):
            raise ClientError(answer, "PutObject")  # type: ignore[arg-type]
        assert caught.value.retry_helps == (kind is StoreUnreachable)
        assert caught.value.next_step or kind is ObjectExists
