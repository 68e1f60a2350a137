"""An inbox on S3 is as untrusted as a folder: objects with control characters in their names are never opened."""

from pathlib import Path

import pytest

from cloudseg.errors import SettingsError, StoreRefused
from cloudseg.ingest.inbox import open_inbox
from cloudseg.ingest.inbox_file import NotRead, hash_file, read_text
from cloudseg.keys import sha256_of
from cloudseg.storage import LocalStore, S3Options
from cloudseg.storage.s3 import S3Store
from tests.proxy import proxy
from tests.seaweed import BUCKET, Seaweed

DATA = bytes(range(256)) * 20_000


@pytest.fixture
def folder(s3_store: S3Store) -> str:
    return f"{s3_store.prefix}Upload"


def upload(seaweed: Seaweed, *names: str, data: bytes = b"x") -> None:
    for name in names:
        seaweed.client().put_object(Bucket=BUCKET, Key=name, Body=data)


def test_files_are_listed_by_path_whatever_they_are_called(seaweed: Seaweed, folder: str, store: LocalStore):
    upload(
        seaweed,
        *(
            f"{folder}/{name}"
            for name in ("S2A_MSI.TIF", "deep/ü.tif", "a.part", ".hidden", ".git/x.tif", "z\x1b[2J.tif")
        ),
    )
    upload(seaweed, f"{folder}2/other.tif")
    inbox = open_inbox(f"s3://{BUCKET}/{folder}/", store, S3Options(endpoint=seaweed.endpoint))
    files = inbox.list_files()
    assert [file.path for file in files] == ["S2A_MSI.TIF", "deep/ü.tif", "z\\x1b[2J.tif"]
    assert files[0].uri == f"s3://{BUCKET}/{folder}/S2A_MSI.TIF"
    assert files[2].reject_reason is not None
    with pytest.raises(NotRead, match="control characters"):
        hash_file(inbox, files[2])


def test_a_single_object_is_an_inbox(seaweed: Seaweed, folder: str, store: LocalStore):
    upload(seaweed, f"{folder}/a.tif", data=DATA)
    inbox = open_inbox(f"s3://{BUCKET}/{folder}/a.tif", store, S3Options(endpoint=seaweed.endpoint))
    (file,) = inbox.list_files()
    assert (file.path, hash_file(inbox, file)) == ("a.tif", sha256_of(DATA))


def test_files_are_streamed_and_copied(seaweed: Seaweed, folder: str, store: LocalStore, tmp_path: Path):
    upload(seaweed, f"{folder}/a.tif", data=DATA)
    dropped: set[int] = set()

    def drop_once(connection: int, done: int) -> str:
        if done < 1_000_000 or dropped:
            return "pass"
        dropped.add(connection)
        return "drop"

    with proxy(seaweed.port, down=drop_once) as between:
        inbox = open_inbox(f"s3://{BUCKET}/{folder}", store, S3Options(endpoint=between.endpoint))
        (file,) = inbox.list_files()
        assert hash_file(inbox, file, copy_to=tmp_path / "copy") == sha256_of(DATA)
        assert dropped
        assert (tmp_path / "copy").read_bytes() == DATA
        assert read_text(inbox, file) == DATA[: 1 << 20].decode("utf-8", "replace")
        seaweed.client().delete_object(Bucket=BUCKET, Key=f"{folder}/a.tif")
        with pytest.raises(NotRead, match="no object"):
            hash_file(inbox, file)


def test_a_prefix_of_a_store_on_s3_is_an_inbox_too(seaweed: Seaweed, s3_store: S3Store):
    upload(seaweed, f"{s3_store.prefix}inbox/S2A.TIF", data=DATA)
    inbox = open_inbox("store://inbox", s3_store, s3_store.bucket.options)
    (file,) = inbox.list_files()
    assert (file.path, hash_file(inbox, file)) == ("S2A.TIF", sha256_of(DATA))


def test_an_invalid_or_missing_bucket_is_an_error(seaweed: Seaweed, s3_env: dict[str, str], store: LocalStore):
    for source in ("s3://", "s3://UPPER/x", "s3://key:secret@bucket/x"):
        with pytest.raises(SettingsError, match="not a valid bucket name") as caught:
            open_inbox(source, store, S3Options())
        assert "secret" not in str(caught.value)
    with pytest.raises(StoreRefused, match="no such bucket"):
        open_inbox("s3://no-such-bucket/x", store, S3Options(endpoint=seaweed.endpoint)).list_files()
