"""Sandbox of the decoder process: no network, no files but its own, no new privileges.

Linux has two mechanisms that need no privileges, and both are used if the kernel and its configuration allow them: a
network namespace without any connection (unshare(2)), and Landlock, which restricts the folders that can be read and
written (docs.kernel.org/userspace-api/landlock.html). The process cannot undo either.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

# linux/sched.h, linux/prctl.h
_NEW_USER, _NEW_NET, _NO_NEW_PRIVILEGES = 0x10000000, 0x40000000, 38
# These system call numbers are the same on every architecture (asm-generic/unistd.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
# linux/landlock.h: LANDLOCK_ACCESS_FS_* and _NET_*
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_OWN: Final = _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8
"""Read, write, create and remove files and folders below the scratch directory.

No links and no named pipes, because the service reads what is written there.
"""
_OF_A_FILE: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_TCP: Final = 0b11
_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of access rights to files by version of Landlock; 16 from version 5 on."""
_RULESET, _RULE = struct.Struct("=QQ"), struct.Struct("=Qi")
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
NETWORK, FILES = "network", "files"


def enter_sandbox(folder: Path) -> list[str]:
    """Irreversibly restrict this process to reading the program and writing below `folder`.

    Call it while the process has a single thread.

    Args:
        folder: The scratch directory.

    Returns:
        The restrictions that are in force: NETWORK, FILES, both or none, if the kernel lacks or forbids them.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    restrictions = [NETWORK] if libc.unshare(_NEW_USER | _NEW_NET) == 0 or libc.unshare(_NEW_NET) == 0 else []
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if version >= 1 and _restrict(libc, version, folder):
        restrictions.append(FILES)
    return restrictions


def _restrict(libc: ctypes.CDLL, version: int, folder: Path) -> bool:
    """Apply a Landlock ruleset; return whether it is in force."""
    everything = (1 << _BITS.get(version, 16)) - 1
    has_tcp = version >= 4
    attributes = _RULESET.pack(everything, _TCP if has_tcp else 0)[: 16 if has_tcp else 8]
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for path in _readable():
            _allow(libc, ruleset, path, _READ & everything)
        _allow(libc, ruleset, folder, _OWN & everything)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
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


def _readable() -> Iterable[Path]:
    """Return the paths of the interpreter's modules, installed packages, this package and the system's libraries.

    Not the whole prefix: that of the system's Python is /usr, with every program in it.
    """
    libraries = [part for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part]
    modules = [f"{prefix}/{name}" for prefix in (sys.prefix, sys.base_prefix) for name in ("lib", "lib64")]
    return dict.fromkeys(map(Path, [*modules, str(Path(__file__).parents[1]), *_SYSTEM, *libraries]))
