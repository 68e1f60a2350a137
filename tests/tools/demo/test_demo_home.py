"""The folder of a demo, and the environment of its Airflow."""

import io
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import create_engine, text

from cloudseg.errors import InputError, RecipeError, SettingsError
from cloudseg.records import Epoch, utc_iso
from tools.airflow_api import log_lines
from tools.demo.follow import RunFollower, format_epoch, format_tasks
from tools.demo.home import airflow_environment, prepare_home, reopen_home
from tools.demo.report import print_summary
from tools.demo.run import run_demo
from tools.demo.standalone import Standalone
from tools.terminal import Screen

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


def test_an_earlier_demo_is_opened_again_as_it_is(tmp_path: Path) -> None:
    first = prepare_home(tmp_path / "demo")
    with pytest.raises(InputError, match="no demo was made in this folder"):
        reopen_home(first.root)  # it ended before it had a catalog
    (first.root / "catalog.db").write_text("what was made")
    again = reopen_home(first.root)
    assert (again.root, again.user, again.password) == (first.root, first.user, first.password)
    assert (again.root / "catalog.db").read_text() == "what was made"
    with pytest.raises(InputError, match="`make demo` makes one"):
        reopen_home(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_airflow_waits_for_another_writer_of_its_database(tmp_path: Path) -> None:
    inside = airflow_environment(home := prepare_home(tmp_path / "demo"), {})
    engine = create_engine(inside["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA busy_timeout")).scalar_one() == 60_000
    engine.dispose()
    assert (home.airflow / "airflow.db").exists()


def test_keys_are_long_enough_and_known_warnings_have_no_cause(tmp_path: Path) -> None:
    inside = airflow_environment(prepare_home(tmp_path / "demo"), {"PYTHONWARNINGS": "error::UserWarning"})
    assert len(inside["AIRFLOW__API_AUTH__JWT_SECRET"].encode()) >= 64, "RFC 7518, 3.2"
    assert inside["PYTHONWARNINGS"] == "error::UserWarning,ignore:GitWildMatchPattern:DeprecationWarning"
    assert inside["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"] == "86400"


@pytest.mark.parametrize("champion", [None, "w-1"])
def test_the_hints_are_true(tmp_path: Path, champion: str | None) -> None:
    home = prepare_home(tmp_path / "demo")
    made = {"scenes": 1, "labels": 1, "quarantined": 0, "weights": None, "champion_id": champion, "masks": []}
    if champion:
        made["weights"] = {
            "version": 1,
            "weights_id": champion,
            "path": "/x",
            "held_out_iou": 0.5,
            "verdict": "PROMOTE",
            "reasons": [],
            "report": None,
        }
    out = io.StringIO()
    print_summary(made, home, Console(file=out, width=500), running=True, minutes=2.0)
    hints = out.getvalue()
    assert ("masked right after" in hints) == (champion is not None)
    assert ("masked once there is a champion" in hints) == (champion is None)
    assert ("make demo MINUTES=8" in hints) == (champion is None)
    assert "`make ui`" in hints


def test_what_a_training_does_after_its_last_step_is_named(tmp_path: Path) -> None:
    home = prepare_home(tmp_path / "demo")
    follower = RunFollower(Standalone(home), Screen(Console(file=io.StringIO())), home.catalog())
    task = {"task_id": "train", "dag_id": "cloudseg_retrain", "dag_run_id": "manual__1", "try_number": 1}
    assert follower._finishing([task]) == "the last epoch"
    log = home.airflow / "logs/dag_id=cloudseg_retrain/run_id=manual__1/task_id=train/attempt=1.log"
    log.parent.mkdir(parents=True)
    lines = ["choosing the threshold", "quantizing to int8"]
    log.write_text("".join(json.dumps({"event": f"finishing: {line}", "level": "info"}) + "\n" for line in lines))
    follower._looked_at = 0.0
    assert follower._finishing([task]) == "quantizing to int8"


@pytest.mark.parametrize("target", ["demo", "ui", "fuzz"])
def test_make_passes_the_minutes(target: str) -> None:
    arguments = [target, *(["MINUTES=3"] if target != "ui" else [])]
    planned = subprocess.run(["make", "-n", *arguments], cwd=REPO, capture_output=True, text=True, check=True).stdout
    words = {"demo": '--minutes "3"', "ui": "tools.demo --again", "fuzz": "60 * 3"}
    assert words[target] in planned
    default = subprocess.run(["make", "-n", target], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert "--minutes" not in default
    assert target != "fuzz" or "60 * 5" in default


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
