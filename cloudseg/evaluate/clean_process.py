"""The smoke test of the gate: a clean process on the CPU loads the published file and reproduces its golden sample.

It shares nothing with the process that trained: no GPU, no settings, no state. (TFX has a component for this, the
InfraValidator, next to its Evaluator.)
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudseg.errors import CloudsegError
from cloudseg.keys import sha256_of
from cloudseg.model.golden import TOLERANCE, golden_difference, read_golden
from cloudseg.model.weights import load_weights
from cloudseg.records import StoredObject, Weights
from cloudseg.scratch import scratch_directory
from cloudseg.storage import Store

TIMEOUT_S: Final = 300.0
_INHERITED: Final = ("PATH", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""Environment variables that an interpreter may need to start; no others are passed on."""
_PROGRAM: Final = "import sys; from cloudseg.evaluate.clean_process import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class SmokeTest:
    """Result of the smoke test: whether the published file predicts what the net predicted when it was published."""

    passed: bool
    reason: str


def run_smoke_test(store: Store, weights: Weights, *, timeout_s: float = TIMEOUT_S) -> SmokeTest:
    """Run the smoke test in a separate process and return its result.

    Weights that cannot be loaded fail the test; no error is raised for them.

    Args:
        store: holds the weights and their golden sample.
        weights: the published weights.
        timeout_s: seconds after which the process is killed.
    """
    if "golden" not in weights.companions:
        return SmokeTest(False, "no golden sample was published with the weights")
    golden = StoredObject.model_validate(weights.companions["golden"])
    with store.local_file(weights.key) as weights_path, store.local_file(golden.key) as golden_path:
        arguments = [str(weights_path), weights.sha256, str(golden_path), golden.sha256]
        try:
            completed = _run(arguments, timeout_s)
        except subprocess.TimeoutExpired:
            return SmokeTest(False, f"the clean process timed out after {timeout_s:g} s")
    return _parse(completed)


def main(arguments: list[str]) -> int:
    """Run the smoke test in this process, the clean one.

    Print one line of JSON: `{"passed": bool, "reason": str}`.

    Args:
        arguments: path and SHA-256 of the weights, path and SHA-256 of the golden sample.

    Returns:
        Exit status: 0 if the golden sample was reproduced, else 1.
    """
    weights_path, weights_sha256, golden_path, golden_sha256 = arguments
    try:
        passed, reason = check(
            Path(weights_path).read_bytes(), weights_sha256, Path(golden_path).read_bytes(), golden_sha256
        )
    except CloudsegError as error:
        passed, reason = False, str(error)
    sys.stdout.write(json.dumps({"passed": passed, "reason": reason}) + "\n")
    return 0 if passed else 1


def check(weights: bytes, weights_sha256: str, golden: bytes, golden_sha256: str) -> tuple[bool, str]:
    """Return whether these weights reproduce this golden sample, and the reason.

    Raises:
        BadWeights: one of the files cannot be loaded.
    """
    if (sha256_of(weights), sha256_of(golden)) != (weights_sha256, golden_sha256):
        return False, "the stored bytes do not match their checksums"
    difference = golden_difference(load_weights(weights), read_golden(golden))
    if difference <= TOLERANCE:
        return True, f"the golden sample is reproduced within {TOLERANCE:g}"
    return False, f"the golden sample is not reproduced: off by {difference:.3g}, at most {TOLERANCE:g} is allowed"


def _run(arguments: list[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    # The folder that holds the package, so that a checkout works that is not installed.
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    with scratch_directory("smoke-test") as folder:
        return subprocess.run(  # noqa: S603 -- our own interpreter and program, paths from the store
            [sys.executable, "-c", _PROGRAM, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def _parse(completed: "subprocess.CompletedProcess[str]") -> SmokeTest:
    try:
        result = json.loads(completed.stdout.splitlines()[-1])
        return SmokeTest(passed=completed.returncode == 0 and result["passed"] is True, reason=str(result["reason"]))
    except (IndexError, ValueError, KeyError, TypeError):
        last = (completed.stderr.strip().splitlines() or ["no output"])[-1]
        return SmokeTest(False, f"the clean process ended with status {completed.returncode}: {last[:300]}")
