"""Crash consistency: whatever a kill or a power loss leaves of a writer's calls, what was promised is there.

Scripted lives of writers are recorded call by call. Every moment of them, and every moment within a
write, is then played into a fresh folder and read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from qigcore.errors import HistoryError
from qigcore.history import Damage, History, files, journal, reader, rewrite, writer

from . import truth
from .stores import abandon
from .tape import LOSSES, Call, Disk, Tape, after_power_loss, torn

STORE = "deep/store"
DRAWS = 1 + int(os.environ.get("QIGHEAL_FUZZ", "0")) // 100
"""Draws of what a power loss takes, for each moment and each kind of loss."""


Fault = Callable[[pytest.MonkeyPatch], None]


class Said(NamedTuple):
    """What a writer said between its calls: that it was asked to store rows, and how that went.

    what: "asked", "stored", "refused"; "doubtful": refused, by a disk that forces nothing; "safe": all that
    `who` stored so far survives a power loss; "leaving": somebody was told to remove old rows, as these are.
    """

    what: str
    who: int
    labels: tuple[int, ...] = ()


class Author:
    """One writer of a store, which says on the tape what it was promised."""

    def __init__(
        self, tape: Tape, who: int, path: Path, precision: str, durability: str, now: float = 0.0
    ) -> None:
        self.history = History(
            path,
            dim=truth.DIM,
            precision=precision,  # type: ignore[arg-type]
            durability=durability,  # type: ignore[arg-type]
            clock=lambda: now,
        )
        self._tape = tape
        self._who = who
        self._safe = durability == "snapshot"

    def append(self, *labels: int) -> bool:
        self._tape.say(Said("asked", self._who, labels))
        before = len(self._tape.calls)
        try:
            self.history.append_rows(*truth.rows(labels), truth.NAMES)
        except HistoryError:
            self._tape.say(Said("refused", self._who, labels))
            if "force" in self._tape.broken:
                self._tape.say(Said("doubtful", self._who, labels))
            return False
        calls = self._tape.calls[before:]
        sealed = any(call.kind == "cut" and call.at == 0 for call in calls)
        logged = [call.path for call in calls if call.kind == "write"][-1].endswith(".journal")
        if sealed and logged:  # those before, when a segment has had its day
            self._tape.say(Said("safe", self._who))
        self._tape.say(Said("stored", self._who, labels))
        if self._safe or (sealed and not logged):
            self._tape.say(Said("safe", self._who))
        return True

    def make_safe(self, call: Callable[[], None]) -> None:
        call()
        self._tape.say(Said("safe", self._who))


class Claims:
    """What must be in a store, what may be, after so many calls of a tape."""

    def __init__(self) -> None:
        self.written: dict[int, list[int]] = {}  # by each author, in order
        self.safe: set[int] = set()
        self.asked: set[int] = set()  # of a call not yet over
        self.refused: set[int] = set()
        self.doubtful: set[int] = set()  # may come back after a power loss, beside themselves,
        self.unsure: set[int] = set()  # and these not at all: stored before, and forced in vain
        self.leaving: set[int] = set()

    def hear(self, said: Said) -> None:
        mine = self.written.setdefault(said.who, [])
        if said.what == "asked":
            self.asked |= set(said.labels)
            mine += said.labels
        elif said.what == "stored":
            self.asked -= set(said.labels)
        elif said.what == "refused":
            self.asked -= set(said.labels)
            self.refused |= set(said.labels)
            del mine[len(mine) - len(said.labels) :]
        elif said.what == "doubtful":
            self.doubtful |= set(said.labels)
            self.unsure |= set(mine) - self.safe
        elif said.what == "leaving":
            self.leaving |= set(said.labels)
        else:
            self.safe |= set(mine) - self.asked - self.unsure

    @property
    def stored(self) -> set[int]:
        return {label for labels in self.written.values() for label in labels} - self.asked


Life = Callable[[Tape, Path, str, str], None]


def lived(root: Path, life: Life, precision: str, durability: str) -> list[Call]:
    """The tape of a life in `root`; what it recorded makes the folder that the life has left."""
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_GROUP", 1 << 14)  # several writes to a seal of many blocks
        tape = Tape(root, patch)
        life(tape, root / STORE, precision, durability)
    disk = Disk()
    for call in tape.calls:
        disk.apply(call)
    left = {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".gitignore"
    }
    assert {path: disk.contents[file] for path, file in disk.files.items()} == left
    return tape.calls


def life_of_one(tape: Tape, path: Path, precision: str, durability: str) -> None:
    """Rows of all sizes, seals, flushes, a disk that fills up, a clock that steps back, an end."""
    one = Author(tape, 0, path, precision, durability)
    label = iter(range(10**6))

    def some(count: int) -> tuple[int, ...]:
        return tuple(next(label) for _ in range(count))

    for count in (1, 1, 2, 40):
        one.append(*some(count))
    one.make_safe(one.history.flush)
    one.append(*some(3))
    one.make_safe(one.history.seal)
    one.append(*some(100))
    one.append(*some(200))  # seals by itself
    one.append(*some(5))
    one.append(*some(1100))  # never was in a journal, but for the five
    one.append(*some(2))
    for room in (0, 10, 100, 300, 3000, 30000):
        for count in (1, 7, 300):
            tape.room = room
            rows = some(count)
            kept = one.append(*rows)
            tape.room = 1 << 60
            if not kept and count < 300:
                one.append(*rows)  # as the monitor's thread does, which keeps them
    tape.room = 60_000
    refused = some(2000)  # of these a block or two are whole when the disk is full
    assert not one.append(*refused)
    tape.room = 1 << 60
    one.append(*refused[:5])
    late = some(60)
    for start in (40, 20, 0):
        one.append(*late[start : start + 20])
    one.make_safe(one.history.flush)
    one.append(*some(30))
    one.make_safe(one.history.close)


def life_of_several(tape: Tape, path: Path, precision: str, durability: str) -> None:
    """Two writers and a third that begins when one has ended; files that are taken away; calls that fail."""
    one, two = (Author(tape, who, path, precision, durability) for who in (0, 1))
    label = iter(range(10**6))

    def some(count: int) -> tuple[int, ...]:
        return tuple(next(label) for _ in range(count))

    for turn in range(6):
        one.append(*some(1 + 30 * turn))
        two.append(*some(90))
    tape.broken = {"force"}
    waiting = [rows for rows in (some(3), some(300)) if not one.append(*rows)]
    tape.broken = set()
    for rows in waiting:
        one.append(*rows)
    tape.broken = {"cut"}  # the journal cannot be emptied, nor a failed write be taken back
    two.append(*some(300))
    one.append(*some(1))
    tape.room = 50
    one.append(*some(1))
    tape.room, tape.broken = 1 << 60, set()
    one.append(*some(4))
    one.make_safe(one.history.close)
    three = Author(tape, 2, path, precision, durability)
    for _ in range(4):
        two.append(*some(20))
        three.append(*some(20))
    two.make_safe(two.history.flush)
    three.make_safe(three.history.seal)
    two.append(*some(7))
    three.append(*some(7))
    for days in (1, 2):  # a segment ends with its day
        two.append(*(86_400 * days + each for each in some(3)))
        three.append(*(86_400 * days + each for each in some(1)))
    two.make_safe(two.history.flush)


def life_of_upkeep(tape: Tape, path: Path, precision: str, durability: str) -> None:
    """Small segments of writers that ended or were killed become one, twice, and old ones go, beside a living one."""
    label = iter(range(10**6))

    def some(count: int) -> tuple[int, ...]:
        return tuple(next(label) for _ in range(count))

    def author(who: int, now: float | None = None) -> Author:
        return Author(tape, who, path, precision, durability, now=float(who) if now is None else now)

    for who in range(3):
        one = author(who)
        for count in (1, 300, 20)[: who + 1]:
            one.append(*some(count))
        if who == 1:
            abandon(one.history)
        else:
            one.make_safe(one.history.close)
    living = author(3, now=90_000.0)  # by its name behind the others: only neighbours become one
    living.append(*some(40))
    with author(4).history as keeper:
        assert keeper.compact(grace_s=10).segments == 3
    living.append(*some(5))
    with author(20).history as keeper:  # the grace is over
        assert keeper.compact(grace_s=10).removed == 3
    more = author(21)
    more.append(*some(30))
    abandon(more.history)
    with author(22).history as keeper:
        assert keeper.compact(grace_s=0).segments == 2
        living.append(*some(5))
    late = author(23)
    late.append(*(100_000 + each for each in some(10)))
    late.make_safe(late.history.close)
    with author(200_000).history as keeper:
        tape.say(Said("leaving", -1, tuple(range(90_000))))
        assert keeper.expire(keep_s=100_000).segments == 1
        assert keeper.expire(keep_s=100_000).segments == 0
    living.append(*some(1))
    living.make_safe(living.history.close)


def played(folder: Path) -> Path:
    folder.joinpath("played").mkdir()
    return folder / "played"


LIVES = (life_of_one, life_of_several, life_of_upkeep)
COMBINED = [("exact", "block"), ("compact", "snapshot")]


def check(
    store: Path, claims: Claims, precision: str, *, must: set[int], may: set[int], unnamed: bool = False
) -> Damage:
    """Read a store, and compare it with what was claimed; its damage is another question."""
    if not store.exists():
        assert not must
        return Damage()
    reader = History.read_only(store)
    found = truth.labels(reader.scan(), precision, unnamed=unnamed)
    twice = {label for label, times in Counter(found).items() if times > 1}
    assert not twice - (claims.doubtful if unnamed else set()), sorted(twice)[:10]
    assert set(found) >= must, sorted(must - set(found))[:10]
    assert set(found) <= may, sorted(set(found) - may)[:10]
    for written in claims.written.values():
        mine = set(written)
        assert truth.follows([label for label in found if label in mine - twice], written)
    return reader.damage


def check_kill(store: Path, claims: Claims, precision: str, *, new: bool) -> None:
    """After a kill all that was stored is there, and all damage is the end of the call that was cut short.

    new: the call was the header of a new segment.
    """
    damage = check(
        store, claims, precision, must=claims.stored - claims.leaving, may=claims.stored | claims.asked
    )
    assert damage.missing_rows == damage.bad_blocks == damage.bad_rows == 0, damage
    assert not damage.unreadable
    assert damage.bad_headers <= new, damage


def kills(calls: Sequence[Call], folder: Path, precision: str) -> int:
    """Play a tape, stop at every moment and in every write, and read what is there; how many were read."""
    disk, claims, count = Disk(), Claims(), 0
    for call in calls:
        if call.kind == "said":
            claims.hear(call.said)
            continue
        before = disk.contents.get(call.file, b"")
        for part in torn(call) if call.kind == "write" else ():
            disk.apply(part)
            disk.dump(folder)
            check_kill(folder / STORE, claims, precision, new=part.at == 0)
            disk.contents[call.file] = before
            count += 1
        disk.apply(call)
        if not call.kind.startswith("force"):
            disk.dump(folder)
            check_kill(folder / STORE, claims, precision, new=False)
            count += 1
    return count


def power_losses(calls: Sequence[Call], folder: Path, precision: str, *, draws: int = DRAWS) -> int:
    """Let the power go after every call, and read what is left, for so many draws of what is lost."""
    rng = np.random.default_rng(len(calls))
    claims, count = Claims(), 0
    for index, call in enumerate(calls):
        if call.kind == "said":
            claims.hear(call.said)
            if call.said.what != "safe":
                continue
        everything = claims.stored | claims.asked | claims.refused
        for loss in LOSSES[:1] if call.kind.startswith("force") else LOSSES:
            for _ in range(1 if loss == "unforced" else draws):
                here = folder / str(count)
                here.mkdir()
                after_power_loss(calls[: index + 1], loss, rng).dump(here)
                must = claims.safe - claims.leaving
                check(here / STORE, claims, precision, must=must, may=everything, unnamed=True)
                count += 1
    return count


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize(("precision", "durability"), COMBINED)
def test_a_kill_at_any_moment_leaves_what_was_stored(
    tmp_path: Path, life: Life, precision: str, durability: str
) -> None:
    calls = lived(tmp_path / "real", life, precision, durability)
    assert kills(calls, played(tmp_path), precision) > 150


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize(("precision", "durability"), COMBINED)
def test_a_power_loss_at_any_moment_leaves_what_was_promised(
    tmp_path: Path, life: Life, precision: str, durability: str
) -> None:
    calls = lived(tmp_path / "real", life, precision, durability)
    assert power_losses(calls, played(tmp_path), precision) > 150


def emptied_too_early(patch: pytest.MonkeyPatch) -> None:
    seal = writer.Writer._seal

    def early(self: writer.Writer, parts: list[writer.Part]) -> None:
        os.ftruncate(self._journal, 0)
        seal(self, parts)

    patch.setattr(writer.Writer, "_seal", early)


class Without:
    """The module `os`, but for one call that does nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> object:
        return (lambda *_: None) if name == self._name else getattr(os, name)


