"""The way from the ring to the disk: nothing lost, nothing twice, and no fault of it reaches the host."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigcore.baseline import Baseline
from qigcore.errors import HistoryError, InvalidLimit
from qigcore.history import History
from qigcore.rows import Array, Batch, FloatArray
from qigheal import GeometricHealthMonitor
from qigheal.settings import MonitorSettings

DIM = 8


def monitor(history: Path | History | None, **options: Any) -> GeometricHealthMonitor:
    return GeometricHealthMonitor(
        history=history, **{"dim": DIM, "code_hash": "", "learn_after": 50, **options}
    )


def states(n: int, seed: int = 1) -> FloatArray:
    return np.random.default_rng(seed).dirichlet(np.full(DIM, 300.0), n)


def feed(host: GeometricHealthMonitor, n: int, *, first: int = 0, phi: float = 0.75) -> None:
    """Snapshots whose κ counts them."""
    for i, basin in enumerate(states(n), first):
        host.record(phi, float(i), basin)


def stored(folder: Path) -> Batch:
    with History.read_only(folder) as history:
        return Batch.concat(history.scan(), DIM)


class Disk(History):
    """A history whose disk fails while `broken` is set, and that tells when it was written to."""

    broken = False

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, dim=DIM, **options)
        self.written = threading.Event()

    def append_rows(self, heads: Array, basins: FloatArray, names: Any) -> None:
        if self.broken:
            raise HistoryError("cannot write: no space left; free space on the disk")
        super().append_rows(heads, basins, names)
        self.written.set()


def test_rows_arrive_whole_and_in_order(tmp_path: Path) -> None:
    with monitor(tmp_path / "store", module_name="front") as host:
        feed(host, 700)
        host.flush()
        kept = list(host.snapshots)
    batch = stored(tmp_path / "store")
    assert batch.kappa_eff.tolist() == list(range(700))
    assert host.losses == 0
    assert set(batch.module_name) == {"front"}
    assert batch.basin_coords == pytest.approx(np.array([each.basin_coords for each in kept]), abs=1e-4)


def test_a_ring_that_turns_over_loses_rows_and_counts_each(tmp_path: Path) -> None:
    with monitor(tmp_path, history_size=20) as host:
        feed(host, 5000)
    kappa = stored(tmp_path).kappa_eff
    assert len(kappa) + host.losses == 5000
    assert (np.diff(kappa) > 0).all()
    assert kappa[-1] == 4999


def test_flags_and_names_arrive(tmp_path: Path) -> None:
    with monitor(tmp_path, code_hash="c0ffee") as host:
        host.record(0.75, 1.0, states(1)[0])
        host.record(math.nan, 2.0, states(1)[0])
        host.capture(phi=0.875, kappa_eff=3.0, basin_coords=states(1)[0], module_name="back", timestamp=2e9)
    batch = stored(tmp_path)
    assert batch.good("phi").tolist() == [True, False, True]
    assert batch.phi.tolist() == [0.75, 0.75, 0.875]
    assert set(batch.code_hash) == {"c0ffee"}
    assert batch.module_name.tolist() == ["", "", "back"]


def test_the_thread_starts_with_the_first_row_and_writes_by_itself(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    host = monitor(disk, flush_every_s=0.01)
    assert "qigheal-flusher" not in {thread.name for thread in threading.enumerate()}
    feed(host, 3)
    assert disk.written.wait(20)
    host.close()
    assert "qigheal-flusher" not in {thread.name for thread in threading.enumerate()}
    assert len(stored(tmp_path)) == 3


def test_half_a_ring_wakes_the_thread(tmp_path: Path) -> None:
    # The interval alone would lose rows: at full speed a ring turns over within it.
    disk = Disk(tmp_path)
    host = monitor(disk, history_size=200, flush_every_s=5.0)
    feed(host, 1)
    assert disk.written.wait(20)
    disk.written.clear()
    feed(host, 101)
    assert disk.written.wait(4)
    host.close()


def test_snapshot_durability_writes_before_record_returns(tmp_path: Path) -> None:
    history = History(tmp_path, dim=DIM, durability="snapshot")
    host = monitor(history, flush_every_s=5.0)
    for i in range(1, 5):
        host.record(0.75, float(i), states(1)[0])
        assert stored(tmp_path).kappa_eff.tolist() == list(range(1, i + 1))
    host.close()
    host.record(0.75, 9.0, states(1)[0])
    assert len(stored(tmp_path)) == 4
    history.close()


def test_a_history_of_the_callers_stays_open(tmp_path: Path) -> None:
    history = History(tmp_path, dim=DIM)
    with monitor(history) as host:
        feed(host, 2)
    feed_again = monitor(history)
    feed(feed_again, 3)
    feed_again.close()
    assert len(stored(tmp_path)) == 5
    history.close()


def test_a_history_of_another_space_is_refused(tmp_path: Path) -> None:
    with History(tmp_path, dim=DIM) as history:
        with pytest.raises(InvalidLimit, match="got one of the simplex with 8"):
            monitor(history, geometry="sphere")
        with pytest.raises(InvalidLimit, match="with 9 components"):
            monitor(history, dim=9)


def test_a_failing_disk_is_told_and_rows_are_written_once_it_works(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    host = monitor(disk, history_size=40, learn_after=5000)
    disk.broken = True
    feed(host, 30)
    host.flush()
    host.flush()
    report = host.check_health()
    told = [note for note in report.notes if "no space left" in note]
    assert len(told) == 1
    assert told[0].startswith("history: ")
    assert host.losses == 0
    disk.broken = False
    host.flush()
    assert stored(tmp_path).kappa_eff.tolist() == list(range(30))
    assert not host.check_health().notes
    host.close()


def test_rows_that_left_the_ring_unwritten_are_counted(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    host = monitor(disk, history_size=40)
    disk.broken = True
    feed(host, 100)
    host.flush()
    disk.broken = False
    host.flush()
    assert host.losses == 60
    assert stored(tmp_path).kappa_eff.tolist() == list(range(60, 100))
    assert "history: 60 snapshots left the ring before they could be written" in host.check_health().notes
    host.close()
    assert host.losses == 60


def test_what_a_broken_disk_keeps_from_being_written_at_the_end_is_lost_and_counted(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    host = monitor(disk)
    disk.broken = True
    feed(host, 7)
    host.close()
    host.close()
    assert host.losses == 7
    assert host.check_health().snapshots == 7


def test_a_folder_that_vanishes_does_not_reach_the_host(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    host = monitor(folder)
    feed(host, 3)
    host.flush()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    feed(host, 3, first=3)
    host.flush()
    assert any(str(folder) in note for note in host.check_health().notes)
    folder.mkdir()
    host.close()
    assert stored(folder).kappa_eff.tolist()[-3:] == [3.0, 4.0, 5.0]


def test_recording_from_many_threads_loses_nothing(tmp_path: Path) -> None:
    host = monitor(tmp_path, history_size=20_000, flush_every_s=0.01)
    basins = states(500)

    def work(worker: int) -> None:
        for i, basin in enumerate(basins):
            host.record(0.75, float(1000 * worker + i), basin)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    host.close()
    expected = sorted(float(1000 * worker + i) for worker in range(4) for i in range(500))
    assert sorted(stored(tmp_path).kappa_eff.tolist()) == expected


def test_recording_while_writing_in_the_same_thread_neither_hangs_nor_doubles(tmp_path: Path) -> None:
    # As a signal handler that records does, when it interrupts a write.
    class Interrupted(Disk):
        inside: Callable[[], object] | None = None

        def append_rows(self, heads: Array, basins: FloatArray, names: Any) -> None:
            call, self.inside = self.inside, None
            if call is not None:
                call()
            super().append_rows(heads, basins, names)

    disk = Interrupted(tmp_path, durability="snapshot")
    host = monitor(disk)
    disk.inside = lambda: host.record(0.75, 1.0, states(1)[0])
    host.record(0.75, 0.0, states(1)[0])
    host.close()
    assert stored(tmp_path).kappa_eff.tolist() == [0.0, 1.0]


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    prelude = (
        "import os, sys, numpy as np\nfrom qigheal import GeometricHealthMonitor\nbasin = np.full(8, 0.125)\n"
    )
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", prelude + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_a_signal_handler_that_closes_amid_a_write_of_its_thread_does_not_hang(tmp_path: Path) -> None:
    # It waited for the write that it had interrupted; with an RLock it went on to the writer's plain lock.
    code = """
