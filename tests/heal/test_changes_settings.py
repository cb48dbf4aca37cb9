"""A stated time between false alarms that does not fit the pace of the snapshots is told, never raised."""

from __future__ import annotations

import numpy as np
import pytest

from qigheal import GeometricHealthMonitor


@pytest.mark.parametrize("interval_s", [1e-10, 1e6])
def test_a_rate_that_does_not_fit_the_pace_of_the_snapshots_is_a_note(interval_s: float) -> None:
    rng = np.random.default_rng(0)
    monitor = GeometricHealthMonitor(false_alarm_every="30d")
    for index in range(400):
        monitor.capture(
            timestamp=1.0 + index * interval_s,
            phi=0.75 + 0.01 * rng.standard_normal(),
            kappa_eff=64.0 + rng.standard_normal(),
            basin_coords=rng.dirichlet(np.full(64, 200.0)),
        )
    monitor.flush()
    report = monitor.check_health()
    assert report.change is None
    assert any(note.startswith("changes are not looked for: ") for note in report.notes)
