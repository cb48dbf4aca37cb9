"""What must be true inside before anything counts: the questions, and how the answers are judged.

Every level asks the same and expects its own. Nothing here starts a process.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qigheal.sandbox.bubblewrap import Interpreter

NOBODY = 65534
"""User and group id inside, where the healer is root or has namespaces."""

PROCESS_LIMIT = 256
"""Processes and threads (RLIMIT_NPROC). For a healer run by root the kernel counts all of user 65534 on
the machine, so sandboxes at work side by side share it; with a user namespace each has its own (kernel
5.14 on); for an ordinary user without one, the user's other processes are counted and come on top."""

# Printed by the interpreter from inside. Forking under a process limit of zero must fail: that the limit
# is set says nothing, since the kernel does not apply it to root or to anybody who is root outside.
SELF_CHECK = """
import json, os, resource, socket, sys
with open("/proc/self/status") as lines:
    status = dict(line.rstrip("\\n").split(":\\t", 1) for line in lines if ":\\t" in line)
with open("/proc/net/dev") as lines:
    devices = sorted(line.split(":")[0].strip() for line in lines if ":" in line)
def forks():
    try:
        child = os.fork()
    except OSError:
        return False
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return True
def can(act, *arguments):
    try:
        act(*arguments)
    except OSError:
        return False
    return True
def writes(path):
    return can(lambda: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)))
limit = resource.getrlimit(resource.RLIMIT_NPROC)
before = forks()
resource.setrlimit(resource.RLIMIT_NPROC, (0, limit[1]))
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(),
    "capabilities": sorted({status[key].lstrip("0") for key in status if key.startswith("Cap")}),
    "capabilities in force": status["CapEff"].lstrip("0") + status["CapPrm"].lstrip("0"),
    "can gain rights": status["NoNewPrivs"] != "1",
    "system-call filter": status["Seccomp"] == "2",
    "process limit": limit[1], "can start a process": before, "can exceed the process limit": forks(),
    "network devices": devices, "can open a socket": can(socket.socket),
    "can write to its tree": writes("written"), "can write to /": writes("/written"),
    "can list the folder above its tree": can(os.listdir, ".."),
    "can signal the healer": can(os.kill, int(sys.argv[1]), 0),
    "sys.prefix": sys.prefix, "sys.base_prefix": sys.base_prefix,
}))
"""


def process_limit(others: int = 0) -> int:
    """What RLIMIT_NPROC becomes: never above what the healer itself may have."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    wanted = PROCESS_LIMIT + others
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def expected_anywhere(interpreter: Interpreter) -> dict[str, Any]:
    """The answers that every level must give."""
    return {
        "can gain rights": False,
        "can start a process": True,
        "can exceed the process limit": False,
        "can write to its tree": False,
        "can write to /": False,
        "sys.prefix": interpreter.prefix,
        "sys.base_prefix": interpreter.base_prefix,
    }


def objections(report: bytes, expected: Mapping[str, Any]) -> str:
    """What SELF_CHECK's report says that must not be so; "" when all is as it should be."""
    found = json.loads(report)
    return "; ".join(
        f"{name}: expected {value}, got {found.get(name)}"
        for name, value in expected.items()
        if found.get(name) != value
    )
