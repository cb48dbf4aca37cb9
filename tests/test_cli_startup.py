"""The first line of `status` comes about as soon as the libraries that it needs can be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.startup import filled, run


@pytest.mark.alone
def test_status_takes_little_more_than_its_libraries(tmp_path: Path) -> None:
    """A status that loaded the other commands took 3.4 times as long as the peer; this one 1.3 times."""
    found = run(filled(tmp_path / "store"), 7, ("status",))
    assert found["status_ratio"] < 1.7, found
