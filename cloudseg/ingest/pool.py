"""Decoding processes: started once, given one scene after another, replaced when a scene kills or hangs one."""

import json
import logging
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final

import psutil
from pydantic import ValidationError

from cloudseg import errors
from cloudseg.errors import BadScene, CloudsegError
from cloudseg.ingest.inbox import NotRead
from cloudseg.ingest.job import (
    FREE_MEGAPIXELS,
    MOST_TIMES,
    Answer,
    DecodeLimits,
    Fault,
    LabelFacts,
    LabelJob,
    SceneFacts,
    SceneJob,
)
from cloudseg.ingest.sandbox import FILES, NETWORK

log = logging.getLogger(__name__)
_START_S: Final = 20.0
"""CPU time; importing rasterio takes a second."""
_STARVED: Final = 10.0
"""A job that needs this many times its limit by the clock did not get the CPU."""
_SHORTEST_PAUSE_S: Final = 0.05
_LONGEST_ANSWER: Final = 64 << 20
_LONGEST_TEXT: Final = 600
_ENVIRONMENT: Final = {
    # A closed local port: should a library ever want the network, it meets a refusal at once.
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
_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT")
"""Of the service's own environment; its secrets stay out of reach of a decoder that was taken over."""


class _DecoderDied(BadScene):
    """The process ended under the job."""


class Decoder:
    """One process. Not for several threads at once."""

    def __init__(self, limits: DecodeLimits, folder: Path) -> None:
        """Remember the limits; the files of every job must lie below `folder`, for the process can open no others."""
        self._limits, self._folder = limits, folder
        self.taken: list[str] = []
        """What the running process has given up (`cloudseg.ingest.sandbox`)."""
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def decode_scene(self, job: SceneJob) -> SceneFacts:
        """Decode a scene.

        Raises BadScene, also where the process died or took too long over it; NotRead on a machine too busy to tell.
        """
        found = self._ask(job).scene
        if found is None:
            raise self._broken(job.name)
        return found

    def decode_label(self, job: LabelJob) -> LabelFacts:
        """Decode a label. Raises BadLabel; BadScene where the process died or took too long over it."""
        found = self._ask(job).label
        if found is None:
            raise self._broken(job.shown)
        return found

    def close(self) -> None:
        """End the process; the next job starts another."""
        process, self._process, self._buffer = self._process, None, b""
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _broken(self, subject: str) -> BadScene:
        self.close()
        return BadScene(
            "the decoder gave no answer that makes sense",
            subject=subject,
            next_step="Look at the file before trying again.",
        )

    def _ask(self, job: SceneJob | LabelJob) -> Answer:
        """Return the answer; a job whose process died gets one more, for the system may have killed an innocent one."""
        subject = job.name if isinstance(job, SceneJob) else job.shown
        try:
            return self._ask_once(job, subject)
        except _DecoderDied:
            return self._ask_once(job, subject)

    def _ask_once(self, job: SceneJob | LabelJob, subject: str) -> Answer:
        process = self._start()
        patience = _Patience(process.pid, self._limits.timeout_s)
        try:
            assert process.stdin is not None  # noqa: S101
            process.stdin.write(json.dumps(job.as_json()).encode() + b"\n")
            process.stdin.flush()
            answer = self._answer(process, patience)
            if answer.megapixels is not None:
                patience.stretch(min(MOST_TIMES, max(1.0, answer.megapixels / FREE_MEGAPIXELS)))
                answer = self._answer(process, patience)
        except (TimeoutError, EOFError, OSError, ValidationError) as error:
            ended, starved = process.poll(), patience.was_starved
            self.close()
            raise _lost(error, ended, subject, self._limits, starved=starved) from error
        if answer.fault is not None:
            raise _error_from(answer.fault, subject)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        environment = (
            {name: os.environ[name] for name in _KEPT if name in os.environ}
            | _ENVIRONMENT
            | {"TMPDIR": str(self._folder)}
        )
        limits = [str(self._limits.timeout_s), str(self._limits.memory_mb), str(self._folder)]
        command = [sys.executable, "-P", "-m", "cloudseg.ingest.child", *limits]
        with tempfile.TemporaryFile() as said:
            # Its own session: Ctrl-C ends the service, which ends its decoders in order.
            process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                start_new_session=True,
            )
            self._process = process
            try:
                begun = self._answer(process, _Patience(process.pid, _START_S))
            except (TimeoutError, EOFError, OSError, ValidationError):
                begun = Answer()
            if not begun.ready:
                self.close()
                said.seek(0)
                raise CloudsegError(
                    "the decoding process does not start",
                    subject=sys.executable,
                    found=said.read()[-600:].decode("utf-8", "replace"),
                    next_step="Run `cloudseg doctor`; CLOUDSEG_DECODE_MEMORY_MB may be too small for the libraries themselves.",
                )
        self.taken = begun.taken
        if missing := [what for what in (NETWORK, FILES) if what not in self.taken]:
            log.warning("this kernel does not let the decoder give up: %s (docs/security.md)", ", ".join(missing))
        return process

    def _answer(self, process: subprocess.Popen[bytes], patience: "_Patience") -> Answer:
        """Read one line. Raises TimeoutError, EOFError where the process ended, ValidationError for nonsense."""
        assert process.stdout is not None  # noqa: S101
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(patience.pause()):
                    if patience.is_over():
                        raise TimeoutError
                    continue
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece or len(self._buffer) > _LONGEST_ANSWER:
                    process.wait(timeout=10)
                    raise EOFError
                self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return Answer.model_validate_json(line)


