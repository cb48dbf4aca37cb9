"""What a case of the fault corpus is, and how its repository is made.

A host answers recorded requests through `app.service.answer(request, draw)`, the shape that most cases
share; a case may bring any other. Its figures are made of the answers with seeded noise, so that the
same code gives the same figures, and times and memory are real.
"""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Files = Mapping[str, str | None]
"""Texts by path; None takes a file away."""

PROBE = '''"""Answers each question with what the service would report for that batch of recorded requests."""

import hashlib
import json
import random
import sys

from app import service

REQUESTS = 20


def figures(outputs, draw):
    """Φ, κ and basin, which this service takes from its settings, with noise as of finite batches."""
    gain = getattr(service, "gain", lambda: 1.0)()
    phi = 0.05 + 0.70 * max(0.0, 1.0 - abs(gain - 1.0)) + draw.gauss(0, 0.008)
    kappa = 64.0 * gain + draw.gauss(0, 1.0)
    basin = [draw.gauss(1.0, 0.05) for _ in range(16)]
    return min(1.0, max(0.0, phi)), kappa, basin


def main():
    for line in sys.stdin:
        asked = json.loads(line)
        draw = random.Random(f"{asked['seed']}/{asked['batch']}")
        outputs, failed, each = [], 0, []
        for _ in range(REQUESTS):
            request = draw.randrange(1000)
            try:
                outputs.append(service.answer(request))
                each.append(hashlib.sha256(repr(outputs[-1]).encode()).hexdigest()[:16])
            except Exception as error:
                outputs.append(type(error).__name__)
                each.append(None)
                failed += 1
        phi, kappa, basin = figures(outputs, draw)
        answer = {
            "batch": asked["batch"],
            "phi": phi,
            "kappa_eff": kappa,
            "basin_coords": basin,
            "error_rate": failed / REQUESTS,
            "output_digest": hashlib.sha256(repr(outputs).encode()).hexdigest(),
            "output_digests": each,
        }
        print(json.dumps(answer), flush=True)


main()
'''

MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
timeout_s = 20
protect = ["app/probe.py"]

[tests]
command = ["python", "-m", "unittest", "discover", "-s", "tests", "-q"]

[patch]
allow = ["app/**/*.py", "config/*.toml"]
"""

TESTS = """import unittest

from app import service


class Test(unittest.TestCase):
    def test_it_answers_the_same_request_alike(self):
        self.assertEqual(service.answer(7), service.answer(7))
"""


@dataclass(frozen=True)
class Case:
    """One host and what is to become of it.

    strategy: the one that should heal it; "" where the right answer is no patch.
    healthy: the files of the healthy commit, over those that every host has (`COMMON`).
    fault: what the bad commit changes; empty for a host that is healthy all along.
    before, after: innocent commits between the healthy one and the bad one, and after it.
    person: the right answer is at most a patch that nothing but a person may merge (strategy is "" then).
    healed: whether a checked-out tree is really healed; the healer never sees this. None: nothing may be
        accepted.
    passes: how many passes it may take, one fault each.
    merged: the fault comes by a merge, one commit for each of its files on the merged branch.
    why: one line on what the case is for.
    """

    name: str
    strategy: str
    why: str
    healthy: Files = field(default_factory=dict)
    fault: Files = field(default_factory=dict)
    before: tuple[Files, ...] = ()
    after: tuple[Files, ...] = ()
    healed: Callable[[Path], bool] | None = None
    passes: int = 1
    merged: bool = False
    person: bool = False

    def __post_init__(self) -> None:
        assert bool(self.strategy) == (self.healed is not None), self.name
        assert not (self.strategy and self.person), self.name


COMMON: dict[str, str] = {
    "app/__init__.py": "",
    "app/probe.py": PROBE,
    "qigheal.toml": MANIFEST,
    "tests/__init__.py": "",
    "tests/test_service.py": TESTS,
}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=Corpus", "-c", "user.email=corpus@localhost"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {arguments}: {done.stderr}"
    return done.stdout.strip()


def write(folder: Path, files: Files) -> None:
    for name, text in files.items():
        target = folder / name
        if text is None:
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text).lstrip("\n"))


def make(case: Case, folder: Path) -> str:
    """Make the case's repository in `folder`; gives the name of its healthy commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")

    def commit(files: Files, message: str) -> str:
        write(folder, files)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "--allow-empty", "-m", message)
        return git(folder, "rev-parse", "HEAD")

    healthy = commit({**COMMON, **case.healthy}, "The service")
    for number, files in enumerate(case.before, 1):
        commit(files, f"Innocent change {number}")
    if case.fault and case.merged:
        git(folder, "switch", "-q", "-c", "side")
        for name, text in case.fault.items():
            commit({name: text}, f"Change {name}")
        git(folder, "switch", "-q", "main")
        git(folder, "merge", "-q", "--no-ff", "-m", "Merge the change that did it", "side")
    elif case.fault:
        commit(case.fault, "The change that did it")
    for number, files in enumerate(case.after, len(case.before) + 1):
        commit(files, f"Innocent change {number}")
    return healthy


def run(tree: Path, script: str, timeout: float = 60) -> str:
    """What a Python script prints in a tree: for checks whether a host is healed."""
    import sys

    done = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(script)],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
