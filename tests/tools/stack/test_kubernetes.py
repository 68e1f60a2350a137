"""The pod templates, read by the Kubernetes provider without a cluster, with the settings of docker/helm."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("airflow.providers.cncf.kubernetes", reason="pip install apache-airflow-providers-cncf-kubernetes")

REPO = Path(__file__).parents[3]
# In a separate interpreter, because importing the provider is slow and issues warnings.
_SCRIPT = """
import json, sys
from datetime import datetime, timezone
from airflow.providers.cncf.kubernetes.kube_config import KubeConfig
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
def make(path):
    return PodGenerator.construct_pod(
        dag_id="cloudseg_retrain", task_id="train", run_id="manual__1", try_number=2, date=None, scheduler_job_id="1",
        pod_id="cloudseg-retrain-train", namespace="cloudseg", kube_image=KubeConfig().kube_image, args=["run"],
        base_worker_pod=PodGenerator.deserialize_model_file(path), pod_override_object=None,
    )
print(json.dumps([PodGenerator.serialize_pod(make(path)) for path in sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The pods that Airflow would ask Kubernetes for, by template."""
    text = yaml.safe_load((REPO / "docker" / "helm" / "values.yaml").read_text("utf-8"))["extraConfigMaps"]
    settings = yaml.safe_load(text["cloudseg-env"]["data"].replace("{{ .Release.Name }}", "airflow"))
    executor = {name: value for name, value in settings.items() if name.startswith("AIRFLOW__KUBERNETES_EXECUTOR__")}
    home = {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    names = ("task_pod.yaml", "gpu_pod.yaml")
    command = [sys.executable, "-c", _SCRIPT, *(str(REPO / "docker" / name) for name in names)]
    environment = os.environ | home | executor
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return dict(zip(names, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_the_provider_reads_it_and_makes_a_task_of_it(pods: dict[str, dict[str, Any]]):
    """The image is the trainer's, whatever image Airflow's settings name for others."""
    pod = pods["gpu_pod.yaml"]
    container = pod["spec"]["containers"][0]
    assert container["name"] == "base"
    assert container["args"] == ["run"]
    assert container["image"].split("/")[-1].startswith("cloudseg-trainer:")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert pod["metadata"]["namespace"] == "cloudseg"
    assert pod["metadata"]["annotations"]["try_number"] == "2"
    assert pod["metadata"]["labels"]["tier"] == "airflow"


def test_other_tasks_have_the_image_without_torch(pods: dict[str, dict[str, Any]]):
    (container,) = pods["task_pod.yaml"]["spec"]["containers"]
    assert container["image"].split("/")[-1].startswith("cloudseg-airflow:")
    assert container["args"] == ["run"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_gpu_tasks_ask_for_this_pod():
    text = (REPO / "dags" / "cloudseg_dagkit.py").read_text("utf-8")
    assert '"pod_template_file": "/opt/cloudseg/docker/gpu_pod.yaml"' in text
    assert "docker/gpu_pod.yaml /opt/cloudseg/docker/" in (REPO / "docker" / "Dockerfile").read_text("utf-8")
