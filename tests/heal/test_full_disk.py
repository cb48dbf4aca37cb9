"""Disks that fill up, run out of inodes, become read-only or go away: the host serves on, nothing is lost silently.

Each test runs a script in a mount namespace of its own, with a small file system that it can fill.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PREAMBLE = """
import errno, json, os, shutil, subprocess, sys
from pathlib import Path
import numpy as np
from qigcore.errors import HistoryError
from qigcore.history import History
from qigcore.rows import Batch
from qigheal import GeometricHealthMonitor

store = Path(sys.argv[1]) / "disk" / "store"
disk = store.parent
disk.mkdir(exist_ok=True)
RING = 400
states = np.random.default_rng(0).dirichlet(np.ones(64), 1000)
basin = states[0]
recorded = 0

def mount(*options):
    subprocess.run(["mount", *options, str(disk)], check=True)

def fill():
    with open(disk / "ballast", "ab", buffering=0) as file:
        try:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC, error
        finally:
            os.fsync(file.fileno())

def empty():
    (disk / "ballast").unlink()

def served(durability="block"):
    history = History(store, dim=64, durability=durability)
    return history, GeometricHealthMonitor(
        history=history, history_size=RING, learn_after=10**6, code_hash="", flush_every_s=5.0
    )

def record(host, count):
    global recorded
    for _ in range(count):
        host.record(0.75, float(recorded), states[recorded % 1000])
        recorded += 1

def told(host):
    notes = [note for note in host.check_health().notes if note.startswith("history: ")]
    return [note for note in notes if "too old or too much" not in note]  # looked at hourly

def stored():
    reader = History.read_only(store)
    found = [int(kappa) for batch in reader.scan() for kappa in batch.kappa_eff]
    assert not reader.damage, reader.damage
    return found
"""

COMMAND = ["unshare", "--mount", "--propagation", "private"]
if os.geteuid() != 0:
    COMMAND += ["--user", "--map-root-user"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder in which a script may mount; skips where neither root nor a user namespace may."""
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("no unshare and mount here (util-linux)")
    probe = [*COMMAND, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"may not mount: {tried.stderr.strip()}")
    return tmp_path