class DecoderPool:
    """As many decoders as workers; processes start when they are first needed and end with the block."""

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
    def lend(self) -> Iterator[Decoder]:
        """Yield a decoder to one thread, waiting for a free one."""
        decoder = self._free.get()
        try:
            yield decoder
        finally:
            self._free.put(decoder)


class _Patience:
    """How long a job may take: CPU time of its process, so that a busy machine is not held against a file.

    A process that sleeps uses none; there the clock ends it, much later.
    """

    def __init__(self, pid: int, limit_s: float) -> None:
        self._process, self._limit_s = psutil.Process(pid), limit_s
        self._cpu_end, self._clock_end = self._cpu_s() + limit_s, time.monotonic() + _STARVED * limit_s

    def stretch(self, times: float) -> None:
        """Return so many times the limit in all."""
        self._cpu_end += (times - 1) * self._limit_s
        self._clock_end += _STARVED * (times - 1) * self._limit_s

    @property
    def was_starved(self) -> bool:
        """Return whether the CPU time was not even used up."""
        return self._cpu_s() < self._cpu_end

    def is_over(self) -> bool:
        """Return whether either has run out."""
        return not self.was_starved or time.monotonic() >= self._clock_end

    def pause(self) -> float:
        """Return the seconds in which the CPU time cannot run out: the process has one thread that computes."""
        return max(_SHORTEST_PAUSE_S, min(self._cpu_end - self._cpu_s(), self._clock_end - time.monotonic()))

    def _cpu_s(self) -> float:
        try:
            spent = self._process.cpu_times()
        except psutil.Error:
            return 0.0  # it has ended, which its pipe tells
        return float(spent.user + spent.system)


def _lost(error: Exception, ended: int | None, subject: str, limits: DecodeLimits, *, starved: bool) -> BadScene:
    if isinstance(error, TimeoutError) and starved:
        return NotRead(
            "the machine was too busy to decode it",
            subject=subject,
            expected=f"{limits.timeout_s:g} s of CPU time",
            next_step="The next ingest tries it again; with fewer tasks at once it gets its turn.",
        )
    if isinstance(error, TimeoutError):
        return BadScene(
            "decoding took too long and was stopped",
            subject=subject,
            expected=f"at most {limits.timeout_s:g} s of CPU time for a scene of this size",
            next_step="Look at the file: an endless loop or a decompression bomb; raise CLOUDSEG_DECODE_TIMEOUT_S if it is sound.",
        )
    return _DecoderDied(
        "decoding crashed; only this scene is affected",
        subject=subject,
        found=f"the process ended with {'signal ' + str(-ended) if ended is not None and ended < 0 else ended}",
        expected=f"decoding within {limits.memory_mb} MB",
        next_step="Look at the file: it is probably corrupt.",
    )


def _error_from(fault: Fault, subject: str) -> CloudsegError:
    """Return the error that the process reported.

    Only classes of bad input, whatever it says, and only text that may be shown.
    """
    kind = {"BadLabel": errors.BadLabel}.get(fault.error, BadScene)
    what, about, found, expected, next_step = (
        _printable(text) for text in (fault.what, fault.subject, fault.found, fault.expected, fault.next_step)
    )
    return kind(what or "unusable", subject=about or subject, found=found, expected=expected, next_step=next_step or "")


def _printable(text: str | None) -> str | None:
    """Take out what would move the cursor of a terminal or fill a page.

    Band names and tags of a file reach messages.
    """
    return None if text is None else "".join(c if c.isprintable() else " " for c in text)[:_LONGEST_TEXT]
