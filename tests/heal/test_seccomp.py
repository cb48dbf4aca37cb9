"""The system-call filter, run by a small BPF machine on calls of both architectures."""

from __future__ import annotations

import platform
import struct

import pytest

from qigheal.sandbox.seccomp import (
    ABSENT,
    ALLOCATING,
    ALLOW,
    ARCHITECTURES,
    ATTRIBUTES,
    DENIED,
    DENY,
    FILE_FLAGS,
    KILL,
    MISSING,
    MODES,
    NO_FAMILY,
    OF_ITSELF,
    PRETEND,
    TIMES,
    UNOPENED,
    UNSHARED,
    UNSUPPORTED,
    X32_BIT,
    Numbers,
    program,
)

MACHINES = tuple(ARCHITECTURES)
CLONE, IOCTL, SOCKET, SOCKETPAIR = (56, 220), (16, 29), (41, 198), (53, 199)
OPEN, OPENAT, OPENAT2 = (2, None), (257, 56), (437, 437)
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


def decide(
    machine: str, numbers: Numbers, *arguments: int, shared: bool = False, owner: bool = False
) -> int | None:
    """The verdict; None where the machine has no such call."""
    filtered = program(machine, shared=shared, owner=owner)
    assert filtered is not None
    number = numbers[MACHINES.index(machine)]
    return None if number is None else verdict(filtered, ARCHITECTURES[machine], number, *arguments)


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


@pytest.mark.parametrize("owner", [False, True])
@pytest.mark.parametrize("machine", MACHINES)
class TestWithoutNamespaces:
    @pytest.mark.parametrize("table", [DENIED, UNSHARED, UNOPENED])
    def test_refuses(self, machine: str, owner: bool, table: dict[str, Numbers]) -> None:
        for name, numbers in table.items():
            assert decide(machine, numbers, shared=True, owner=owner) in (DENY, None), name

    def test_ordinary_calls_pass(self, machine: str, owner: bool) -> None:
        for name, numbers in HARMLESS.items():
            assert decide(machine, numbers, shared=True, owner=owner) == ALLOW, name

    def test_says_that_it_was_done(self, machine: str, owner: bool) -> None:
        for name, numbers in TIMES.items():
            assert decide(machine, numbers, shared=True, owner=owner) in (PRETEND, None), name
        for name, numbers in MODES.items():
            expected = PRETEND if owner else ALLOW
            assert decide(machine, numbers, shared=True, owner=owner) in (expected, None), name

    def test_has_no_attributes(self, machine: str, owner: bool) -> None:
        for name, numbers in (ATTRIBUTES | ALLOCATING).items():
            assert decide(machine, numbers, shared=True, owner=owner) == UNSUPPORTED, name

    @pytest.mark.parametrize("family", range(46))
    def test_no_socket_of_any_family(self, machine: str, owner: bool, family: int) -> None:
        assert decide(machine, SOCKET, family, 1, shared=True, owner=owner) == NO_FAMILY

    @pytest.mark.parametrize("flags", [0, 0x800, 0x80000, 0x80800])  # SOCK_NONBLOCK, SOCK_CLOEXEC
    def test_pairs_of_streams_alone(self, machine: str, owner: bool, flags: int) -> None:
        """A paired datagram socket can send to any other by its name."""
        for family in range(46):
            for kind in range(1, 16):
                expected = ALLOW if (family, kind) == (1, 1) else NO_FAMILY
                got = decide(machine, SOCKETPAIR, family, kind | flags, shared=True, owner=owner)
                assert got == expected, (family, kind)

    @pytest.mark.parametrize("call", OF_ITSELF)
    def test_asks_of_itself_alone(self, machine: str, owner: bool, call: str) -> None:
        numbers, count = OF_ITSELF[call]
        assert decide(machine, numbers, shared=True, owner=owner) == ALLOW
        for index in range(count):
            arguments = [0] * 4
            arguments[index] = 4711
            assert decide(machine, numbers, *arguments, shared=True, owner=owner) == DENY

    @pytest.mark.parametrize("request_", FILE_FLAGS)
    def test_flags_of_files_stay(self, machine: str, owner: bool, request_: int) -> None:
        assert decide(machine, IOCTL, 3, request_, shared=True, owner=owner) == DENY
        assert decide(machine, IOCTL, 3, 0x5401, shared=True, owner=owner) == ALLOW

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [(0, ALLOW), (0o1000, DENY), (0o2001000, DENY), (0o1001, ALLOW), (0o1102, ALLOW), (0o2000000, ALLOW)],
    )
    def test_opening_to_read_empties_nothing(
        self, machine: str, owner: bool, flags: int, expected: int
    ) -> None:
        assert decide(machine, OPENAT, 0, 0, flags, shared=True, owner=owner) == expected
        assert decide(machine, OPEN, 0, flags, shared=True, owner=owner) in (expected, None)
        assert decide(machine, OPENAT2, shared=True, owner=owner) == ABSENT


@pytest.mark.parametrize("table", [UNSHARED, UNOPENED, TIMES, MODES, ATTRIBUTES, ALLOCATING])
def test_namespaces_need_no_more(table: dict[str, Numbers]) -> None:
    assert {decide(machine, numbers) for machine in MACHINES for numbers in table.values()} <= {ALLOW, None}