import os, signal, sys
import numpy as np
from qigheal import GeometricHealthMonitor
from qigheal.monitor import flusher
from qigcore.history import History

flusher.PATIENCE_S = 0.5
host = GeometricHealthMonitor(dim=8, history=History(sys.argv[1], dim=8, durability="snapshot"))
signal.signal(signal.SIGTERM, lambda *_: host.close())
force = os.fdatasync
def interrupted(descriptor):
    if host._recorder.total == 5:
        os.fdatasync = force
        signal.raise_signal(signal.SIGTERM)
    force(descriptor)
os.fdatasync = interrupted
for i in range(10):
    host.record(0.75, float(i), np.ones(8))
assert host.losses == 0, host.losses
host.check_health()
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], check=True, timeout=60)
    assert stored(tmp_path / "store").kappa_eff.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]  # closed by then


@pytest.mark.parametrize(
    ("method", "inherited"), [("fork", True), ("fork", False), ("forkserver", False), ("spawn", False)]
)
def test_a_child_of_multiprocessing_leaves_all_its_rows(tmp_path: Path, method: str, inherited: bool) -> None:
    # Such a child ends by os._exit: exit handlers do not run there before Python 3.13.
    script = tmp_path / "host.py"
    script.write_text(
        """
import multiprocessing, sys
import numpy as np
from qigheal import GeometricHealthMonitor

store, method, inherited = sys.argv[1], sys.argv[2], sys.argv[3] == "True"

def make():
    return GeometricHealthMonitor(dim=8, history=store, code_hash="")

def serve(first):
    mine = host if inherited else make()
    for i in range(first, first + 20):
        mine.record(0.75, float(i), np.ones(8))

if __name__ == "__main__":
    host = make()
    context = multiprocessing.get_context(method)
    children = [context.Process(target=serve, args=(20 * k,)) for k in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
"""
    )
    arguments = [str(tmp_path / "store"), method, str(inherited)]
    subprocess.run([sys.executable, str(script), *arguments], check=True, timeout=60)
    assert sorted(stored(tmp_path / "store").kappa_eff.tolist()) == list(range(40))


