"""What a decoder process, the writer process beside it and a probe do in the sandbox.

A decoder is forked for one job (`cloudseg.ingest.supervisor`): it reads the copies of one sender's files and writes
nothing but numbers into a pipe, answers and ends. The writer reads one such pipe after the other and writes in a folder
that no decoder can open. It may parse no text that a decoder sends, so that no sender can take it over; where there is
such text, a writer has only that one task. It ends with the first task that fails.
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
    WriterSetup,
    pixel_pipe,
)
from cloudseg.ingest.pixel_stream import PixelReceiver, PixelSender
from cloudseg.ingest.probe import find_restrictions
from cloudseg.ingest.sandbox import Limits, enter_sandbox
from cloudseg.ingest.write_canonical import TextToParse, write_label, write_scene

_MAX_FOUND_LENGTH: Final = 500
_FILE_FACTOR: Final = 1.5
"""A file that the writer writes, over its pixels without compression: noise and overviews."""
_FILE_RESERVE: Final = 64 << 20

Decode = Callable[[Task, int, int], None]
"""Does a task; called with the descriptors of its answers and of the pixels."""


def run(kept: frozenset[int], act: Callable[[], None]) -> NoReturn:
    """Do something in this process, which was forked for it, and end the process.

    Args:
        kept: Descriptors that stay open: its own, and those that a library holds open (PROJ's database), because the
            library would close the next file in them.
        act: What to do.
    """
    status = 1
    try:
        _close_all_but(kept)
        act()
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


def write(setup: WriterSetup, tasks: int, opened: int, answers: int) -> None:
    """Write the pixels that decoders send, one task after the other, until one fails.

    Args:
        setup: What the process may use.
        tasks: Descriptor from which the tasks come.
        opened: Descriptor that gets a byte when the pipe of a task is open.
        answers: Descriptor of the answers.
    """
    file_bytes = int(_FILE_FACTOR * setup.max_bytes) + _FILE_RESERVE
    limits = Limits(memory_mb=setup.memory_mb, cpu_s=None, file_bytes=file_bytes)
    enter_sandbox(read=[Path(setup.read)], write=[Path(setup.write)], limits=limits)
    with os.fdopen(tasks, "rb") as lines:
        for line in lines:
            task = Task.model_validate_json(line)
            receiver = PixelReceiver(os.open(pixel_pipe(task.out), os.O_RDONLY))
            os.write(opened, b"o")
            answer = _write(task, receiver)
            receiver.close()
            if answer is None:
                return
            _send(answers, answer)
            if answer.failure is not None:
                return


def _write(task: Task, pixels: PixelReceiver) -> Answer | None:
    """Return what was measured on the pixels, or the error; None: the decoder has ended, and its answer says why."""
    try:
        if isinstance(task.job, SceneJob):
            written = write_scene(task.job, pixels, Path(task.out), task.max_bytes, may_parse=task.alone)
            return Answer(written_scene=written)
        if isinstance(task.job, LabelJob):
            job = task.job.model_copy(update={"scene": task.scene})
            return Answer(written_label=write_label(job, pixels, Path(task.out)))
    except TextToParse:
        return Answer(needs_own_writer=True)
    except EOFError:
        pass
    except Exception as error:  # the decoder may have sent anything
        return Answer(failure=_failure(error, task.memory_mb))
    return None


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
