"""Where weights come from: the home, a file, published addresses; what an address returns is verified."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import cloudseg
from cloudseg.api.fetch import fetch
from cloudseg.cli import _run
from cloudseg.errors import (
    BadWeights,
    InputError,
    NotInCatalog,
    ObjectCorrupt,
    ObjectMissing,
    StoreRefused,
    StoreUnreachable,
)
from cloudseg.keys import sha256_of
from cloudseg.model.device import cpu_flags, int8_unit
from cloudseg.runtime import open_runtime
from cloudseg.storage import S3Options
from tests.api.conftest import Home, add_weights, make_champion
from tests.predict.conftest import make_numbers

BANDS = ["nir", "red", "green"]


class Site(SimpleHTTPRequestHandler):
    """Serves a folder; `/to?<address>` redirects, `/status?<code>` answers with a status, `/endless` never ends."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/to":
            self.send_response(302)
            self.send_header("Location", parts.query)
            self.end_headers()
        elif parts.path == "/status":
            self.send_error(int(parts.query))
        elif parts.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                return
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def site(home: Home) -> Iterator[str]:
    """Yield the address of a server of the home's store."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(home.folder / "store"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_the_champion_an_id_and_a_version_are_weights_of_the_home(
    runtime_env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDSEG_THREADS", "1")
    open_runtime()
    with pytest.raises(NotInCatalog, match="there is no champion yet"):
        cloudseg.load()
    first, second = (add_weights(seed=seed, with_int8=False) for seed in (1, 2))
    make_champion(first)
    assert cloudseg.load().weights_id == first.weights_id
    make_champion(second)
    model = cloudseg.load()
    assert (model.weights_id, model.version) == (second.weights_id, 2)
    assert model.bands == ("red", "green", "blue")
    assert cloudseg.load("v1").weights_id == first.weights_id
    assert cloudseg.load(first.weights_id).version == 1
    with pytest.raises(NotInCatalog, match=r"v7: no such weights.*cloudseg models"):
        cloudseg.load("v7")
    with pytest.raises(NotInCatalog, match="no such weights"):
        cloudseg.load("w-" + "0" * 20)


def test_without_a_home_the_error_names_the_option_and_nothing_is_created(no_home: Path) -> None:
    for named in (None, "v1"):
        with pytest.raises(NotInCatalog, match=r"--weights FILE or URL, in Python cloudseg\.load\(FILE or URL\)"):
            cloudseg.load(named)
    assert list(no_home.iterdir()) == []


def test_a_file_is_loaded_by_str_path_and_address(home: Home, no_home: Path) -> None:
    for named in (home.weights_file, str(home.weights_file), home.weights_file.as_uri()):
        model = cloudseg.load(named)
        assert (model.weights_id, model.version) == (home.weights.weights_id, None)
    assert list(no_home.iterdir()) == []


def test_a_file_that_is_none_is_named(no_home: Path) -> None:
    (no_home / "v1").write_bytes(b"no weights")
    with pytest.raises(BadWeights):
        cloudseg.load(Path("v1"))  # a path, though a version is called so
    with pytest.raises(InputError, match=r"chanpion: no such weights.*a weights id"):
        cloudseg.load("chanpion")
    with pytest.raises(InputError, match="champion: there is no catalog to look up weights in"):
        cloudseg.load("champion")
    with pytest.raises(InputError, match="no such file"):
        cloudseg.load(no_home)


def test_published_weights_are_loaded_from_their_address(home: Home, site: str, no_home: Path) -> None:
    model = cloudseg.load(f"{site}/{home.weights.key}")
    assert model.weights_id == home.weights.weights_id
    copied = home.weights_file.as_uri() + f"#sha256={home.weights.sha256}"
    assert cloudseg.load(copied).weights_id == home.weights.weights_id
    assert list(no_home.iterdir()) == []


def test_an_item_brings_the_arithmetic_of_the_service(home: Home, site: str) -> None:
    numbers = make_numbers(60, 60, count=3)
    expected = cloudseg.load()
    model = cloudseg.load(f"{site}/{home.weights.companions['item']['key']}")
    assert model.weights_id == expected.weights_id
    assert model.arithmetic == expected.arithmetic
    assert (model.arithmetic == "int8") == (int8_unit(cpu_flags()) is not None)
    found, wanted = (each.predict(numbers, bands=BANDS, resolution_m=30).mask for each in (model, expected))
    assert (found == wanted).all()
    assert set(np.unique(found)) == {0, 1}


def test_other_bytes_are_refused(home: Home, site: str, tmp_path: Path) -> None:
    data = home.weights_file.read_bytes()
    copy = tmp_path / "models" / home.weights.sha256 / "weights.safetensors"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    wrong = "0" * 64
    for address in (
        copy.as_uri(),
        f"{home.weights_file.as_uri()}#sha256={wrong}",
        f"{site}/{home.weights.key}#sha256={wrong}",
        f"{site}/{home.weights.companions['item']['key']}#sha256={wrong}",
    ):
        with pytest.raises(ObjectCorrupt, match="do not match its checksum"):
            cloudseg.load(address)


def test_an_item_whose_parts_are_other_bytes_is_refused(home: Home, tmp_path: Path) -> None:
    source = (home.folder / "store" / home.weights.key).parent
    for name in [path.name for path in source.iterdir()]:
        (tmp_path / name).write_bytes((source / name).read_bytes())
    item = tmp_path / Path(home.weights.companions["item"]["key"]).name
    assert cloudseg.load(item.as_uri()).weights_id == home.weights.weights_id
    text = item.read_text()
    item.write_text(text + " ")
    with pytest.raises(ObjectCorrupt):  # the name of an item begins with its checksum
        cloudseg.load(item.as_uri())
    item = tmp_path / "renamed.json"
    item.write_text(text)
    (tmp_path / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(ObjectCorrupt):
        cloudseg.load(item.as_uri())
    for href in (
        "../weights.safetensors",
        "/etc/passwd",
        "https://elsewhere.example/w.safetensors",
        "s3://bucket/w.safetensors",
    ):
        item.write_text(text.replace('"./weights.safetensors"', f'"{href}"'))
        with pytest.raises(BadWeights, match="not the STAC item of a model"):
            cloudseg.load(item.as_uri())


def test_an_address_without_checksum_is_not_asked(home: Home, site: str) -> None:
    with pytest.raises(InputError, match=r"has no checksum.*#sha256="):
        cloudseg.load(f"{site}/other.safetensors")
    with pytest.raises(InputError, match="not a SHA-256"):
        cloudseg.load(f"{site}/other.safetensors#sha256=12")


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        (
            "{site}/to?file:///etc/hostname",
            InputError,
            "redirects to an address that is not read.*file:///etc/hostname",
        ),
        ("{site}/to?ftp://127.0.0.1/x", InputError, "redirects to an address that is not read"),
        ("{site}/to?{site}/to", InputError, "redirects to an address that is not read"),
        ("{site}/to?http://192.0.2.1/x", InputError, "redirects to an address that is not read.*192.0.2.1"),
        ("http://192.0.2.1/x", InputError, "this address is not read"),
        ("ftp://127.0.0.1/x", InputError, "this address is not read"),
        ("file://elsewhere/x", InputError, "this address is not read"),
        ("data:text/plain,x", InputError, "this address is not read"),
        ("{site}/status?404", ObjectMissing, "HTTP status 404"),
        ("{site}/status?403", StoreRefused, "HTTP status 403"),
        ("{site}/status?503", StoreUnreachable, "HTTP status 503"),
        ("http://127.0.0.1:9/x", StoreUnreachable, "the server does not answer"),
        ("{site}/endless", InputError, "larger than allowed"),
        ("file:///dev/zero", InputError, "no such file"),
    ],
)
def test_an_address_is_read_within_bounds(site: str, address: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fetch(address.format(site=site), S3Options(), max_bytes=1 << 20)


def test_a_redirect_on_the_same_terms_is_followed(home: Home, site: str) -> None:
    assert sha256_of(fetch(f"{site}/to?{site}/{home.weights.key}", S3Options())) == home.weights.sha256


def test_secrets_in_an_address_are_not_shown() -> None:
    with pytest.raises(InputError) as caught:
        fetch("http://user:secret@192.0.2.1/x?token=secret", S3Options())
    assert "secret" not in str(caught.value)


def test_weights_on_s3_are_loaded(s3_env: dict[str, str], home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_env.items():
        monkeypatch.setenv(name, value)
    stored = open_runtime(check=False).store.put(home.weights.key, home.weights_file.read_bytes())
    address = f"{s3_env['CLOUDSEG_STORE_URL']}/{stored.key}"
    assert cloudseg.load(address).weights_id == home.weights.weights_id
    with pytest.raises(InputError, match="larger than allowed"):
        fetch(address, S3Options(endpoint=s3_env["CLOUDSEG_S3_ENDPOINT"], region="us-east-1"), max_bytes=1000)


def test_the_command_takes_an_address(home: Home, site: str, no_home: Path) -> None:
    tile = sorted((home.tiles / "images").iterdir())[0]
    address = f"{site}/{home.weights.key}"
    assert _run(["predict", "--file", str(tile), "--out", "mask.tif", "--weights", address]) == 0
    assert [path.name for path in no_home.iterdir()] == ["mask.tif"]
