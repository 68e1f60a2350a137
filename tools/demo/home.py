"""The folder of a demo and the environment of its Airflow."""

import json
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cloudseg.catalog import Catalog
from cloudseg.errors import InputError
from cloudseg.storage import Store, open_store
from tools.checkout import CHECKOUT, check_folder, isolated_environment, marker_of, reserve_port, write_private

_USER: Final = "admin"
_JWT_BYTES: Final = 64
"""SHA-512 needs a key of at least as many (RFC 7518, 3.2)."""
_LOCK_S: Final = 60
"""Seconds for which Airflow waits for another writer of its database."""
_QUIET: Final = "ignore:GitWildMatchPattern:DeprecationWarning"
"""A class that Airflow 3.3 uses for `.airflowignore` and pathspec 1 renamed: a warning for each process."""


@dataclass(frozen=True)
class DemoHome:
    """Folders of a demo, and address and login of its Airflow."""

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
        """Folder that the ingest DAG reads every five minutes."""
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
        """Output of `airflow standalone`."""
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


def prepare_home(root: Path, *, port: int | None = None) -> DemoHome:
    """Create the folder of a demo, replacing that of an earlier demo, and choose the port of the UI.

    Args:
        root: Folder to create.
        port: Port of the Airflow UI; a free one if None.

    Raises:
        InputError: The folder holds something that no demo made.
        SettingsError: The port is in use.
    """
    root = root.absolute()
    check_folder(root, "demo")
    port = reserve_port(port or 0, subject="--port", next_step="Leave out --port to use any free one.")
    if root.is_dir():
        shutil.rmtree(root)
    home = DemoHome(root=root, port=port, password=secrets.token_urlsafe(9))
    for folder in (root, home.airflow, home.inbox, home.programs):
        folder.mkdir(parents=True, exist_ok=True)
    marker_of(root, "demo").write_text(
        "Made by `make demo`, which empties this folder when it starts again; `make ui` does not.\n", encoding="utf-8"
    )
    _write_launcher(home.programs / "airflow")
    write_private(home.passwords, json.dumps({home.user: home.password}))
    return home


def reopen_home(root: Path, *, port: int | None = None) -> DemoHome:
    """Return the folder of an earlier demo as it is, with its login and a port for the UI.

    Args:
        root: The folder.
        port: Port of the Airflow UI; a free one if None.

    Raises:
        InputError: No demo was made there.
        SettingsError: The port is in use.
    """
    root = root.absolute()
    home = DemoHome(root=root, port=0, password="")
    if not (marker_of(root, "demo").is_file() and home.passwords.is_file() and (root / "catalog.db").is_file()):
        raise InputError("no demo was made in this folder", subject=str(root), next_step="`make demo` makes one.")
    port = reserve_port(port or 0, subject="--port", next_step="Leave out --port to use any free one.")
    _write_launcher(home.programs / "airflow")
    return replace(home, port=port, password=json.loads(home.passwords.read_text("utf-8"))[home.user])


def _write_launcher(path: Path) -> None:
    """Write the program that `airflow standalone` finds when it starts its components by the bare name `airflow`.

    Scheduler and triggerer would each start a server that offers their logs on all interfaces, and no setting changes
    its address. It is not needed here: everything runs on one machine, and the UI reads the log files themselves.
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


def airflow_environment(home: DemoHome, outside: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of `airflow standalone`: loopback, SQLite, few worker processes, short intervals.

    Args:
        home: The demo's folders and login.
        outside: The caller's environment; its variables about other services and data are dropped.
    """
    return isolated_environment(outside, home.programs) | {
        "CLOUDSEG_HOME": str(home.root),
        "AIRFLOW_HOME": str(home.airflow),
        # At the start every schedule is due at once, and SQLite has one writer at a time: five seconds, the default,
        # were too few once, and the API answered 500.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home.airflow / 'airflow.db'}?timeout={_LOCK_S}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(CHECKOUT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{home.ui_url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{home.user}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.passwords),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(home.port),
        "AIRFLOW__API__BASE_URL": home.ui_url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(_JWT_BYTES),
        # Not used without Celery, but its provider warns when it is not set.
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",
        "PYTHONWARNINGS": ",".join(filter(None, [outside.get("PYTHONWARNINGS"), _QUIET])),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        # A file that has changed is read at once; reading all of them every 30 seconds is a third of a core.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    }
