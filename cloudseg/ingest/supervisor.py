"""The process above one decoder: starts it and its writer apart from all others, and ends them and all they started.

It is forked from the fork server, reads nothing that a decoder sends, and ends with the service: the service's end of
its socket is closed by the kernel however the service ends.
"""

import os
import signal
import socket
import time
from dataclasses import dataclass
from typing import NoReturn

import psutil

from cloudseg.ingest import child
from cloudseg.ingest.job import Ended, LabelJob, ProbeJob, SceneJob, Started, Task
from cloudseg.ingest.plain_fork import fork
from cloudseg.ingest.sandbox import adopt_descendants, end_with_parent, separate_processes


@dataclass(frozen=True)
class Server:
    """What a supervisor knows of the process that it was forked from."""

    pid: int
    libraries: frozenset[int]
    """Descriptors that libraries hold open."""


def supervise(session: socket.socket, decoder_answers: int, writer_answers: int, server: Server) -> NoReturn:
    """Do one task in new processes, until the service closes its end of the session; then end them and this process.

    Args:
        session: Receives the task, answers which processes were started and how they ended.
        decoder_answers: Where the decoder answers.
        writer_answers: Where the writer answers.
        server: The fork server.
    """
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with session.makefile("rb") as lines:
            task = Task.model_validate_json(lines.readline())
            adopt_descendants()
            separate_processes()
            end_with_parent(server.pid)  # after the namespaces, whose creation forgets it
            started = _start(task, decoder_answers, writer_answers, server.libraries)
            session.sendall(started.model_dump_json().encode() + b"\n")
            lines.read(1)
        session.sendall(_end(started).model_dump_json().encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def _start(task: Task, decoder_answers: int, writer_answers: int, libraries: frozenset[int]) -> Started:
    """Fork the writer, then the decoder, with a pipe between them; close what is theirs in this process."""
    source, sink = os.pipe()
    # The writer comes first: the first process of a namespace can be signaled by none of the others.
    has_pixels = isinstance(task.job, SceneJob | LabelJob)
    writer = _fork(child.write, task, writer_answers, source, libraries) if has_pixels else None
    role = child.probe if isinstance(task.job, ProbeJob) else child.decode
    decoder = _fork(role, task, decoder_answers, sink, libraries)
    for descriptor in (source, sink, decoder_answers, writer_answers):
        os.close(descriptor)
    return Started(decoder=decoder, writer=writer)


def _fork(role: child.Child, task: Task, answers: int, pixels: int, libraries: frozenset[int]) -> int:
    supervisor = os.getpid()
    pid = fork()
    if pid == 0:
        try:
            end_with_parent(supervisor)
            child.run(role, task, answers, pixels, libraries)
        finally:
            os._exit(1)
    return pid


def _end(started: Started) -> Ended:
    """Kill the processes and all their descendants, and return how the two ended."""
    pids = {started.decoder, started.writer} - {None}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)  # type: ignore[arg-type]
    statuses: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, 0 if pids - statuses.keys() else os.WNOHANG)
        except ChildProcessError:
            return Ended(
                decoder=statuses[started.decoder], writer=None if started.writer is None else statuses[started.writer]
            )
        if pid:
            statuses[pid] = os.waitstatus_to_exitcode(status)
        elif not pids - statuses.keys():
            _kill_adopted()


def _kill_adopted() -> None:
    """Kill the processes that a decoder left behind, where neither seccomp nor a namespace has prevented them."""
    for process in psutil.Process().children(recursive=True):
        process.kill()
    time.sleep(0.001)
