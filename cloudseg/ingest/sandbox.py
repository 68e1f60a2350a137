"""Sandbox of a decoder process: no network, no other process, no files but those of its job, no privileges.

Linux has three mechanisms that need no privileges, and all are used if the kernel and its configuration allow them:
namespaces (unshare(2)), Landlock, which restricts files, sockets and signals
(docs.kernel.org/userspace-api/landlock.html), and seccomp, which restricts system calls. The process cannot undo any of
them. What is in force is found by trying (`cloudseg.ingest.probe`), not by asking.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from cloudseg.ingest.seccomp import AUDIT_ARCH, deny_system_calls, filter_program

# linux/sched.h
_NEW_IPC, _NEW_USER, _NEW_PID, _NEW_NET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
# linux/prctl.h
_DEATH_SIGNAL, _NO_NEW_PRIVILEGES, _SUBREAPER, _DROP_BOUNDING, _AMBIENT, _CLEAR_ALL = 1, 38, 36, 24, 47, 4
_LAST_CAPABILITY: Final = 63
_CAPABILITY_VERSION: Final = 0x20080522
"""linux/capability.h: 64-bit sets."""
# These system call numbers are the same on every architecture (asm-generic/unistd.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
# linux/landlock.h: LANDLOCK_ACCESS_FS_*, LANDLOCK_ACCESS_NET_*, LANDLOCK_SCOPE_*
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_READ: Final = _READ_FILE | _READ_DIR
_OWN: Final = _READ | _WRITE_FILE | _TRUNCATE | 1 << 5 | 1 << 8
"""Read, write, create and remove files; no folders, links or named pipes, because the service reads what is there."""
_OF_A_FILE: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_TCP: Final = 0b11
_SCOPES: Final = 0b11
"""Abstract Unix sockets, and signals."""
_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of access rights to files by version of Landlock; 16 from version 5 on."""
_RULESET, _RULE = struct.Struct("=QQQ"), struct.Struct("=Qi")
_SIZES: Final = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}
"""Bytes of the ruleset's attributes by version; 24 from version 6 on."""
_SYSTEM: Final = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/dev/urandom",
    "/dev/null",
)
"""Shared libraries and what the C library opens; not /proc (environments of other processes) nor all of /etc."""
_OPEN_FILES: Final = 256


@dataclass(frozen=True)
class Limits:
    """What a sandboxed process may use."""

    memory_mb: int
    """Address space."""
    cpu_s: int | None
    """CPU time; None: of a process with many jobs. The service enforces the deadline of each; this is a second limit.
    """
    file_bytes: int
    """Size of a file that it writes; 0: it writes no file."""


def separate_processes() -> None:
    """Create namespaces without network and without other processes, for this process and its children.

    The first child becomes the init process of its namespace: when it ends, the kernel ends all others in it.
    """
    libc = _libc()
    everything = _NEW_PID | _NEW_NET | _NEW_IPC
    for flags in (_NEW_USER | everything, everything, _NEW_USER | _NEW_NET, _NEW_NET):
        if libc.unshare(flags) == 0:
            return


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends.

    Args:
        parent: The parent's id. If it has ended already, this process ends.
    """
    _libc().prctl(_DEATH_SIGNAL, 9, 0, 0, 0)
    if os.getppid() not in (parent, 0):  # 0: the parent is in another namespace
        os._exit(1)


def adopt_descendants() -> None:
    """Make this process the parent of every descendant whose own parent has ended."""
    _libc().prctl(_SUBREAPER, 1, 0, 0, 0)


def prepare() -> None:
    """Compute once what every process that is forked later needs for its sandbox."""
    _program_files()
    if platform.machine() in AUDIT_ARCH:
        filter_program(platform.machine())


def enter_sandbox(*, read: Iterable[Path], write: Iterable[Path], limits: Limits) -> None:
    """Irreversibly restrict this process. Call it while the process has a single thread.

    Args:
        read: Files and folders that it may read besides the program's own.
        write: Folders in which it may also create, write and remove files.
        limits: What it may use.
    """
    libc = _libc()
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if version >= 1:
        _restrict(libc, version, read, write)
    _limit(limits)
    _drop_privileges(libc)
    deny_system_calls()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _restrict(libc: ctypes.CDLL, version: int, read: Iterable[Path], write: Iterable[Path]) -> None:
    """Apply a Landlock ruleset."""
    everything = (1 << _BITS.get(version, 16)) - 1
    attributes = _RULESET.pack(everything, _TCP, _SCOPES)[: _SIZES.get(version, 24)]
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return
    try:
        for path in (*_program_files(), *read):
            _allow(libc, ruleset, path, _READ & everything)
        for path in write:
            _allow(libc, ruleset, path, _OWN & everything)
        libc.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    """Add a rule for a file or folder; skip a path that does not exist."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this system
    try:
        rule = _RULE.pack(access if path.is_dir() else access & _OF_A_FILE, descriptor)
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _limit(limits: Limits) -> None:
    """Limit memory, CPU time, files and processes, soft and hard, and forbid core dumps."""
    for kind, most in (
        (resource.RLIMIT_AS, limits.memory_mb << 20),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        if most is None:
            continue
        hard = resource.getrlimit(kind)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _drop_privileges(libc: ctypes.CDLL) -> None:
    """Drop every capability: those of root, and those that a new user namespace grants."""
    libc.prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    for capability in range(_LAST_CAPABILITY + 1):
        if libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0) != 0:
            break  # the kernel knows no more, or there is nothing to drop
    libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION, 0), struct.pack("=6I", *[0] * 6))


@lru_cache(1)
def _program_files() -> tuple[Path, ...]:
    """Return the paths of the interpreter's modules, installed packages, this package and the system's libraries.

    Not the whole prefix: that of the system's Python is /usr, with every program in it.
    """
    libraries = [part for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part]
    modules = [f"{prefix}/{name}" for prefix in (sys.prefix, sys.base_prefix) for name in ("lib", "lib64")]
    return tuple(dict.fromkeys(map(Path, [*modules, str(Path(__file__).parents[1]), *_SYSTEM, *libraries])))
