"""The pod template of GPU tasks, read by the Kubernetes provider without a cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("airflow.providers.cncf.kubernetes", reason="pip install apache-airflow-providers-cncf-kubernetes")

REPO = Path(__file__).parents[3]
# In a separate interpreter, because importing the provider is slow and issues warnings.
_SCRIPT = """
import json, sys
from datetime import datetime, timezone
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
template = PodGenerator.deserialize_model_file(sys.argv[1])
pod = PodGenerator.construct_pod(
    dag_id="cloudseg_retrain", task_id="train", run_id="manual__1", try_number=2, date=None, scheduler_job_id="1",
    pod_id="cloudseg-retrain-train", namespace="cloudseg", kube_image=None, args=["run"],
    base_worker_pod=template, pod_override_object=None,
)
print(json.dumps(PodGenerator.serialize_pod(pod)))
"""


def test_the_provider_reads_it_and_makes_a_task_of_it(tmp_path: Path):
    environment = os.environ | {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    command = [sys.executable, "-c", _SCRIPT, str(REPO / "docker" / "gpu_pod.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    pod = json.loads(done.stdout.splitlines()[-1])
    container = pod["spec"]["containers"][0]
    assert container["name"] == "base"
    assert container["args"] == ["run"]
    assert container["image"].split("/")[-1].startswith("cloudseg-trainer:")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert pod["metadata"]["namespace"] == "cloudseg"
    assert pod["metadata"]["annotations"]["try_number"] == "2"


def test_gpu_tasks_ask_for_this_pod():
    text = (REPO / "dags" / "cloudseg_dagkit.py").read_text("utf-8")
    assert '"pod_template_file": "/opt/cloudseg/docker/gpu_pod.yaml"' in text
    assert "docker/gpu_pod.yaml /opt/cloudseg/docker/" in (REPO / "docker" / "Dockerfile").read_text("utf-8")
