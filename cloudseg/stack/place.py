"""The folder of a stack: ports, secrets, environments, what lies where."""

import base64
import os
import pwd
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudseg.demo.home import checkout_folder
from cloudseg.errors import InputError, SettingsError
from cloudseg.stack.compose import ComposeService, fill_in, read_variables

FIRST_PORT: Final = 23000
_PORTS: Final = (
    "api",
    "postgres",
    "redis",
    "s3",
    "s3_grpc",
    "master",
    "master_grpc",
    "volume",
    "volume_grpc",
    "filer",
    "filer_grpc",
    "admin",
)
_MARKER: Final = ".cloudseg-stack"
_PREFIXES: Final = ("AIRFLOW", "CLOUDSEG_", "AWS_", "PG", "REDIS")
"""What the caller's environment says about these is never taken over: the stack is an island."""
_KEPT: Final = ("CLOUDSEG_THREADS", "CLOUDSEG_DEVICE", "CLOUDSEG_INT8", "CLOUDSEG_LOG_LEVEL")


@dataclass(frozen=True)
class Place:
    """What lies where. `variables` are the names of docker/.env with this stack's addresses and secrets."""

    root: Path
    ports: Mapping[str, int]
    variables: Mapping[str, str]

    @property
    def private(self) -> Path:
        """Secrets: nobody but the owner may look into this folder."""
        return self.root / "private"

    @property
    def logs(self) -> Path:
        """What the services print, one file each."""
        return self.root / "logs"

    @property
    def inbox(self) -> Path:
        """What is dropped here is taken in within five minutes."""
        return self.root / "inbox"

    @property
    def environment_file(self) -> Path:
        """The variables, in the form of docker/.env."""
        return self.private / "env"


def prepare_place(root: Path, *, first_port: int = FIRST_PORT) -> Place:
    """Make the folder of a stack, or find the one that an earlier stack left; secrets are made once and kept.

    Raises InputError where the folder holds anything that is not a stack's, SettingsError where a port is taken.
    """
    root = root.absolute()
    if root.is_dir() and any(root.iterdir()) and not (root / _MARKER).is_file():
        raise InputError(
            "this folder holds something that no stack made",
            subject=str(root),
            next_step="Name another folder with --home.",
        )
    ports = {name: first_port + number for number, name in enumerate(_PORTS)}
    for name, port in ports.items():
        _check_free(name, port)
    _make_folders(root)
    kept = root / "private" / "env"
    variables = _addresses(ports) | (_secrets_of(read_variables(kept)) if kept.is_file() else _make_secrets())
    example = read_variables(checkout_folder() / "docker" / ".env.example")
    place = Place(root=root, ports=ports, variables=example | variables | {"INBOX_FOLDER": str(root / "inbox")})
    text = "".join(f"{name}={value}\n" for name, value in place.variables.items())
    with os.fdopen(
        os.open(place.environment_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as out:
        out.write(text)
    return place


def _make_folders(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o711)  # PostgreSQL's user goes through it, and sees nothing
    (root / _MARKER).write_text("Made by `cloudseg stack`.\n", encoding="utf-8")
    for name, mode in {
        "private": 0o700,
        "airflow": 0o700,
        "redis": 0o700,
        "seaweedfs": 0o700,
        "logs": 0o700,
        "inbox": 0o755,
    }.items():
        (root / name).mkdir(mode=mode, exist_ok=True)
    (root / "postgres").mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        user = pwd.getpwnam(server_user())
        os.chown(root / "postgres", user.pw_uid, user.pw_gid)


def server_user() -> str:
    """Name the user that PostgreSQL runs as: it refuses to run as root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def _check_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError(
                "the port is taken",
                subject=f"{name} {port}",
                next_step="End what listens there, or choose others with --first-port.",
            ) from error


def _secret_names() -> list[str]:
    """List the names that .env.example leaves empty under "secrets"."""
    text = (checkout_folder() / "docker" / ".env.example").read_text(encoding="utf-8")
    part = text.split("# --- secrets ---", 1)[1].split("# ---", 1)[0]
    return [line.removesuffix("=") for line in part.splitlines() if line.endswith("=")]


def _make_secrets() -> dict[str, str]:
    made = {name: secrets.token_hex(16) for name in _secret_names()}
    return made | {"AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode()}


def _secrets_of(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: variables[name] for name in _secret_names()}


def _addresses(ports: Mapping[str, int]) -> dict[str, str]:
    return {
        "POSTGRES_ADDRESS": f"127.0.0.1:{ports['postgres']}",
        "REDIS_ADDRESS": f"127.0.0.1:{ports['redis']}",
        "S3_ENDPOINT": f"http://127.0.0.1:{ports['s3']}",
        "API_ADDRESS": f"127.0.0.1:{ports['api']}",
        "AIRFLOW_URL": f"http://127.0.0.1:{ports['api']}",
    }


def base_environment(outside: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's environment without what it says about other services of these kinds, with this Python's programs first."""
    inside = {name: value for name, value in outside.items() if name in _KEPT or not name.startswith(_PREFIXES)}
    path = os.pathsep.join((str(Path(sys.executable).parent), "/usr/sbin", outside.get("PATH", "")))
    return inside | {"PATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def airflow_environment(place: Place, service: ComposeService, outside: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a part of Airflow.

    Docker/airflow.env and the service's own, with this stack's folders and address.
    """
    root = checkout_folder()
    settings = read_variables(root / "docker" / "airflow.env") | dict(service.environment)
    return (
        base_environment(outside)
        | fill_in(settings, place.variables)
        | {
            "AIRFLOW_HOME": str(place.root / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(root / "plugins"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(place.ports["api"]),
            "PYTHONPATH": os.pathsep.join(str(folder) for folder in (root, root / "dags", root / "plugins")),
            "CLOUDSEG_HOME": str(place.root / "home"),
            "CLOUDSEG_INBOX": str(place.inbox),
        }
    )
