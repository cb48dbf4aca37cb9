"""Distances and means, over the commits.

One of them at once, CPU seconds and the memory that the rows themselves do not take:
python -m benchmarks.bench_geometry
"""

from __future__ import annotations

import resource
import time

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


class Mean:
    def setup(self) -> None:
        self.mean_and_variance = workloads.mean_and_variance()

    def time_mean_and_variance_of_a_million(self) -> None:
        self.mean_and_variance()

    def peakmem_mean_and_variance_of_a_million(self) -> None:
        self.mean_and_variance()


def main() -> None:
    work = workloads.mean_and_variance()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        started = time.process_time()
        work()
        print(f"mean and variance of 1,000,000 rows: {time.process_time() - started:.2f} s of CPU")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory: {after / 1024:.0f} MB, of which {(after - before) / 1024:.0f} MB beyond the rows")


if __name__ == "__main__":
    main()
