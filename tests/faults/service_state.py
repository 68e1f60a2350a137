"""Catalog and object store of a service under test, cheap to copy, so that every kill starts from the same state."""

import secrets
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL

from tests.postgres_server import run_sql
from tests.seaweed import BUCKET, Seaweed

_COPY_THREADS = 4
"""Objects copied concurrently."""
_DELETE_LIMIT = 1000
"""Most objects that S3 deletes in one request."""


class ServiceState(Protocol):
    """A state of the service: rows and bytes."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which a process uses this state."""
        ...

    def copy(self, folder: Path) -> "ServiceState":
        """Return an independent copy with the same rows and bytes.

        This state must not be in use meanwhile. The copy may use `folder`.
        """
        ...

    def drop(self) -> None:
        """Delete rows and bytes."""
        ...


class LocalState:
    """A SQLite file and a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def environment(self) -> dict[str, str]:
        return {"CLOUDSEG_HOME": str(self._folder)}

    def copy(self, folder: Path) -> "LocalState":
        shutil.copytree(self._folder, folder)
        return LocalState(folder)

    def drop(self) -> None:
        shutil.rmtree(self._folder)


class ServerState:
    """A database of a PostgreSQL server and a prefix of a bucket of an S3 server."""

    _copying = threading.Lock()
    """PostgreSQL copies a database only while it has no other connection."""

    def __init__(self, database: URL, seaweed: Seaweed, folder: Path) -> None:
        """Use a migrated database and the bucket prefix of the same name, which must be empty."""
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

    def copy(self, folder: Path) -> "ServerState":
        copied = ServerState(self._database.set(database=f"faults_{secrets.token_hex(6)}"), self._seaweed, folder)
        with self._copying:
            run_sql(self._server, f"CREATE DATABASE {copied._database.database} TEMPLATE {self._database.database}")
        client = self._seaweed.client()

        def copy(name: str) -> None:
            to = f"{copied._database.database}/{name.partition('/')[2]}"
            client.copy_object(Bucket=BUCKET, Key=to, CopySource={"Bucket": BUCKET, "Key": name})

        with ThreadPoolExecutor(_COPY_THREADS) as threads:
            list(threads.map(copy, self._names(client)))
        return copied

    def drop(self) -> None:
        run_sql(self._server, f"DROP DATABASE {self._database.database} WITH (FORCE)")
        client = self._seaweed.client()
        names = [{"Key": name} for name in self._names(client)]
        for start in range(0, len(names), _DELETE_LIMIT):
            client.delete_objects(
                Bucket=BUCKET, Delete={"Objects": names[start : start + _DELETE_LIMIT], "Quiet": True}
            )

    @property
    def _server(self) -> URL:
        return self._database.set(database="postgres")

    def _names(self, client: Any) -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self._database.database}/")
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]
