"""The folder of a demo and the environment of its Airflow."""

import json
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudseg.catalog import Catalog
from cloudseg.storage import Store, open_store
from tools.checkout import CHECKOUT, check_folder, isolated_environment, marker_of, reserve_port, write_private

_USER: Final = "admin"


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
        "Made by `make demo`, which empties this folder when it starts again.\n", encoding="utf-8"
    )
    _write_launcher(home.programs / "airflow")
    write_private(home.passwords, json.dumps({home.user: home.password}))
    return home


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
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(32),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    }
