"""The system-call filter, run by a small BPF machine on calls of both architectures."""

from __future__ import annotations

import platform
import struct

import pytest

from qigheal.sandbox.seccomp import (
    ABSENT,
    ALLOW,
    ARCHITECTURES,
    DENIED,
    DENY,
    KILL,
    MISSING,
    NO_FAMILY,
    X32_BIT,
    program,
)

MACHINES = tuple(ARCHITECTURES)
CLONE, IOCTL, SOCKET = (56, 220), (16, 29), (41, 198)
HARMLESS = {
    "read": (0, 63),
    "openat": (257, 56),
    "execve": (59, 221),
    "setuid": (105, 146),
    "exit_group": (231, 94),
}


def verdict(filtered: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel would do: the instructions of linux/bpf_common.h that the filter uses, one by one."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *(0,) * (6 - len(arguments)))
    steps = list(struct.iter_unpack("<HBBI", filtered))
    accumulator = at = 0
    while True:
        code, when, otherwise, operand = steps[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x06:  # BPF_RET | BPF_K
            return int(operand)
        else:
            holds = {
                0x15: accumulator == operand,  # BPF_JMP | BPF_JEQ
                0x35: accumulator >= operand,  # BPF_JGE
                0x45: bool(accumulator & operand),  # BPF_JSET
            }[code]
            at += when if holds else otherwise


def decide(machine: str, numbers: tuple[int, int], *arguments: int) -> int:
    filtered = program(machine)
    assert filtered is not None
    return verdict(filtered, ARCHITECTURES[machine], numbers[MACHINES.index(machine)], *arguments)


@pytest.mark.parametrize("machine", MACHINES)
class TestFilter:
    @pytest.mark.parametrize("call", DENIED)
    def test_refuses_ways_to_rights(self, machine: str, call: str) -> None:
        assert decide(machine, DENIED[call]) == DENY

    @pytest.mark.parametrize("call", MISSING)
    def test_hides_what_has_an_older_twin(self, machine: str, call: str) -> None:
        assert decide(machine, MISSING[call]) == ABSENT

    @pytest.mark.parametrize("call", HARMLESS)
    def test_lets_ordinary_calls_pass(self, machine: str, call: str) -> None:
        assert decide(machine, HARMLESS[call]) == ALLOW

    @pytest.mark.parametrize(
        "flag", [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]
    )
    def test_clone_makes_no_namespaces(self, machine: str, flag: int) -> None:
        assert decide(machine, CLONE, flag | 17) == DENY

    @pytest.mark.parametrize("flags", [17, 0x003D0F00, 0x01200011])
    def test_clone_makes_processes_and_threads(self, machine: str, flags: int) -> None:
        assert decide(machine, CLONE, flags) == ALLOW

    @pytest.mark.parametrize("request_", [0x5412, 0x541C, 0x1_0000_5412, 0xFFFF_FFFF_0000_541C])
    def test_no_typing_into_the_terminal(self, machine: str, request_: int) -> None:
        """The kernel looks at 32 bits of the request: the upper half must not hide it (CVE-2019-10063)."""
        assert decide(machine, IOCTL, 0, request_) == DENY

    @pytest.mark.parametrize("request_", [0x5401, 0x5413, 0x541B])
    def test_terminal_questions_pass(self, machine: str, request_: int) -> None:
        assert decide(machine, IOCTL, 0, request_) == ALLOW

    @pytest.mark.parametrize("family", range(46))
    def test_socket_families(self, machine: str, family: int) -> None:
        assert decide(machine, SOCKET, family) == (ALLOW if family in (1, 2, 10) else NO_FAMILY)

    def test_another_architecture_is_killed(self, machine: str) -> None:
        filtered = program(machine)
        assert filtered is not None
        assert verdict(filtered, 0x40000003, 0) == KILL  # AUDIT_ARCH_I386: other numbers for the same calls


def test_x32_calls_do_not_exist() -> None:
    assert decide("x86_64", (X32_BIT | 101, 0)) == ABSENT
    assert decide("x86_64", (X32_BIT, 0)) == ABSENT


def test_no_filter_for_an_unknown_machine() -> None:
    assert program("riscv64") is None


def test_default_is_this_machine() -> None:
    assert program() == program(platform.machine())
