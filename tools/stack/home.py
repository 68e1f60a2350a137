"""The folder of a stack: its ports, secrets and the environments of its services."""

import base64
import os
import pwd
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.checkout import CHECKOUT, check_folder, isolated_environment, marker_of, reserve_port, write_private
from tools.stack.compose import ComposeService, read_variables, substitute

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
_FOLDER_MODES: Final = {
    "private": 0o700,
    "airflow": 0o700,
    "redis": 0o700,
    "seaweedfs": 0o700,
    "postgres": 0o700,
    "logs": 0o700,
    "inbox": 0o755,
}


@dataclass(frozen=True)
class StackHome:
    """Folders of a stack. `variables` holds the names of docker/.env with this stack's addresses and secrets."""

    root: Path
    ports: Mapping[str, int]
    variables: Mapping[str, str]

    @property
    def private(self) -> Path:
        """Folder of the secrets, for the owner only."""
        return self.root / "private"

    @property
    def logs(self) -> Path:
        """Output of the services, one file each."""
        return self.root / "logs"

    @property
    def inbox(self) -> Path:
        """Folder that the ingest DAG reads every five minutes."""
        return self.root / "inbox"

    @property
    def environment_file(self) -> Path:
        """The variables, in the form of docker/.env."""
        return self.private / "env"


def prepare_home(root: Path, *, first_port: int = FIRST_PORT) -> StackHome:
    """Create the folder of a stack, or reuse that of an earlier stack with its data and secrets.

    Args:
        root: Folder to create.
        first_port: First of twelve consecutive ports.

    Raises:
        InputError: The folder holds something that no stack made.
        SettingsError: A port is in use.
    """
    root = root.absolute()
    check_folder(root, "stack")
    ports = {name: first_port + number for number, name in enumerate(_PORTS)}
    for name, port in ports.items():
        reserve_port(port, subject=name, next_step="Stop the process that uses it, or choose others with --first-port.")
    _make_folders(root)
    earlier = root / "private" / "env"
    kept = _secrets_of(read_variables(earlier)) if earlier.is_file() else {}
    own = _addresses(ports) | _generate_secrets() | kept
    example = read_variables(CHECKOUT / "docker" / ".env.example")
    home = StackHome(root=root, ports=ports, variables=example | own | {"INBOX_FOLDER": str(root / "inbox")})
    write_private(home.environment_file, "".join(f"{name}={value}\n" for name, value in home.variables.items()))
    return home


def _make_folders(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o711)  # PostgreSQL's user may pass through, but not list it
    marker_of(root, "stack").write_text("Made by `make stack`.\n", encoding="utf-8")
    for name, mode in _FOLDER_MODES.items():
        (root / name).mkdir(mode=mode, exist_ok=True)
    if os.geteuid() == 0:
        user = pwd.getpwnam(server_user())
        os.chown(root / "postgres", user.pw_uid, user.pw_gid)


def server_user() -> str:
    """Return the user that PostgreSQL runs as; it refuses to run as root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def _secret_names() -> list[str]:
    """Return the names that .env.example leaves empty under "secrets"."""
    text = (CHECKOUT / "docker" / ".env.example").read_text(encoding="utf-8")
    part = text.split("# --- secrets ---", 1)[1].split("# ---", 1)[0]
    return [line.removesuffix("=") for line in part.splitlines() if line.endswith("=")]


def _generate_secrets() -> dict[str, str]:
    made = {name: secrets.token_hex(32) for name in _secret_names()}
    return made | {"AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode()}


def _secrets_of(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets of an earlier stack; it may be older than some of them."""
    return {name: variables[name] for name in _secret_names() if name in variables}


def _addresses(ports: Mapping[str, int]) -> dict[str, str]:
    return {
        "POSTGRES_ADDRESS": f"127.0.0.1:{ports['postgres']}",
        "REDIS_ADDRESS": f"127.0.0.1:{ports['redis']}",
        "S3_ENDPOINT": f"http://127.0.0.1:{ports['s3']}",
        "API_ADDRESS": f"127.0.0.1:{ports['api']}",
        "AIRFLOW_URL": f"http://127.0.0.1:{ports['api']}",
    }


def airflow_environment(home: StackHome, service: ComposeService, outside: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a component of Airflow: docker/airflow.env and the service's own variables.

    Args:
        home: Folders and addresses, which replace those of the image.
        service: The component.
        outside: The caller's environment; its variables about other services and data are dropped.
    """
    settings = read_variables(CHECKOUT / "docker" / "airflow.env") | dict(service.environment)
    return (
        isolated_environment(outside)
        | substitute(settings, home.variables)
        | {
            "AIRFLOW_HOME": str(home.root / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(CHECKOUT / "plugins"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(home.ports["api"]),
            "PYTHONPATH": os.pathsep.join(
                str(folder) for folder in (CHECKOUT, CHECKOUT / "dags", CHECKOUT / "plugins")
            ),
            "CLOUDSEG_HOME": str(home.root / "home"),
            "CLOUDSEG_INBOX": str(home.inbox),
        }
    )
