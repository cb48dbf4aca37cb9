"""The system-call filter of the sandbox, assembled as classic BPF without a library.

It takes away what a confined process could use to get more rights or to reach outside its
namespaces; what remains is everything an ordinary program needs. Nothing here starts a process.

The filter reads `struct seccomp_data` (linux/seccomp.h): the call's number at offset 0, the
architecture at 4, the low half of argument i at 16 + 8·i (both machines are little-endian). Only low
halves are compared where the kernel itself takes 32 bits of an argument, as for ioctl's request.
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
DENY, ABSENT, NO_FAMILY = (ERRNO | code for code in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
X32_BIT = 0x40000000  # x86-64 numbers from here on are the x32 ABI: the same calls under other numbers

# name: (x86-64, aarch64), from asm/unistd_64.h and asm-generic/unistd.h
DENIED = {
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
}
# Callers of these fall back to an older call when it "does not exist": clone3's flags lie behind a
# pointer that a filter cannot follow, and io_uring performs calls that a filter never sees.
MISSING = {
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
CLONE, IOCTL, SOCKET = (56, 220), (16, 29), (41, 198)
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into the operator's terminal
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6; without netlink, packet, vsock, alg


def _step(code: int, value: int, when: int = 0, otherwise: int = 0) -> bytes:
    """One `struct sock_filter`: operation, jumps taken when true and when false, operand."""
    return struct.pack("<HBBI", code, when, otherwise, value)


def _argument(index: int) -> bytes:
    return _step(_LOAD, 16 + 8 * index)


def program(machine: str | None = None) -> bytes | None:
    """The filter for a machine as `platform.machine()` names it (default: this one).

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
    for calls, verdict in ((DENIED, DENY), (MISSING, ABSENT)):
        for numbers in calls.values():
            steps += [_step(_EQUAL, numbers[column], 0, 1), _step(_RETURN, verdict)]
    steps += [
        _step(_EQUAL, CLONE[column], 0, 4),
        _argument(0),
        _step(_ANY_BIT, NEW_NAMESPACES, 0, 1),
        _step(_RETURN, DENY),
        _step(_RETURN, ALLOW),
        _step(_EQUAL, IOCTL[column], 0, 5),
        _argument(1),
        _step(_EQUAL, TERMINAL_INPUT[0], 1, 0),
        _step(_EQUAL, TERMINAL_INPUT[1], 0, 1),
        _step(_RETURN, DENY),
        _step(_RETURN, ALLOW),
        _step(_EQUAL, SOCKET[column], 0, 5),
        _argument(0),
        _step(_EQUAL, FAMILIES[0], 3, 0),
        _step(_EQUAL, FAMILIES[1], 2, 0),
        _step(_EQUAL, FAMILIES[2], 1, 0),
        _step(_RETURN, NO_FAMILY),
        _step(_RETURN, ALLOW),
    ]
    return b"".join(steps)
