"""Looking at what was recorded, over the commits."""

from __future__ import annotations

from benchmarks import workloads
from benchmarks.footprint import import_ms, monitor_mb

CALLS = range(100)


class CheckHealth:
    params = (1000, 1_000_000)
    param_names = ("recorded",)

    def setup(self, recorded: int) -> None:
        self.check_health = workloads.check_health(recorded)

    def time_check_health_100(self, recorded: int) -> None:
        for _ in CALLS:
            self.check_health()


class Look:
    def setup(self) -> None:
        self.critical = workloads.check_health_critical()
        self.get_trend = workloads.get_trend()
        self.degrading = workloads.get_trend_degrading()
        self.rank_trend = workloads.rank_trend()

    def time_check_health_critical_100(self) -> None:
        for _ in CALLS:
            self.critical()

    def time_get_trend_100(self) -> None:
        for _ in CALLS:
            self.get_trend()

    def time_get_trend_degrading_100(self) -> None:
        for _ in CALLS:
            self.degrading()

    def time_mann_kendall_1000(self) -> None:
        self.rank_trend()


def track_import_ms() -> float:
    return import_ms()


def track_monitor_mb() -> float:
    return monitor_mb()


track_import_ms.unit = "ms over numpy"  # type: ignore[attr-defined]
track_monitor_mb.unit = "MB over numpy"  # type: ignore[attr-defined]
