"""What a decoder process, the writer process beside it and a probe do: enter the sandbox, do one job, answer, end.

Every process is forked for one job (`cloudseg.ingest.supervisor`). The decoder reads the copies of one sender's files
and writes nothing but numbers into a pipe; the writer reads that pipe and writes one folder that nobody else can open.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from cloudseg.errors import BadScene, CloudsegError
from cloudseg.ingest.decode import decode_scene
from cloudseg.ingest.decode_label import decode_label, read_label_tags
from cloudseg.ingest.job import (
    MAX_LIMIT_FACTOR,
    Answer,
    DecodeFailure,
    LabelJob,
    LabelTagsJob,
    ProbeJob,
    SceneJob,
    Task,
)
from cloudseg.ingest.pixel_stream import PixelReceiver, PixelSender
from cloudseg.ingest.probe import find_restrictions
from cloudseg.ingest.sandbox import Limits, enter_sandbox
from cloudseg.ingest.write_canonical import write_label, write_scene

_MAX_FOUND_LENGTH: Final = 500
_FILE_FACTOR: Final = 1.5
"""A file that the writer writes, over its pixels without compression: noise and overviews."""
_FILE_RESERVE: Final = 64 << 20

Child = Callable[[Task, int, int], None]
"""Does a task; called with the descriptors of its answers and of the pixels."""


def run(child: Child, task: Task, answers: int, pixels: int, libraries: frozenset[int]) -> NoReturn:
    """Do a task in this process, which was forked for it, and end the process.

    Args:
        child: What to do.
        task: The task.
        answers: Descriptor of the answers.
        pixels: Descriptor of the pixels.
        libraries: Descriptors that a library holds open (PROJ's database); a library would close the next file in them.
    """
    status = 1
    try:
        _close_all_but(libraries | {answers, pixels})
        child(task, answers, pixels)
        status = 0
    finally:
        os._exit(status)


def decode(task: Task, answers: int, pixels: int) -> None:
    """Decode a scene or label and send its pixels to the writer, or read what a label says about itself."""
    job = task.job
    folder = Path(job.folder)
    # A label's scene lies in the store's copy beside it, or was written by the ingest of the scene.
    enter_sandbox(read=[folder], write=[], limits=_limits(task, 0))
    sender = PixelSender(pixels)
    try:
        if isinstance(job, SceneJob):
            reading = decode_scene(job, lambda megapixels: _send(answers, Answer(megapixels=megapixels)), sender)
            _send(answers, Answer(scene=reading))
        elif isinstance(job, LabelJob):
            _send(answers, Answer(label=decode_label(job, sender)))
        elif isinstance(job, LabelTagsJob):
            _send(answers, Answer(label_tags=read_label_tags(job)))
    except BrokenPipeError:
        _send(answers, Answer(cut_off=True))
    except Exception as error:  # a malicious file may make a library raise anything; it concerns this scene only
        _send(answers, Answer(failure=_failure(error, task.memory_mb)))


def write(task: Task, answers: int, pixels: int) -> None:
    """Write the pixels that the decoder sends."""
    job, out = task.job, Path(task.out)
    read = [Path(job.scene)] if isinstance(job, LabelJob) else []
    enter_sandbox(read=read, write=[out], limits=_limits(task, int(_FILE_FACTOR * task.max_bytes) + _FILE_RESERVE))
    receiver = PixelReceiver(pixels)
    try:
        if isinstance(job, SceneJob):
            _send(answers, Answer(written_scene=write_scene(job, receiver, out, task.max_bytes)))
        elif isinstance(job, LabelJob):
            _send(answers, Answer(written_label=write_label(job, receiver, out)))
    except EOFError:
        return  # the decoder has ended, and its answer says why
    except Exception as error:  # the decoder may have sent anything
        _send(answers, Answer(failure=_failure(error, task.memory_mb)))


def probe(task: Task, answers: int, _: int) -> None:
    """Try what the sandbox must deny and answer what it denied."""
    if isinstance(task.job, ProbeJob):
        enter_sandbox(read=[Path(task.job.folder)], write=[], limits=_limits(task, 0))
        try:
            _send(answers, Answer(restrictions=find_restrictions(task.job)))
        except MemoryError as error:
            _send(answers, Answer(failure=_failure(error, task.memory_mb)))


def _limits(task: Task, file_bytes: int) -> Limits:
    return Limits(memory_mb=task.memory_mb, cpu_s=int(task.timeout_s * MAX_LIMIT_FACTOR) + 10, file_bytes=file_bytes)


def _close_all_but(kept: frozenset[int]) -> None:
    """Close every inherited descriptor but these; what native libraries print must not mix with the answers."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    low = 3
    for descriptor in sorted(kept):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _send(answers: int, answer: Answer) -> None:
    rest = answer.model_dump_json().encode() + b"\n"
    while rest:
        rest = rest[os.write(answers, rest) :]


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
