"""The folder of a demo and the environment of its Airflow."""

import json
import os
import secrets
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudseg.catalog import Catalog
from cloudseg.errors import InputError, SettingsError
from cloudseg.storage import Store, open_store

_MARKER: Final = ".cloudseg-demo"
_USER: Final = "admin"
# The demo is an island: where its catalog, store and inbox lie never comes from the caller's environment.
_OWN_SETTINGS: Final = (
    "CLOUDSEG_HOME",
    "CLOUDSEG_CATALOG_URL",
    "CLOUDSEG_STORE_URL",
    "CLOUDSEG_INBOX",
    "CLOUDSEG_UI_URL",
)


@dataclass(frozen=True)
class Home:
    """What lies where, and how to get in."""

    root: Path
    port: int
    password: str
    user: str = _USER

    @property
    def ui_url(self) -> str:
        """Address of the Airflow UI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def tiles(self) -> Path:
        """Synthetic tiles."""
        return self.root / "tiles"

    @property
    def inbox(self) -> Path:
        """What is dropped here is taken in within five minutes."""
        return self.root / "inbox"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.root / "airflow"

    @property
    def programs(self) -> Path:
        """First folder of the PATH of `airflow standalone`."""
        return self.root / "bin"

    @property
    def log(self) -> Path:
        """What `airflow standalone` prints."""
        return self.root / "standalone.log"

    @property
    def passwords(self) -> Path:
        """Logins of the UI, readable by the owner only."""
        return self.airflow / "passwords.json"

    def catalog(self) -> Catalog:
        """Open the demo's catalog."""
        return Catalog(f"sqlite:///{self.root / 'catalog.db'}")

    def store(self) -> Store:
        """Open the demo's store."""
        return open_store(str(self.root / "store"))


def prepare_home(root: Path, *, port: int | None = None) -> Home:
    """Make an empty demo folder and choose the port; what an earlier demo left in it is removed.

    Raises InputError where the folder holds anything that is not a demo's, SettingsError where the port is taken.
    """
    root = root.absolute()
    if root.is_dir() and any(root.iterdir()):
        if not (root / _MARKER).is_file():
            raise InputError(
                "the demo starts from nothing and would empty this folder, but no demo made it",
                subject=str(root),
                next_step="Name another folder with --home.",
            )
        shutil.rmtree(root)
    home = Home(root=root, port=_choose_port(port), password=secrets.token_urlsafe(9))
    for folder in (root, home.airflow, home.inbox, home.programs):
        folder.mkdir(parents=True, exist_ok=True)
    _write_starter(home.programs / "airflow")
    (root / _MARKER).write_text(
        "Made by `cloudseg demo`, which empties this folder when it starts again.\n", encoding="utf-8"
    )
    with os.fdopen(os.open(home.passwords, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        json.dump({home.user: home.password}, out)
    return home


def _write_starter(path: Path) -> None:
    """Write the program that `airflow standalone` finds when it starts its components by the bare name `airflow`.

    Scheduler and triggerer would each start a server that offers their logs on all interfaces, and no setting changes
    its address. Nobody needs it here: everything runs on one machine, and the UI reads the log files themselves.
    """
    airflow = f"{shlex.quote(sys.executable)} -P -m airflow"
    lines = [
        "#!/bin/sh",
        'case "$1" in',
        f'scheduler | triggerer) exec {airflow} "$@" --skip-serve-logs ;;',
        f'*) exec {airflow} "$@" ;;',
        "esac",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o700)


def checkout_folder() -> Path:
    """Return the folder that holds `dags/` and `plugins/`.

    Raises SettingsError where the package is installed without them.
    """
    root = Path(__file__).parents[2]
    if not (root / "dags" / "cloudseg_ingest.py").is_file():
        raise SettingsError(
            "the DAG files are not here",
            subject=str(root / "dags"),
            next_step="Run the demo from a checkout of the project.",
        )
    return root


def airflow_environment(home: Home, outside: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of `airflow standalone`.

    Loopback, SQLite, a few worker processes, quick to notice things.
    """
    root = checkout_folder()
    inside = {
        name: value for name, value in outside.items() if not name.startswith("AIRFLOW") and name not in _OWN_SETTINGS
    }
    return inside | {
        "PATH": os.pathsep.join((str(home.programs), str(Path(sys.executable).parent), outside.get("PATH", ""))),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "CLOUDSEG_HOME": str(home.root),
        "CLOUDSEG_UI_URL": home.ui_url,
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(root / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{home.ui_url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{home.user}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.passwords),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(home.port),
        "AIRFLOW__API__BASE_URL": home.ui_url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(32),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    }


def _choose_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise SettingsError(
                "the port is taken", subject="--port", found=wanted, next_step="Leave --port out."
            ) from error
        return int(probe.getsockname()[1])
