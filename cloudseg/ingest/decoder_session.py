"""The service's side of the decoder processes: the fork server, and a session with one writer and its decoders."""

import logging
import os
import secrets
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from pydantic import ValidationError

from cloudseg.errors import CloudsegError, SettingsError
from cloudseg.ingest.cpu_deadline import CpuDeadline
from cloudseg.ingest.job import (
    END,
    NEXT,
    READY,
    TASK,
    Answer,
    DecodeLimits,
    Ended,
    ProbeJob,
    Started,
    Task,
    WriterSetup,
)
from cloudseg.ingest.probe import RESTRICTIONS

log = logging.getLogger(__name__)
_SERVER: Final = "cloudseg.ingest.fork_server"
_START_S: Final = 60.0
_IMPORT_S: Final = 20.0
"""CPU time in which the server starts; importing rasterio takes a second or two. A machine that is busy with a training
may need many times that by the clock."""
_END_S: Final = 10.0
_LONGEST_DIRECTORY: Final = 70
"""Bytes of a path that leave room for the name of a socket in a temporary directory."""
_MAX_ANSWER_BYTES: Final = 64 << 20
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
    # glibc: a process keeps the memory of one array for the next. New memory costs more than what is computed in it.
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
}
_INHERITED: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "TMPDIR",
)
"""Variables passed on from the service; its secrets stay out of reach of a compromised decoder."""

Role = Literal["decoder", "writer"]


class Session:
    """A writer process and, for one task after the other, a decoder process. Close it in any case."""

    def __init__(self, channel: socket.socket, writer: int) -> None:
        self._channel = channel
        self._lines = channel.makefile("rb")
        self._answers: dict[Role, int] = {"writer": writer}
        self._buffers: dict[Role, bytes] = {"writer": b""}
        self.started = Started(decoder=0, writer=0)
        self._ended: Ended | None = None
        self._ends = False

    def set_up(self, setup: WriterSetup) -> None:
        """Send what the writer may use and wait until it has started.

        Raises:
            OSError: It does not start.
        """
        self._channel.settimeout(_START_S)
        self._channel.sendall(setup.model_dump_json().encode() + b"\n")
        if self._lines.read(1) != READY:
            raise BrokenPipeError

    def begin(self, task: Task) -> None:
        """Send a task and wait until its decoder has started.

        Raises:
            OSError: It does not start, or the writer has ended.
            ValidationError: It does not start, or the writer has ended.
        """
        if self._ends:  # the decoder before it; the service does not wait for that any earlier
            Ended.model_validate_json(self._lines.readline())
            self._ends = False
        ours, theirs = os.pipe()
        self._answers["decoder"], self._buffers["decoder"] = ours, b""
        try:
            self._channel.settimeout(_START_S)
            socket.send_fds(self._channel, [TASK], [theirs])
        finally:
            os.close(theirs)
        self._channel.sendall(task.model_dump_json().encode() + b"\n")
        self.started = Started.model_validate_json(self._lines.readline())

    def finish(self) -> None:
        """Have the decoder of a task ended that went well. The writer waits for the next one.

        Raises:
            OSError: The processes have ended.
        """
        self._channel.settimeout(_END_S)
        self._channel.sendall(NEXT)
        self._ends = True
        os.close(self._answers.pop("decoder"))

    @property
    def pids(self) -> list[int]:
        """Ids of the processes."""
        return [self.started.decoder, self.started.writer]

    def read(self, role: Role, deadline: CpuDeadline) -> Answer:
        """Read one line from a process.

        Raises:
            TimeoutError: The deadline is over.
            EOFError: The process ended, or the line is too long.
            ValidationError: The line is not a valid answer.
        """
        descriptor = self._answers[role]
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._buffers[role]:
                if not selector.select(deadline.wait_s()):
                    if deadline.is_over():
                        raise TimeoutError
                    continue
                chunk = os.read(descriptor, 1 << 16)
                if not chunk or len(self._buffers[role]) > _MAX_ANSWER_BYTES:
                    raise EOFError
                self._buffers[role] += chunk
        line, _, self._buffers[role] = self._buffers[role].partition(b"\n")
        return Answer.model_validate_json(line)

    def close(self) -> Ended | None:
        """End the processes and all that they started; return how they ended, None if that is not known."""
        if self._channel.fileno() < 0:
            return self._ended
        with suppress(OSError, ValidationError):
            self._channel.settimeout(_END_S)
            self._channel.sendall(END)
            self._channel.shutdown(socket.SHUT_WR)
            ended = self._lines.read().splitlines()  # to the end, which comes when nothing of them runs any more
            self._ended = Ended.model_validate_json(ended[-1]) if ended else None
        self._lines.close()
        self._channel.close()
        for descriptor in self._answers.values():
            os.close(descriptor)
        return self._ended


