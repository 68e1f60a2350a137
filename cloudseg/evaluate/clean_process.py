"""The second blessing: a clean process on the CPU loads the published file and reproduces its golden tile.

This side starts `python -m cloudseg.evaluate.blessing`, which knows nothing of the process that trained: no GPU, no
settings, no state. (After the InfraValidator of TFX, beside its evaluator.)
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudseg.records import StoredObject, Weights
from cloudseg.scratch import scratch_directory
from cloudseg.storage import Store

TIMEOUT_S: Final = 300.0
_KEPT: Final = ("PATH", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""Without these an interpreter may not start at all; everything else stays outside."""


@dataclass(frozen=True)
class SmokeTest:
    """Whether the published file does what the net did."""

    passed: bool
    reason: str


def run_smoke_test(store: Store, weights: Weights, *, timeout_s: float = TIMEOUT_S) -> SmokeTest:
    """Ask a clean process. Raises nothing for unusable weights: the reason says what was wrong with them."""
    if "golden" not in weights.companions:
        return SmokeTest(False, "no golden tile was published beside the weights")
    golden = StoredObject.model_validate(weights.companions["golden"])
    with store.local_file(weights.key) as weights_path, store.local_file(golden.key) as golden_path:
        arguments = [str(weights_path), weights.sha256, str(golden_path), golden.sha256]
        try:
            done = _run(arguments, timeout_s)
        except subprocess.TimeoutExpired:
            return SmokeTest(False, f"the clean process did not answer within {timeout_s:.0f} s")
    return _read(done)


def _run(arguments: list[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    # The folder of this package, so that a checkout that is not installed finds itself too.
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    with scratch_directory("blessing") as folder:
        return subprocess.run(  # noqa: S603 -- our own interpreter and module, paths from the store
            [sys.executable, "-m", "cloudseg.evaluate.blessing", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def _read(done: "subprocess.CompletedProcess[str]") -> SmokeTest:
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return SmokeTest(passed=done.returncode == 0 and answer["passed"] is True, reason=str(answer["reason"]))
    except (IndexError, ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return SmokeTest(False, f"the clean process ended with status {done.returncode}: {last[:300]}")
