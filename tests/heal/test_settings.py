"""Settings: bad values are refused when they are made, with what was expected; the store keeps them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigcore.errors import HistoryError, InvalidLimit
from qigheal import GeometricHealthMonitor
from qigheal.health import rules_for
from qigheal.settings import HealSettings, MonitorSettings, default_store


@pytest.mark.parametrize(
    "wrong",
    [
        {"phi_min": 1.5},
        {"phi_min": math.nan},
        {"phi_min": "high"},
        {"basin_drift_max": math.pi},
        {"basin_drift_max": 4.0, "geometry": "sphere"},
        {"basin_drift_max": 0.0},
        {"geometry": "torus"},
        {"history_size": 5},
        {"learn_after": 5},
        {"linear_below": 0.9},
        {"flush_every_s": 60.0},
        {"on_invalid": "ignore"},
        {"on_invalid": ["repair"]},
        {"phi_min": True},
        {"basin_drift_max": "2"},
        {"basin_drift_max": math.nan},
        {"breakdown_from": "high"},
        {"breakdown_from": 1.5},
        {"linear_below": None},
        {"latency_max_ms": math.inf},
        {"kappa_tolerance": 10**400},
        {"history_size": 1000.0},
        {"learn_after": 300.5},
        {"dim": True},
        {"keep_days": -1.0},
        {"keep_mb": "all"},
        {"keep_mb": math.nan},
    ],
)
def test_monitor_settings_refuse(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidLimit, match=next(iter(wrong))):
        MonitorSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"fitness_threshold": 0.3},  # below what doing nothing scores
        {"min_pairs": 4},
        {"max_pairs": 10},
        {"watch_deadline_s": -1.0},
        {"sandbox": "cardboard"},
    ],
)
def test_heal_settings_refuse(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidLimit, match=next(iter(wrong))):
        HealSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (MonitorSettings, {"basin_drift_max": math.pi}),  # no two states are further apart
        (MonitorSettings, {"basin_drift_max": 3.5, "geometry": "sphere"}),
        (MonitorSettings, {"phi_min": 0.0}),  # no Φ is lower
        (MonitorSettings, {"error_rate_max": 1.0}),  # no rate of errors is higher
        (HealSettings, {"fitness_threshold": 1.0}),  # no score is higher
        (HealSettings, {"error_margin": 1.0}),
        (HealSettings, {"breaker_window_s": 0.0}),  # nothing is taken back within no time
    ],
)
def test_a_limit_that_can_never_fire_is_refused(make: Any, limit: dict[str, Any]) -> None:
    with pytest.raises(InvalidLimit, match=rf"^{next(iter(limit))}: .*never could|could never fire"):
        make(**limit)


@pytest.mark.parametrize(
    "limit",
    [
        {"basin_drift_max": math.nextafter(math.pi, 0)},
        {"phi_min": math.nextafter(0.0, 1)},
        {"phi_min": 1.0},
        {"error_rate_max": math.nextafter(1.0, 0)},
        {"error_rate_max": 0.0},
        {"breakdown_from": 1.0},
        {"latency_max_ms": 0.0},
        {"kappa_tolerance": 0.0},
        {"memory_growth_max_mb": 0.0},
    ],
)
def test_each_limit_that_is_let_pass_can_fire(limit: dict[str, Any]) -> None:
    """The worst that a host can report reaches every limit."""
    host = GeometricHealthMonitor(dim=2, code_hash="", learn_after=1000, **limit)
    host.record(0.5, 64.0, [1.0, 0.0])
    for i in range(20):
        phi = 1.0 if "breakdown_from" in limit else 0.0
        host.record(phi, -1e300, [0.0, 1.0], 1.0, 1e300, 1e9 * i)
    kinds = {finding.kind for finding in host.check_health().findings}
    expected = {
        "basin_drift_max": "drift",
        "phi_min": "phi_low",
        "error_rate_max": "errors",
        "breakdown_from": "breakdown",
        "latency_max_ms": "latency",
        "kappa_tolerance": "kappa_off",
        "memory_growth_max_mb": "memory",
    }
    assert expected[next(iter(limit))] in kinds


def test_a_breaker_that_can_never_be_reached_is_refused() -> None:
    at_most = {"max_open_changes": 3, "new_change_every_s": 3600.0, "breaker_window_s": 86400.0}
    HealSettings(breaker_rollbacks=28, **at_most)
    with pytest.raises(InvalidLimit, match=r"^breaker_rollbacks: .* can fire, got 29: .* at most 28 "):
        HealSettings(breaker_rollbacks=29, **at_most)
    HealSettings(breaker_rollbacks=1000, new_change_every_s=0.0)


@pytest.mark.parametrize(
    ("settings", "needed", "unsettled", "length", "first", "most"),
    [
        (HealSettings(), 10, 0, 10, 20, 640),
        (HealSettings(), 11, 12, 22, 44, 638),  # 29 starts of 22 pairs
        (HealSettings(), 100, 100, 110, 220, 1760),  # 16 starts, though 640 pairs would make 5
        (HealSettings(max_pairs=80), 100, 100, 110, 220, 880),  # 8 starts, as otherwise
        (HealSettings(min_pairs=60), 100, 100, 110, 660, 1760),
        (HealSettings(min_pairs=200, max_pairs=200), 100, 100, 110, 2200, 2200),
        (HealSettings(round_pairs=5, max_pairs=40), 7, 8, 14, 56, 98),
    ],
)
def test_starts_are_longer_where_a_strategy_needs_it(
    settings: HealSettings, needed: int, unsettled: int, length: int, first: int, most: int
) -> None:
    assert settings.unsettled(needed) == unsettled
    assert settings.round_length(needed) == length
    assert settings.pairs_needed(needed) == first
    assert settings.pairs_allowed(needed) == most


def test_what_a_learned_band_cannot_see_is_no_rule_and_is_told() -> None:
    rng = np.random.default_rng(1)
    host = GeometricHealthMonitor(dim=2, code_hash="", learn_after=60, error_rate_max=0.9)
    for phi, errors in rng.random((60, 2)):
        host.record(phi, 64.0, [1.0, 1.0], errors)
    notes = host.check_health().notes
    assert "healthy Φ reaches 0: a low Φ is no finding here" in notes
    assert "healthy error rates reach 1: errors are no finding here" in notes
    assert not {"phi_low", "errors"} & {rule.kind for rule in rules_for(host.settings, host.baseline).rules}


def test_numbers_of_another_make_are_kept_as_plain_ones(tmp_path: Path) -> None:
    given = MonitorSettings(
        phi_min=np.float64(0.6), latency_max_ms=np.float32(9), history_size=np.int64(500), dim=np.uint8(64)
    )
    assert given == MonitorSettings(phi_min=0.6, latency_max_ms=9.0, history_size=500)
    assert {type(getattr(given, name)) for name in ("phi_min", "latency_max_ms")} == {float}
    assert {type(getattr(given, name)) for name in ("history_size", "dim")} == {int}
    given.save(tmp_path)
    assert MonitorSettings.load(tmp_path) == given


def test_the_store_keeps_them(tmp_path: Path) -> None:
    settings = MonitorSettings(phi_min=0.6, geometry="sphere")
    settings.save(tmp_path)
    assert MonitorSettings.load(tmp_path) == settings
    assert [path.name for path in tmp_path.iterdir()] == ["monitor.json"]
    settings.save(tmp_path)
    assert MonitorSettings.load(tmp_path / "none") == MonitorSettings()


def test_the_store_keeps_those_of_the_healer(tmp_path: Path) -> None:
    assert HealSettings.load(tmp_path) == HealSettings()
    settings = HealSettings(breaker_rollbacks=1, breaker_window_s=np.float64(60), sandbox="partial")
    settings.save(tmp_path)
    assert HealSettings.load(tmp_path) == settings
    assert [path.name for path in tmp_path.iterdir()] == ["healer.json"]


@pytest.mark.parametrize("text", ["{", '{"breaker_rollbacks": 0}', '{"sandbox": "x"}', "[" * 100_000, "\0"])
def test_a_broken_file_of_the_healer_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "healer.json").write_text(text)
    with pytest.raises(HistoryError, match=r"healer\.json: .* remove the file, and its next pass"):
        HealSettings.load(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"phi_min": 7}', '{"phi_min": "x"}', "[]"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "monitor.json").write_text(text)
    with pytest.raises(HistoryError, match=r"monitor\.json"):
        MonitorSettings.load(tmp_path)


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QIGHEAL_STORE", raising=False)
    assert default_store() == Path(".qigheal")
    monkeypatch.setenv("QIGHEAL_STORE", "/var/lib/x")
    assert default_store() == Path("/var/lib/x")


def test_nested_beyond_reason_is_refused_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "monitor.json").write_text('{"later": ' + "[" * 100_000)
    with pytest.raises(HistoryError, match="remove the file"):
        MonitorSettings.load(tmp_path)


@pytest.mark.parametrize("settings", [MonitorSettings(), HealSettings()])
def test_what_lies_in_the_place_of_a_file_is_replaced_and_not_read_whole(
    tmp_path: Path, settings: MonitorSettings | HealSettings
) -> None:
    name = "monitor.json" if isinstance(settings, MonitorSettings) else "healer.json"
    with open(tmp_path / name, "wb") as sparse:
        sparse.truncate(1 << 40)  # more than any memory
    settings.save(tmp_path)
    assert type(settings).load(tmp_path) == settings
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    settings.save(tmp_path)
    assert type(settings).load(tmp_path) == settings
