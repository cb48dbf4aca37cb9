"""The baseline commands as a user meets them: what they print and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from qigcore.baseline import Baseline
from qigcore.errors import BaselineError
from qigheal.cli.baseline_commands import baseline_app
from tests.core.streams import away
from tests.core.test_comparison import HOME, learned


def run(*arguments: str | Path) -> Any:
    # Commands return their exit code, which `main` makes the process's.
    return CliRunner().invoke(baseline_app, [str(each) for each in arguments], standalone_mode=False)


def saved(baseline: Baseline, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    baseline.save(path)
    return path


@pytest.fixture
def march(tmp_path: Path) -> Path:
    return saved(learned(np.random.default_rng(1)), tmp_path / "march.json")


def test_show_says_what_was_learned(march: Path) -> None:
    said = run("show", march)
    assert said.return_value == 0
    assert "learned from 300 snapshots" in said.stdout
    assert "simplex of 64 components" in said.stdout
    for metric in ("phi", "kappa", "basin_drift", "latency", "errors", "memory"):
        assert metric in said.stdout
    as_json = json.loads(run("show", march, "--json").stdout)
    assert as_json["count"] == 300
    assert as_json["bands"]["phi"]["mean"] == pytest.approx(0.75, abs=0.01)


def test_show_reads_a_store_and_says_when_it_has_none(
    march: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    said = run("show", store)
    assert said.return_value == 2
    assert "no baseline is learned here yet" in said.stdout
    assert json.loads(run("show", store, "--json").stdout) is None
    Baseline.load(march).save(store / "baseline.json")
    monkeypatch.setenv("QIGHEAL_STORE", str(store))
    assert run("show").return_value == 0
    missing = run("show", tmp_path / "mistyped.json")
    assert isinstance(missing.exception, BaselineError)


def test_compare_of_one_state(march: Path, tmp_path: Path) -> None:
    later = saved(learned(np.random.default_rng(2)), tmp_path / "later.json")
    said = run("compare", march, later)
    assert said.return_value == 0, said.stdout
    assert "nothing changed beyond noise" in said.stdout
    as_json = json.loads(run("compare", march, later, "--json").stdout)
    assert as_json["changed"] is False
    assert as_json["sentences"] == []


def test_compare_names_what_changed(march: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    store = tmp_path / "store"
    saved(learned(rng, centre=away(rng, HOME, 0.2), slower=2.0), store / "baseline.json")
    said = run("compare", march, store)
    assert said.return_value == 1
    assert "the centre moved by 0.2" in said.stdout
    assert "latency rose from" in said.stdout
    as_json = json.loads(run("compare", march, store, "--json").stdout)
    assert as_json["changed"] is True
    assert as_json["components"]


def test_compare_with_too_little_has_nothing_to_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(40)
    few = [saved(learned(rng, 40, 0.97), tmp_path / f"{name}.json") for name in "ab"]
    said = run("compare", *few)
    assert said.return_value == 2
    assert "too few independent snapshots to say" in said.stdout


def test_what_does_not_fit_is_an_error(march: Path, tmp_path: Path) -> None:
    other = saved(
        Baseline.learn(np.random.default_rng(4).dirichlet(np.full(8, 50.0), 100)), tmp_path / "other.json"
    )
    assert isinstance(run("compare", march, other).exception, BaselineError)
