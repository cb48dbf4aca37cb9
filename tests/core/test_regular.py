"""A file is read whole and written whole, or refused in words that say why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qigcore.regular import locked, open_regular, read_regular, write_whole
from qigheal.healerchild import taken


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"one")
    write_whole(tmp_path / "a", b"another")
    assert read_regular(tmp_path / "a") == b"another"
    assert read_regular(str(tmp_path / "a"), 3) == b"ano"
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "link") == b"another"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "link"]


def test_what_is_there_is_kept_where_it_is_not_to_be_replaced(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", b"second", replace=False)
    assert read_regular(tmp_path / "a") == b"first"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, which root alone may")
def test_what_root_makes_may_be_given_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65533)
    for give, owner in ((False, 0), (True, 65534)):
        write_whole(tmp_path / "a", b"", give=give)
        assert (tmp_path / "a").stat().st_uid == owner
    assert (tmp_path / "a").stat().st_gid == 65533


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", b"first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", b"second")
    assert read_regular(tmp_path / "a") == b"first"
    assert os.listdir(tmp_path) == ["a"]


def test_a_fifo_a_device_and_a_folder_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, why in (
        (tmp_path / "pipe", "it is a FIFO and no regular file"),
        (Path("/dev/zero"), "it is a device and no regular file"),
        (tmp_path, "it is a folder and no regular file"),
    ):
        with pytest.raises(OSError, match=why):
            read_regular(place)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


def test_what_is_opened_to_be_written_is_made_for_its_owner_or_refused_without_waiting(
    tmp_path: Path,
) -> None:
    handle = open_regular(tmp_path / "made", os.O_RDWR | os.O_CREAT)
    os.close(handle)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a FIFO and no regular file"):
        open_regular(tmp_path / "pipe", os.O_RDWR | os.O_APPEND)


def test_a_lock_is_held_by_one_until_it_is_let_go(tmp_path: Path) -> None:
    first = locked(tmp_path / "lock")
    assert first is not None
    assert locked(tmp_path / "lock") is None
    os.close(first)
    again = locked(tmp_path / "lock")
    assert again is not None
    assert not os.get_inheritable(again)
    os.close(again)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_refused_leaves_nothing_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("elsewhere")
    held = locked(tmp_path / "lock")
    assert held is not None
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="it is a FIFO and no regular file"):
        locked(tmp_path / "pipe")
    with pytest.raises(OSError, match="symbolic links"):
        locked(tmp_path / "link")
    assert locked(tmp_path / "lock") is None
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(held)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_a_lock_that_root_makes_is_its_folders_owners(tmp_path: Path) -> None:
    # What broke: a service that root had started once left a healer's lock that its own user could not open.
    os.chown(tmp_path, 65534, 65534)
    handle = taken(tmp_path)
    assert handle is not None
    os.close(handle)
    found = (tmp_path / "healer.lock").stat()
    assert (found.st_uid, found.st_gid) == (65534, 65534)
