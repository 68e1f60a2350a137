"""Settings are read from the environment and validated, and open store and catalog."""

import logging
from pathlib import Path

import pytest

from cloudseg.catalog import Catalog
from cloudseg.errors import CatalogOutdated, SettingsError
from cloudseg.runtime import open_runtime, read_settings, set_up_logging
from cloudseg.settings import Settings


def test_the_embedded_default_needs_no_server(runtime_env: Path):
    runtime = open_runtime()
    assert runtime.home == runtime_env
    assert runtime.inbox == str(runtime_env / "inbox")
    assert runtime.store.uri == (runtime_env / "store").as_uri()
    assert (runtime_env / "catalog.db").is_file()
    runtime.catalog.check()
    assert runtime.threads >= 1


def test_opening_again_finds_earlier_objects(runtime_env: Path):
    open_runtime().store.put("a", b"x")
    assert open_runtime().store.get("a") == b"x"


@pytest.mark.parametrize("name", ["with space", "what?", "100%", "hash#mark", "ünïcode"])
def test_home_can_have_any_name(runtime_env: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("CLOUDSEG_HOME", str(runtime_env / name))
    runtime = open_runtime()
    assert (runtime_env / name / "catalog.db").is_file()
    assert runtime.store.uri_of("a").startswith("file:///")


def test_a_tilde_is_the_users_home(runtime_env: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(runtime_env))
    monkeypatch.setenv("CLOUDSEG_HOME", "~/e2e")
    assert open_runtime().home == runtime_env / "e2e"


def test_a_configured_catalog_is_checked_not_upgraded(runtime_env: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"sqlite:///{runtime_env}/own.db"
    monkeypatch.setenv("CLOUDSEG_CATALOG_URL", url)
    with pytest.raises(CatalogOutdated, match="cloudseg db upgrade"):
        open_runtime()
    open_runtime(check=False)
    Catalog(url).upgrade()
    assert open_runtime().catalog.uri == url


def test_store_and_inbox_can_be_configured(runtime_env: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CLOUDSEG_STORE_URL", (tmp_path / "far").as_uri())
    monkeypatch.setenv("CLOUDSEG_INBOX", "/srv/inbox")
    runtime = open_runtime()
    assert (runtime.store.uri, runtime.inbox) == ((tmp_path / "far").as_uri(), "/srv/inbox")


def test_empty_means_unset(runtime_env: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("CATALOG_URL", "STORE_URL", "INBOX", "LOG_LEVEL", "THREADS"):
        monkeypatch.setenv(f"CLOUDSEG_{name}", "")
    assert open_runtime().catalog.uri.endswith("/home/catalog.db")


def test_an_unknown_setting_is_reported(runtime_env: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLOUDSEG_STORE_ULR", "x")
    with pytest.raises(SettingsError, match="CLOUDSEG_STORE_ULR: unknown setting"):
        open_runtime()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", "loud"),
        ("DEVICE", "tpu"),
        ("THREADS", "-1"),
        ("DECODE_TIMEOUT_S", "0"),
        ("MAX_SCENE_PIXELS", "many"),
        ("DECODE_TIMEOUT_S", "inf"),
        ("DECODE_TIMEOUT_S", "1e308"),
        ("DECODE_TIMEOUT_S", "nan"),
        ("S3_TIMEOUT_S", "inf"),
        ("S3_TIMEOUT_S", "1e308"),
        ("DECODE_MEMORY_MB", "99999999999999999999"),
        ("THREADS", "99999999999"),
    ],
)
def test_an_invalid_setting_is_reported(runtime_env: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(f"CLOUDSEG_{name}", value)
    with pytest.raises(SettingsError, match=f"CLOUDSEG_{name}"):
        read_settings()


@pytest.mark.parametrize(("name", "value"), [("HOME", "~no-such-user/x"), ("STORE_URL", "s3://[bucket/x")])
def test_a_place_that_cannot_be_one_is_reported(
    runtime_env: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(f"CLOUDSEG_{name}", value)
    with pytest.raises(SettingsError, match=f"CLOUDSEG_{name}"):
        open_runtime()


# What Kubernetes sets for the services `cloudseg`, `cloudseg-api` and `cloudseg-s3`, the last with an IPv6 address.
_SERVICE_LINKS = {
    "CLOUDSEG_SERVICE_HOST": "10.0.0.11",
    "CLOUDSEG_SERVICE_PORT": "8080",
    "CLOUDSEG_SERVICE_PORT_HTTP": "8080",
    "CLOUDSEG_PORT": "tcp://10.0.0.11:8080",
    "CLOUDSEG_PORT_8080_TCP": "tcp://10.0.0.11:8080",
    "CLOUDSEG_PORT_8080_TCP_PROTO": "tcp",
    "CLOUDSEG_PORT_8080_TCP_PORT": "8080",
    "CLOUDSEG_PORT_8080_TCP_ADDR": "10.0.0.11",
    "CLOUDSEG_API_SERVICE_HOST": "10.0.0.12",
    "CLOUDSEG_API_SERVICE_PORT": "80",
    "CLOUDSEG_API_SERVICE_PORT_STATSD_UDP": "8125",
    "CLOUDSEG_API_PORT": "tcp://10.0.0.12:80",
    "CLOUDSEG_API_PORT_8125_UDP": "udp://10.0.0.12:8125",
    "CLOUDSEG_API_PORT_8125_UDP_PROTO": "udp",
    "CLOUDSEG_S3_SERVICE_HOST": "fd00:10:96::a",
    "CLOUDSEG_S3_PORT": "tcp://[fd00:10:96::a]:8333",
    "CLOUDSEG_S3_PORT_8333_TCP_ADDR": "fd00:10:96::a",
}


def test_what_a_cluster_says_about_its_services_is_no_setting(runtime_env: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in _SERVICE_LINKS.items():
        monkeypatch.setenv(name, value)
    assert open_runtime().home == runtime_env


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLOUDSEG_PORT", "8080"),
        ("CLOUDSEG_SERVICE_HOST", "example.org/x"),
        ("CLOUDSEG_S3_ENDPOINT_PORT", "yes"),
        ("CLOUDSEG_PORT_TCP", "tcp://10.0.0.11:8080"),
        ("CLOUDSEG_S3_ENDPIONT", "tcp://10.0.0.11:8080"),
        ("CLOUDSEG_API_HOST", "10.0.0.12"),
    ],
)
def test_a_misspelled_setting_that_resembles_a_service_is_reported(
    runtime_env: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}: unknown setting"):
        read_settings()


def test_passwords_stay_hidden(runtime_env: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLOUDSEG_CATALOG_URL", "postgresql://user:hunter2@host/db")
    assert "hunter2" not in repr(read_settings())


def test_every_setting_has_a_description():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_set_up_logging_configures_the_root_logger(runtime_env: Path, monkeypatch: pytest.MonkeyPatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    monkeypatch.setenv("CLOUDSEG_LOG_LEVEL", "DEBUG")
    set_up_logging()
    assert (len(root.handlers), root.level) == (1, logging.DEBUG)
