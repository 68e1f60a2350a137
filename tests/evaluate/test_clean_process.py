"""The smoke test in a process of its own."""

import json
from pathlib import Path

import pytest

from cloudseg.catalog import Catalog
from cloudseg.evaluate.clean_process import main, run_smoke_test
from cloudseg.keys import sha256_of
from cloudseg.model.golden import pack_golden
from cloudseg.model.weights import load_weights
from cloudseg.storage import LocalStore
from tests.evaluate.world import brightness_net, register_net


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    data, _ = brightness_net(0.35)
    found = []
    for name, content in (("weights", data), ("golden", pack_golden(load_weights(data)))):
        (tmp_path / name).write_bytes(content)
        found += [str(tmp_path / name), sha256_of(content)]
    return found


def test_sound_weights_pass(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(files) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


def test_another_preprocessing_is_noticed(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    data, _ = brightness_net(0.35, mean=(0.02,))
    Path(files[0]).write_bytes(data)
    assert main([files[0], sha256_of(data), *files[2:]]) == 1
    assert "off by" in json.loads(capsys.readouterr().out)["reason"]


def test_damaged_bytes_are_noticed(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(files[0]).write_bytes(Path(files[0]).read_bytes()[:-1])
    assert main(files) == 1
    assert "checksums" in json.loads(capsys.readouterr().out)["reason"]


def test_a_file_that_is_no_weights_is_noticed(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(files[0]).write_bytes(b"\x80\x04N.")
    assert main([files[0], sha256_of(b"\x80\x04N."), *files[2:]]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_the_process_inherits_nothing(store: LocalStore, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSEG_NONSENSE", "would be refused by the settings")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    assert run_smoke_test(store, register_net(store, catalog, 0.35)).passed


def test_a_timeout_fails(store: LocalStore, catalog: Catalog) -> None:
    result = run_smoke_test(store, register_net(store, catalog, 0.35), timeout_s=0.01)
    assert not result.passed
    assert result.reason == "the clean process timed out after 0.01 s"


def test_a_process_that_dies_fails(
    store: LocalStore, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\necho no interpreter >&2\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert "status 3: no interpreter" in run_smoke_test(store, register_net(store, catalog, 0.35)).reason


def test_weights_without_a_golden_sample_fail(store: LocalStore, catalog: Catalog) -> None:
    weights = register_net(store, catalog, 0.35)
    assert "no golden sample" in run_smoke_test(store, weights.model_copy(update={"companions": {}})).reason