def assert_holds(script: str, disk: Path, *arguments: str) -> None:
    line = [*COMMAND, sys.executable, "-W", "error", "-c", PREAMBLE + script, str(disk), *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("durability", ["block", "snapshot"])
def test_a_full_disk_keeps_rows_in_the_ring_until_there_is_space(disk: Path, durability: str) -> None:
    script = """
mount("-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs")
history, host = served(sys.argv[2])
record(host, 100)
host.flush()
assert not told(host) and stored() == [*range(100)]

fill()
record(host, 300)  # as many as the ring still has room for
host.flush()
(note,) = told(host)
assert "No space left on device" in note and "free space on the disk" in note, note
kept = stored()
assert kept == [*range(len(kept))] and 100 <= len(kept) < 200, len(kept)
assert host.losses == 0

empty()
host.flush()
assert not told(host) and host.losses == 0
assert stored() == [*range(400)]

fill()
record(host, 1000)  # more than twice what the ring holds
host.flush()
kept = stored()
assert kept == [*range(len(kept))] and host.check_health().snapshots == 1400
empty()
host.flush()
lost = host.losses
assert 0 < lost <= 600 and any(str(lost) in note for note in told(host)), (lost, told(host))
found = stored()
assert found == [*range(len(kept)), *range(len(kept) + lost, 1400)]
host.close()
history.close()
assert stored() == found and host.losses == lost
"""
    assert_holds(script, disk, durability)


@pytest.mark.parametrize("durability", ["block", "snapshot"])
def test_what_was_stored_on_a_nearly_full_disk_is_whole_at_every_size_of_it(
    disk: Path, durability: str
) -> None:
    script = """
mount("-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs")
history = History(store, dim=64, durability=sys.argv[2])
rng = np.random.default_rng(5)
written, refused, size = [], 0, 64
for turn in range(400):
    count = int(rng.choice([1, 3, 20, 150, 300]))
    rows = Batch.of_rows(heads(turn, count), rng.dirichlet(np.ones(64), count), ("",))
    try:
        history.append(rows)
        written += [(turn, place) for place in range(count)]
    except HistoryError as error:
        assert "No space left" in str(error), error
        refused += 1
    reader = History.read_only(store)
    found = [(int(b.kappa_eff[i]), int(b.memory_mb[i])) for b in reader.scan() for i in range(len(b))]
    assert found == written and not reader.damage, (turn, reader.damage)
    if refused % 3 == 2:
        refused, size = 0, size + 16
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
    if size > 600:
        break
assert size > 600, size
history.close()
"""
    helper = """
from qigcore.rows import HEAD
def heads(turn, count):
    made = np.zeros(count, HEAD)
    made["timestamp"], made["kappa_eff"], made["memory_mb"] = turn, turn, np.arange(count)
    return made
"""
    assert_holds(helper + script, disk, durability)


def test_without_inodes_no_segment_begins_and_an_open_one_goes_on(disk: Path) -> None:
    script = """
mount("-t", "tmpfs", "-o", "size=8m,nr_inodes=12,mode=755", "tmpfs")

def use_up():
    for name in range(100):
        try:
            (disk / f"inode {name}").touch()
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return

def give_back():
    for path in disk.glob("inode *"):
        path.unlink()

use_up()
history, host = served()  # not even the folder can be made
record(host, 50)
host.flush()
assert "No space left on device" in told(host)[0] and host.losses == 0
assert not store.exists()
give_back()
host.flush()
assert not told(host), told(host)
assert stored() == [*range(50)]

use_up()
record(host, 300)
host.flush()
assert not told(host) and stored() == [*range(350)]  # no new file was needed
second = History(store, dim=64)
try:
    second.append(Batch.of_rows(np.zeros(1, HEAD), basin[None], ("",)))
    raise AssertionError("stored without an inode")
except HistoryError as error:
    assert "No space left on device; 1 rows were not stored" in str(error), error
assert len(list(store.glob("*.qigh"))) == 1  # no half of a pair is left
give_back()
host.close()
history.close()
assert stored() == [*range(350)]
"""
    assert_holds("from qigcore.rows import HEAD\n" + script, disk)


def test_a_read_only_disk_is_told_and_written_to_once_it_is_writable(disk: Path) -> None:
    script = """
mount("-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs")
with History(store, dim=64) as before:
    before.append(Batch.of_rows(heads, np.tile(basin, (3, 1)), ("",)))
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
history, host = served()
record(host, 20)
host.flush()
(note,) = told(host)
assert "Read-only file system" in note and "make the file system writable" in note, note
assert host.losses == 0 and len(stored()) == 3  # and can be read
subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
host.flush()
assert not told(host) and len(stored()) == 23

# While it is written to, another file system is put over it, read-only and empty, and is taken away again.
record(host, 300)
host.flush()
mount("-t", "tmpfs", "-o", "ro", "tmpfs")
record(host, 30)
host.flush()
assert told(host) and host.losses == 0
subprocess.run(["umount", str(disk)], check=True)
host.flush()
assert not told(host) and host.losses == 0
assert sorted(stored())[-1] == 349 and len(stored()) == 353
host.close()
history.close()
assert len(stored()) == 353
"""
    helper = """
from qigcore.rows import HEAD
heads = np.zeros(3, HEAD)
heads["kappa_eff"] = -1
"""
    assert_holds(helper + script, disk)


def test_a_folder_that_goes_and_comes_back_as_a_file_or_as_it_was(tmp_path: Path) -> None:
    script = """
history, host = served()
record(host, 300)
host.flush()
record(host, 10)
host.flush()
moved = store.rename(disk / "moved")
for nothing_there in (lambda: None, lambda: store.write_text("a file"), lambda: store.symlink_to(store)):
    nothing_there()
    record(host, 20)
    host.flush()
    assert told(host) and host.losses == 0, told(host)
    store.unlink(missing_ok=True)
moved.rename(store)
host.flush()
assert not told(host) and stored() == [*range(370)]

shutil.rmtree(store)  # what was written is gone; what comes is not
record(host, 5)
host.flush()
assert told(host)
store.mkdir()
host.flush()
assert not told(host) and stored()[-5:] == [*range(370, 375)] and host.losses == 0
host.close()
history.close()
"""
    line = [sys.executable, "-W", "error", "-c", PREAMBLE + script, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_healing_pass_on_a_full_disk_is_refused_and_the_next_one_opens_the_change(disk: Path) -> None:
    script = """
from qigheal.errors import QighealError
from tests.heal.test_engine import engine, sick
from tests.heal.toyhost import ToyHost, git

toy = ToyHost(disk.parent)
mount("-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs")
toy.store = store
sick(toy)
healer = engine(toy)
before = healer.ledger.entries()
healer.on_step = lambda stage, _: fill() if stage == "diagnosis" else None
try:
    raise AssertionError(healer.check_and_heal().message)
except QighealError as error:
    assert "the space on the disk" in str(error) and str(store) in str(error), error
assert git(toy.path, "branch", "--list", "qigheal/*") == ""
empty()
assert healer.ledger.verify() == () and healer.ledger.entries()[: len(before)] == before
healer.on_step = lambda stage, _: None
result = healer.check_and_heal()
assert [change.state for change in result.changes] == ["open"], result.message
assert healer.ledger.verify() == ()
"""
    assert_holds(script, disk)
