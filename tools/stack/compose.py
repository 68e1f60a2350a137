"""Readers of `docker/`: commands, start order and health checks of compose.yaml, the settings of airflow.env."""

import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import yaml

from cloudseg.errors import SettingsError
from cloudseg.records import Json

_IN_IMAGE: Final = "/opt/cloudseg/"


@dataclass(frozen=True)
class ComposeService:
    """One service as the compose file describes it."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    after: tuple[str, ...]
    """Names of the services that must be healthy, or completed, before this one starts."""
    check: tuple[str, ...]
    """Command of the health check, exit status 0 means healthy; empty if there is none."""
    profiles: tuple[str, ...]
    is_airflow: bool
    runs_once: bool


def read_compose(path: Path, profile: str) -> list[ComposeService]:
    """Return the services of a compose file in start order.

    Args:
        path: The compose file.
        profile: Only services of this profile or of none.

    Raises:
        SettingsError: A service depends on one that does not exist.
    """
    described = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]
    services = {name: _service(name, body) for name, body in described.items()}
    chosen = {
        name: service for name, service in services.items() if not service.profiles or profile in service.profiles
    }
    for service in chosen.values():
        if missing := set(service.after) - set(chosen):
            raise SettingsError(
                "depends on a service that does not exist", subject=f"{path.name} {service.name}", found=sorted(missing)
            )
    order = TopologicalSorter({name: service.after for name, service in chosen.items()}).static_order()
    return [chosen[name] for name in order]


def _service(name: str, body: Json) -> ComposeService:
    return ComposeService(
        name=name,
        command=tuple(body.get("command", ())),
        environment={key: str(value) for key, value in body.get("environment", {}).items()},
        after=tuple(body.get("depends_on", {})),
        check=_check(body.get("healthcheck", {}).get("test", [])),
        profiles=tuple(body.get("profiles", ())),
        is_airflow="airflow.env" in body.get("env_file", []),
        runs_once=body.get("restart") == "no",
    )


def _check(test: list[str]) -> tuple[str, ...]:
    """Return a health check as a command; `CMD-SHELL` holds a shell command line."""
    if not test:
        return ()
    return tuple(test[1:]) if test[0] == "CMD" else ("sh", "-c", test[1].replace("$$", "$"))


def in_checkout(command: tuple[str, ...], root: Path) -> list[str]:
    """Return a command of an image with the paths of a checkout at `root`."""
    return [part.replace(_IN_IMAGE, f"{shlex.quote(str(root))}/" if " " in part else f"{root}/") for part in command]


def read_variables(path: Path) -> dict[str, str]:
    """Return the variables of a file with lines NAME=value.

    Single quotes around a value are removed; lines that begin with # are comments.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {
        name: value[1:-1] if value[:1] == value[-1:] == "'" and len(value) > 1 else value for name, _, value in pairs
    }


def substitute(values: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return `values` with every ${NAME} replaced, as Docker Compose does.

    Raises:
        SettingsError: A variable has no value.
    """
    try:
        return {name: string.Template(value).substitute(variables) for name, value in values.items()}
    except KeyError as error:
        raise SettingsError(
            "the variable has no value",
            subject=str(error.args[0]),
            next_step="docker/.env.example lists every variable.",
        ) from error
