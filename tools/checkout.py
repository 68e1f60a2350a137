"""The checkout that the tools run from, and the folders and environments of the services that they start."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cloudseg.errors import InputError, SettingsError

CHECKOUT: Final = Path(__file__).parents[1]
DAG_IDS: Final = (
    "cloudseg_ingest",
    "cloudseg_ingest_stac",
    "cloudseg_retrain",
    "cloudseg_predict",
    "cloudseg_maintain",
    "cloudseg_backup",
    "cloudseg_watch",
    "cloudseg_backfill",
    "cloudseg_decide",
)
_NOT_INHERITED: Final = (
    "AIRFLOW",
    "AWS_",
    "CLOUDSEG_CATALOG_",
    "CLOUDSEG_HOME",
    "CLOUDSEG_INBOX",
    "CLOUDSEG_S3_",
    "CLOUDSEG_STORE_",
    "PG",
    "REDIS",
)
"""Prefixes of variables that name services and data; those of the caller must not reach the demo or the stack."""


def marker_of(root: Path, tool: str) -> Path:
    """Return the file that marks a folder as made by a tool."""
    return root / f".cloudseg-{tool}"


def check_folder(root: Path, tool: str) -> None:
    """Check that a folder is missing, empty, or was made by this tool earlier.

    Raises:
        InputError: The folder holds something else.
    """
    if root.is_dir() and any(root.iterdir()) and not marker_of(root, tool).is_file():
        raise InputError(
            f"the folder is not empty and was not made by `make {tool}`",
            subject=str(root),
            next_step="Name another folder with --home.",
        )


def reserve_port(port: int, *, subject: str, next_step: str) -> int:
    """Return a port of 127.0.0.1 that is free now.

    Args:
        port: The wanted port, or 0 for any free one.
        subject: What the port is for, for the error message.
        next_step: What to do if it is in use, for the error message.

    Raises:
        SettingsError: Another process listens on the port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError("the port is in use", subject=subject, found=port, next_step=next_step) from error
        return int(probe.getsockname()[1])


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, replacing an earlier one."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.write(text)


def isolated_environment(outside: Mapping[str, str], *programs: Path) -> dict[str, str]:
    """Return the caller's environment without the variables that name other services or data.

    Args:
        outside: The caller's environment.
        programs: Folders to prepend to the PATH, before the programs of this Python.
    """
    inside = {name: value for name, value in outside.items() if not name.startswith(_NOT_INHERITED)}
    folders = [*map(str, programs), str(Path(sys.executable).parent), outside.get("PATH", ""), "/usr/sbin"]
    return inside | {"PATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def tail(log: Path, lines: int) -> str:
    """Return the last lines of a log for an error message; empty if there is no log."""
    found = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return "\n" + "\n".join(found[-lines:])
