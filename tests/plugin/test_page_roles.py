"""Every route and action by role, in one table (`roles.toml`) that is walked on a real Airflow API server."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from cloudseg.records import DecisionName

pytest.importorskip("airflow", reason="the extra `airflow` is not installed")

pytestmark = pytest.mark.timeout(900)

REPO = Path(__file__).parents[2]
ROLES = ("logged_out", "viewer", "user", "op", "admin")
TABLE: dict[str, dict[str, str]] = tomllib.loads((Path(__file__).parent / "roles.toml").read_text(encoding="utf-8"))
TRIGGER = "POST /dags/{}/dagRuns"


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `role_walk.py` found, with a user of each role in an Airflow of its own."""
    folder = tmp_path_factory.mktemp("roles")
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps({role: role for role in ROLES[1:]}), encoding="utf-8")
    passwords.chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDSEG_", "AIRFLOW"))}
    settings = {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPO / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{role}:{role}" for role in ROLES[1:]),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API_AUTH__JWT_SECRET": "s" * 64,
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "CLOUDSEG_HOME": str(folder / "home"),
        "PYTHONPATH": os.pathsep.join(map(str, (REPO, REPO / "dags", REPO / "plugins"))),
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "role_walk.py")],
        env=kept | settings,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_every_route_of_the_pages_has_a_row(walked: dict[str, Any]) -> None:
    assert set(TABLE["pages"]) == set(walked["routes"]), "add new routes to tests/plugin/roles.toml"


def test_every_decision_has_a_row(walked: dict[str, Any]) -> None:
    assert set(TABLE["decisions"]) == set(walked["decisions"]) == set(get_args(DecisionName))


def test_every_dag_that_is_triggered_has_a_row() -> None:
    dags = {path.stem for path in (REPO / "dags").glob("cloudseg_*.py")}
    shared = {Path(name).stem for name in (REPO / "dags" / ".airflowignore").read_text().split()}
    assert {TRIGGER.format(dag_id) for dag_id in dags - shared} <= set(TABLE["airflow"])


@pytest.mark.parametrize("part", TABLE)
def test_who_may_what(walked: dict[str, Any], part: str) -> None:
    """Whoever may is answered: with a page, 404 where the made-up id is nothing, 400 or 422 for a form of nonsense."""
    wrong = []
    for row, least in TABLE[part].items():
        for place, role in enumerate(ROLES):
            statuses = walked["answers"][f"{part} {row}"][role]
            if role == "logged_out":
                right = all(status == 401 or (part == "map" and status == 302) for status in statuses)
            elif place < ROLES.index(least):
                right = all(status == 403 for status in statuses)
            else:
                right = all(status not in (401, 403) and status < 500 for status in statuses)
            wrong += [] if right else [f"{part} {row} as {role}: {statuses}"]
    assert wrong == []
