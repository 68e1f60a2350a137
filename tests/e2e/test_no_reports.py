"""No library reports to anyone: the pipeline runs on a machine without a way out, and its connections are counted.

ONNX Runtime's wheel for Linux holds an uploader of telemetry (Microsoft 1DS), on by default. It leaves a session file
in the temporary directory at once and looks up a name after some seconds, so the program stays that long.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import connections
from tests.conftest import REPO

_PIPELINE = """
import sys, time
began = time.monotonic()
from cloudseg import stages

folder, recipe = sys.argv[1:]
stages.ingest(folder)
done = stages.retrain(recipe)
if not done.promote.promoted:
    stages.promote(done.promote.challenger_id, force=True, reason="test", actor="test")
made = stages.predict(new=True)
assert made.created > 3 and not made.failed, made
assert "onnxruntime" in sys.modules  # the net was quantized
assert stages.doctor().ok
time.sleep(max(0.0, 25.0 + began - time.monotonic()))
"""
_CONTROL = """
import socket
for kind, host in ((socket.SOCK_STREAM, "192.0.2.1"), (socket.SOCK_DGRAM, "192.0.2.2")):
    with socket.socket(socket.AF_INET, kind) as sender:
        sender.connect_ex((host, 443))
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
"""


def _count(folder: Path, program: str, *arguments: str) -> list[str]:
    """Run a Python program and return the addresses that it tried to reach; TMPDIR is `folder/tmp`."""
    (folder / "tmp").mkdir()
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("CLOUDSEG_", "ORT_"))}
    environment = kept | {"TMPDIR": str(folder / "tmp"), "CLOUDSEG_HOME": str(folder / "home"), "PYTHONPATH": str(REPO)}
    command = [sys.executable, connections.__file__, str(folder / "found"), sys.executable, "-c", program, *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    if ran.returncode == connections.UNSUPPORTED:
        pytest.skip("this kernel gives no seccomp notifications (Linux 5.5), so connections cannot be counted")
    assert ran.returncode == 0, ran.stderr[-2000:]
    return (folder / "found").read_text().splitlines()


def test_the_counter_counts(tmp_path: Path) -> None:
    assert _count(tmp_path, _CONTROL) == ["192.0.2.1 port 443", "192.0.2.2 port 443"]


def test_the_pipeline_reports_to_no_one(tmp_path: Path, synthetic_folder: Path) -> None:
    tiny = REPO / "tests" / "faults" / "tiny.toml"
    assert _count(tmp_path, _PIPELINE, str(synthetic_folder), str(tiny)) == []
    assert sorted(path.name for path in (tmp_path / "tmp").iterdir()) == []
