"""The writing side: what is stored when, and what happens when it cannot be."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from qigcore.errors import HistoryError
from qigcore.history import History, files
from qigcore.rows import COLUMNS, Batch

from .stores import NAMES, abandon, append, counted, file_of, rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def expected(count: int, start: float = 0.0, seed: int = 0) -> Batch:
    return Batch.of_rows(*rows(count, start=start, seed=seed), NAMES)


def test_blocks_hold_256_to_1024_rows(path: Path) -> None:
    with History(path, dim=3) as history:
        for _ in range(4):
            append(history, 100)
        assert [len(batch) for batch in history.scan()] == [300, 100]
        append(history, 255, start=400)
        append(history, 4096, start=1000)
        append(history, 1025, start=6000)
        assert [len(batch) for batch in history.scan()] == [300, 355, 1024, 1024, 1024, 1024, 512, 513]


def test_the_folder_is_private_and_hidden_from_git(path: Path) -> None:
    with History(path / "deeper", dim=3) as history:
        append(history, 1)
        assert stat.S_IMODE((path / "deeper").stat().st_mode) == 0o700
        assert (path / "deeper" / ".gitignore").read_text() == "*\n"
        assert stat.S_IMODE(file_of(path / "deeper", ".qigh").stat().st_mode) == 0o600
    (path / "mine").mkdir()
    (path / "mine" / "work.txt").write_text("mine")
    with History(path / "mine", dim=3) as history:  # a folder in use is not hidden from its owner's git
        append(history, 1)
        assert not (path / "mine" / ".gitignore").exists()


def test_a_writer_without_rows_leaves_no_segment(path: Path) -> None:
    with History(path, dim=3) as history:
        history.flush()
        history.seal()
    assert [file.name for file in path.iterdir()] == [".gitignore"]
    with pytest.raises(HistoryError, match=r"closed.*2 rows were not stored"):
        history.append(expected(2))
    history.close()


def test_several_threads_append_to_one_history(path: Path) -> None:
    with History(path, dim=3) as history:

        def write(start: int) -> None:
            for step in range(40):
                append(history, 7, start=start + 7 * step)

        threads = [threading.Thread(target=write, args=(1000 * each,)) for each in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = counted(history.scan())
    assert sorted(found) == sorted(1000 * each + step for each in range(4) for step in range(280))


def test_a_snapshot_is_on_the_disk_before_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fdatasync = os.fdatasync

    def noting(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", noting)
    with History(path, dim=3, durability="snapshot") as history:
        append(history, 1)
        append(history, 1)
        assert synced == [".qigh", ".journal", ".journal"]
        append(history, 300)
        assert synced[3:] == [".qigh"]
        history.flush()
        assert synced[4:] == [".journal"]


def test_the_journal_is_emptied_only_when_the_block_is_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("fdatasync", "ftruncate"):
        call = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda descriptor, *rest, name=name, call=call: (
                done.append(name + Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
                or call(descriptor, *rest)
            ),
        )
    with History(path, dim=3) as history:
        append(history, 10)
        done.clear()
        history.seal()
        assert done == ["fdatasync.qigh", "ftruncate.journal"]


def test_a_full_disk_costs_the_call_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(path, dim=3, precision="exact")
    room = 0
    write = os.write

    def narrow(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = write(descriptor, bytes(data)[:room])
        room -= taken
        return taken

    stored: list[int] = []
    rng = np.random.default_rng(3)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", narrow)
        for turn in range(120):
            size = int(rng.choice([1, 3, 100, 400]))
            room = int(rng.choice([0, 7, 500, 2000, 10**9]))
            said = ""
            try:
                append(history, size, start=500 * turn)
                stored += range(500 * turn, 500 * turn + size)
            except HistoryError as error:
                said = str(error)
            assert not said or f"No space left on device; {size} rows were not stored; free space" in said
            room = 10**9
            assert counted(history.scan()) == stored
            assert not history.damage
    append(history, 1, start=62_000)
    history.close()
    assert counted(history.scan()) == [*stored, 62_000]
    assert len(stored) > 1000
    assert all(info.rows for info in history.segments())  # a failed call may end one, and leaves no empty one


def test_what_cannot_be_taken_back_is_left_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(path, dim=3)
    append(history, 5)
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        patched.setattr(os, "write", broken)
        return write(descriptor, bytes(data)[: len(data) // 2])

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        patched.setattr(os, "ftruncate", broken)
        with pytest.raises(HistoryError, match="Input/output error"):
            append(history, 1, start=5)
    append(history, 2, start=6)
    assert counted(history.scan()) == [0, 1, 2, 3, 4, 6, 7]
    assert history.damage.torn_tails == 1
    assert len(history.segments()) == 2
    history.close()


def test_a_journal_that_cannot_be_emptied_is_left_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    history = History(path, dim=3)
    append(history, 5)
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", broken)
        append(history, 300, start=5)
    append(history, 2, start=305)
    assert counted(history.scan()) == list(range(307))
    assert [info.rows for info in history.segments()] == [305, 2]
    assert not history.damage
    history.close()


def test_closing_on_a_full_disk_leaves_the_rows_in_the_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    history = History(path, dim=3)
    append(history, 5)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(HistoryError, match="5 rows are not sealed; free space"):
            history.seal()
        history.close()
    assert not history.segments()[0].alive
    assert counted(history.scan()) == list(range(5))
    assert not history.damage


def test_without_locks_the_store_works_and_nothing_is_called_dead(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockless(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "flock", lockless)
    with History(path, dim=3) as history:
        append(history, 300)
    assert counted(history.scan()) == list(range(300))
    assert history.segments()[0].alive


def test_a_folder_that_vanishes_and_returns(path: Path) -> None:
    history = History(path, dim=3)
    append(history, 300)
    append(history, 10, start=300)
    moved = path.rename(path.with_name("moved"))
    with pytest.raises(HistoryError, match=r"No such file.*1 rows were not stored; make the folder"):
        append(history, 1, start=310)
    assert not path.exists()  # what somebody took away is not put back
    with pytest.raises(HistoryError, match=r"cannot read .*store"):
        history.scan()
    path.mkdir()
    append(history, 2, start=311)
    assert counted(history.scan()) == [*range(300, 310), 311, 312]  # pending rows came along
    history.close()
    assert counted(history.scan()) == [*range(300, 310), 311, 312]
    assert counted(History.read_only(moved).scan()) == list(range(310))


def test_pending_rows_without_any_file_are_told_of_at_the_end(path: Path) -> None:
    history = History(path, dim=3)
    append(history, 10)
    path.rename(path.with_name("moved"))
    with pytest.raises(HistoryError, match="10 rows are"):
        history.close()
    history.close()


def test_a_folder_that_cannot_be_made_yet_is_made_later(path: Path) -> None:
    path.parent.joinpath("blocked").write_text("a file")
    history = History(path.parent / "blocked" / "store", dim=3)
    with pytest.raises(HistoryError, match="1 rows were not stored"):
        append(history, 1)
    path.parent.joinpath("blocked").unlink()
    append(history, 1, start=1)
    assert counted(history.scan()) == [1]
    history.close()


def test_many_names_and_odd_ones(path: Path) -> None:
    names = ["", *(f"name {index}" for index in range(65_534)), "\udce4\n\0" + "y" * 2000]
    heads, basins = rows(65_536)
    heads["code"] = np.arange(65_536)
    heads["module"] = 65_535 - np.arange(65_536)
    with History(path, dim=3) as history:
        history.append_rows(heads[:5], basins[:5], names)
        history.append_rows(heads[5:], basins[5:], names)
        history.append_rows(heads[-100:], basins[-100:], names)
        parts = list(history.scan(columns=("code", "module")))
    found = np.concatenate([part.code_hash for part in parts])
    kept = [name[:1024] for name in names]
    assert found.tolist() == kept + kept[-100:]
    assert np.concatenate([part.module_name for part in parts]).tolist() == kept[::-1] + kept[::-1][-100:]


def test_abandoned_histories_close_their_files(path: Path) -> None:
    history = History(path, dim=3)
    append(history, 1)
    assert history.segments()[0].alive
    abandon(history)
    del history
    assert not History.read_only(path).segments()[0].alive
    assert COLUMNS[0] == "timestamp"


def test_a_folder_that_is_put_back_as_it_was_holds_every_row_once(path: Path) -> None:
    history = History(path, dim=3)
    append(history, 300)
    append(history, 10, start=300)
    moved = path.rename(path.with_name("moved"))
    for attempt in (lambda: append(history, 1, start=310), history.flush, history.seal):
        with pytest.raises(HistoryError, match="No such file"):
            attempt()
    moved.rename(path)
    append(history, 2, start=310)
    history.flush()
    assert counted(history.scan()) == list(range(312))
    assert len(history.segments()) == 1
    history.close()


@pytest.mark.parametrize("then", ["append", "flush", "seal", "close"])
@pytest.mark.parametrize("sealed", [0, 300])
def test_a_folder_that_is_restored_from_a_copy_holds_every_row_once(
    path: Path, sealed: int, then: str
) -> None:
    history = History(path, dim=3)
    append(history, 300)
    append(history, 10, start=300)
    shutil.copytree(path, path.with_name("copy"))
    append(history, 5, start=310)
    if sealed:
        append(history, sealed, start=315)
        append(history, 5, start=615)
    shutil.rmtree(path)
    shutil.copytree(path.with_name("copy"), path)
    if then == "append":
        append(history, 3, start=1000)
    else:
        getattr(history, then)()
    # What was sealed since the copy was made is gone with the folder; what is pending is not, nor is it there twice.
    pending = [*range(615, 620)] if sealed else [*range(310, 315)]
    found = counted(History.read_only(path).scan())
    assert found == [*range(310), *pending, *([1000, 1001, 1002] if then == "append" else [])]
    history.close()
    assert counted(History.read_only(path).scan()) == found
    assert not history.damage


def test_what_a_flush_returns_for_is_in_the_folder(path: Path) -> None:
    history = History(path, dim=3)
    append(history, 10)
    path.rename(path.with_name("moved"))
    path.mkdir()
    history.flush()
    assert counted(History.read_only(path).scan()) == list(range(10))
    append(history, 3, start=10)
    assert counted(history.scan()) == list(range(13))
    history.close()


def test_closing_tells_of_rows_whose_folder_became_a_file(path: Path) -> None:
    history = History(path, dim=3)
    append(history, 10)
    path.rename(path.with_name("moved"))
    path.write_text("a file")
    with pytest.raises(HistoryError, match="Not a directory; 10 rows are in no file"):
        history.close()


def test_a_machine_whose_name_is_no_text_writes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = os.uname()
    named = os.uname_result((machine.sysname, "b\udcfccher", *machine[2:]))
    monkeypatch.setattr(os, "uname", lambda: named)
    history = History(tmp_path, dim=3)
    append(history, 2)
    history.close()
    assert counted(history.scan()) == [0, 1]
    assert history.segments()[0].host == "b?cher"
