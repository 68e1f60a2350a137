"""Fork a process that has one thread, without what libraries do at a fork."""

import ctypes
import os


def fork() -> int:
    """Return the id of a new process, and 0 in it. Only for a process with a single thread.

    PROJ and GDAL register handlers that close PROJ's database in the child, which then reads it again: 15 ms for each
    process. `_Fork` of POSIX 2024 (glibc 2.34, musl 1.2.2) runs no handlers; shared is only a file that is read by
    position. Python's own handlers restore locks and threads, of which a process with one thread has none to restore.

    Raises:
        OSError: There is no room for another process.
    """
    # PyDLL keeps the interpreter's lock, which the child then holds as the parent did.
    plain = getattr(ctypes.PyDLL(None, use_errno=True), "_Fork", None)
    if plain is None:
        return os.fork()
    pid = int(plain())
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pid


def malloc_trim() -> None:
    """Release free memory where the C library can (glibc): a forked process would copy each page that it reuses."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
