"""Count what a program sends to the network: `python tests/connections.py <file> <program> <argument> ...`.

A seccomp filter stops the program, and everything that it starts, at each `connect`, `sendto`, `sendmsg` and `sendmmsg`
and asks this process (seccomp_unotify(2), Linux 5.5). Internet addresses other than loopback are noted and refused with
ENETUNREACH, like on a machine without a way out; Unix sockets, netlink and loopback go on. Neither root nor a tracer is
needed. The addresses are written to the file, one a line; the exit status is that of the program, or UNSUPPORTED.
"""

import ctypes
import errno
import fcntl
import ipaddress
import os
import platform
import select
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

UNSUPPORTED = 77
"""Exit status where the kernel has no such filter."""
_SYSCALLS = {  # connect, sendto, sendmsg, sendmmsg, seccomp (asm/unistd.h)
    "x86_64": (42, 44, 46, 307, 317),
    "aarch64": (203, 206, 211, 269, 277),
}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_RET_ALLOW, _RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
# struct seccomp_notif: id, pid, flags, seccomp_data (nr, arch, instruction pointer, six arguments); linux/seccomp.h
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")  # id, val, error, flags
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
# _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp)
_RECEIVE = (3 << 30) | (_NOTIFICATION.size << 16) | (ord("!") << 8)
_SEND = (3 << 30) | (_RESPONSE.size << 16) | (ord("!") << 8) | 1


def _install(machine: str) -> int:
    """Install the filter for this thread and its children; return the descriptor that gets the notifications."""
    *watched, seccomp = _SYSCALLS[machine]
    program = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 0, len(watched) + 1, _AUDIT_ARCH[machine]), (_LOAD, 0, 0, 0)]
    program += [(_JUMP_EQUAL, len(watched) - at, 0, number) for at, number in enumerate(watched)]
    program += [(_RETURN, 0, 0, _RET_ALLOW), (_RETURN, 0, 0, _RET_USER_NOTIF)]
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: length, padding, pointer
    wanted = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return -1
    return int(libc.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(wanted)))


def _address(pid: int, machine: str, number: int, arguments: tuple[int, ...]) -> str | None:
    """Return the Internet address that a call names, None for any other."""
    connect, sendto, sendmsg, sendmmsg, _ = _SYSCALLS[machine]
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:

        def read(at: int, size: int) -> bytes:
            memory.seek(at)
            return memory.read(size)

        if number == connect:
            at = arguments[1]
        elif number == sendto:
            at = arguments[4]
        elif number in (sendmsg, sendmmsg):  # struct msghdr begins with the pointer to the name
            (at,) = struct.unpack("=Q", read(arguments[1], 8))
        if at == 0:
            return None  # a connected socket
        (family,) = struct.unpack("=H", read(at, 2))
        if family == socket.AF_INET:
            (port,), host = struct.unpack(">H", read(at + 2, 2)), socket.inet_ntop(family, read(at + 4, 4))
        elif family == socket.AF_INET6:
            (port,), host = struct.unpack(">H", read(at + 2, 2)), socket.inet_ntop(family, read(at + 8, 16))
        else:
            return None
    # A resolver may run on this machine, and asking it for a name is how a report begins.
    return None if ipaddress.ip_address(host).is_loopback and port != 53 else f"{host} port {port}"


def _watch(listener: int, machine: str, out: Path) -> None:
    while True:
        select.select([listener], [], [])
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, notification)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # the caller was killed meanwhile
                continue
            return
        ident, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(notification)
        try:
            found = _address(pid, machine, number, tuple(arguments))
        except (OSError, struct.error) as error:
            found = f"unreadable: {error}"
        if found is not None:
            with out.open("a") as file:
                file.write(found + "\n")
        answer = _RESPONSE.pack(ident, 0, -errno.ENETUNREACH, 0) if found else _RESPONSE.pack(ident, 0, 0, _CONTINUE)
        try:
            fcntl.ioctl(listener, _SEND, bytearray(answer))
        except OSError as error:
            if error.errno != errno.ENOENT:
                return


def main(out: str, command: list[str]) -> int:
    """Run a command and write the addresses that it tried to reach."""
    machine, given, listener = platform.machine(), threading.Event(), -1
    if machine not in _SYSCALLS:
        return UNSUPPORTED
    Path(out).write_text("")

    def watch() -> None:  # this thread exists before the filter, which therefore does not stop it
        given.wait()
        if listener >= 0:
            _watch(listener, machine, Path(out))

    threading.Thread(target=watch, daemon=True).start()
    listener = _install(machine)
    given.set()
    if listener < 0:
        return UNSUPPORTED
    os.set_inheritable(listener, False)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
