"""docker/helm and the pod templates without a cluster: keys and types of the chart and of the Kubernetes API."""

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("kubernetes", reason="pip install kubernetes")
from kubernetes_types import faults

from tools.stack.compose import read_variables

REPO = Path(__file__).parents[3]
DOCKER = REPO / "docker"
PAGE = REPO / "docs" / "how-to" / "kubernetes.md"
KEYS = yaml.safe_load((REPO / "tests" / "data" / "airflow_chart" / "keys.yaml").read_text("utf-8"))
OTHER_EXECUTOR = ("AIRFLOW__CELERY",)
BY_THE_CHART = {
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
}
IN_A_SECRET = {
    "AIRFLOW_CONN_CLOUDSEG_WEBHOOK",
    "AIRFLOW_CONN_CLOUDSEG_MAIL",
    "CLOUDSEG_CATALOG_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
}


@pytest.fixture
def values() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "helm" / "values.yaml").read_text("utf-8"))


def settings(values: dict[str, Any]) -> dict[str, str]:
    """Return the settings of all containers, with the name of the release in docs/how-to/kubernetes.md."""
    text = values["extraConfigMaps"]["cloudseg-env"]["data"]
    return yaml.safe_load(re.sub(r"\{\{ \.Release\.Name \}\}", "airflow", text))


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCKER / name).read_text("utf-8")))


def pods() -> dict[str, dict[str, Any]]:
    """Return the specification of every pod that is not one of the chart's."""
    specs = {name: manifests(name)[0]["spec"] for name in ("task_pod.yaml", "gpu_pod.yaml")}
    return specs | {"serve.yaml": manifests("helm/serve.yaml")[0]["spec"]["template"]["spec"]}


# --- keys and types ---------------------------------------------------------------------------------------------------


def test_the_chart_knows_every_value(values: dict[str, Any]):
    assert faults(values, KEYS) == []


def test_a_misspelt_key_and_a_wrong_type_are_found(values: dict[str, Any]):
    broken = copy.deepcopy(values)
    broken["scheduler"]["livenesProbe"] = broken["scheduler"].pop("livenessProbe")
    broken["uid"] = "10001"
    broken["dags"]["gitSync"]["enabled"] = "false"
    broken["apiServer"]["securityContexts"]["container"]["readOnlyRootFileSystem"] = True
    broken["volumeMounts"][0].pop("mountPath")
    assert sorted(fault.partition(": ")[0] for fault in faults(broken, KEYS)) == [
        ".apiServer.securityContexts.container.readOnlyRootFileSystem",
        # One anchor, so one mistake is in each of them.
        ".dagProcessor.securityContexts.container.readOnlyRootFileSystem",
        ".dags.gitSync.enabled",
        ".migrateDatabaseJob.securityContexts.container.readOnlyRootFileSystem",
        ".scheduler.livenesProbe",
        ".scheduler.securityContexts.container.readOnlyRootFileSystem",
        ".triggerer.securityContexts.container.readOnlyRootFileSystem",
        ".uid",
        ".volumeMounts[0]",
    ]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("task_pod.yaml", ["V1Pod"]),
        ("gpu_pod.yaml", ["V1Pod"]),
        ("helm/serve.yaml", ["V1Deployment", "V1Service", "V1NetworkPolicy"]),
    ],
)
def test_the_manifests_fit_the_kubernetes_api(name: str, kinds: list[str]):
    found = manifests(name)
    assert ["V1" + entry["kind"] for entry in found] == kinds
    assert [fault for entry, kind in zip(found, kinds, strict=True) for fault in faults(entry, kind, name)] == []


def test_the_string_of_environments_is_what_the_chart_wants(values: dict[str, Any]):
    """`extraEnvFrom` is a text that the chart inserts, so the check of types does not look into it."""
    assert faults(yaml.safe_load(values["extraEnvFrom"]), ["V1EnvFromSource"]) == []


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_settings_are_those_of_compose(values: dict[str, Any]):
    """Every setting of docker/airflow.env is here with the same value, comes from the chart, or is in a secret."""
    here = settings(values)
    for name, value in read_variables(DOCKER / "airflow.env").items():
        if name.startswith(OTHER_EXECUTOR) or name in BY_THE_CHART | IN_A_SECRET:
            assert name not in here, name
        elif "${" in value or name == "CLOUDSEG_INBOX":  # an address
            assert name in here, name
        else:
            assert here[name] == value, name
    assert all(isinstance(value, str) for value in here.values()), "a ConfigMap holds texts"


def test_there_is_no_secret_in_the_files(values: dict[str, Any]):
    for name, value in settings(values).items():
        assert not re.search(r"://[^/]*:[^/]*@", value), name
        assert not re.search(r"(PASSWORD|SECRET|KEY)", name), name


