"""The wheel: built from the committed files, installed in an empty environment elsewhere, and used."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WHEELHOUSE = Path(sys.prefix) / "wheelhouse"

SMOKE = """
import sys
import numpy as np
import qigcore.geometry, qigheal
from qigheal import GeometricHealthMonitor

assert "site-packages" in qigheal.__file__, qigheal.__file__
assert "site-packages" in qigcore.geometry.__file__, qigcore.geometry.__file__
rng = np.random.default_rng(0)
with GeometricHealthMonitor(history="store") as monitor:
    for row in rng.dirichlet(np.full(64, 200.0), 400):
        monitor.record(0.75, 64.0, row, 0.0, 5.0, 100.0)
    report = monitor.check_health()
assert report["healthy"], report
with qigcore.history.History.read_only("store") as history:
    assert len(history.last(1000)) == 400
assert "numba" not in sys.modules
from qigheal.dashboard import asset
assert b"<title>" in asset("dashboard.html")[0]
from qigheal.demo import repository
assert (repository.TEMPLATE / "qigheal.toml").is_file()
assert (repository.TEMPLATE / "digits" / "service.py").is_file()
print("smoke passed", qigheal.__version__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.skipif(not WHEELHOUSE.is_dir(), reason="no .venv/wheelhouse: run by `make test`")
def test_wheel_works_in_an_empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    tree = tmp_path / "tree"
    tracked = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, tracked):
        source, target = ROOT / name, tree / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    # A wheel by way of the source distribution: what MANIFEST.in forgets is missed here.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", cwd=tree)
    (wheel,) = (tmp_path / "dist").glob("*.whl")

    empty = tmp_path / "empty"
    venv.create(empty, with_pip=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    python = empty / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-index", "--find-links", WHEELHOUSE, wheel, cwd=elsewhere)
    assert "smoke passed" in run(python, "-P", "-c", SMOKE, cwd=elsewhere)

    (elsewhere / "store").rename(elsewhere / ".qigheal")
    said = subprocess.run(
        [empty / "bin" / "qigheal", "status"], cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert said.returncode == 69
    assert "pip install 'qigheal[cli]'" in said.stderr
