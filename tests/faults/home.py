"""Where the service of a fault test keeps its things.

Copied in a moment, so that every kill begins from the same state.
"""

import secrets
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL

from tests.postgres_server import run_sql
from tests.seaweed import BUCKET, Seaweed

_AT_ONCE = 4
"""Objects copied side by side."""
_MOST = 1000
"""Objects that S3 deletes by one request."""


class Home(Protocol):
    """A state of the service: rows and bytes."""

    @property
    def environment(self) -> dict[str, str]:
        """Settings with which a process works on it."""
        ...

    def copy(self, folder: Path) -> "Home":
        """Return a state of its own with the same rows and bytes; nobody may be working on this one.

        `folder` is free to use.
        """
        ...

    def drop(self) -> None:
        """Give back what it occupies."""
        ...


class LocalHome:
    """A SQLite file and a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def environment(self) -> dict[str, str]:
        return {"CLOUDSEG_HOME": str(self._folder)}

    def copy(self, folder: Path) -> "LocalHome":
        shutil.copytree(self._folder, folder)
        return LocalHome(folder)

    def drop(self) -> None:
        shutil.rmtree(self._folder)


class ServersHome:
    """A database of a PostgreSQL server and a prefix of a bucket of an S3 server."""

    _copying = threading.Lock()
    """PostgreSQL copies a database only while nobody else does anything with it."""

    def __init__(self, database: URL, seaweed: Seaweed, folder: Path) -> None:
        """Take a migrated database over; the prefix is called as the database is, and is empty."""
        self._database, self._seaweed, self._folder = database, seaweed, folder

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self._seaweed.settings(f"s3://{BUCKET}/{self._database.database}"),
            "CLOUDSEG_CATALOG_URL": self._database.render_as_string(hide_password=False),
            "CLOUDSEG_HOME": str(self._folder),
            "AWS_SHARED_CREDENTIALS_FILE": str(self._folder / "none"),
            "AWS_CONFIG_FILE": str(self._folder / "none"),
        }

    def copy(self, folder: Path) -> "ServersHome":
        copied = ServersHome(self._database.set(database=f"faults_{secrets.token_hex(6)}"), self._seaweed, folder)
        with self._copying:
            run_sql(self._server, f"CREATE DATABASE {copied._database.database} TEMPLATE {self._database.database}")
        client = self._seaweed.client()

        def copy(name: str) -> None:
            to = f"{copied._database.database}/{name.partition('/')[2]}"
            client.copy_object(Bucket=BUCKET, Key=to, CopySource={"Bucket": BUCKET, "Key": name})

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(copy, self._names(client)))
        return copied

    def drop(self) -> None:
        run_sql(self._server, f"DROP DATABASE {self._database.database} WITH (FORCE)")
        client = self._seaweed.client()
        names = [{"Key": name} for name in self._names(client)]
        for start in range(0, len(names), _MOST):
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": names[start : start + _MOST], "Quiet": True})

    @property
    def _server(self) -> URL:
        return self._database.set(database="postgres")

    def _names(self, client: Any) -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self._database.database}/")
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]
