"""A host small enough to heal in a second: one lever, a probe that needs no package.

Its figures follow a formula of the gain g in `config/app.toml` (healthy at 1): Φ falls off on both
sides, κ grows with g, and the basin tilts towards one half. Noise is drawn from the seed and batch,
so that the probe and the history made here agree.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from qigcore.baseline import Baseline
from qigcore.history import History
from qigcore.rows import HEAD, Batch

MODEL = '''"""The toy's figures: a formula of the gain, with seeded noise."""

import math
import random
import tomllib
from pathlib import Path


def gain():
    return tomllib.loads(Path("config/app.toml").read_text())["attention"]["gain"]


def figures(g, seed, batch):
    draw = random.Random(f"{seed}/{batch}")
    phi = 0.05 + 0.70 * math.exp(-math.log(g) ** 2) + draw.gauss(0, 0.008)
    kappa = 64.0 * math.sqrt(g) + draw.gauss(0, 1.0)
    tilt = math.tanh(math.log(g)) / 2
    weights = [(1 + tilt if i < 32 else 1 - tilt) * math.exp(draw.gauss(0, 0.05)) for i in range(64)]
    return min(1.0, max(0.0, phi)), kappa, weights
'''

PROBE = '''"""Answers {"batch", "seed"} lines with the toy's figures."""

import json
import sys

from app.model import figures, gain

g = gain()
for line in sys.stdin:
    asked = json.loads(line)
    phi, kappa, weights = figures(g, asked["seed"], asked["batch"])
    print(json.dumps({"phi": phi, "kappa_eff": kappa, "basin_coords": weights}), flush=True)
'''

CONFIG = """# How strongly the toy attends.
[attention]
gain = {gain}  # healthy: 1.0
"""

DEPLOY = """# Writes down each deployment: its key and the commit that is checked out.
echo "$QIGHEAL_CHANGE $(git rev-parse HEAD)" >> "$TOY_DEPLOYS"
"""

MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
timeout_s = 20
protect = ["app/probe.py"]

[patch]
allow = ["app/**/*.py", "config/*.toml"]

[[levers]]
name = "attention.gain"
strategy = "attention"
file = "config/app.toml"
key = "attention.gain"
min = 0.05
max = 20.0

[deploy]
command = ["sh", "deploy.sh"]
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=Toy", "-c", "user.email=toy@localhost", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


class ToyHost:
    """The toy's repository in `folder/host` and its store in `folder/store`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "host"
        self.store = folder / "store"
        self.deploys = folder / "deploys"
        self.clock = 1_700_000_000.0
        for name, text in {
            "app/__init__.py": "",
            "app/model.py": MODEL,
            "app/probe.py": PROBE,
            "deploy.sh": DEPLOY,
            "qigheal.toml": MANIFEST,
            "config/app.toml": CONFIG.format(gain=1.0),
        }.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        git(self.path, "init", "-q", "-b", "main")
        self.healthy = self.commit("The toy")

    def copied(self, folder: Path) -> ToyHost:
        """This host as it stands, in another folder, to do with as one likes."""
        shutil.copytree(self.path.parent, folder, symlinks=True, dirs_exist_ok=True)
        copy = ToyHost.__new__(ToyHost)
        copy.path, copy.store, copy.deploys = folder / "host", folder / "store", folder / "deploys"
        copy.clock, copy.healthy = self.clock, self.healthy
        return copy

    def commit(self, message: str) -> str:
        git(self.path, "add", "-A")
        git(self.path, "commit", "-q", "-m", message)
        return git(self.path, "rev-parse", "HEAD")

    def break_it(self, gain: float = 6.0) -> str:
        (self.path / "config/app.toml").write_text(CONFIG.format(gain=gain))
        return self.commit(f"Set the gain to {gain}")

    def gain(self) -> float:
        line = next(
            row for row in (self.path / "config/app.toml").read_text().splitlines() if row.startswith("gain")
        )
        return float(line.split("=")[1].split("#")[0])

    def rows(self, gain: float, count: int, code: str, *, seed: int = 7) -> Batch:
        """Snapshots as the live toy would record them, a second apart, ending now; the clock goes on."""
        scope: dict[str, object] = {}
        exec(compile(MODEL, "model.py", "exec"), scope)  # noqa: S102  # the host's own formula
        heads = np.zeros(count, HEAD)
        basins = np.empty((count, 64))
        for i in range(count):
            phi, kappa, weights = scope["figures"](gain, seed, self.clock + i)  # type: ignore[operator]
            heads["phi"][i], heads["kappa_eff"][i], basins[i] = phi, kappa, weights
        heads["timestamp"] = self.clock + 1 + np.arange(count)
        heads["avg_latency_ms"] = 5.0
        heads["memory_mb"] = 100.0
        heads["regime"] = 1
        heads["code"] = 1
        for name in ("confidence", "surprise", "agency"):
            heads[name] = np.nan
        self.clock += count + 1
        return Batch.of_rows(heads, basins, ("", code))

    def live(self, gain: float, count: int, code: str) -> None:
        """Record snapshots into the store."""
        with History(self.store) as history:
            history.append(self.rows(gain, count, code))

    @contextmanager
    def running(self) -> Iterator[None]:
        """A living process that writes the store, and has recorded one healthy snapshot more."""
        with History(self.store) as history:
            history.append(self.rows(1.0, 1, self.healthy))
            yield

    def learn(self, count: int = 300) -> Baseline:
        """A healthy history and the baseline learned from it."""
        rows = self.rows(1.0, count, self.healthy)
        with History(self.store) as history:
            history.append(rows)
        baseline = Baseline.learn(rows)
        baseline.save(self.store / "baseline.json")
        return baseline