def folders_not_forced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "os", Without("fsync"))


def blocks_not_forced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writer, "os", Without("fdatasync"))


def compacted_not_forced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rewrite, "os", Without("fsync"))


def cuts_not_forced(patch: pytest.MonkeyPatch) -> None:
    take_back = writer.Writer._take_back

    def unforced(self: writer.Writer, descriptor: int, size: int) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(writer, "os", Without("fdatasync"))
            take_back(self, descriptor, size)

    patch.setattr(writer.Writer, "_take_back", unforced)


def journal_taken_whole(patch: pytest.MonkeyPatch) -> None:
    rows = reader.Source._rows

    def whole(self: reader.Source, *how: Any) -> Any:
        self._sequence = 0
        return rows(self, *how)

    patch.setattr(reader.Source, "_rows", whole)


def checksums_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal, "zlib", SimpleNamespace(crc32=lambda data: 0))


def half_sealed_blocks_given_up(patch: pytest.MonkeyPatch) -> None:
    unsealed = reader.Source._unsealed

    def none(self: reader.Source, rows: journal.Rows, *how: Any) -> Any:
        return unsealed(self, rows._replace(sequences=rows.sequences + (1 << 40)), *how)

    patch.setattr(reader.Source, "_unsealed", none)


@pytest.mark.parametrize("fault", [emptied_too_early, journal_taken_whole])
def test_faults_are_found_out_by_kills(tmp_path: Path, fault: Fault) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        calls = lived(tmp_path / "real", life_of_one, "exact", "block")
        with pytest.raises(AssertionError):
            kills(calls, played(tmp_path), "exact")


@pytest.mark.parametrize(
    ("fault", "life", "durability"),
    [
        (emptied_too_early, life_of_one, "block"),
        (folders_not_forced, life_of_one, "block"),
        (blocks_not_forced, life_of_one, "block"),
        (cuts_not_forced, life_of_one, "snapshot"),
        (compacted_not_forced, life_of_upkeep, "block"),
        (checksums_not_looked_at, life_of_one, "block"),
        (half_sealed_blocks_given_up, life_of_one, "snapshot"),
    ],
)
def test_faults_are_found_out_by_power_losses(
    tmp_path: Path, fault: Fault, life: Life, durability: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        calls = lived(tmp_path / "real", life, "compact", durability)
        with pytest.raises(AssertionError):
            power_losses(calls, played(tmp_path), "compact", draws=4)
