"""`import cloudseg` costs nothing: what takes time is imported when it is used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cloudseg

REPO = Path(__file__).parents[2]
HEAVY = ("torch", "rasterio", "numpy", "xarray", "odc", "sqlalchemy", "pydantic", "airflow", "onnxruntime")


def loaded_after(code: str, folder: Path) -> set[str]:
    """Return which of the heavy packages a new interpreter has imported after some code."""
    probe = f"import sys, json\n{code}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=folder, env={"PYTHONPATH": str(REPO)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY)


def test_the_package_imports_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_after("import cloudseg; dir(cloudseg)", tmp_path) == set()


def test_no_torch_until_a_model_is_loaded(tmp_path: Path) -> None:
    code = "import cloudseg; cloudseg.load; cloudseg.open_masks; cloudseg.Model; cloudseg.Prediction"
    assert "torch" not in loaded_after(code, tmp_path)


def test_a_name_that_is_not_there_costs_no_torch(tmp_path: Path) -> None:
    code = "import cloudseg\ntry: cloudseg.load('nothing.safetensors')\nexcept cloudseg.errors.InputError: pass"
    assert "torch" not in loaded_after(f"import cloudseg.errors\n{code}", tmp_path)


def test_the_package_is_imported_in_less_than_50_ms(tmp_path: Path) -> None:
    """CPU time, and the least of three, because other processes run."""
    code = "import time; began = time.process_time(); import cloudseg; print(time.process_time() - began)"
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(REPO)}
    times = [
        float(subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.05


def test_every_public_name_is_there_and_no_other() -> None:
    assert {name for name in cloudseg.__all__ if getattr(cloudseg, name).__module__.startswith("cloudseg.api")} == set(
        cloudseg.__all__
    )
    assert set(cloudseg.__all__) <= set(dir(cloudseg))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cloudseg.nothing


def test_the_package_says_that_it_is_typed() -> None:
    assert (REPO / "cloudseg" / "py.typed").is_file()