def test_the_end_of_the_interpreter_closes(tmp_path: Path) -> None:
    run(
        "monitor = GeometricHealthMonitor(history=sys.argv[1], dim=8, code_hash='')\n"
        "for i in range(5): monitor.record(0.75, float(i), basin)\n",
        tmp_path,
    )
    assert stored(tmp_path).kappa_eff.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_after_a_fork_each_process_writes_its_own_rows_once(tmp_path: Path) -> None:
    done = run(
        "monitor = GeometricHealthMonitor(history=sys.argv[1], dim=8, code_hash='')\n"
        "for i in range(5): monitor.record(0.75, float(i), basin)\n"  # not written yet, or just being written
        "child = os.fork()\n"
        "for i in range(3): monitor.record(0.75, (100.0 if child else 200.0) + i, basin)\n"
        "report = monitor.check_health()\n"
        "monitor.close()\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    print(report.snapshots)\n"
        "else:\n"
        "    os._exit(0)\n",
        tmp_path,
    )
    assert done.stdout.strip() == "8"
    assert sorted(stored(tmp_path).kappa_eff.tolist()) == [0, 1, 2, 3, 4, 100, 101, 102, 200, 201, 202]
    with History.read_only(tmp_path) as history:
        assert len({segment.pid for segment in history.segments()}) == 2


def test_a_child_that_serves_writes_by_itself(tmp_path: Path) -> None:
    # A server that forks its workers after making the monitor: the thread must start again in each.
    run(
        "import threading\n"
        "monitor = GeometricHealthMonitor(history=sys.argv[1], dim=8, code_hash='', flush_every_s=0.01)\n"
        "monitor.record(0.75, 0.0, basin)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    written = threading.Event()\n"
        "    append = monitor.history.append_rows\n"
        "    monitor.history.append_rows = lambda *rows: (append(*rows), written.set())\n"
        "    monitor.record(0.75, 1.0, basin)\n"
        "    os._exit(0 if written.wait(20) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n",
        tmp_path,
    )
    assert stored(tmp_path).kappa_eff.tolist() == [0.0, 1.0]


