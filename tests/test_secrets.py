"""Secrets of the environment are never printed: not to stdout, not in the log at DEBUG, not in an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECRETS = {
    "CLOUDSEG_CATALOG_URL": "postgresql+psycopg://cloudseg:hunter2-very-secret@127.0.0.1:1/cloudseg?connect_timeout=1",
    "AWS_SECRET_ACCESS_KEY": "hunter3-very-secret",
    "AWS_SESSION_TOKEN": "hunter4-very-secret",
    "AIRFLOW__API_AUTH__JWT_SECRET": "hunter5-very-secret",
}


def _run(home: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDSEG_", "AWS_", "AIRFLOW_"))}
    command = [sys.executable, "-m", "cloudseg", *arguments]
    wanted = kept | {"CLOUDSEG_HOME": str(home), "CLOUDSEG_LOG_LEVEL": "DEBUG"} | SECRETS | environment
    done = subprocess.run(command, env=wanted, capture_output=True, text=True, check=False, cwd=home)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["doctor", "--no-device"], None),
        (["ingest", "."], 6),
        (["models", "--json"], 6),
        (["maintain"], 6),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_no_command_prints_a_secret(tmp_path: Path, arguments: list[str], code: int | None) -> None:
    status, output = _run(tmp_path, *arguments)
    assert code in (None, status), output
    assert status != 0
    assert "127.0.0.1:1" in output, "the message names the server"
    assert "hunter" not in output


@pytest.mark.parametrize(
    "url", ["postgresql://a:hunter6@[::1", "mysql://a:hunter7@host/db", "postgresql+psycopg://u:hunter8@h:port/x"]
)
def test_an_invalid_url_is_not_repeated(tmp_path: Path, url: str) -> None:
    status, output = _run(tmp_path, "models", CLOUDSEG_CATALOG_URL=url)
    assert status == 2, output
    assert "CLOUDSEG_CATALOG_URL" in output
    assert "hunter" not in output
