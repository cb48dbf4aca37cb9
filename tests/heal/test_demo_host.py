"""The demo host: made twice alike, healthy as published, and able to be deployed while it serves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigcore.geometry import distances, frechet_mean, from_amplitudes
from qigcore.history import History
from qigcore.rows import Batch
from qigheal.demo import repository
from qigheal.demo.repository import DemoHost, commit_temperature, make_host, set_temperature
from qigheal.errors import MissingExtra, RepoError
from qigheal.healing.bench import Bench
from qigheal.healing.strategies.turning.attention import Attention
from qigheal.host import Manifest
from qigheal.records import BandOf, Diagnosis, HealingPatch, Target
from qigheal.repo import Repo
from qigheal.sandbox import Sandbox
from qigheal.settings import HealSettings

LEVER = Path("config/model.toml")


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> DemoHost:
    """One host for all tests here; those that change it put it back."""
    return make_host(tmp_path_factory.mktemp("digits") / "host")


def git(host: DemoHost, *arguments: str) -> str:
    command = ["git", "-C", str(host.path), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def run(host: DemoHost, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=host.path, input=stdin, capture_output=True, text=True, check=False)


@pytest.fixture
def temperature(host: DemoHost) -> Iterator[Callable[[float], None]]:
    """Sets the temperature in the working tree; the healthy text comes back afterwards."""
    file = host.path / LEVER
    healthy = file.read_text()

    def set_to(value: float) -> None:
        file.write_text(set_temperature(healthy, value))

    yield set_to
    file.write_text(healthy)


def ask(host: DemoHost, questions: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps({"batch": batch, "seed": seed}) + "\n" for batch, seed in questions)
    done = run(host, "digits.probe", stdin=lines)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_same_commit_every_time(host: DemoHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    again = make_host(tmp_path / "again")
    monkeypatch.undo()
    assert again.healthy == host.healthy
    assert git(again, "log", "--format=%an <%ae> %s").splitlines() == [
        "Digits <digits@localhost> Recognise handwritten digits by attention"
    ]
    assert git(again, "rev-parse", "--abbrev-ref", "HEAD").strip() == "main"
    assert git(again, "status", "--porcelain") == ""
    assert ".gitignore" in git(again, "ls-files").splitlines()


def test_will_not_mix_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(RepoError, match="new or an empty folder"):
        make_host(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_names_the_extra_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtra, match=re.escape("pip install 'qigheal[demo]'")):
        make_host(tmp_path / "host")


def test_says_what_git_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "DATE", "no date at all")
    with pytest.raises(RepoError, match=r"git commit .* no date at all"):
        make_host(tmp_path / "host")


def test_a_fault_is_one_commit_of_one_line(tmp_path: Path) -> None:
    host = make_host(tmp_path / "host")
    fault = commit_temperature(host.path, 5.0)
    assert git(host, "rev-parse", "HEAD", "HEAD^").split() == [fault, host.healthy]
    changed = [line for line in git(host, "diff", "-U0", "HEAD^").splitlines() if line[:1] in "+-"]
    assert [line.partition("#")[0].split() for line in changed[2:]] == [
        ["-temperature", "=", "0.85"],
        ["+temperature", "=", "5"],
    ]
    assert changed[2].partition("#")[2] == changed[3].partition("#")[2], "the comment stays"
    assert git(host, "status", "--porcelain") == ""


@pytest.mark.parametrize("value", [0.85, 0.05, 30.0])
def test_its_own_tests_pass_at_any_temperature(
    host: DemoHost, temperature: Callable[[float], None], value: float
) -> None:
    temperature(value)
    done = run(host, "unittest", "discover", "-s", "tests", "-q")
    assert done.returncode == 0, done.stderr


def test_healthy_is_as_published(host: DemoHost) -> None:
    answers = ask(host, [(batch, 1) for batch in range(100)])
    phi = [answer["phi"] for answer in answers]
    kappa = [answer["kappa_eff"] for answer in answers]
    assert np.mean(phi) == pytest.approx(0.772, abs=0.005)
    assert np.std(phi) == pytest.approx(0.010, abs=0.003)
    assert np.mean(kappa) == pytest.approx(66.2, abs=1.0)
    assert np.std(kappa) == pytest.approx(2.1, abs=0.6)
    basins = np.array([answer["basin_coords"] for answer in answers])
    np.testing.assert_allclose(basins.sum(axis=1), 1.0, atol=1e-5)
    drift = distances(basins, from_amplitudes(frechet_mean(basins)))
    assert drift.mean() == pytest.approx(0.28, abs=0.03)


def test_too_warm_is_uncertain_and_attends_to_almost_all(
    host: DemoHost, temperature: Callable[[float], None]
) -> None:
    healthy = ask(host, [(1, 1)])
    temperature(5)
    answers = ask(host, [(batch, 1) for batch in range(10)])
    assert np.mean([answer["phi"] for answer in answers]) == pytest.approx(0.04, abs=0.01)
    assert np.mean([answer["kappa_eff"] for answer in answers]) == pytest.approx(1019, abs=5)
    assert answers[1]["output_digest"] != healthy[0]["output_digest"]


def test_the_probe_needs_numpy_and_the_standard_library_only(host: DemoHost) -> None:
    loaded = "import sys, digits.probe; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loaded], cwd=host.path, capture_output=True, text=True, check=True
    )
    assert not {"qigheal", "qigcore", "sklearn", "scipy", "numba"} & set(done.stdout.split())


class Service:
    """A running service; its lines are read as they come, and it is killed at the end of the block."""

    def __init__(self, host: DemoHost, folder: Path, *arguments: str) -> None:
        self.host = host
        self.store = folder / "store"
        self.pid_file = folder / "run" / "pid"
        path = os.pathsep.join(filter(None, sys.path))  # the service works in another folder
        self.environment = os.environ | {"DIGITS_PID": str(self.pid_file), "PYTHONPATH": path}
        command = [sys.executable, "-m", "digits.service", "--store", str(self.store), "--rate", "500"]
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=host.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self, event: str) -> dict[str, Any]:
        """The next line with this event; other lines are skipped."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line)
            if said["event"] == event:
                return said
        raise AssertionError(f"the service ended without saying {event!r}")

    def deploy(self) -> str:
        command = [sys.executable, "-m", "digits.deploy"]
        return subprocess.run(
            command, cwd=self.host.path, env=self.environment, check=True, capture_output=True, text=True
        ).stdout

    def stop(self) -> dict[str, Any]:
        """End it politely; its last line."""
        self.process.terminate()
        last = self.line("stop")
        assert self.process.wait(timeout=30) == 0
        return last

    def recorded(self) -> Batch:
        with History.read_only(self.store) as history:
            return history.last(100_000)