def test_every_secret_is_made_on_the_page(values: dict[str, Any]):
    """The names and keys of secrets in the files are those of the commands in docs/how-to/kubernetes.md."""
    page = PAGE.read_text("utf-8")
    made = {
        name: set(re.findall(r"--from-literal=([\w-]+)=", rest))
        for name, rest in re.findall(r"create secret generic ([\w-]+) ((?:.*\\\n)*.*)", page)
    }
    text = "\n".join(
        (DOCKER / name).read_text("utf-8")
        for name in ("helm/values.yaml", "helm/serve.yaml", "task_pod.yaml", "gpu_pod.yaml")
    )
    for name, key in re.findall(r"secretKeyRef: \{name: ([\w-]+), key: ([\w-]+)\}", text):
        assert key in made[name], (name, key)
    assert {"connection", "fernet-key", "api-secret-key", "jwt-secret"} <= made[values["data"]["metadataSecretName"]]
    assert set(re.findall(r"secretRef: \{name: ([\w-]+)", text)) <= made.keys()


# --- pods -------------------------------------------------------------------------------------------------------------


def test_no_image_setting_replaces_the_image_of_a_template(values: dict[str, Any]):
    """Airflow puts `worker_container_repository` into every pod, also where the template names the trainer's image."""
    names = ("REPOSITORY", "TAG")
    assert {settings(values)[f"AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_{name}"] for name in names} == {""}
    assert pods()["gpu_pod.yaml"]["containers"][0]["image"].rpartition("/")[2].startswith("cloudseg-trainer:")
    assert pods()["task_pod.yaml"]["containers"][0]["image"].rpartition("/")[2].startswith("cloudseg-airflow:")


def test_the_scheduler_has_the_templates_that_airflow_reads(values: dict[str, Any]):
    mounted = {mount["mountPath"] for mount in values["scheduler"]["extraVolumeMounts"]}
    assert settings(values)["AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE"] in mounted
    named = re.search(r'"pod_template_file": "([^"]+)"', (REPO / "dags" / "cloudseg_dagkit.py").read_text("utf-8"))
    assert named is not None
    assert named[1] in mounted
    assert all((DOCKER / Path(path).name).is_file() for path in mounted)
    for path in mounted:
        assert f"--from-file=docker/{Path(path).name}" in PAGE.read_text("utf-8")


def test_every_pod_is_confined(values: dict[str, Any]):
    """Not root, no capability, nothing to write to but mounted folders; TMPDIR of the image is one of them."""
    contexts = [spec["securityContext"] for spec in pods().values()]
    contexts += [values[name]["securityContexts"]["pod"] for name in ("apiServer", "scheduler", "dagProcessor")]
    assert all(context["runAsNonRoot"] and context["runAsUser"] == values["uid"] for context in contexts)
    assert all(context["seccompProfile"] == {"type": "RuntimeDefault"} for context in contexts)
    for name, spec in pods().items():
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert {"/tmp", "/srv/scratch", "/srv/cloudseg"} <= mounted.keys(), name  # noqa: S108 -- in the container
        assert set(mounted.values()) == {volume["name"] for volume in spec["volumes"]}, name
        assert container["resources"]["limits"]["memory"], name
        assert spec["enableServiceLinks"] is False, name
        assert spec["automountServiceAccountToken"] is False, name
    assert "fieldRef" not in str(pods())


def test_pods_of_tasks_have_no_password_of_airflow():
    for name in ("task_pod.yaml", "gpu_pod.yaml"):
        assert "cloudseg-airflow," not in str(pods()[name]).replace("cloudseg-airflow:", ""), name


def test_the_policies_of_the_chart_let_tasks_through(values: dict[str, Any]):
    peers = values["apiServer"]["networkPolicy"]["ingress"]["from"]
    wanted = next(peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer)
    for name in ("task_pod.yaml", "gpu_pod.yaml"):
        labels = manifests(name)[0]["metadata"]["labels"]
        assert wanted.items() <= labels.items(), name
        assert f"upgrade --install {labels['release']} " in PAGE.read_text("utf-8")


def test_no_service_sets_a_variable_of_cloudseg():
    """Kubernetes makes of a service `a-b` the variable A_B_PORT in every pod of the namespace."""
    (service,) = [entry for entry in manifests("helm/serve.yaml") if entry["kind"] == "Service"]
    assert not service["metadata"]["name"].startswith("cloudseg")
    assert "upgrade --install cloudseg" not in PAGE.read_text("utf-8")


def test_the_mapping_of_statsd_becomes_values(tmp_path: Path):
    """The command on the page makes values of docker/monitoring/statsd_mapping.yml, which the chart knows."""
    command = re.search(r"^awk .*(?:\n  .*)*$", PAGE.read_text("utf-8"), re.M)
    assert command is not None
    script = command.group().replace("statsd.yaml", str(tmp_path / "statsd.yaml"))
    subprocess.run(["sh", "-c", script], cwd=REPO, check=True)
    made = yaml.safe_load((tmp_path / "statsd.yaml").read_text("utf-8"))
    assert faults(made, KEYS) == []
    source = yaml.safe_load((DOCKER / "monitoring" / "statsd_mapping.yml").read_text("utf-8"))
    assert made["statsd"]["overrideMappings"] == source["mappings"]
