"""Distances, over the commits."""

from __future__ import annotations

from benchmarks import workloads

CALLS = range(1000)


class Distance:
    def setup(self) -> None:
        self.distance = workloads.distance()
        self.rows_to_one = workloads.rows_to_one()

    def time_one_distance_1000(self) -> None:
        for _ in CALLS:
            self.distance()

    def time_1000_rows_to_one(self) -> None:
        self.rows_to_one()
