"""The folder of a demo, and the environment of its Airflow."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cloudseg.errors import InputError, RecipeError, SettingsError
from cloudseg.records import Epoch, utc_iso
from tools.airflow_api import log_lines
from tools.demo.follow import format_epoch, format_tasks
from tools.demo.home import airflow_environment, prepare_home
from tools.demo.run import run_demo

REPO = Path(__file__).parents[3]


def test_a_folder_that_no_demo_made_is_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="was not made by `make demo`"):
        prepare_home(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    first = prepare_home(tmp_path / "demo")
    (first.root / "catalog.db").write_text("old")
    second = prepare_home(tmp_path / "demo")
    assert not (second.root / "catalog.db").exists()
    assert second.password != first.password


def test_the_password_is_for_its_owner_only(tmp_path: Path) -> None:
    home = prepare_home(tmp_path / "demo")
    assert home.passwords.stat().st_mode & 0o777 == 0o600
    assert json.loads(home.passwords.read_text()) == {"admin": home.password}


def test_settings_of_the_caller_do_not_reach_the_demo(tmp_path: Path) -> None:
    home = prepare_home(tmp_path / "demo")
    outside = {
        "CLOUDSEG_CATALOG_URL": "postgresql://production/catalog",
        "CLOUDSEG_STORE_URL": "/srv/production",
        "CLOUDSEG_S3_ENDPOINT": "http://production",
        "AWS_PROFILE": "production",
        "CLOUDSEG_DEVICE": "cpu",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://production/airflow",
        "PATH": "/bin",
    }
    inside = airflow_environment(home, outside)
    assert not any("production" in value for value in inside.values())
    assert inside["CLOUDSEG_DEVICE"] == "cpu"
    assert inside["CLOUDSEG_HOME"] == str(home.root)
    assert inside["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert inside["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"http://127.0.0.1:{home.port}/execution/"


def test_airflow_finds_its_components_without_log_servers(tmp_path: Path) -> None:
    """`airflow standalone` starts `airflow scheduler` and so on from the PATH."""
    home = prepare_home(tmp_path / "a demo")
    inside = airflow_environment(home, {"PATH": "/bin"})
    found = shutil.which("airflow", path=inside["PATH"])
    assert found == str(home.programs / "airflow")
    (tmp_path / "airflow.py").write_text("import sys; print(*sys.argv[1:])")
    for component, options in {
        "scheduler": " --skip-serve-logs",
        "triggerer": " --skip-serve-logs",
        "api-server": "",
    }.items():
        said = subprocess.run(
            [found, component], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
        ).stdout
        assert said == f"{component}{options}\n"


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SettingsError, match="the port is in use"):
            prepare_home(tmp_path / "demo", port=other.getsockname()[1])


def test_wrong_options_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        run_demo(home=tmp_path / "demo", recipe="none")
    with pytest.raises(InputError, match="no such folder"):
        run_demo(home=tmp_path / "demo", data=tmp_path / "absent")
    assert not (tmp_path / "demo").exists()


def test_the_command_prints_an_error_without_a_traceback(tmp_path: Path) -> None:
    """Run it as `make demo` does; a wrong recipe is found before anything is started."""
    command = [sys.executable, "-m", "tools.demo", "--recipe", "nowhere", "--home", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere: no such recipe" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, cwd=REPO)
    assert (done.returncode, json.loads(done.stdout)["error"]) == (2, "RecipeError")


def test_an_epoch_in_one_line() -> None:
    metrics = {"train_loss": 0.5, "validation_iou": 0.25, "images_per_s": 12.34, "lr": 1e-3}
    epoch = Epoch.model_validate(
        {"run_id": "r", "epoch": 3, "step": 60, "metrics": metrics, "created_at": "2026-01-01T00:00:00Z"}
    )
    assert utc_iso(epoch.created_at) == "2026-01-01T00:00:00Z"
    assert format_epoch(epoch) == "epoch 3 · step 60 · loss 0.500 · validation IoU 0.250 · 12.3 images/s"


def test_a_structured_log_entry_in_lines() -> None:
    entry = {"event": "Task failed\nwith", "error_detail": [{"exc_type": "EmptySplit", "exc_value": "no chip"}]}
    assert log_lines(entry) == ["Task failed", "with", "EmptySplit: no chip"]
    assert log_lines("plain\nlines") == ["plain", "lines"]


def _task(state: str, number: int = -1) -> dict:
    name = f"S2A_MSIL1C_20180113T234301_N0206_R087_T57JUL_{number} and 7 more" if number >= 0 else None
    return {"task_id": "predict" if name else "ingest", "rendered_map_index": name, "state": state}


def test_the_status_line_is_short_however_many_tasks_there_are():
    assert format_tasks([_task("running"), _task("success")]) == "ingest (running)"
    assert format_tasks([_task("queued")]) == "ingest (queued)"
    assert format_tasks([]) == ""
    many = [_task("running", n) for n in range(3)] + [_task("scheduled", n) for n in range(43)]
    assert format_tasks(many) == "predict: S2A_MSIL1C_20180113T234 (running), 2 more running, 43 waiting"
    assert format_tasks(many[3:]).endswith("(scheduled), 42 waiting")
