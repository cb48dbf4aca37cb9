"""What a scrape costs does not grow with the history."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from qigcore.history import History
from qigcore.rows import HEAD
from qigheal.integrations.prometheus import HealthCollector
from tests.metrics.scraped import scrape


class Written:
    """A store of `rows` snapshots with a living writer, and a collector over it."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.history = History(folder)
        self.clock = 1_700_000_000.0
        for _ in range(rows // 2000):
            self.append(2000)
        self.collector = HealthCollector(folder, clock=lambda: self.clock)

    def append(self, count: int) -> None:
        rng = np.random.default_rng(int(self.clock))
        heads = np.zeros(count, HEAD)
        heads["timestamp"] = self.clock + np.arange(count)
        heads["phi"] = rng.normal(0.77, 0.01, count)
        heads["kappa_eff"] = 64.0
        heads["regime"] = 1
        self.clock += count
        self.history.append_rows(heads, rng.dirichlet(np.full(64, 200.0), count), ("",))

    def scrape_s(self) -> float:
        self.append(15)
        began = time.perf_counter()
        found = scrape(self.collector)
        spent = time.perf_counter() - began
        assert found["geometric_health_writers"] == 1
        assert found["geometric_health_status|normal"] == 1
        return spent


@pytest.mark.alone
def test_a_hundred_times_the_history_takes_no_longer(tmp_path: Path) -> None:
    small, large = Written(tmp_path / "small", 2_000), Written(tmp_path / "large", 200_000)
    with small.history, large.history:
        pairs = [(small.scrape_s(), large.scrape_s()) for _ in range(15)]
    of_small, of_large = (min(side) for side in zip(*pairs, strict=True))
    assert of_large < 2.0 * of_small, f"{1e3 * of_large:.1f} ms beside {1e3 * of_small:.1f} ms"
