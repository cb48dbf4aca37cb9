"""The system-call filter of the sandbox, assembled as classic BPF without a library.

It takes away what a confined process could use to get more rights or to reach outside its
namespaces; what remains is everything an ordinary program needs. Without namespaces it takes away more:
whatever reaches the machine's network, its shared memory or another process, and what changes a file
without opening it, which Landlock does not see (landlock(7), "Current limitations"). Nothing here starts
a process.

The filter reads `struct seccomp_data` (linux/seccomp.h): the call's number at offset 0, the
architecture at 4, the low half of argument i at 16 + 8·i (both machines are little-endian). Only low
halves are compared where the kernel itself takes 32 bits of an argument, as for ioctl's request.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Sequence

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
DENY, ABSENT, NO_FAMILY = (ERRNO | code for code in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))
UNSUPPORTED = ERRNO | errno.ENOTSUP
PRETEND = ERRNO  # the caller is told that it was done

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
X32_BIT = 0x40000000  # x86-64 numbers from here on are the x32 ABI: the same calls under other numbers

Numbers = tuple[int | None, int | None]
"""A call's on x86-64 and on aarch64 (asm/unistd_64.h, asm-generic/unistd.h); None where it does not exist."""

DENIED: dict[str, Numbers] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
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
    "open_by_handle_at": (304, 265),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
}
# Callers of these fall back to an older call when it "does not exist": clone3's flags lie behind a
# pointer that a filter cannot follow, io_uring performs calls that a filter never sees, and the memory of
# a memfd is nobody's: it counts for no process and outgrows every limit.
MISSING: dict[str, Numbers] = {
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
}

# Without namespaces: the machine's network, and what outlives a process.
UNSHARED: dict[str, Numbers] = {
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
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
    "mq_notify": (244, 184),
    "ioprio_set": (251, 30),
    "fanotify_init": (300, 262),
    "inotify_add_watch": (254, 27),
}
# There, these may be asked of the caller alone, process 0: the kernel lets them be asked of any process of
# the same user, and to the healer a limit of 0 would be the end. The figure: how many arguments must be 0.
OF_ITSELF: dict[str, tuple[Numbers, int]] = {
    "prlimit64": ((302, 261), 1),
    "sched_setaffinity": ((203, 122), 1),
    "sched_setscheduler": ((144, 119), 1),
    "sched_setparam": ((142, 118), 1),
    "sched_setattr": ((314, 274), 1),
    "setpriority": ((141, 140), 2),
}

