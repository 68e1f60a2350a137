"""The folder of a stack: private secrets, ports, and environments without settings of the caller."""

import os
import socket
from pathlib import Path

import pytest

from cloudseg.errors import InputError, SettingsError
from tools.stack.compose import read_compose, read_variables
from tools.stack.home import StackHome, airflow_environment, prepare_home

REPO = Path(__file__).parents[3]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def home(tmp_path: Path) -> StackHome:
    # Below the ephemeral ports, any of which a client of another test may hold.
    starts = [24_000 + 20 * ((os.getpid() + number) % 400) for number in range(400)]
    return prepare_home(
        tmp_path / "stack", first_port=next(at for at in starts if all(map(_is_free, range(at, at + 20))))
    )


def _environment(home: StackHome, name: str, outside: dict[str, str]) -> dict[str, str]:
    services = {service.name: service for service in read_compose(REPO / "docker" / "compose.yaml", "cpu")}
    return airflow_environment(home, services[name], outside)


def test_a_folder_that_no_stack_made_is_kept(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="was not made by `make stack`"):
        prepare_home(tmp_path)


def test_secrets_are_private_and_all_different(home: StackHome):
    assert home.private.stat().st_mode & 0o777 == 0o700
    assert home.environment_file.stat().st_mode & 0o777 == 0o600
    secrets = [value for name, value in home.variables.items() if name.endswith(("PASSWORD", "_KEY", "_SECRET"))]
    assert len(secrets) == 14
    assert len(set(secrets)) == len(secrets)
    assert all(len(secret) >= 32 for secret in secrets)


def test_the_next_start_finds_the_secrets_again(home: StackHome):
    again = prepare_home(home.root, first_port=home.ports["api"])
    assert again.variables == home.variables
    assert read_variables(home.environment_file) == dict(home.variables)


def test_a_taken_port_is_named(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match="the port is in use"):
            prepare_home(tmp_path / "stack", first_port=taken.getsockname()[1] - 2)


def test_settings_of_the_caller_do_not_reach_the_stack(home: StackHome):
    outside = {
        "CLOUDSEG_CATALOG_URL": "postgresql://production/catalog",
        "AIRFLOW__CORE__FERNET_KEY": "production",
        "AWS_PROFILE": "production",
        "PGPASSWORD": "production",
        "CLOUDSEG_THREADS": "1",
        "PATH": "/bin",
    }
    inside = _environment(home, "scheduler", outside)
    assert not any("production" in value for value in inside.values())
    assert inside["CLOUDSEG_THREADS"] == "1"
    assert inside["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert not any("${" in value or "/opt/cloudseg" in value for value in inside.values())


def test_every_component_has_the_role_that_it_needs(home: StackHome):
    users = {
        name: _environment(home, name, {})["CLOUDSEG_CATALOG_URL"].split("//")[1].split(":")[0]
        for name in ("prepare", "api-server", "worker-default", "worker-cpu")
    }
    assert users == {
        "prepare": "cloudseg_owner",
        "api-server": "cloudseg_airflow",
        "worker-default": "cloudseg_app",
        "worker-cpu": "cloudseg_app",
    }


def test_only_the_api_server_knows_the_password_of_the_administrator(home: StackHome):
    password = home.variables["AIRFLOW_ADMIN_PASSWORD"]
    for name, expected in {"api-server": True, "worker-default": False, "scheduler": False}.items():
        assert (password in _environment(home, name, {}).values()) is expected
