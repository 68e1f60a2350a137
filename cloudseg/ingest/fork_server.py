"""The clean process from which decoders are forked: `python -m cloudseg.ingest.fork_server <descriptor>`.

Importing rasterio takes a second, a fork takes milliseconds. This process has one thread, opens no file of a sender and
reads nothing that a decoder sends. It ends when the service closes its end of the socket.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

# rasterio imports boto3 where it is installed. A decoder has no network, and every page costs each fork.
sys.modules["boto3"] = None  # type: ignore[assignment]

from cloudseg.ingest.plain_fork import fork, malloc_trim  # noqa: E402
from cloudseg.ingest.sandbox import prepare  # noqa: E402
from cloudseg.ingest.supervisor import Server, supervise  # noqa: E402
from cloudseg.ingest.warm_up import warm_up  # noqa: E402

READY: Final = b"r"
DESCRIPTORS: Final = 2
"""Sent with each request: the session, the writer's answers."""


def main() -> None:
    """Fork a supervisor for every request."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets supervisors that have ended
    before = _descriptors()
    warm_up()
    prepare()
    gc.collect()
    malloc_trim()
    gc.freeze()  # a collection in a forked process would copy the memory that it shares with this one
    server = Server(os.getpid(), frozenset(_descriptors() - before))
    control.send(READY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, DESCRIPTORS)
        if not message:
            break
        with contextlib.suppress(OSError):  # no process can be started: the service notices at its end of the session
            if fork() == 0:
                control.close()
                supervise(socket.socket(fileno=descriptors[0]), descriptors[1], server)
        for descriptor in descriptors:
            os.close(descriptor)
    # Supervisors notice the end of the service themselves, and die with this process: they finish first.
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _descriptors() -> set[int]:
    """Return the open descriptors of this process, without that of the listing itself."""
    listed = list(Path("/proc/self/fd").iterdir())
    return {int(path.name) for path in listed if path.exists()}


if __name__ == "__main__":
    main()
