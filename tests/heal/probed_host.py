"""A small host whose probe a test gives, and the bench that runs it."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path
from typing import Any

from qigheal.healing.bench import Bench
from qigheal.host import Manifest
from qigheal.repo import Repo
from qigheal.sandbox import Sandbox

MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
timeout_s = {timeout}
protect = ["data/**"]
[tests]
command = ["python", "-m", "unittest", "discover", "-s", "tests"]
[patch]
allow = ["app/*.py"]
"""
PROBE = """
import json, os, sys, time
ANSWER = {"phi": 0.75, "kappa_eff": 64.5, "basin_coords": [1.0, 2.0, 3.0, 4.0]}

def answer(**changes):
    print(json.dumps(ANSWER | changes), flush=True)

"""
GOOD = """
from app.model import LEVEL
for line in sys.stdin:
    asked = json.loads(line)
    answer(batch=asked["batch"], phi=LEVEL, error_rate=asked["seed"] / 2**32, output_digest="same")
"""
TESTS = """
import unittest
from pathlib import Path
from typing import Any, Literal
from app.model import LEVEL

class Test(unittest.TestCase):
    def test_level(self):
        Path("written").write_text("by a test")
        self.assertEqual(LEVEL, 0.75)
"""
WORSE = """\
diff --git a/app/model.py b/app/model.py
--- a/app/model.py
+++ b/app/model.py
@@ -1 +1 @@
-LEVEL = 0.75
+LEVEL = 0.25
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=T", "-c", "user.email=t@localhost", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class FilesRepo:
    """A repository of one commit, without git."""

    def __init__(self, root: Path, files: dict[str, str]) -> None:
        self.root = root
        self.files = files

    def export(self, commit: str, dest: Path) -> None:
        assert commit == "base"
        for name, text in self.files.items():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            (dest / name).write_text(text)


class Host:
    """A host whose probe is the common beginning and what the test gives."""

    def __init__(self, folder: Path, workdir: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.workdir = workdir
        self.sandbox = sandbox
        self.timeout = 20.0

    def files(self, probe: str) -> dict[str, str]:
        return {
            "qigheal.toml": MANIFEST.format(timeout=self.timeout),
            "app/__init__.py": "",
            "app/model.py": "LEVEL = 0.75\n",
            "app/probe.py": PROBE + textwrap.dedent(probe),
            "data/requests.txt": "recorded\n",
            "tests/test_model.py": TESTS,
        }

    def bench(self, probe: str = GOOD, **changed: str) -> Bench:
        files = self.files(probe) | changed
        repo: Any = FilesRepo(self.folder, files)
        return Bench(repo, Manifest.parse(files["qigheal.toml"]), self.sandbox, "base", self.workdir)

    def bench_in_git(self) -> Bench:
        self.folder.mkdir()
        git(self.folder, "init", "-q", "-b", "main")
        base = self.commit(self.files(GOOD))
        repo = Repo(self.folder)
        return Bench(repo, Manifest.at(repo, base), self.sandbox, base, self.workdir)

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-q", "-m", "Files")
        return git(self.folder, "rev-parse", "HEAD")


def belongs(pid: int, folder: Path) -> bool:
    """Whether a process works below `folder`, by its mounts: tests run side by side."""
    try:
        return str(folder) in Path(f"/proc/{pid}/mountinfo").read_text() + os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False
