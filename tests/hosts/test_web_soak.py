from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.web_soak import Result, ratio_of, slope_of, soak, told


@pytest.mark.alone
def test_a_short_soak_loses_no_snapshot(tmp_path: Path) -> None:
    result = soak(tmp_path, minutes=0.4, rate=100.0, block_s=1.0)
    assert result.whole, told(result)
    assert result.failed == 0
    assert min(result.requests) > 100
    assert len(result.slopes) == 4
    assert result.notes == () or all("in time" in note for note in result.notes)
    assert result.ratio[1] <= result.ratio[0] <= result.ratio[2]


def test_slopes_tell_growth_from_noise() -> None:
    rng = np.random.default_rng(0)
    seconds = np.arange(0.0, 1800.0, 0.5)
    flat = 80.0 + 0.1 * rng.normal(size=len(seconds))
    _, low, high = slope_of(seconds, flat)
    assert low <= 0.0 <= high
    slope, low, _ = slope_of(seconds, flat + seconds / 3600)
    assert low > 0.0
    assert slope == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(("slower", "code"), [(1.0, 0), (1.1, 1)])
def test_what_is_slower_is_told_from_what_is_not(slower: float, code: int) -> None:
    rng = np.random.default_rng(0)
    side = np.tile([0.0, 1.0, 1.0, 0.0], 100)
    rows = np.column_stack(
        [
            np.repeat(np.arange(400.0), 500),
            np.repeat(side, 500),
            rng.uniform(0.001, 0.002, 200_000) * np.repeat(np.where(side == 1, slower, 1.0), 500),
        ]
    )
    p99, ratio = ratio_of(rows)
    assert p99[0] == pytest.approx(1.99, rel=0.01)
    assert ratio[0] == pytest.approx(slower, rel=0.01)
    assert Result((1, 1), 0, p99, ratio, {"healed 1": (0.0, 0.0, 0.0)}, 1, 1, 0, 0, ()).code == code


def test_one_lost_snapshot_or_growing_memory_fails() -> None:
    well = Result((1, 1), 0, (1.0, 1.0), (1.0, 0.99, 1.01), {"healed 1": (0.0, -1.0, 1.0)}, 9, 9, 0, 0, ())
    assert well.code == 0
    assert well._replace(stored=8).code == 1
    assert well._replace(losses=1).code == 1
    assert well._replace(missed=1).code == 1
    assert well._replace(slopes={"healed 1": (1.0, 0.5, 1.5)}).code == 1
    assert well._replace(slopes={"bare 1": (1.0, 0.5, 1.5)}).code == 0
    assert well._replace(ratio=(1.0, 0.9, 1.1)).code == 2