def test_the_folder_holds_settings_and_baseline(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with monitor(folder, phi_min=0.6) as host:
        feed(host, 60)
    assert MonitorSettings.load(folder) == host.settings
    assert Baseline.load(folder / "baseline.json") == host.baseline
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with monitor(folder) as again:
        assert again.baseline == host.baseline
        assert again.baseline_basin == pytest.approx(np.array(host.baseline.basin) if host.baseline else 0)
        feed(again, 10)
        assert again.check_health().state == "learned"


@pytest.mark.parametrize("content", ["{", json.dumps({"version": 99}), "geometry"])
def test_a_broken_baseline_is_told_kept_and_replaced_on_request(tmp_path: Path, content: str) -> None:
    path = tmp_path / "baseline.json"
    if content == "geometry":
        Baseline.learn(states(40), geometry="sphere").save(path)
    else:
        path.write_text(content)
    before = path.read_bytes()
    with monitor(tmp_path) as host:
        feed(host, 60)
        report = host.check_health()
        assert report.state == "learned"
        assert any("goes on without it" in note for note in report.notes)
        host.flush()
        assert path.read_bytes() == before
        learned = host.set_baseline()
        assert not any("goes on without it" in note for note in host.check_health().notes)
    assert Baseline.load(path) == learned


def test_the_first_worker_to_learn_speaks_for_all(tmp_path: Path) -> None:
    with monitor(tmp_path) as first, monitor(tmp_path) as second:
        feed(first, 60)
        feed(second, 40, phi=0.6)
        first.flush()
        known = first.baseline
        feed(second, 10, phi=0.6)
        second.flush()
        assert second.baseline == known
        assert second.check_health().severity == "critical"


def test_a_new_baseline_reaches_the_other_workers(tmp_path: Path) -> None:
    with monitor(tmp_path) as first, monitor(tmp_path) as second:
        feed(first, 60)
        first.flush()
        second.flush()
        assert second.baseline == first.baseline
        feed(first, 200, phi=0.5)
        renewed = first.set_baseline()
        second.flush()
        assert second.baseline == renewed


def test_a_given_baseline_is_left_for_the_healer(tmp_path: Path) -> None:
    known = Baseline.learn(states(100))
    Baseline.learn(states(50, seed=2)).save(tmp_path / "baseline.json")
    with monitor(tmp_path, baseline=known) as host:
        assert host.baseline == known
    assert Baseline.load(tmp_path / "baseline.json") == known


def test_a_baseline_that_cannot_be_saved_is_used_and_told(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with monitor(folder) as host:
        (folder / "baseline.json").mkdir()
        feed(host, 60)
        host.flush()
        report = host.check_health()
        assert report.state == "learned"
        assert any("baseline" in note for note in report.notes)


def test_a_baseline_is_saved_once_the_disk_lets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Baseline.save

    def full(self: Baseline, path: Any, *, replace: bool = True) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Baseline, "save", full)
    with monitor(tmp_path) as host:
        feed(host, 60)
        host.flush()
        assert any("could not be saved: No space left" in note for note in host.check_health().notes)
        monkeypatch.setattr(Baseline, "save", save)
        host.flush()
        assert not any("could not be saved" in note for note in host.check_health().notes)
        assert Baseline.load(tmp_path / "baseline.json") == host.baseline


def test_checking_never_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, release = threading.Event(), threading.Event()
    save = Baseline.save

    def slow(self: Baseline, path: Any, *, replace: bool = True) -> None:
        entered.set()
        assert release.wait(20)
        save(self, path, replace=replace)

    monkeypatch.setattr(Baseline, "save", slow)
    with monitor(tmp_path) as host:
        feed(host, 60)
        assert entered.wait(20)
        assert host.check_health().state == "learned"  # while the thread saves
        release.set()
    assert (tmp_path / "baseline.json").exists()


def test_the_history_is_where_the_host_said(tmp_path: Path) -> None:
    with monitor(tmp_path / "a" / "b") as host:
        assert host.history is not None
        assert host.history.path == (tmp_path / "a" / "b").absolute()
        assert os.listdir(tmp_path / "a" / "b")
    assert monitor(None).history is None
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(HistoryError, match="folder"):
        monitor(file)
