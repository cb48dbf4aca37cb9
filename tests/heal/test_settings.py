"""Settings: bad values are refused when they are made, with what was expected; the store keeps them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from qigcore.errors import HistoryError, InvalidLimit
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


def test_a_limit_that_can_never_fire_says_why() -> None:
    with pytest.raises(InvalidLimit, match="could never fire"):
        MonitorSettings(basin_drift_max=3.5)


def test_the_store_keeps_them(tmp_path: Path) -> None:
    settings = MonitorSettings(phi_min=0.6, geometry="sphere")
    settings.save(tmp_path)
    assert MonitorSettings.load(tmp_path) == settings
    assert [path.name for path in tmp_path.iterdir()] == ["monitor.json"]
    settings.save(tmp_path)
    assert MonitorSettings.load(tmp_path / "none") == MonitorSettings()


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