# What changes a file without opening it, which Landlock does not see. Ordinary programs copy files with their
# modes and times, and would fail if refused: they are told that it was done.
MODES: dict[str, Numbers] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
}
TIMES: dict[str, Numbers] = {
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
UNOPENED: dict[str, Numbers] = {
    "truncate": (76, 45),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "file_setattr": (469, 469),
}
# Copying a file does without them where they are said not to exist.
ATTRIBUTES: dict[str, Numbers] = {
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "fgetxattr": (193, 10),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "flistxattr": (196, 13),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "getxattrat": (464, 464),
    "listxattrat": (465, 465),
    "removexattrat": (466, 466),
}
# Takes any amount of the disk at once, between two looks at how full it is; the C library writes instead.
ALLOCATING: dict[str, Numbers] = {"fallocate": (285, 47)}
OPENING: dict[str, tuple[Numbers, int]] = {"open": ((2, None), 1), "openat": ((257, 56), 2)}  # its flags
OPENAT2: dict[str, Numbers] = {"openat2": (437, 437)}  # its flags lie behind a pointer
CLONE, IOCTL, SOCKET, SOCKETPAIR = (56, 220), (16, 29), (41, 198), (53, 199)
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into the operator's terminal
# FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_ENABLE_VERITY, FS_IOC_SET_ENCRYPTION_POLICY: they change a file
# that is open for reading only.
FILE_FLAGS = (0x40086602, 0x401C5820, 0x40806685, 0x800C6613)
ACCESS_MODE, TRUNCATES = 0o3, 0o1000
NO_STREAM = 0xE  # the bits of a socket's type that SOCK_STREAM has not
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6; without netlink, packet, vsock, alg


def _step(code: int, value: int, when: int = 0, otherwise: int = 0) -> bytes:
    """One `struct sock_filter`: operation, jumps taken when true and when false, operand."""
    return struct.pack("<HBBI", code, when, otherwise, value)


def _argument(index: int) -> bytes:
    return _step(_LOAD, 16 + 8 * index)


def _each(numbers: int | None, *steps: bytes) -> list[bytes]:
    """`steps`, which end in a verdict, for the call of this number alone; nothing where it does not exist."""
    return [] if numbers is None else [_step(_EQUAL, numbers, 0, len(steps)), *steps]


def _one_of(values: Sequence[int], verdict: int, otherwise: int) -> list[bytes]:
    """A verdict by whether what was loaded is one of `values`."""
    last = len(values) - 1
    return [
        *(_step(_EQUAL, value, last - i, int(i == last)) for i, value in enumerate(values)),
        _step(_RETURN, verdict),
        _step(_RETURN, otherwise),
    ]


def program(machine: str | None = None, *, shared: bool = False, owner: bool = False) -> bytes | None:
    """The filter for a machine as `platform.machine()` names it (default: this one).

    shared: the program runs without namespaces, beside everything else on the machine.
    owner: and the machine has files that belong to the user it runs as, whose modes it could change.

    Returns the array of `struct sock_filter` as bytes, which is what `bwrap --seccomp` reads, or None
    for a machine whose call numbers are not known here.
    """
    machine = platform.machine() if machine is None else machine
    if machine not in ARCHITECTURES:
        return None
    column = list(ARCHITECTURES).index(machine)
    number = _step(_LOAD, 0)
    steps = [_step(_LOAD, 4), _step(_EQUAL, ARCHITECTURES[machine], 1, 0), _step(_RETURN, KILL), number]
    if machine == "x86_64":
        steps += [_step(_AT_LEAST, X32_BIT, 0, 1), _step(_RETURN, ABSENT)]
    refused = [(DENIED, DENY), (MISSING, ABSENT)]
    if shared:
        refused += [(UNSHARED, DENY), (UNOPENED, DENY), (ATTRIBUTES, UNSUPPORTED), (ALLOCATING, UNSUPPORTED)]
        refused += [(TIMES, PRETEND), (OPENAT2, ABSENT)]
    if owner:
        refused += [(MODES, PRETEND)]
    for calls, verdict in refused:
        for numbers in calls.values():
            steps += _each(numbers[column], _step(_RETURN, verdict))
    steps += _each(
        CLONE[column],
        _argument(0),
        _step(_ANY_BIT, NEW_NAMESPACES, 0, 1),
        _step(_RETURN, DENY),
        _step(_RETURN, ALLOW),
    )
    requests = (*TERMINAL_INPUT, *FILE_FLAGS) if shared else TERMINAL_INPUT
    steps += _each(IOCTL[column], _argument(1), *_one_of(requests, DENY, ALLOW))
    if shared:
        steps += [*_unshared(column), *_reading_only(column)]
    else:
        steps += _each(SOCKET[column], _argument(0), *_one_of(FAMILIES, ALLOW, NO_FAMILY))
    return b"".join([*steps, _step(_RETURN, ALLOW)])


def _unshared(column: int) -> list[bytes]:
    """No socket but a pair of connected streams (a datagram socket, paired or not, can send to any other
    by its name), and no word about another process."""
    steps = _each(SOCKET[column], _step(_RETURN, NO_FAMILY))
    steps += _each(
        SOCKETPAIR[column],
        _argument(0),
        _step(_EQUAL, FAMILIES[0], 0, 3),
        _argument(1),
        _step(_ANY_BIT, NO_STREAM, 1, 0),
        _step(_RETURN, ALLOW),
        _step(_RETURN, NO_FAMILY),
    )
    for numbers, count in OF_ITSELF.values():
        asked: list[bytes] = []
        for index in range(count):
            asked += [_argument(index), _step(_EQUAL, 0, 1, 0), _step(_RETURN, DENY)]
        steps += _each(numbers[column], *asked, _step(_RETURN, ALLOW))
    return steps


def _reading_only(column: int) -> list[bytes]:
    """Opening for reading alone does not empty a file: Landlock asks for no right to write there."""
    steps: list[bytes] = []
    for numbers, index in OPENING.values():
        steps += _each(
            numbers[column],
            _argument(index),
            _step(_ANY_BIT, ACCESS_MODE, 2, 0),
            _step(_ANY_BIT, TRUNCATES, 0, 1),
            _step(_RETURN, DENY),
            _step(_RETURN, ALLOW),
        )
    return steps
