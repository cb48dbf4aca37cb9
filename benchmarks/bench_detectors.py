"""The change detector, over the commits."""

from __future__ import annotations

from benchmarks import workloads

CALLS = range(1000)


class Detector:
    def setup(self) -> None:
        self.update = workloads.detector_update()
        self.feed = workloads.detector_feed()
        self.construct = workloads.detector_construct()

    def time_update_1000(self) -> None:
        for _ in CALLS:
            self.update()

    def time_1000_rows_at_once(self) -> None:
        self.feed()

    def time_construct(self) -> None:
        self.construct()
