"""The decoder process: `python -m cloudseg.ingest.child`, one JSON line in, one or two out, until its input ends.

It decodes many scenes (importing rasterio takes a second) under limits that it sets itself before it opens anything:
address space, CPU time, open files, no network, no files but its own copies (`cloudseg.ingest.sandbox`).
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Final, TextIO

from cloudseg.errors import BadScene, CloudsegError
from cloudseg.ingest.job import MAX_LIMIT_FACTOR, Answer, DecodeFailure, LabelJob, LabelTagsJob, SceneJob
from cloudseg.ingest.sandbox import enter_sandbox

_OPEN_FILES: Final = 256
_MAX_FOUND_LENGTH: Final = 500


def main() -> None:
    """Answer jobs from standard input. Arguments: CPU seconds per job, megabytes of memory, folder of the copies."""
    timeout_s, memory_mb, folder = float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    # What native libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    restrictions = enter_sandbox(folder)
    from cloudseg.ingest.decode import decode_scene
    from cloudseg.ingest.decode_label import decode_label, read_label_tags

    _limit(memory_mb)
    _send(answers, Answer(ready=True, restrictions=restrictions))
    for line in sys.stdin:
        _limit_cpu(timeout_s)
        values = json.loads(line)
        try:
            if values["kind"] == "scene":
                facts = decode_scene(
                    SceneJob.model_validate(values),
                    on_size=lambda megapixels: _send(answers, Answer(megapixels=megapixels)),
                )
                _send(answers, Answer(scene=facts))
            elif values["kind"] == "label_tags":
                _send(answers, Answer(label_tags=read_label_tags(LabelTagsJob.model_validate(values))))
            else:
                _send(answers, Answer(label=decode_label(LabelJob.model_validate(values))))
        except Exception as error:  # a malicious file may make a library raise anything; it concerns this scene only
            _send(answers, Answer(failure=_failure(error, memory_mb)))


def _send(answers: TextIO, answer: Answer) -> None:
    answers.write(answer.model_dump_json() + "\n")
    answers.flush()


def _failure(error: Exception, memory_mb: int) -> DecodeFailure:
    """Return the record of an error; unexpected ones become a BadScene."""
    if isinstance(error, CloudsegError):
        return DecodeFailure.model_validate(error.as_record())
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        known = BadScene(
            "decoding needs more memory than allowed",
            expected=f"at most {memory_mb} MB",
            next_step="Raise CLOUDSEG_DECODE_MEMORY_MB.",
        )
    else:
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_MAX_FOUND_LENGTH]
        known = BadScene("the file cannot be decoded", found=found, next_step="Get the file again from its source.")
    return DecodeFailure.model_validate(known.as_record())


def _limit(memory_mb: int) -> None:
    """Limit address space and open files of this process and forbid core dumps. Cannot be undone."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def _limit_cpu(timeout_s: float) -> None:
    """Limit the CPU time of the next job.

    The service enforces the deadline; this limit ends an endless loop when the service is gone.
    """
    soft = int(time.process_time() + timeout_s * MAX_LIMIT_FACTOR) + 10
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    main()