class DecoderServer:
    """The fork server of one ingest. Safe to use from several threads; it starts with the first job."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.restrictions: list[str] = []
        """What the sandbox on this machine denies (`cloudseg.ingest.probe`); known after the start."""

    def __enter__(self) -> "DecoderServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open_session(self, setup: WriterSetup) -> Session:
        """Start a writer.

        Raises:
            CloudsegError: It does not start.
            SettingsError: The kernel does not allow a restriction, and the settings require all.
        """
        self.start()
        return self._open(setup)

    def start(self) -> None:
        """Start the server unless it runs, and find the restrictions.

        Raises:
            CloudsegError: It does not start.
            SettingsError: The kernel does not allow a restriction, and the settings require all.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()

    def close(self) -> None:
        """End the server; what it has started ends with it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _open(self, setup: WriterSetup) -> Session:
        ours, theirs = socket.socketpair()
        writer, writer_end = os.pipe()
        session = Session(ours, writer)
        try:
            with theirs:
                if self._control is None:
                    raise BrokenPipeError
                socket.send_fds(self._control, [b"j"], [theirs.fileno(), writer_end])
            session.set_up(setup)
        except OSError as error:
            session.close()
            raise not_started(str(error)) from error
        finally:
            os.close(writer_end)
        return session

    def _start(self) -> None:
        self.close()
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as stderr:
            # Its own session: Ctrl-C ends the service, which ends its decoders in order.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", _SERVER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env=inherited | _ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            theirs.close()
            self._control = ours
            try:
                ready = _receive(ours, CpuDeadline([self._process.pid], _IMPORT_S))
            except TimeoutError as error:
                self.close()
                raise not_started(
                    "no answer in time",
                    next_step="The machine may be too busy, for example with a training: try again.",
                ) from error
            except OSError:
                ready = b""
            if not ready:
                self.close()
                stderr.seek(0)
                lines = stderr.read().decode("utf-8", "replace").split("\n")
                raise not_started(next((line.strip() for line in reversed(lines) if line.strip()), "nothing"))
        try:
            self._find_restrictions()
        except BaseException:
            self.close()
            raise

    def _find_restrictions(self) -> None:
        """Try what the sandbox denies.

        Raises:
            CloudsegError: No decoder starts.
            SettingsError: A restriction is not in force, and the settings require all.
        """
        self.restrictions = _probe(self, self._limits)
        missing = [name for name in RESTRICTIONS if name not in self.restrictions]
        if missing and self._limits.require_sandbox:
            raise SettingsError(
                "the kernel does not allow the whole sandbox of the decoder",
                subject="CLOUDSEG_REQUIRE_SANDBOX",
                found=f"no restriction of {', '.join(missing)}",
                expected=", ".join(RESTRICTIONS),
                next_step="Needed: " + "; ".join(f"{name}: {RESTRICTIONS[name]}" for name in missing) + ".",
            )
        if missing:
            log.warning(
                "the kernel does not allow these sandbox restrictions: %s (docs/concepts/security.md)",
                ", ".join(missing),
            )


def _receive(channel: socket.socket, deadline: CpuDeadline) -> bytes:
    """Return one byte of a process, or nothing if it has ended.

    Raises:
        TimeoutError: The deadline is over.
    """
    while True:
        channel.settimeout(deadline.wait_s())
        try:
            return channel.recv(1)
        except TimeoutError:
            if deadline.is_over():
                raise
        finally:
            channel.settimeout(_START_S)


def _probe(server: DecoderServer, limits: DecodeLimits) -> list[str]:
    """Return the restrictions that a decoder process finds in force."""
    with (
        tempfile.TemporaryDirectory(prefix="cloudseg-probe-") as inside,
        tempfile.TemporaryDirectory(prefix="cloudseg-probe-", dir=_short_directory()) as outside,
        socket.create_server(("127.0.0.1", 0)) as network,
        socket.socket(socket.AF_UNIX) as path,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        address, name = f"{outside}/socket", f"\0cloudseg-probe-{secrets.token_hex(8)}"
        path.bind(address)
        abstract.bind(name)
        for listener in (path, abstract):
            listener.listen()
        secret = Path(outside) / "file"
        secret.write_bytes(b"secret")
        job = ProbeJob(
            folder=inside,
            file=str(secret),
            port=network.getsockname()[1],
            socket=address,
            abstract_socket=name,
            process=os.getpid(),
        )
        task = Task(job=job, out=inside, timeout_s=limits.timeout_s, memory_mb=limits.memory_mb, max_bytes=0)
        setup = WriterSetup(read=inside, write=inside, memory_mb=limits.memory_mb, max_bytes=0)
        session = server._open(setup)
        try:
            session.begin(task)
            answer = session.read("decoder", CpuDeadline(session.pids, _START_S))
        except (TimeoutError, EOFError, OSError, ValidationError):
            answer = Answer()
        finally:
            session.close()
    if answer.restrictions is None:
        raise not_started(answer.failure.what if answer.failure else "no answer")
    return answer.restrictions


def _short_directory() -> str:
    """Return a directory for a Unix socket, whose path has at most 107 bytes (unix(7)): not every TMPDIR is so short.

    Raises:
        SettingsError: There is none.
    """
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
    for place in places:
        if len(os.fsencode(place)) <= _LONGEST_DIRECTORY and os.access(place, os.W_OK | os.X_OK):
            return place
    raise SettingsError(
        "no directory for a temporary socket has a path that is short enough",
        subject="TMPDIR",
        found=f"{len(os.fsencode(places[0]))} bytes",
        expected=f"at most {_LONGEST_DIRECTORY} bytes",
        next_step="Set TMPDIR to a directory with a shorter path.",
    )


_MEMORY: Final = "Run `cloudseg doctor`. CLOUDSEG_DECODE_MEMORY_MB may be too small for the libraries themselves."


def not_started(found: str, *, next_step: str = _MEMORY) -> CloudsegError:
    """Return the error of processes that do not start.

    Args:
        found: What they said, in one line: it becomes part of an alert.
        next_step: What to do.
    """
    return CloudsegError("the decoder process does not start", subject=sys.executable, found=found, next_step=next_step)
