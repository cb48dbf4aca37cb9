"""Retention: whole dead segments go, oldest first, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qigcore.errors import HistoryError
from qigcore.history import Expired, History

from .stores import abandon, append, counted, file_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def opened(path: Path, now: float = 1e6) -> History:
    return History(path, dim=3, clock=lambda: now)


def days(path: Path, count: int) -> list[Path]:
    """Dead segments of 10 rows, one for each of `count` days from day 0 on; the files as they follow in time."""
    for day in range(count):
        with opened(path, day) as history:
            append(history, 10, start=86_400 * day)
    return sorted(path.glob("*.qigh"))


def left(path: Path) -> list[int]:
    return sorted({int(info.first) // 86_400 for info in History.read_only(path).segments()})


def test_what_ends_too_long_ago_is_removed_and_said(path: Path) -> None:
    first = days(path, 5)[0].stat().st_size
    history = opened(path, 86_400.0 * 4)
    assert history.expire() == history.expire(keep_s=5 * 86_400) == Expired()
    # Day 1 ends at 86,409; at the same second it is kept, a second later not.
    assert history.expire(keep_s=3 * 86_400 - 9) == Expired(segments=1, rows=10, bytes=first)
    assert left(path) == [1, 2, 3, 4]
    assert history.expire(keep_s=3 * 86_400 - 10).segments == 1
    assert left(path) == [2, 3, 4]
    assert history.expire(keep_s=0.0).segments == 2  # the last one ends in the future
    assert left(path) == [4]


def test_what_is_too_much_is_removed_oldest_first(path: Path) -> None:
    sizes = [file.stat().st_size for file in days(path, 6)]
    history = opened(path)
    total = sum(sizes)
    assert history.expire(keep_bytes=total) == Expired()
    assert history.expire(keep_bytes=total - 1) == Expired(1, 10, sizes[0])
    assert history.expire(keep_bytes=sizes[-1] + sizes[-2] + 1) == Expired(3, 30, sum(sizes[1:4]))
    assert left(path) == [4, 5]
    assert history.expire(keep_bytes=0) == Expired(2, 20, sizes[4] + sizes[5])
    assert counted(history.scan()) == []


def test_the_journal_of_a_killed_writer_goes_with_its_segment(path: Path) -> None:
    history = opened(path)
    append(history, 5)
    abandon(history)
    weight = sum(file.stat().st_size for file in path.iterdir()) - len("*\n")
    assert opened(path).expire(keep_bytes=0) == Expired(1, 5, weight)
    assert [file.name for file in path.iterdir()] == [".gitignore"]


def test_living_segments_and_foreign_files_are_never_touched(path: Path) -> None:
    living = opened(path)
    append(living, 300)
    append(living, 5, start=300)
    (path / "baseline.json").write_text("{}")
    (path / "ledger.db").write_bytes(b"x" * 10_000)
    (path / "diary.qigh").write_text("Dear diary, this is no segment")
    (path / "other.journal").write_text("nor is this a journal")
    (path / "folder.qigh").mkdir()
    (path / "link.qigh").symlink_to(path / "ledger.db")
    before = sorted(path.iterdir())
    other = opened(path)
    assert other.expire(keep_s=0, keep_bytes=0) == Expired()
    assert sorted(path.iterdir()) == before
    living.close()
    assert other.expire(keep_s=0).rows == 305
    names = {file.name for file in path.iterdir()}
    assert names == {file.name for file in before if not file.name[0].isdigit()}


def test_a_segment_that_lost_its_header_is_one_by_its_blocks(path: Path) -> None:
    days(path, 2)
    file = sorted(path.glob("*.qigh"))[0]
    file.write_bytes(bytes(40) + file.read_bytes()[40:])
    assert opened(path).expire(keep_bytes=sorted(path.glob("*.qigh"))[1].stat().st_size).segments == 1
    assert left(path) == [1]


def test_a_directory_in_the_place_of_a_journal_stays(path: Path) -> None:
    (file,) = days(path, 1)
    file.with_suffix(".journal").mkdir()
    assert opened(path).expire(keep_bytes=0).segments == 1
    assert file.with_suffix(".journal").is_dir()


def test_a_scan_finishes_what_it_has_begun_and_passes_over_what_has_gone(path: Path) -> None:
    days(path, 3)
    history = opened(path)
    scan = history.scan()
    found = counted([next(scan)])
    assert history.expire(keep_bytes=0).segments == 3
    assert found + counted(scan) == list(range(10))
    assert not history.damage
    follow = history.follow(stop=lambda: True)
    assert counted(follow) == []


def test_a_scan_finishes_a_segment_of_many_blocks_that_is_removed_beneath_it(path: Path) -> None:
    with opened(path, 0) as writer:
        for start in range(0, 3000, 300):
            append(writer, 300, start=start)
    history = opened(path)
    scan = history.scan()
    found = counted([next(scan)])
    assert history.expire(keep_bytes=0).segments == 1
    assert found + counted(scan) == list(range(3000))


def test_two_that_expire_at_once_remove_no_more_than_one_would(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [file.stat().st_size for file in days(path, 6)]
    first, second = opened(path), opened(path)
    unlink, removed = Path.unlink, []

    def meanwhile(file: Path, missing_ok: bool = False) -> None:
        monkeypatch.setattr(Path, "unlink", unlink)
        removed.append(second.expire(keep_bytes=sum(sizes[3:])))
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", meanwhile)
    here = first.expire(keep_bytes=sum(sizes[3:]))
    assert here.segments + removed[0].segments == 3
    assert left(path) == [3, 4, 5]


def test_expiry_is_for_who_may_write(path: Path) -> None:
    days(path, 1)
    with pytest.raises(HistoryError, match="reading only"):
        History.read_only(path).expire(keep_s=0)
    for wrong in ({"keep_s": -1}, {"keep_bytes": float("nan")}, {"keep_s": "day"}):
        with pytest.raises(HistoryError, match="expected a number"):
            opened(path).expire(**wrong)  # type: ignore[arg-type]


def test_a_folder_that_refuses_is_an_error_that_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days(path, 1)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(HistoryError, match=r"cannot tidy .*Permission denied"):
        opened(path).expire(keep_bytes=0)
    assert file_of(path, ".qigh").exists()
    assert os.listdir(path)
