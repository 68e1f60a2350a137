"""The process that decodes: `python -m cloudseg.ingest.child`, one JSON line in, one or two out, until its input ends.

It lives for many scenes (importing rasterio costs a second) under limits that it sets itself before it opens anything:
address space, CPU time, open files, no network, no file but its own copies (`cloudseg.ingest.sandbox`).
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, Final, TextIO

from cloudseg.errors import BadScene, CloudsegError
from cloudseg.ingest.job import MOST_TIMES, Answer, Fault, LabelJob, SceneJob
from cloudseg.ingest.sandbox import shut_in

_OPEN_FILES: Final = 256
_LONGEST_FOUND: Final = 500


def main() -> None:
    """Answer jobs from standard input.

    The limits come as arguments: seconds, megabytes and the folder of the copies.
    """
    timeout_s, memory_mb, folder = float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    # Whatever a native library prints must not run into the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    taken = shut_in(folder)
    from cloudseg.ingest.decode import decode_scene
    from cloudseg.ingest.label import decode_label

    _limit(memory_mb)
    _send(answers, Answer(ready=True, taken=taken))
    for line in sys.stdin:
        _limit_cpu(timeout_s)
        values = json.loads(line)
        try:
            if values["kind"] == "scene":
                _send(answers, Answer(scene=decode_scene(SceneJob.model_validate(values), _teller(answers))))
            else:
                _send(answers, Answer(label=decode_label(LabelJob.model_validate(values))))
        except Exception as error:  # a hostile file may make a library raise anything; each is this one scene's fault
            _send(answers, Answer(fault=_fault(error, memory_mb)))


def _teller(answers: TextIO) -> Any:
    return lambda megapixels: _send(answers, Answer(megapixels=megapixels))


def _send(answers: TextIO, answer: Answer) -> None:
    answers.write(answer.model_dump_json() + "\n")
    answers.flush()


def _fault(error: Exception, memory_mb: int) -> Fault:
    if isinstance(error, CloudsegError):
        return Fault.model_validate(error.as_record())
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        known = BadScene(
            "decoding needs more memory than allowed",
            expected=f"{memory_mb} MB",
            next_step="Raise CLOUDSEG_DECODE_MEMORY_MB.",
        )
    else:
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_FOUND]
        known = BadScene("the file cannot be decoded", found=found, next_step="Get the file again from its source.")
    return Fault.model_validate(known.as_record())


def _limit(memory_mb: int) -> None:
    """Bound address space, open files and core dumps of this process, for good."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def _limit_cpu(timeout_s: float) -> None:
    """Bound the CPU time of the next job.

    The service keeps the clock; this ends an endless loop when the service is gone.
    """
    soft = int(time.process_time() + timeout_s * MOST_TIMES) + 10
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    main()
