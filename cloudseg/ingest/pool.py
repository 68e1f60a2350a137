"""Decoder processes: started once, passed one scene after another, replaced when a scene crashes or hangs them."""

import json
import logging
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final

from pydantic import ValidationError

from cloudseg import errors
from cloudseg.errors import BadScene, CloudsegError
from cloudseg.ingest.cpu_deadline import CpuDeadline
from cloudseg.ingest.inbox_file import NotRead
from cloudseg.ingest.job import (
    FREE_MEGAPIXELS,
    MAX_LIMIT_FACTOR,
    Answer,
    DecodeFailure,
    DecodeLimits,
    LabelFacts,
    LabelJob,
    LabelTags,
    LabelTagsJob,
    SceneFacts,
    SceneJob,
)
from cloudseg.ingest.label_errors import NothingDrawn
from cloudseg.ingest.sandbox import FILES, NETWORK

log = logging.getLogger(__name__)
_START_S: Final = 20.0
"""CPU time; importing rasterio takes a second."""
_MAX_ANSWER_BYTES: Final = 64 << 20
_MAX_TEXT_LENGTH: Final = 600
_ENVIRONMENT: Final = {
    # A closed local port: a library that tries to use the network gets "connection refused" at once.
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "GDAL_HTTP_PROXY": "127.0.0.1:9",
    "GDAL_HTTP_CONNECTTIMEOUT": "1",
    "GDAL_HTTP_MAX_RETRY": "0",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "PROJ_NETWORK": "OFF",
    "GDAL_DRIVER_PATH": "disable",
    "GDAL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPJ_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT")
"""Variables passed on from the service; its secrets stay out of reach of a compromised decoder."""


class _DecoderCrashed(BadScene):
    """The process ended during the job."""


class Decoder:
    """One decoder process. Not safe to use from several threads at once."""

    def __init__(self, limits: DecodeLimits, folder: Path) -> None:
        """Store the limits; the process starts with the first job.

        Args:
            limits: What one job may cost.
            folder: Parent of the files of every job; the process can open no others.
        """
        self._limits, self._folder = limits, folder
        self.restrictions: list[str] = []
        """What the sandbox of the running process denies (`cloudseg.ingest.sandbox`)."""
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def decode_scene(self, job: SceneJob) -> SceneFacts:
        """Decode a scene to `job.out`.

        Raises:
            BadScene: The files do not make a scene, or the process crashed or took too long.
            NotRead: The machine was too busy; the next ingest tries again.
        """
        facts = self._run(job, job.name).scene
        if facts is None:
            raise self._invalid_answer(job.name)
        _check_output(Path(job.out), job.name)
        return facts

    def decode_label(self, job: LabelJob) -> LabelFacts:
        """Decode a label to `job.out`.

        Raises:
            BadLabel: The file is not a label of this scene.
            BadScene: The process crashed or took too long.
            NotRead: The machine was too busy; the next ingest tries again.
        """
        facts = self._run(job, job.display_name).label
        if facts is None:
            raise self._invalid_answer(job.display_name)
        _check_output(Path(job.out), job.display_name)
        return facts

    def read_label_tags(self, job: LabelTagsJob) -> LabelTags:
        """Return what a label says about itself.

        Raises:
            BadLabel: The file is not a label.
            BadScene: The process crashed or took too long.
            NotRead: The machine was too busy; the next ingest tries again.
        """
        tags = self._run(job, job.display_name).label_tags
        if tags is None:
            raise self._invalid_answer(job.display_name)
        return tags

    def close(self) -> None:
        """End the process; the next job starts a new one."""
        process, self._process, self._buffer = self._process, None, b""
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _invalid_answer(self, subject: str) -> BadScene:
        self.close()
        return BadScene(
            "the decoder returned an invalid answer",
            subject=subject,
            next_step="Inspect the file before trying again: it may be malicious.",
        )

    def _run(self, job: SceneJob | LabelJob | LabelTagsJob, subject: str) -> Answer:
        """Return the answer to a job, with one retry after a crash: the system may have killed the process."""
        try:
            return self._run_once(job, subject)
        except _DecoderCrashed:
            return self._run_once(job, subject)

    def _run_once(self, job: SceneJob | LabelJob | LabelTagsJob, subject: str) -> Answer:
        process = self._start()
        deadline = CpuDeadline(process.pid, self._limits.timeout_s)
        try:
            assert process.stdin is not None  # noqa: S101
            process.stdin.write(json.dumps(job.as_json()).encode() + b"\n")
            process.stdin.flush()
            answer = self._read_answer(process, deadline)
            if answer.megapixels is not None:
                deadline.extend(min(MAX_LIMIT_FACTOR, max(1.0, answer.megapixels / FREE_MEGAPIXELS)))
                answer = self._read_answer(process, deadline)
        except (TimeoutError, EOFError, OSError, ValidationError) as error:
            status, starved = process.poll(), deadline.was_starved
            self.close()
            raise _process_error(error, status, subject, self._limits, starved=starved) from error
        if answer.failure is not None:
            raise _error_from(answer.failure, subject)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        """Return the running process; start one if there is none.

        Raises:
            CloudsegError: The process does not start.
        """
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        limits = [str(self._limits.timeout_s), str(self._limits.memory_mb), str(self._folder)]
        with tempfile.TemporaryFile() as stderr:
            # Its own session: Ctrl-C ends the service, which ends its decoders in order.
            self._process = process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "cloudseg.ingest.child", *limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=inherited | _ENVIRONMENT | {"TMPDIR": str(self._folder)},
                start_new_session=True,
            )
            try:
                answer = self._read_answer(process, CpuDeadline(process.pid, _START_S))
            except (TimeoutError, EOFError, OSError, ValidationError):
                answer = Answer()
            if not answer.ready:
                self.close()
                stderr.seek(0)
                raise CloudsegError(
                    "the decoder process does not start",
                    subject=sys.executable,
                    found=stderr.read()[-600:].decode("utf-8", "replace"),
                    next_step="Run `cloudseg doctor`. "
                    "CLOUDSEG_DECODE_MEMORY_MB may be too small for the libraries themselves.",
                )
        self.restrictions = answer.restrictions
        if missing := [name for name in (NETWORK, FILES) if name not in self.restrictions]:
            log.warning(
                "the kernel does not allow these sandbox restrictions: %s (docs/concepts/security.md)",
                ", ".join(missing),
            )
        return process

    def _read_answer(self, process: subprocess.Popen[bytes], deadline: CpuDeadline) -> Answer:
        """Read one line from the process.

        Raises:
            TimeoutError: The deadline is over.
            EOFError: The process ended, or the line is too long.
            ValidationError: The line is not a valid answer.
        """
        assert process.stdout is not None  # noqa: S101
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(deadline.wait_s()):
                    if deadline.is_over():
                        raise TimeoutError
                    continue
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk or len(self._buffer) > _MAX_ANSWER_BYTES:
                    process.wait(timeout=10)
                    raise EOFError
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return Answer.model_validate_json(line)


