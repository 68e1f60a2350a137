"""Find out what the sandbox of this machine denies, by trying it. Runs in a sandboxed process."""

import ctypes
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cloudseg.ingest.job import ProbeJob

NETWORK, FILES, SOCKETS, SIGNALS = "network", "files", "sockets", "signals"
PROCESSES, SYSTEM_CALLS, PRIVILEGES = "processes", "system calls", "privileges"
RESTRICTIONS: Final = {
    NETWORK: "a network namespace (sysctl user.max_user_namespaces above 0) or seccomp",
    FILES: "Landlock (Linux 5.13, `landlock` in the kernel's lsm= list)",
    SOCKETS: "seccomp, on x86_64 or aarch64",
    SIGNALS: "seccomp, Landlock from Linux 6.12 on, or a process namespace",
    PROCESSES: "seccomp, on x86_64 or aarch64",
    SYSTEM_CALLS: "seccomp, on x86_64 or aarch64",
    PRIVILEGES: "capset(2)",
}
"""What a decoder process must not be able to use, and what takes it away."""

_ENOUGH_MEMORY: Final = 64 << 20
# asm-generic/unistd.h; the same number on every architecture.
_IO_URING_SETUP, _PIDFD_OPEN, _OPEN_TREE = 425, 434, 428
_CAPABILITY_VERSION: Final = 0x20080522


def find_restrictions(job: ProbeJob) -> list[str]:
    """Return the restrictions of `RESTRICTIONS` that are in force in this process.

    Args:
        job: What to try them on.

    Raises:
        MemoryError: The address space is too small for the libraries alone.
    """
    bytearray(_ENOUGH_MEMORY)
    attempts: dict[str, list[Callable[[], object]]] = {
        NETWORK: [lambda: socket.create_connection(("127.0.0.1", job.port), 2)],
        FILES: [lambda: Path(job.file).read_bytes(), lambda: Path(f"{job.file}.new").write_bytes(b"")],
        SOCKETS: [lambda: _connect(job.socket), lambda: _connect(job.abstract_socket)],
        SIGNALS: [lambda: os.kill(job.process, 0)],
        PROCESSES: [_fork],
        SYSTEM_CALLS: [lambda: _call(_IO_URING_SETUP, 1, None), lambda: _call(_OPEN_TREE, -1, None, 0)],
        PRIVILEGES: [_need_capability],
    }
    return [name for name, acts in attempts.items() if not any(_succeeds(act) for act in acts)]


def _succeeds(act: Callable[[], object]) -> bool:
    """Return whether an attempt was not denied."""
    try:
        act()
    except OSError:
        return False
    return True


def _connect(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address)


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _call(number: int, *arguments: object) -> None:
    """Make a system call with arguments that are wrong: the kernel says so, seccomp says that it is not permitted.

    Raises:
        OSError: The call is not permitted, or the kernel does not have it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) < 0 and ctypes.get_errno() in (1, 38):
        raise OSError(ctypes.get_errno(), "denied")


def _need_capability() -> None:
    """Return if this process has a capability.

    Raises:
        PermissionError: It has none.
    """
    data = ctypes.create_string_buffer(24)
    ctypes.CDLL(None).capget(struct.pack("=Ii", _CAPABILITY_VERSION, 0), data)
    if not any(data.raw):
        raise PermissionError("no capability")
