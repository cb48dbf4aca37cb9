"""What one writer makes of its rows: segments of a bounded length, blocks of a useful size, no deadlock."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigcore.errors import HistoryError
from qigcore.history import History, writer
from qigcore.history.columns import rounded
from qigcore.rows import COLUMNS, Batch

from .stores import NAMES, append, counted, gather, rows

DAY = 86_400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_compact_is_the_default_and_gives_the_same_figures_before_and_after_sealing(path: Path) -> None:
    heads, basins = rows(600, dim=8, seed=4)
    heads["timestamp"] += 1.7e9 + np.random.default_rng(0).random(600)
    heads["phi"][3] = np.nan
    kept = Batch.of_rows(rounded(heads), basins, NAMES)
    with History(path, dim=8) as history:
        assert history.precision == "compact"
        history.append_rows(heads[:200], basins[:200], NAMES)
        assert next(path.glob("*.journal")).stat().st_size > 200 * (88 + 8 * 8)
        before = gather(history.scan(), 8)
        history.append_rows(heads[200:], basins[200:], NAMES)
        after = gather(history.scan(), 8)
    for name in COLUMNS[:-3]:
        assert before.columns[name].tobytes() == kept.columns[name][:200].tobytes(), name
        assert after.columns[name].tobytes() == kept.columns[name].tobytes(), name
    assert np.abs(after.kappa_eff / heads["kappa_eff"] - 1).max() <= 2**-14
    assert np.abs(after.timestamp - heads["timestamp"]).max() <= 1e-6
    assert before.basin_coords.tobytes() == basins[:200].tobytes()
    assert History.read_only(path).segments()[0].precision == "compact"


def test_a_store_may_hold_both_precisions(path: Path) -> None:
    heads, basins = rows(300)
    with History(path, dim=3, clock=lambda: 1.0) as history:
        history.append_rows(heads, basins, NAMES)
    heads["timestamp"] += 1000
    with History(path, dim=3, clock=lambda: 2.0, precision="exact") as history:
        history.append_rows(heads, basins, NAMES)
        found = gather(history.scan())
    assert found.kappa_eff[300:].tobytes() == heads["kappa_eff"].tobytes()
    assert found.kappa_eff[:300].tobytes() == rounded(heads)["kappa_eff"].tobytes()
    assert [info.precision for info in History.read_only(path).segments()] == ["compact", "exact"]


def test_a_day_of_rows_ends_a_segment(path: Path) -> None:
    with History(path, dim=3, precision="exact") as history:
        for hour in range(100):
            append(history, 1, start=hour * 3600)
        infos = history.segments()
        assert [(info.rows, info.first, info.last) for info in infos] == [
            (24, 0, 23 * 3600),
            (24, DAY, DAY + 23 * 3600),
            (24, 2 * DAY, 2 * DAY + 23 * 3600),
            (24, 3 * DAY, 3 * DAY + 23 * 3600),
            (4, 4 * DAY, 4 * DAY + 3 * 3600),
        ]
        assert [info.alive for info in infos] == [False] * 4 + [True]
        assert len(list(path.glob("*.journal"))) == 1
        assert counted(history.scan()) == [hour * 3600 for hour in range(100)]
        append(history, 1, start=0)  # a clock that steps back ends nothing
        assert len(history.segments()) == 5
    assert not history.damage
    assert not list(path.glob("*.journal"))


def test_a_full_segment_is_ended_and_a_new_one_begun(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SEGMENT_BYTES", 50_000)
    with History(path, dim=3, precision="exact") as history:
        for step in range(40):
            append(history, 300, start=300 * step)
        infos = history.segments()
        assert 4 < len(infos) < 40
        assert all(50_000 <= info.bytes < 80_000 for info in infos[:-1])
        assert counted(history.scan()) == list(range(12_000))
        assert counted(history.follow(poll_s=0, stop=lambda: True)) == list(range(12_000))
        assert counted([history.last(5000)]) == list(range(7000, 12_000))


def test_where_the_old_segment_cannot_be_sealed_the_row_is_refused_and_nothing_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with History(path, dim=3) as history:
        append(history, 3)
        with monkeypatch.context() as patched:

            def full(*_: Any) -> None:
                raise OSError(28, "No space left on device")

            patched.setattr(os, "fdatasync", full)
            with pytest.raises(HistoryError, match="1 rows were not stored"):
                append(history, 1, start=2 * DAY)
        assert counted(history.scan()) == [0, 1, 2]
        append(history, 1, start=2 * DAY)
        assert [info.rows for info in history.segments()] == [3, 1]
        assert counted(history.scan()) == [0, 1, 2, 2 * DAY]


@pytest.mark.parametrize("precision", ["compact", "exact"])
def test_one_snapshot_a_minute_costs_no_more_bytes_than_a_day_of_them_at_once(
    path: Path, precision: Any
) -> None:
    """The one goes through the journal row by row into blocks of 256, the other into blocks of 720."""
    heads, basins = rows(1440, dim=64)
    basins = np.random.default_rng(1).dirichlet(np.full(64, 50.0), 1440)
    bytes_of = {}
    for name, chunk, spacing in (("slow", 1, 60.0), ("fast", 1440, 60.0)):
        heads["timestamp"] = 1.7e9 + np.random.default_rng(0).normal(0, 1e-4, 1440)
        heads["timestamp"] += spacing * np.arange(1440)
        with History(path / name, precision=precision) as history:
            for start in range(0, 1440, chunk):
                history.append_rows(heads[start : start + chunk], basins[start : start + chunk], NAMES)
        bytes_of[name] = sum(info.bytes for info in History.read_only(path / name).segments()) / 1440
    assert bytes_of["slow"] < 1.02 * bytes_of["fast"], bytes_of


def test_a_signal_handler_that_writes_amid_a_write_is_told_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    history = History(path, dim=3)

    def handler(*_: object) -> None:
        for call in (lambda: append(history, 1, start=50), history.flush, history.seal, history.close):
            with pytest.raises(HistoryError, match="signal handler interrupted") as caught:
                call()
            said.append(str(caught.value))

    write = os.write

    def interrupted(descriptor: int, data: bytes) -> int:
        signal.raise_signal(signal.SIGUSR1)
        return write(descriptor, data)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with monkeypatch.context() as patched:
            append(history, 1)
            patched.setattr(os, "write", interrupted)
            append(history, 1, start=1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(said) == 4
    append(history, 1, start=2)
    history.close()
    assert counted(history.scan()) == [0, 1, 2]