def test_serves_a_number_of_batches_and_records_them(host: DemoHost, tmp_path: Path) -> None:
    with Service(host, tmp_path, "--batches", "40") as service:
        started = service.line("start")
        assert (started["pid"], started["code_hash"]) == (service.process.pid, host.healthy)
        assert service.line("stop")["batch"] == 40
        assert service.process.wait(timeout=30) == 0
        assert not service.pid_file.exists()
    batch = service.recorded()
    assert len(batch) == 40
    assert set(batch.code_hash) == {host.healthy}
    assert batch.phi.mean() == pytest.approx(0.772, abs=0.01)
    assert (batch.error_rate == 0).all()
    assert (batch.avg_latency_ms > 0.1).all()
    assert (batch.memory_mb > 10).all()
    assert (batch.repaired == 0).all()
    [same] = ask(host, [(7, 0)])
    kept = 2**-14  # a compact history keeps 14 significant bits
    assert batch.phi[7] == pytest.approx(same["phi"], rel=kept), "service and probe must measure alike"


def test_a_deploy_is_taken_up_without_losing_a_batch(
    host: DemoHost, tmp_path: Path, temperature: Callable[[float], None]
) -> None:
    with Service(host, tmp_path) as service:
        assert service.line("start")["temperature"] == 0.85
        temperature(5)
        assert "reloads" in service.deploy()
        again = service.line("start")
        assert (again["temperature"], again["pid"]) == (5, service.process.pid)
        assert service.line("health")["severity"] in ("warning", "critical")
        served = service.stop()["batch"]
    assert len(service.recorded()) == served
    assert "no service runs" in service.deploy()


