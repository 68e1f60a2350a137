"""A seccomp filter that denies the system calls that decoding a raster does not need (seccomp(2), BPF).

It lists what is denied, not what is allowed: what GDAL, glibc and numpy call differs by version and architecture, what
reaches other processes, the network or rarely used parts of the kernel does not. A call that is newer than this list
fails as if the kernel did not have it. Written by hand because Python's bindings need the system's libseccomp.
"""

import ctypes
import errno
import platform
import struct
from functools import lru_cache
from typing import Final

_SET_SECCOMP, _MODE_FILTER = 22, 2
"""linux/prctl.h, linux/seccomp.h"""
AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The architectures with a filter; linux/audit.h."""
_COLUMN: Final = {"x86_64": 0, "aarch64": 1}
_LAST_KNOWN: Final = 462
"""mseal, Linux 6.10; also below the bit that marks calls of the x32 ABI."""
_PRLIMIT: Final = (302, 261)
_FCNTL: Final = (72, 25)
_SIGNAL_COMMANDS: Final = (8, 10, 15)
"""asm-generic/fcntl.h: F_SETOWN, F_SETSIG, F_SETOWN_EX. They have the kernel send another process any signal."""

DENIED: Final[dict[str, tuple[int | None, int | None]]] = {
    # Numbers on x86_64 (arch/x86/entry/syscalls/syscall_64.tbl) and on aarch64 (asm-generic/unistd.h).
    # Sockets of every family: a Unix socket of the system is as far away as a server.
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "bind": (49, 200),
    "listen": (50, 201),
    "socketpair": (53, 199),
    "accept4": (288, 242),
    "recvmmsg": (299, 243),
    "sendmmsg": (307, 269),
    # Other processes: none is started, none is signaled, read, slowed down or limited.
    "clone": (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    "clone3": (435, 435),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # Namespaces, mounts and privileges.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "capset": (126, 91),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "personality": (135, 92),
    # What Landlock does not restrict: mode, owner, times and attributes of files outside; files without a path.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),  # Landlock: from Linux 6.2 on
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # Memory and queues shared with the whole system.
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # Parts of the kernel with a history of vulnerabilities.
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "fanotify_init": (300, 262),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
}
"""System calls that fail with EPERM, with their numbers; None: the architecture does not have the call."""

# linux/filter.h and linux/bpf_common.h
_LOAD, _EQUAL, _GREATER, _RETURN = 0x20, 0x15, 0x25, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24
"""Offsets in struct seccomp_data; both supported architectures are little-endian."""
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_INSTRUCTION: Final = struct.Struct("=HBBI")


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def deny_system_calls() -> bool:
    """Deny the calls in `DENIED` to this process for good; return whether the filter is in force.

    The process must have set PR_SET_NO_NEW_PRIVS. False on other architectures and on kernels
    without seccomp.
    """
    machine = platform.machine()
    if machine not in AUDIT_ARCH:
        return False
    instructions = filter_program(machine)
    program = _Program(len(instructions) // _INSTRUCTION.size, instructions)
    return bool(ctypes.CDLL(None).prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


@lru_cache(1)
def filter_program(machine: str) -> bytes:
    """Return the filter as BPF instructions.

    Args:
        machine: 'x86_64' or 'aarch64'.
    """
    column = _COLUMN[machine]
    denied = sorted(number for numbers in DENIED.values() if (number := numbers[column]) is not None)
    head = [
        _INSTRUCTION.pack(_LOAD, 0, 0, _ARCHITECTURE),
        _INSTRUCTION.pack(_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        _INSTRUCTION.pack(_RETURN, 0, 0, _KILL),
        _INSTRUCTION.pack(_LOAD, 0, 0, _NUMBER),
        _INSTRUCTION.pack(_GREATER, 0, 1, _LAST_KNOWN),
        _INSTRUCTION.pack(_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]
    # Jumps count the instructions in between: to the last one, which denies.
    checks = [_INSTRUCTION.pack(_EQUAL, len(denied) - index + 10, 0, call) for index, call in enumerate(denied)]
    tail = [
        _INSTRUCTION.pack(_EQUAL, 2, 0, _FCNTL[column]),
        _INSTRUCTION.pack(_EQUAL, 6, 0, _PRLIMIT[column]),
        _INSTRUCTION.pack(_RETURN, 0, 0, _ALLOW),
        _INSTRUCTION.pack(_LOAD, 0, 0, _SECOND_ARGUMENT),
        *(_INSTRUCTION.pack(_EQUAL, 6 - index, 0, command) for index, command in enumerate(_SIGNAL_COMMANDS)),
        _INSTRUCTION.pack(_RETURN, 0, 0, _ALLOW),
        # prlimit(2) changes the limits of other processes of the same user; 0 is the process itself. A process id has
        # 32 bits, and the kernel ignores the upper half of the register.
        _INSTRUCTION.pack(_LOAD, 0, 0, _FIRST_ARGUMENT),
        _INSTRUCTION.pack(_EQUAL, 0, 1, 0),
        _INSTRUCTION.pack(_RETURN, 0, 0, _ALLOW),
        _INSTRUCTION.pack(_RETURN, 0, 0, _ERROR | errno.EPERM),
    ]
    return b"".join([*head, *checks, *tail])
