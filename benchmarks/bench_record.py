"""What a request pays, over the commits; each figure is that of a thousand calls."""

from __future__ import annotations

from benchmarks import workloads

CALLS = range(1000)


class Record:
    def setup(self) -> None:
        self.record = workloads.record()
        self.capture = workloads.capture()
        self.record_and_check = workloads.record_and_check()

    def time_record_1000(self) -> None:
        for _ in CALLS:
            self.record()

    def time_capture_1000(self) -> None:
        for _ in CALLS:
            self.capture()

    def time_record_and_check_1000(self) -> None:
        for _ in CALLS:
            self.record_and_check()