class DecoderPool:
    """One decoder per worker. Use as a context manager: processes start when first needed and end with the block."""

    def __init__(self, limits: DecodeLimits, workers: int, folder: Path) -> None:
        self._all = [Decoder(limits, folder) for _ in range(workers)]
        self._free: SimpleQueue[Decoder] = SimpleQueue()
        for decoder in self._all:
            self._free.put(decoder)

    def __enter__(self) -> "DecoderPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for decoder in self._all:
            decoder.close()

    @contextmanager
    def acquire(self) -> Iterator[Decoder]:
        """Wait for a free decoder and yield it for exclusive use by one thread."""
        decoder = self._free.get()
        try:
            yield decoder
        finally:
            self._free.put(decoder)


def _check_output(path: Path, subject: str) -> None:
    """Check that the decoder wrote a regular file.

    Raises:
        BadScene: It is missing, or a link or named pipe, which only a compromised decoder would create.
    """
    if not path.is_file() or path.is_symlink():
        raise BadScene(
            "the decoder wrote no regular file",
            subject=subject,
            next_step="Inspect the file before trying again: it may be malicious.",
        )


def _process_error(
    error: Exception, status: int | None, subject: str, limits: DecodeLimits, *, starved: bool
) -> BadScene:
    """Return the error of a process that timed out or ended.

    Args:
        error: What reading its answer raised.
        status: Its exit status; negative: ended by that signal; None: it still ran.
        subject: The scene or label.
        limits: What the job was allowed.
        starved: Whether it has not used up its CPU time.
    """
    if isinstance(error, TimeoutError) and starved:
        return NotRead(
            "the machine was too busy to decode the file",
            subject=subject,
            expected=f"{limits.timeout_s:g} s of CPU time",
            next_step="The next ingest tries again; reduce the number of tasks that run at once.",
        )
    if isinstance(error, TimeoutError):
        return BadScene(
            "decoding took too long and was stopped",
            subject=subject,
            expected=f"at most {limits.timeout_s:g} s of CPU time for a scene of this size",
            next_step="Inspect the file: it may be a decompression bomb. If not, raise CLOUDSEG_DECODE_TIMEOUT_S.",
        )
    return _DecoderCrashed(
        "the decoder crashed; only this scene is affected",
        subject=subject,
        found=f"the process ended with {f'signal {-status}' if status is not None and status < 0 else status}",
        expected=f"decoding within {limits.memory_mb} MB",
        next_step="Inspect the file: it is probably corrupt.",
    )


def _error_from(failure: DecodeFailure, subject: str) -> CloudsegError:
    """Return the error that the process reported, as BadLabel or BadScene and with printable text only."""
    cls = {"BadLabel": errors.BadLabel, "NothingDrawn": NothingDrawn}.get(failure.error, BadScene)
    what, about, found, expected, next_step = (
        _printable(text) for text in (failure.what, failure.subject, failure.found, failure.expected, failure.next_step)
    )
    return cls(what or "unusable", subject=about or subject, found=found, expected=expected, next_step=next_step or "")


def _printable(text: str | None) -> str | None:
    """Return text without control characters, shortened: band names and tags of a file appear in messages."""
    return None if text is None else "".join(c if c.isprintable() else " " for c in text)[:_MAX_TEXT_LENGTH]
