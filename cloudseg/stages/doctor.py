"""Stages that check the installation, migrate the catalog and create its roles."""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple
from uuid import uuid4

from pydantic import Field

from cloudseg.catalog import label_rows
from cloudseg.catalog.roles import ROLES
from cloudseg.errors import CloudsegError, ObjectExists, SettingsError, StoreRefused
from cloudseg.keys import CHAMPION_POINTER, doctor_probe
from cloudseg.recipe import load_recipe, recipe_names
from cloudseg.records import Json, Record
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.stages.catalog_file import check_catalog_file, describe_catalog_disk
from cloudseg.stages.ingest import decode_limits
from cloudseg.stages.verification import describe_verification


class Check(Record):
    """Result of one check."""

    name: str
    ok: bool
    detail: str
    warning: bool = Field(False, description="the service works, but somebody should act")


class Warned(NamedTuple):
    """What a check found, and whether somebody should act on it."""

    detail: str
    warning: bool


class DoctorRecord(Record):
    """Whether all checks passed, and their results."""

    ok: bool
    checks: list[Check]


def doctor(*, device: bool = True) -> DoctorRecord:
    """Check settings, catalog and migrations, store and when it was last read, recipes, the decoder's sandbox, device.

    Where evaluations ask for a second opinion, also whether its model is installed. Nothing is changed; a small object
    is written to the store and deleted again.

    Args:
        device: check what trains and predicts too, which imports torch (seconds).
    """
    try:
        runtime = open_runtime(check=False)
    except CloudsegError as error:
        return DoctorRecord(ok=False, checks=[Check(name="settings", ok=False, detail=str(error))])
    probes: list[tuple[str, Callable[[Runtime], str | Warned]]] = [
        ("settings", lambda runtime: f"home {runtime.home}, inbox {runtime.inbox}"),
        ("catalog", _catalog),
        ("store", _store),
        ("integrity", _integrity),
        ("recipes", _recipes),
        ("decoder", _decoder),
        *([("device", _device)] if device else []),
        *([("second opinion", _opinion)] if device and runtime.settings.second_opinion else []),
    ]
    record = _collect([_probe(name, probe, runtime) for name, probe in probes])
    log.ended("doctor", record)
    return record


def upgrade_catalog() -> Json:
    """Migrate the catalog to the newest revision; running it again changes nothing."""
    runtime = open_runtime(check=False)
    before = runtime.catalog.revision()
    key = CHAMPION_POINTER  # any key: the prefix is the same for all
    url, gdal = (
        address.removesuffix(key) for address in (runtime.store.uri_of(key), str(runtime.store.gdal_path(key)))
    )
    record: Json = {
        "catalog": runtime.catalog.uri,
        "before": before,
        "after": runtime.catalog.upgrade(url=url, gdal=gdal),
    }
    log.ended("db upgrade", record)
    return record


def make_roles() -> Json:
    """Create the catalog's roles on PostgreSQL and grant their rights; running it again changes nothing."""
    runtime = open_runtime(check=False)
    record: Json = {"catalog": runtime.catalog.uri, "created": runtime.catalog.make_roles(), "roles": list(ROLES)}
    log.ended("db roles", record)
    return record


def _collect(checks: list[Check]) -> DoctorRecord:
    return DoctorRecord(ok=all(check.ok for check in checks), checks=checks)


def _probe(name: str, probe: "Callable[[Runtime], str | Warned]", runtime: Runtime) -> Check:
    try:
        said = probe(runtime)
        detail, warning = (said.detail, said.warning) if isinstance(said, Warned) else (said, False)
        return Check(name=name, ok=True, detail=detail, warning=warning)
    except CloudsegError as error:
        return Check(name=name, ok=False, detail=str(error))


def _catalog(runtime: Runtime) -> Warned:
    catalog = runtime.catalog
    check_catalog_file(catalog)
    if runtime.settings.catalog_url is None and catalog.revision() != catalog.head_revision():
        catalog.check_upgrade()
        words = f"{catalog.uri} is embedded: the next command migrates it to revision {catalog.head_revision()}"
    else:
        catalog.check()
        with catalog.read() as db:
            waiting = label_rows.describe_waiting(db)
        words = "; ".join(part for part in (f"{catalog.uri} at revision {catalog.revision()}", waiting) if part)
    if concern := describe_catalog_disk(catalog):
        return Warned(f"{words}; {concern}", warning=True)
    return Warned(words, warning=False)


def _store(runtime: Runtime) -> str:
    """Write, read back and delete a small object; check that the store never overwrites an object."""
    key, data = doctor_probe(uuid4().hex), b"cloudseg doctor\n"
    stored = runtime.store.put(key, data)
    try:
        runtime.store.get(key, stored.sha256)
        _check_create_only(runtime, key)
    finally:
        runtime.store.delete(key)
    return f"{runtime.store.uri} can be written, read and listed, and overwrites nothing"


def _check_create_only(runtime: Runtime, key: str) -> None:
    """Check that a second writer cannot replace an object; some S3 servers accept the condition and ignore it.

    Raises:
        StoreRefused: the store overwrites the object, or does not list it.
    """
    try:
        runtime.store.put(key, b"another\n")
    except ObjectExists:
        if key in runtime.store.list_keys(key):
            return
        raise StoreRefused(
            "the store does not list an object that it holds",
            subject=runtime.store.uri,
            next_step="Use another server.",
        ) from None
    raise StoreRefused(
        "the store overwrites existing objects",
        subject=runtime.store.uri,
        found="If-None-Match is ignored",
        next_step="Use a server with conditional writes: SeaweedFS from 4.48 on, or AWS.",
    )


def _integrity(runtime: Runtime) -> Warned:
    """Return when the store was last read as a whole. Damage is no failure here: other scenes are masked meanwhile."""
    if runtime.catalog.revision() != runtime.catalog.head_revision():
        return Warned("not looked at: the catalog has another revision", warning=False)
    return Warned(*describe_verification(runtime.store, runtime.catalog))


def _recipes(_: Runtime) -> str:
    return ", ".join(load_recipe(name).name for name in recipe_names())


def _decoder(runtime: Runtime) -> Warned:
    """Start a decoder process and return which restrictions it found in force.

    Raises:
        CloudsegError: It does not start.
        SettingsError: CLOUDSEG_REQUIRE_SANDBOX is set and a restriction is not in force.
    """
    from cloudseg.ingest.decoder_session import DecoderServer
    from cloudseg.ingest.probe import RESTRICTIONS

    with DecoderServer(decode_limits(runtime)) as server:
        server.start()
        missing = [f"{name} (needs {RESTRICTIONS[name]})" for name in RESTRICTIONS if name not in server.restrictions]
    in_force = f"sandbox in force: {', '.join(server.restrictions) or 'nothing'}"
    return Warned(f"{in_force}; missing: {'; '.join(missing)}" if missing else in_force, warning=bool(missing))


def _device(runtime: Runtime) -> str:
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: ingest and the catalog work, training and prediction do not"
    from cloudseg.stages.compute import open_device

    device = open_device(runtime)
    return f"{device.kind}: {device.reason}"


def _opinion(runtime: Runtime) -> Warned:
    """Return whether the model of the second opinion can be asked. A worker that never trains does without it."""
    from cloudseg.stages.compute import open_opinion

    try:
        open_opinion(runtime)
    except SettingsError as error:
        return Warned(f"no training begins on this machine: {error}", warning=True)
    return Warned("ukis-csmask is installed", warning=False)
