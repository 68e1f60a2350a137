"""The clean process of the second blessing.

Load published weights, reproduce their golden tile, say so in one JSON line.

`python -m cloudseg.evaluate.blessing WEIGHTS SHA256 GOLDEN SHA256`; started by `cloudseg.evaluate.clean_process`.
"""

import json
import sys
from pathlib import Path

from cloudseg.errors import CloudsegError
from cloudseg.keys import sha256_of
from cloudseg.model.golden import TOLERANCE, golden_difference, read_golden
from cloudseg.model.weights import load_weights


def main(arguments: list[str]) -> int:
    """Print `{"passed": bool, "reason": str}`; return 0 where the golden tile was reproduced, else 1."""
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
    """Return whether these weights reproduce this golden tile, and why not. Raises BadWeights for unusable files."""
    if (sha256_of(weights), sha256_of(golden)) != (weights_sha256, golden_sha256):
        return False, "the stored bytes do not match their checksums"
    difference = golden_difference(load_weights(weights), read_golden(golden))
    if difference <= TOLERANCE:
        return True, f"the golden tile is reproduced within {TOLERANCE:g}"
    return False, f"the golden tile is not reproduced: off by {difference:.3g}, at most {TOLERANCE:g} is allowed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
