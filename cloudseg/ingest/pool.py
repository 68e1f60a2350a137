"""Decode untrusted files: each scene and each label in a new process, of which nothing is left afterward."""

import shutil
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
from cloudseg.ingest.decoder_session import DecoderServer, Session, not_started
from cloudseg.ingest.inbox_file import NotRead
from cloudseg.ingest.job import (
    FREE_MEGAPIXELS,
    MAX_LIMIT_FACTOR,
    OUTPUT_NAME,
    Answer,
    DecodeFailure,
    DecodeLimits,
    Ended,
    LabelFacts,
    LabelJob,
    LabelTags,
    LabelTagsJob,
    SceneFacts,
    SceneJob,
    Task,
    WriterSetup,
    is_epsg,
    pixel_pipe,
)
from cloudseg.ingest.label_errors import NothingDrawn
from cloudseg.ingest.probe import PROCESSES
from cloudseg.scratch import copy_file

_MAX_TEXT_LENGTH: Final = 600


Job = SceneJob | LabelJob | LabelTagsJob


class _DecoderCrashed(BadScene):
    """The process ended during the job."""


class Decoder:
    """Decodes one job at a time. Not safe to use from several threads at once."""

    def __init__(self, limits: DecodeLimits, server: DecoderServer, folder: Path | None = None) -> None:
        """Store the arguments; processes start with the first job.

        Args:
            limits: What one job may cost.
            server: Starts the processes.
            folder: For rasters on their way, on the file system of the jobs; None: the system's temporary folder.
        """
        self._limits, self._server = limits, server
        self._parent = folder
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._session: Session | None = None
        self._text_crs = False
        """Whether a scene had a CRS that is text: the scenes beside it probably have one too."""

    def close(self) -> None:
        """End the writer and remove its folder."""
        self._end_session()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def decode_scene(self, job: SceneJob) -> SceneFacts:
        """Decode a scene to `job.out`.

        Raises:
            BadScene: The files do not make a scene, or the process crashed or took too long.
            NotRead: The machine was too busy; the next ingest tries again.
        """
        read, written = self._run(job, job.name)
        if read.scene is None or written.written_scene is None:
            raise _invalid_answer(job.name)
        return SceneFacts(**dict(read.scene), **dict(written.written_scene))

    def decode_label(self, job: LabelJob) -> LabelFacts:
        """Decode a label to `job.out`.

        Raises:
            BadLabel: The file is not a label of this scene.
            BadScene: The process crashed or took too long.
            NotRead: The machine was too busy; the next ingest tries again.
        """
        read, written = self._run(job, job.display_name)
        if read.label is None or written.written_label is None:
            raise _invalid_answer(job.display_name)
        return LabelFacts(**dict(read.label), **dict(written.written_label))

    def read_label_tags(self, job: LabelTagsJob) -> LabelTags:
        """Return what a label says about itself.

        Raises:
            BadLabel: The file is not a label.
            BadScene: The process crashed or took too long.
            NotRead: The machine was too busy; the next ingest tries again.
        """
        read, _ = self._run(job, job.display_name)
        if read.label_tags is None:
            raise _invalid_answer(job.display_name)
        return read.label_tags

    def _run(self, job: Job, subject: str) -> tuple[Answer, Answer]:
        """Return the answers to a job.

        After a crash there is one retry: the system may have killed the process. A scene with the text of a CRS is
        decoded again with a writer of its own.
        """
        alone = self._may_parse(job)
        try:
            answers = self._run_once(job, subject, alone=alone)
            if not answers[1].needs_own_writer:
                return answers
            self._text_crs = True
        except _DecoderCrashed:
            return self._run_once(job, subject, alone=True)
        return self._run_once(job, subject, alone=True)

    def _may_parse(self, job: Job) -> bool:
        """Return whether a job needs a writer of its own: one that parses text, or reads a file made with text."""
        if isinstance(job, LabelJob):
            return job.grid is None or (job.grid.crs is not None and not is_epsg(job.grid.crs))
        return isinstance(job, SceneJob) and self._text_crs

    def _run_once(self, job: Job, subject: str, *, alone: bool) -> tuple[Answer, Answer]:
        """Return what the decoder and the writer answered, with the written raster, if there is one, at `job.out`."""
        limits = self._limits
        with tempfile.TemporaryDirectory(dir=self._writable()) as out:
            task = Task(
                job=job,
                out=out,
                scene=self._scene_for_writer(job, out),
                timeout_s=limits.timeout_s,
                memory_mb=limits.memory_mb,
                max_bytes=limits.max_bytes,
                alone=alone,
            )
            try:
                answers = self._read_answers(self._begin(task), subject)
                wanted = None if isinstance(job, LabelTagsJob) or answers[1].needs_own_writer else job.out
                if wanted is not None:
                    _check_output(Path(out) / OUTPUT_NAME, subject)
                self._finish(alone=alone or answers[1].needs_own_writer)
            except BaseException:
                self._end_session()
                raise
            finally:
                if task.scene is not None:
                    Path(task.scene).unlink()
            if wanted is not None:
                shutil.move(Path(out) / OUTPUT_NAME, wanted)
        return answers

    def _begin(self, task: Task) -> Session:
        """Start the decoder of a task; a writer that waits is used unless the task needs its own.

        Raises:
            CloudsegError: The processes do not start.
        """
        if task.alone:
            self._end_session()
        if self._session is not None:
            try:
                self._session.begin(task)
                return self._session
            except (OSError, ValidationError):  # something has ended the writer since
                self._end_session()
                Path(pixel_pipe(task.out)).unlink(missing_ok=True)
        setup = WriterSetup(
            read=str(self._readable()),
            write=str(self._writable()),
            memory_mb=task.memory_mb,
            max_bytes=task.max_bytes,
        )
        self._session = self._server.open_session(setup)
        try:
            self._session.begin(task)
        except (OSError, ValidationError) as error:
            raise not_started(str(error)) from error
        return self._session

    def _finish(self, *, alone: bool) -> None:
        """End the decoder; end the writer too if it must not have another task.

        It has one only where no decoder can start a process: nothing but the decoder then has to end in between.
        """
        if self._session is None:
            return
        if alone or PROCESSES not in self._server.restrictions:
            self._end_session()
            return
        try:
            self._session.finish()
        except (OSError, ValidationError):
            self._end_session()

    def _end_session(self) -> Ended | None:
        session, self._session = self._session, None
        return session.close() if session is not None else None

    def _scene_for_writer(self, job: Job, out: str) -> str | None:
        """Return the path of a label's scene in the folder that the writer can read; None: it reads none."""
        if not isinstance(job, LabelJob):
            return None
        path = self._readable() / Path(out).name
        try:
            path.hardlink_to(job.scene)
        except OSError:  # another file system, or one without hard links
            copy_file(Path(job.scene), path)
        return str(path)

    def _readable(self) -> Path:
        return self._own_folder() / "read"

    def _writable(self) -> Path:
        return self._own_folder() / "write"

    def _own_folder(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(dir=self._parent, prefix="writer-")
            for name in ("read", "write"):
                (Path(self._folder.name) / name).mkdir()
        return Path(self._folder.name)

    def _read_answers(self, session: Session, subject: str) -> tuple[Answer, Answer]:
        deadline = CpuDeadline(session.pids, self._limits.timeout_s)
        try:
            read = _read_decoder(session, deadline)
            if read.failure is not None:
                raise _error_from(read.failure, subject)
            written = Answer() if read.label_tags is not None else session.read("writer", deadline)
        except ValidationError as error:
            raise _invalid_answer(subject) from error
        except (TimeoutError, EOFError, OSError) as error:
            starved = deadline.was_starved
            raise _process_error(error, self._end_session(), subject, self._limits, starved=starved) from error
        if written.failure is not None:
            raise _error_from(written.failure, subject)
        return read, written


def _read_decoder(session: Session, deadline: CpuDeadline) -> Answer:
    """Return the final answer of the decoder.

    A writer that gives up ends the decoder too, as it is the first process of their namespace; its own answer says why.

    Raises:
        EOFError: The decoder has crashed, or the writer.
    """
    try:
        read = session.read("decoder", deadline)
        if read.megapixels is None:
            return read
        deadline.extend(min(MAX_LIMIT_FACTOR, max(1.0, read.megapixels / FREE_MEGAPIXELS)))
        return session.read("decoder", deadline)
    except EOFError:
        return session.read("writer", deadline)


class DecoderPool:
    """One decoder per worker. Use as a context manager: processes start when first needed and end with the block."""

    def __init__(self, limits: DecodeLimits, workers: int, folder: Path | None = None) -> None:
        """Store the arguments.

        Args:
            limits: What one job may cost.
            workers: Number of decoders.
            folder: For rasters on their way, on the file system of the jobs; None: the system's temporary folder.
        """
        self.server = DecoderServer(limits)
        self._decoders = [Decoder(limits, self.server, folder) for _ in range(workers)]
        self._free: SimpleQueue[Decoder] = SimpleQueue()
        for decoder in self._decoders:
            self._free.put(decoder)

    def __enter__(self) -> "DecoderPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for decoder in self._decoders:
            decoder.close()
        self.server.close()

    @contextmanager
    def acquire(self) -> Iterator[Decoder]:
        """Wait for a free decoder and yield it for exclusive use by one thread."""
        decoder = self._free.get()
        try:
            yield decoder
        finally:
            self._free.put(decoder)


def _invalid_answer(subject: str) -> BadScene:
    return BadScene(
        "the decoder returned an invalid answer",
        subject=subject,
        next_step="Inspect the file before trying again: it may be malicious.",
    )


def _check_output(path: Path, subject: str) -> None:
    """Check that the writer wrote a regular file.

    Raises:
        BadScene: It is missing, or a link or named pipe, which only a compromised process would create.
    """
    if not path.is_file() or path.is_symlink():
        raise BadScene(
            "the decoder wrote no regular file",
            subject=subject,
            next_step="Inspect the file before trying again: it may be malicious.",
        )


def _process_error(
    error: Exception, ended: Ended | None, subject: str, limits: DecodeLimits, *, starved: bool
) -> BadScene:
    """Return the error of a decoder or writer that timed out or ended.

    Args:
        error: What reading its answer raised.
        ended: How the processes ended; None: unknown.
        subject: The scene or label.
        limits: What the job was allowed.
        starved: Whether they have not used up their CPU time.
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
    status = (ended.decoder or ended.writer) if ended else None
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
