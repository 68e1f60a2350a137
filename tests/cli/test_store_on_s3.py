"""The command line with its store on S3: what doctor reports, and presigned URLs of masks."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudseg.catalog.model_rows import list_masks
from cloudseg.runtime import open_runtime
from cloudseg.storage import LocalStore
from tests.catalog import rows
from tests.seaweed import SECRET_KEY, Seaweed

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def on_s3(run: Run, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    seaweed.enter(monkeypatch, tmp_path)
    return run


def add_mask() -> str:
    """Add the row and the object of a mask to catalog and store; return its key."""
    runtime = open_runtime()
    rows.fill(runtime.catalog)
    with runtime.catalog.read() as db:
        key = list_masks(db, limit=1)[0].key
    runtime.store.put(key, b"the mask")
    return key


def test_doctor_checks_the_store(on_s3: Run, monkeypatch: pytest.MonkeyPatch):
    code, out, _ = on_s3("doctor", "--json")
    store = next(check for check in json.loads(out)["checks"] if check["name"] == "store")
    assert (code, store["ok"]) == (0, True)
    assert "overwrites nothing" in store["detail"]
    assert list(open_runtime().store.list_keys()) == []
    for name, value, word in (
        ("AWS_SECRET_ACCESS_KEY", "hidden-0815", "credentials"),
        ("CLOUDSEG_STORE_URL", "s3://no-such-bucket", "no such bucket"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            code, out, err = on_s3("doctor", "--json")
        store = next(check for check in json.loads(out)["checks"] if check["name"] == "store")
        assert (code, store["ok"], word in store["detail"]) == (1, False, True)
        assert "hidden-0815" not in out + err + store["detail"]
        assert SECRET_KEY not in out + err


def test_doctor_detects_a_store_that_overwrites(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LocalStore, "put", LocalStore.replace)
    code, out, _ = run("doctor", "--json")
    store = next(check for check in json.loads(out)["checks"] if check["name"] == "store")
    assert (code, store["ok"]) == (1, False)
    assert "If-None-Match is ignored" in store["detail"]


def test_presigned_urls_of_masks(on_s3: Run):
    key = add_mask()
    plain = json.loads(on_s3("masks", "--json")[1])["masks"]
    assert all("link" not in mask for mask in plain)
    code, out, err = on_s3("masks", "--link", "--expires", "0.5", "--json")
    links = {mask["key"]: mask["link"] for mask in json.loads(out)["masks"]}
    assert code == 0
    assert "X-Amz-Expires=1800" in links[key]
    assert "Signature=" not in err
    with urllib.request.urlopen(links[key]) as answer:
        assert answer.read() == b"the mask"
    with (
        pytest.raises(urllib.error.HTTPError) as caught,
        urllib.request.urlopen(links[key].replace("Expires=1800", "Expires=86400")),
    ):
        pass
    assert caught.value.code == 403
    caught.value.close()
    assert on_s3("masks", "--link", "--expires", "200")[0] == 2


def test_a_local_store_has_no_presigned_urls(run: Run):
    add_mask()
    code, out, err = run("masks", "--link")
    assert (code, out) == (2, "")
    assert "a local store has no links that expire" in err
    assert "file:///" in err
