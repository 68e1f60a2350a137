"""The process above one writer and the decoders that feed it: starts them apart from all others, and ends them.

It is forked from the fork server, reads nothing that a decoder sends, and ends with the service: the service's end of
its socket is closed by the kernel however the service ends.
"""

import contextlib
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

import psutil

from cloudseg.ingest import child
from cloudseg.ingest.job import (
    END,
    NEXT,
    READY,
    TASK,
    Ended,
    LabelJob,
    ProbeJob,
    SceneJob,
    Started,
    Task,
    WriterSetup,
    pixel_pipe,
)
from cloudseg.ingest.plain_fork import fork
from cloudseg.ingest.sandbox import adopt_descendants, end_with_parent, separate_processes

_PIPE_BYTES: Final = 1 << 20
"""What every user may have (/proc/sys/fs/pipe-max-size); the processes change place less often than with 64 KB."""


@dataclass(frozen=True)
class Server:
    """What a supervisor knows of the process that it was forked from."""

    pid: int
    libraries: frozenset[int]
    """Descriptors that libraries hold open."""


@dataclass(frozen=True)
class Writer:
    """The writer process, and the descriptors on which it gets tasks and says that it has opened a task's pipe."""

    pid: int
    tasks: int
    opened: int


def supervise(session: socket.socket, writer_answers: int, server: Server) -> NoReturn:
    """Start a writer, then a decoder for each task; end them and this process when the service says so or ends.

    Args:
        session: Receives the tasks, answers which processes were started and how they ended.
        writer_answers: Where the writer answers.
        server: The fork server.
    """
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with session.makefile("rb") as lines:
            setup = WriterSetup.model_validate_json(lines.readline())
            adopt_descendants()
            separate_processes()
            end_with_parent(server.pid)  # after the namespaces, whose creation forgets it
            # The writer comes first: the first process of a namespace can be signaled by none of the others.
            writer = _start_writer(setup, writer_answers, server.libraries)
            session.sendall(READY)  # what the service sends before would be read with the line above
            _serve(session, lines.readline, writer, server.libraries)
        status = 0
    finally:
        os._exit(status)


def _serve(session: socket.socket, read_line: Callable[[], bytes], writer: Writer, libraries: frozenset[int]) -> None:
    """Do one task after the other. At the end nothing of them runs any more."""
    decoder: int | None = None
    while True:
        command, descriptors, _, _ = socket.recv_fds(session, 1, 1)
        if command == TASK:
            task = Task.model_validate_json(read_line())
            decoder = _start_decoder(task, descriptors[0], writer, libraries)
            session.sendall(Started(decoder=decoder, writer=writer.pid).model_dump_json().encode() + b"\n")
        elif command == NEXT and decoder is not None:
            os.kill(decoder, signal.SIGKILL)
            session.sendall(Ended(decoder=_wait_for(decoder), writer=None).model_dump_json().encode() + b"\n")
            decoder = None
        else:
            ended = _end(writer.pid, decoder)
            if command == END and decoder is not None:
                session.sendall(ended.model_dump_json().encode() + b"\n")
            return


def _start_writer(setup: WriterSetup, answers: int, libraries: frozenset[int]) -> Writer:
    tasks, to_writer = os.pipe()
    from_writer, opened = os.pipe()
    pid = _fork(libraries | {tasks, opened, answers}, lambda: child.write(setup, tasks, opened, answers))
    for descriptor in (tasks, opened, answers):
        os.close(descriptor)
    return Writer(pid, to_writer, from_writer)


def _start_decoder(task: Task, answers: int, writer: Writer, libraries: frozenset[int]) -> int:
    """Return the id of a new process with a pipe to the writer."""
    decode = child.probe if isinstance(task.job, ProbeJob) else child.decode
    pixels = _connect(task, writer) if isinstance(task.job, SceneJob | LabelJob) else os.open(os.devnull, os.O_WRONLY)
    pid = _fork(libraries | {answers, pixels}, lambda: decode(task, answers, pixels))
    for descriptor in (answers, pixels):
        os.close(descriptor)
    return pid


def _connect(task: Task, writer: Writer) -> int:
    """Send the task to the writer and return the decoder's end of a new pipe between the two.

    Raises:
        OSError: The writer has ended.
        EOFError: The writer has ended.
    """
    path = pixel_pipe(task.out)
    os.mkfifo(path, 0o600)
    ours = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # the other end can be opened only where someone reads
    pixels = os.open(path, os.O_WRONLY)
    with contextlib.suppress(OSError):  # more than this user may have
        fcntl.fcntl(pixels, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    line = memoryview(task.model_dump_json().encode() + b"\n")
    while line:
        line = line[os.write(writer.tasks, line) :]
    if not os.read(writer.opened, 1):
        raise EOFError
    os.close(ours)
    return pixels


def _fork(kept: frozenset[int], act: Callable[[], None]) -> int:
    supervisor = os.getpid()
    pid = fork()
    if pid == 0:
        try:
            end_with_parent(supervisor)
            child.run(kept, act)
        finally:
            os._exit(1)
    return pid


def _wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _end(writer: int, decoder: int | None) -> Ended:
    """Kill the processes and all their descendants, and return how the two ended."""
    pids = {pid for pid in (writer, decoder) if pid is not None}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    statuses: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, 0 if pids - statuses.keys() else os.WNOHANG)
        except ChildProcessError:
            return Ended(decoder=statuses.get(decoder or 0, 0), writer=statuses[writer])
        if pid:
            statuses[pid] = os.waitstatus_to_exitcode(status)
        elif not pids - statuses.keys():
            _kill_adopted()


def _kill_adopted() -> None:
    """Kill the processes that a decoder left behind, where neither seccomp nor a namespace has prevented them."""
    for process in psutil.Process().children(recursive=True):
        process.kill()
    time.sleep(0.001)
