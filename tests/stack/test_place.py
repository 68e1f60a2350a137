"""The folder of a stack: private secrets, ports, an environment that takes nothing over from outside."""

import os
import socket
from pathlib import Path

import pytest

from cloudseg.errors import InputError, SettingsError
from cloudseg.stack.compose import read_compose, read_variables
from cloudseg.stack.place import Place, airflow_environment, prepare_place

REPO = Path(__file__).parents[2]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    # Below the ports that the system hands out by itself: another test's client may hold any of those.
    starts = [24_000 + 20 * ((os.getpid() + number) % 400) for number in range(400)]
    return prepare_place(
        tmp_path / "stack", first_port=next(at for at in starts if all(map(_is_free, range(at, at + 20))))
    )


def _environment(place: Place, name: str, outside: dict[str, str]) -> dict[str, str]:
    services = {service.name: service for service in read_compose(REPO / "docker" / "compose.yaml", "cpu")}
    return airflow_environment(place, services[name], outside)


def test_a_folder_that_no_stack_made_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no stack made"):
        prepare_place(tmp_path)


def test_secrets_are_private_and_all_different(place: Place):
    assert place.private.stat().st_mode & 0o777 == 0o700
    assert place.environment_file.stat().st_mode & 0o777 == 0o600
    secrets = [value for name, value in place.variables.items() if name.endswith(("PASSWORD", "_KEY", "_SECRET"))]
    assert len(secrets) == 12
    assert len(set(secrets)) == len(secrets)
    assert all(len(secret) >= 32 for secret in secrets)


def test_the_next_start_finds_the_secrets_again(place: Place):
    again = prepare_place(place.root, first_port=place.ports["api"])
    assert again.variables == place.variables
    assert read_variables(place.environment_file) == dict(place.variables)


def test_a_taken_port_is_named(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match="the port is taken"):
            prepare_place(tmp_path / "stack", first_port=taken.getsockname()[1] - 2)


def test_the_stack_is_an_island(place: Place):
    outside = {
        "CLOUDSEG_CATALOG_URL": "postgresql://production/catalog",
        "AIRFLOW__CORE__FERNET_KEY": "production",
        "AWS_PROFILE": "production",
        "PGPASSWORD": "production",
        "CLOUDSEG_THREADS": "1",
        "PATH": "/bin",
    }
    inside = _environment(place, "scheduler", outside)
    assert not any("production" in value for value in inside.values())
    assert inside["CLOUDSEG_THREADS"] == "1"
    assert inside["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert not any("${" in value or "/opt/cloudseg" in value for value in inside.values())


def test_every_part_has_the_role_that_it_needs(place: Place):
    users = {
        name: _environment(place, name, {})["CLOUDSEG_CATALOG_URL"].split("//")[1].split(":")[0]
        for name in ("prepare", "api-server", "worker-default", "worker-cpu")
    }
    assert users == {
        "prepare": "cloudseg_owner",
        "api-server": "cloudseg_airflow",
        "worker-default": "cloudseg_app",
        "worker-cpu": "cloudseg_app",
    }


def test_only_the_api_server_knows_the_password_of_the_administrator(place: Place):
    password = place.variables["AIRFLOW_ADMIN_PASSWORD"]
    for name, expected in {"api-server": True, "worker-default": False, "scheduler": False}.items():
        assert (password in _environment(place, name, {}).values()) is expected
