"""The pod template of GPU tasks, read by the provider that would use it.

No cluster: that a pod runs is not shown here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("airflow.providers.cncf.kubernetes", reason="pip install apache-airflow-providers-cncf-kubernetes")

REPO = Path(__file__).parents[2]
# In an interpreter of its own: the provider's imports warn, and take long.
_SCRIPT = """
import json, sys
from datetime import datetime, timezone
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
template = PodGenerator.deserialize_model_file(sys.argv[1])
pod = PodGenerator.construct_pod(
    dag_id="cloudseg_retrain", task_id="train", pod_id="cloudseg-retrain-train", try_number=2, kube_image=None, args=["run"],
    date=None, run_id="manual__1", pod_override_object=None, base_worker_pod=template, namespace="cloudseg", scheduler_job_id="1",
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
