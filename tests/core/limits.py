"""Bounds on what a test may take, for code that is given what somebody else made."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = 256 << 20
SECONDS = 10.0


@contextmanager
def little_memory() -> Iterator[None]:
    """MemoryError where what is done here takes more than `MEMORY` on top of what the process has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def little_time() -> Iterator[None]:
    """AssertionError where what is done here takes more than `SECONDS` of this process's time."""
    before = time.process_time()
    yield
    assert time.process_time() - before < SECONDS