def test_deploys_that_come_at_once_do_no_harm(host: DemoHost, tmp_path: Path) -> None:
    with Service(host, tmp_path) as service:
        service.line("start")
        for _ in range(3):
            service.deploy()
        service.line("start")
        served = service.stop()["batch"]
    assert len(service.recorded()) == served


def test_a_batch_that_raises_is_an_error_and_not_the_end(host: DemoHost, tmp_path: Path) -> None:
    model = host.path / "digits" / "model.py"
    healthy = model.read_text()
    first = "        scores = images @"
    model.write_text(healthy.replace(first, f'        raise RuntimeError("broken")\n{first}'))
    try:
        with Service(host, tmp_path, "--batches", "20") as service:
            said = service.line("health")
            service.line("stop")
    finally:
        model.write_text(healthy)
    assert said["severity"] == "critical"
    batch = service.recorded()
    assert (batch.error_rate == 1).all()
    assert (batch.repaired != 0).all()


@pytest.fixture(scope="module")
def healthy(host: DemoHost, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """What the healthy commit measures: 60 batches, bands of three standard deviations."""
    with make_bench(host, host.healthy, tmp_path_factory.mktemp("bench")) as bench:
        answers = bench.batches(None, 60)
    centre = frechet_mean([answer.basin for answer in answers])
    drift = distances([answer.basin for answer in answers], from_amplitudes(centre))

    def band(values: list[float]) -> BandOf:
        mean, sd = float(np.mean(values)), float(np.std(values))
        return BandOf(mean=mean, sd=sd, low=mean - 3 * sd, high=mean + 3 * sd)

    return Target(
        geometry="simplex",
        basin=tuple(centre),
        drift_limit=float(drift.mean() + 3 * drift.std()),
        bands={"phi": band([a.phi for a in answers]), "kappa": band([a.kappa_eff for a in answers])},
    )


def make_bench(host: DemoHost, base: str, work: Path) -> Bench:
    repo = Repo(host.path)
    return Bench(repo, Manifest.load(host.path), Sandbox("none"), base, work)


def search_at(host: DemoHost, healthy: Target, value: float, work: Path) -> list[HealingPatch]:
    """What the lever search proposes at a commit with this temperature; no branch moves."""
    repo = Repo(host.path)
    text = repo.read(host.healthy, str(LEVER)).decode()
    tree = repo.edit(host.healthy, {str(LEVER): set_temperature(text, value).encode()})
    base = repo.commit(tree, (host.healthy,), "Another temperature", at=1.7e9)
    diagnosis = Diagnosis(
        metrics=("kappa", "phi"),
        findings=(),
        severity="critical",
        target=healthy,
        observed={},
        code_hash=base,
        healthy_code_hash=host.healthy,
        since=None,
        snapshots=50,
    )
    with make_bench(host, base, work) as bench:
        return list(Attention(HealSettings()).propose(diagnosis, bench, repo))


@pytest.mark.parametrize("fault", [5.0, 0.2, 2.0, 30.0])
def test_the_lever_search_heals_it(host: DemoHost, healthy: Target, tmp_path: Path, fault: float) -> None:
    [patch] = search_at(host, healthy, fault, tmp_path)
    assert patch.parameters["attention.temperature"] == pytest.approx(0.85, rel=0.15)
    repo = Repo(host.path)
    healed = repo.read(repo.apply(patch.base, patch.diff), str(LEVER)).decode()
    assert healed == set_temperature(
        repo.read(host.healthy, str(LEVER)).decode(), patch.parameters["attention.temperature"]
    )


def test_the_lever_search_leaves_the_healthy_host_alone(
    host: DemoHost, healthy: Target, tmp_path: Path
) -> None:
    assert search_at(host, healthy, 0.85, tmp_path) == []
