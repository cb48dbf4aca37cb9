"""What a store says about the monitoring itself: the evidence that the first gate asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qigcore.baseline import Baseline
from qigcore.history import History, SegmentInfo
from qigcore.rows import HEAD
from qigheal.healing.phases import StoreEvidence
from qigheal.health import trend_of
from qigheal.settings import MonitorSettings

TRENDS = ("phi", "basin_drift", "latency", "errors")
WINDOW = 50
PAUSE = 1.5
"""Intervals between two snapshots from which on the ones that should lie between count as missing."""


def store_evidence(store: Path) -> StoreEvidence:
    """Read the history and what lies beside it; nothing is written. Raises HistoryError without a store."""
    path = store / "baseline.json"
    baseline = Baseline.load(path) if path.exists() else None
    with History.read_only(store) as history:
        segments = history.segments()
        recent = history.last(WINDOW)
        present = _present(history, segments)
    settings = MonitorSettings.load(store)
    return StoreEvidence(
        snapshots=sum(segment.rows for segment in segments),
        present_share=present,
        baseline_learned=baseline is not None,
        trends_known=sum(trend_of(recent, metric, baseline).direction != "unknown" for metric in TRENDS),
        memory_mb=settings.history_size * (HEAD.itemsize + 8 * settings.dim) / 1e6,
    )


def _present(history: History, segments: Sequence[SegmentInfo]) -> float | None:
    """Recorded snapshots over expected ones, 0 to 1; None where no process wrote three.

    The interval is that of the processes, each by its own mean; missing is the time in which none of
    them wrote. So the pause of one of several workers is not seen, and that of the service is.
    """
    intervals = [(each.last - each.first) / (each.rows - 1) for each in segments if each.rows >= 3]
    intervals = [interval for interval in intervals if interval > 0]
    if not intervals:
        return None
    usual = float(np.median(intervals))
    read = [batch.timestamp for batch in history.scan(columns=("timestamp",))]
    if not read:
        return 0.0  # rows were written, and damage hides them all
    times = np.sort(np.concatenate(read))
    gaps = np.diff(times)
    missing = float(np.rint(gaps[gaps > PAUSE * usual] / usual - 1).sum())
    return len(times) / (len(times) + missing)
