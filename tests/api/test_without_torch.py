"""Prediction where torch cannot be imported: with an int8 file the same masks, without one an error that says so."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloudseg.catalog import model_rows
from cloudseg.runtime import open_runtime
from tests.api.conftest import Home, add_weights

BLOCKED = "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None; "


@pytest.fixture
def homes(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return two copies of a home; in both the environment's settings hold, but for CLOUDSEG_HOME."""
    monkeypatch.setenv("CLOUDSEG_DEVICE", "cpu")
    return tuple(Path(shutil.copytree(home.folder, tmp_path / name)) for name in ("one", "other"))  # type: ignore[return-value]


def run(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv("CLOUDSEG_HOME", str(folder))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def masks(folder: Path, weights_id: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    monkeypatch.setenv("CLOUDSEG_HOME", str(folder))
    with open_runtime().catalog.read() as db:
        return sorted((mask.mask_id, mask.sha256) for mask in model_rows.list_masks(db, weights_id=weights_id))


@pytest.mark.usefixtures("exact_int8")
def test_int8_predicts_without_torch(homes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for folder, before in zip(homes, (BLOCKED, "import sys, torch; "), strict=True):
        monkeypatch.setenv("CLOUDSEG_HOME", str(folder))
        weights = add_weights(seed=3, working_resolution_m=60.0)
        predict = f"stages.predict(new=True, weights_id='{weights.weights_id}').created"
        done = run(folder, f"{before}from cloudseg import stages; print({predict})", monkeypatch)
        assert (done.returncode, done.stdout.strip()) == (0, "8"), done.stderr[-2000:]
        made.append(masks(folder, weights.weights_id, monkeypatch))
    assert len(made[0]) == 8
    assert made[0] == made[1], "to the byte"


@pytest.mark.usefixtures("exact_int8")
def test_a_model_is_loaded_without_torch(home: Home, tmp_path: Path) -> None:
    code = f"{BLOCKED}import cloudseg; print(cloudseg.load().weights_id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, home.weights.weights_id), done.stderr[-2000:]


def test_without_the_extra_the_error_names_it(home: Home, tmp_path: Path) -> None:
    code = f"{BLOCKED}sys.modules['onnxruntime'] = None; import cloudseg; cloudseg.load()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "SettingsError: torch: this step needs torch (found not installed)" in done.stderr


def test_weights_without_an_int8_file_need_torch(homes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSEG_HOME", str(homes[0]))
    weights = add_weights(seed=4, with_int8=False)
    code = f"{BLOCKED}import cloudseg; cloudseg.load('{weights.weights_id}')"
    done = run(homes[0], code, monkeypatch)
    assert done.returncode == 1
    assert "SettingsError: torch: this step needs torch (found not installed)" in done.stderr
    assert "pip install 'cloudseg[ml]'" in done.stderr
