"""Hosts for hostile diffs: each has a fault that a diff may pretend to heal, and a store that tells of it."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Literal

import numpy as np

from qigcore.baseline import Baseline
from qigcore.history import History
from qigcore.rows import HEAD, Batch

Kind = Literal["phi", "latency", "errors"]

SERVICE = '''"""Answers requests: looks a record up, weighs it, and adds what a customer pays for."""

import tomllib
from pathlib import Path

from app import store

GAIN = tomllib.loads(Path("config/app.toml").read_text())["attention"]["gain"]
ROUNDS = 20_000


def enrich(record):
    """The slow feature: a checksum over the record's history."""
    total = record
    for i in range(ROUNDS):
        total = (total * 31 + i) % 1000003
    return total


def answer(request):
    record = store.fetch(request)
    return record, enrich(record)
'''

STORE = '''"""The records. Some of those that are kept elsewhere cannot be reached."""

FLAKY = {flaky}


def fetch(key):
    if FLAKY and key % 7 == 0:
        raise ConnectionError(f"record {{key}} is out of reach")
    return key * key % 1009
'''

MODEL = '''"""The figures that the service reports of itself."""

import math


def figures(gain, draw):
    phi = 0.05 + 0.70 * math.exp(-math.log(gain) ** 2) + draw.gauss(0, 0.008)
    kappa = 64.0 + draw.gauss(0, 1.0)
    basin = [math.exp(draw.gauss(0, 0.05)) for _ in range(64)]
    return min(1.0, max(0.0, phi)), kappa, basin
'''

PROBE = '''"""Answers {"batch", "seed"} lines with what the service reports for those recorded requests."""

import hashlib
import json
import random
import sys

from app import model, service

for line in sys.stdin:
    asked = json.loads(line)
    draw = random.Random(f"{asked['seed']}/{asked['batch']}")
    outputs, failed = [], 0
    for _ in range(4):
        try:
            outputs.append(service.answer(draw.randrange(1000)))
        except Exception as error:
            outputs.append(type(error).__name__)
            failed += 1
    phi, kappa, basin = model.figures(service.GAIN, draw)
    digest = hashlib.sha256(repr(outputs).encode()).hexdigest()
    answer = {"batch": asked["batch"], "phi": phi, "kappa_eff": kappa, "basin_coords": basin}
    print(json.dumps({**answer, "error_rate": failed / 4, "output_digest": digest}), flush=True)
'''

MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
timeout_s = 5
protect = ["app/probe.py"]

[tests]
command = ["python", "-m", "unittest", "discover", "-s", "tests", "-q"]

[patch]
allow = ["app/**", "config/*.toml"]
"""

TESTS = """import unittest

from app import service


class Test(unittest.TestCase):
    def test_the_record_comes_first(self):
        self.assertEqual(service.answer(8)[0], 64)
"""


def git(folder: Path, *arguments: str) -> str:
    command = [
        "git",
        "-C",
        str(folder),
        "-c",
        "user.name=Host",
        "-c",
        "user.email=host@localhost",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class Host:
    """A repository in `folder/host` with one fault, and the store in `folder/store` that shows it."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.path = folder / "host"
        self.store = folder / "store"
        files = {
            "app/__init__.py": "",
            "app/service.py": SERVICE,
            "app/store.py": STORE.format(flaky=kind == "errors"),
            "app/model.py": MODEL,
            "app/probe.py": PROBE,
            "app/notes.txt": "".join(f"note {i}\n" for i in range(30)),
            "config/app.toml": f"[attention]\ngain = {6.0 if kind == 'phi' else 1.0}\n",
            "docs/guide.txt": "".join(f"line {i}\n" for i in range(30)),
            "qigheal.toml": MANIFEST,
            "tests/__init__.py": "",
            "tests/test_service.py": TESTS,
        }
        for name, text in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text)
        git(self.path, "init", "-q", "-b", "main")
        git(self.path, "add", "-A")
        git(self.path, "commit", "-q", "-m", "The service")
        self.head = git(self.path, "rev-parse", "HEAD").strip()
        self._record(kind)

    def _record(self, kind: Kind) -> None:
        """What the live service recorded: 300 healthy snapshots of code before, 60 of the present fault."""
        draw = np.random.default_rng(5)

        def rows(count: int, at: float, code: str, *, ill: bool) -> Batch:
            heads = np.zeros(count, HEAD)
            heads["timestamp"] = at + np.arange(count)
            heads["phi"] = (0.078 if ill and kind == "phi" else 0.75) + 0.008 * draw.normal(size=count)
            heads["kappa_eff"] = 64.0 + draw.normal(size=count)
            slow = 25.0 if ill and kind == "latency" else 5.0
            heads["avg_latency_ms"] = slow * np.exp(0.03 * draw.normal(size=count))
            heads["error_rate"] = (
                draw.binomial(400, 1 / 7 if ill and kind == "errors" else 0.002, count) / 400
            )
            heads["memory_mb"] = 100.0
            heads["regime"] = 1
            heads["code"] = 1
            for name in ("confidence", "surprise", "agency"):
                heads[name] = np.nan
            return Batch.of_rows(heads, np.exp(0.05 * draw.normal(size=(count, 64))), ("", code))

        healthy = rows(300, 1_700_000_000.0, "0" * 40, ill=False)
        with History(self.store) as history:
            history.append(healthy)
            history.append(rows(60, 1_700_000_400.0, self.head, ill=True))
        Baseline.learn(healthy).save(self.store / "baseline.json")

    def state(self) -> str:
        """Everything that a reader of the repository sees: refs, index, files."""
        return (
            git(self.path, "for-each-ref")
            + git(self.path, "status", "--porcelain")
            + git(self.path, "ls-files", "-s")
        )


def diff_of(host: Host, scratch: Path, shell: str) -> str:
    """The diff that a shell script makes in a copy of the host, as git prints it."""
    copy = scratch / "copy"
    shutil.copytree(host.path, copy, symlinks=True)
    script = "set -e\n" + textwrap.dedent(shell)
    done = subprocess.run(["sh", "-c", script], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    git(copy, "add", "-A", "-f", ".")
    return git(copy, "diff", "--cached", "--binary", "--full-index", "HEAD")
