"""The reading side of a history: one segment and its journal, as a stream of rows in order of writing.

A reader never writes and never waits for a writer. It looks, in this order: is the segment held by a
living process? what is in the journal? how long is the segment? A writer seals before it empties its
journal, so every row written before the first look is found, and sequence numbers tell rows found twice.
A torn tail is "not yet" while the writer lives, and damage when it is dead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from qigcore.history import journal
from qigcore.history.columns import decode_block
from qigcore.history.files import TooManyFiles, Window, held, journal_of, opened
from qigcore.history.segment import (
    LOWEST,
    Damaged,
    Header,
    Read,
    TooNew,
    decode_header,
    find_block,
    last_block,
    searched,
    seek,
)
from qigcore.rows import Batch, FloatArray

_ATTEMPTS = 100


class Damage(msgspec.Struct, frozen=True):
    """What one pass over a store could not read. False when that is nothing.

    torn_tails: ends of segments and journals cut off by a kill or a power loss.
    bad_headers, bad_blocks, bad_rows: damaged segment headers, sealed blocks, and runs of journal rows.
    missing_rows: rows known to be gone, by the gaps in their sequence numbers.
    skipped_bytes: bytes that were passed over.
    unreadable: segments that this version or this reader cannot read, each with the reason.
    """

    torn_tails: int = 0
    bad_headers: int = 0
    bad_blocks: int = 0
    bad_rows: int = 0
    missing_rows: int = 0
    skipped_bytes: int = 0
    unreadable: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != Damage()


class Tally:
    """Damage as it is being counted."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Damage.__struct_fields__[:-1], 0)
        self.unreadable: dict[str, str] = {}

    def add(self, kind: str, number: int = 1) -> None:
        self.counts[kind] += number

    def include(self, other: Tally) -> None:
        for kind, number in other.counts.items():
            self.add(kind, number)
        self.unreadable.update(other.unreadable)

    def damage(self) -> Damage:
        reasons = tuple(f"{name}: {reason}" for name, reason in self.unreadable.items())
        return Damage(**self.counts, unreadable=reasons)


class Query(NamedTuple):
    """Which rows are wanted: start <= timestamp < end, of basins of `dim`; the last `newest` only, if given.

    certain: `dim` is known of the store. It is not while the store is empty.
    """

    dim: int
    columns: tuple[str, ...]
    start: float = LOWEST
    end: float = float("inf")
    newest: int | None = None
    certain: bool = True


class Chunk(NamedTuple):
    """Rows in the order of writing, and their places in time.

    keys: the greatest timestamp of the segment so far, row by row. Merging by it keeps the order in
    which a writer wrote even where its clock stepped back.
    """

    keys: FloatArray
    batch: Batch


class Source:
    """One segment as one reader sees it; remembers how far it was read, so that it can go on.

    logged: whether a journal lay beside it when the folder was listed. directions: as `decode_block` takes it.
    patient: where no more files can be opened, it waits for the next time, instead of raising TooManyFiles.
    """

    def __init__(self, path: Path, logged: bool, *, directions: bool = False, patient: bool = False) -> None:
        self.path = path
        self.logged = logged
        self._directions = directions
        self._patient = patient
        self.waiting = False  # it could not be opened the last time
        self.done = False  # dead, and read to its end, or not to be read
        self.gone = False  # removed before it was read to its end
        self.header: Header | None = None
        self._offset = 0
        self._sequence = 0
        self._key = LOWEST
        self._bad_rows = 0
        self._seen: tuple[bool, int, int, bytes] | None = None

    def peek(self) -> bool:
        """Whether there may be something new since the last time."""
        if self.done:
            return False
        try:
            with opened(self.path) as descriptor:
                alive, size = held(descriptor), os.fstat(descriptor).st_size
            return self._seen != (alive, size, *(journal_mark(self.path) if self.logged else (0, b"")))
        except (OSError, TooManyFiles):  # `chunks` will say which
            return True

    def begin(self, tally: Tally) -> None:
        """Read the header, where that has not been done."""
        self.waiting = False
        if not (self._offset or self.done):
            with self._counting(tally), opened(self.path) as descriptor:
                self._begin(Window(descriptor), tally)

    @property
    def bound(self) -> float:
        """No row still to come sorts before this."""
        return max(self._key, LOWEST if self.header is None else self.header.first)

    def chunks(self, query: Query, tally: Tally) -> Iterator[Chunk]:
        """What was written since the last time, in the order of writing."""
        if self.done:
            return
        with self._counting(tally), opened(self.path) as descriptor:
            alive = held(descriptor)
            # A journal that was not listed yet may have been made since, and its writer be dead by now.
            logged = self._logged(tally) if self.logged or not alive else b""
            status = os.fstat(descriptor)
            size = status.st_size
            if status.st_nlink == 0:  # the journal may have gone with it
                raise FileNotFoundError
            self._seen = alive, size, len(logged), logged[: journal.PREFIX_BYTES]
            read = Window(descriptor)
            self._begin(read, tally)
            if self.header is not None and self.header.dim != query.dim:
                if not query.certain:  # this is the first segment, and was made after it was asked
                    self._seen = None
                    return
                tally.unreadable[self.path.name] = (
                    f"basins of {self.header.dim} components, and this reader takes {query.dim}"
                )
                self.done = True
            if self.done:
                return
            rows = journal.decode(logged, query.dim, self._sequence)
            sealed = size if self._offset else searched(read, size)
            self._skip(read, sealed, rows, query)
            yield from self._blocks(read, sealed, rows, query, tally)
            yield from self._rows(rows, query, tally)
            if not alive:
                if self._offset < size:
                    tally.add("torn_tails" if self._offset else "bad_headers")
                tally.add("torn_tails", 1 if rows.torn else 0)
                tally.add("skipped_bytes", max(0, size - self._offset) + rows.torn)
                self.done = True

    def _logged(self, tally: Tally) -> bytes:
        """The journal. One that cannot be read is named, and the sealed blocks are read all the same."""
        try:
            return read_journal(self.path)
        except OSError as error:
            tally.unreadable[journal_of(self.path).name] = error.strerror or str(error)
            return b""

    @contextmanager
    def _counting(self, tally: Tally) -> Iterator[None]:
        self.waiting = False
        try:
            yield
        except TooManyFiles:
            self.waiting = True
            if not self._patient:
                raise
        except FileNotFoundError:  # somebody removed the segment
            self.done = self.gone = True
        except OSError as error:
            tally.unreadable[self.path.name] = error.strerror or str(error)

    def _begin(self, read: Read, tally: Tally) -> None:
        """Read the header. Where it is damaged the offset stays 0, and blocks are found by their magic."""
        if self._offset or self.done:
            return
        try:
            self.header, self._offset = decode_header(read)
        except TooNew as error:
            tally.unreadable[self.path.name] = str(error)
            self.done = True
        except Damaged:
            pass

    def _skip(self, read: Read, size: int, rows: journal.Rows, query: Query) -> None:
        """Pass over the beginning of a segment that holds none of the rows wanted."""
        if self._sequence:
            return
        identity, until = self._identity, 0
        passed = None
        if query.newest is not None:
            last = last_block(read, self._offset, size, identity)
            ends = [0 if last is None else last.next_sequence, *map(int, rows.sequences[-1:] + 1)]
            until = max(0, max(ends) - query.newest)
            passed = seek(read, self._offset, size, identity, lambda block: block.next_sequence <= until)
            before = rows.batch.timestamp[rows.sequences < until]
            self._key = float(np.max(before, initial=self._key))
        elif query.start > LOWEST:
            passed = seek(read, self._offset, size, identity, lambda block: block.peak < query.start)
        if passed is not None:
            self._offset, self._key = passed.end, max(self._key, passed.peak)
            self._sequence = passed.next_sequence
        self._sequence = max(self._sequence, until)  # rows before it count as known, and are not unpacked

    @property
    def _identity(self) -> int | None:
        return None if self.header is None else self.header.segment

    def _blocks(
        self, read: Window, size: int, rows: journal.Rows, query: Query, tally: Tally
    ) -> Iterator[Chunk]:
        columns = query.columns if "timestamp" in query.columns else ("timestamp", *query.columns)
        while (block := find_block(read, self._offset, size, self._identity)) is not None:
            if block.offset > self._offset:
                tally.add("bad_blocks" if self._offset else "bad_headers")
                tally.add("skipped_bytes", block.offset - self._offset)
            self._offset = block.end
            yield from self._unsealed(rows, block.first, query, tally)
            known = self._sequence - block.first
            self._key = floor = max(self._key, block.floor)
            wanted = known < block.rows and block.high >= query.start and block.low < query.end
            try:
                batch = None
                if wanted and block.dim == query.dim:
                    batch = decode_block(read, block, columns, self._directions)
                elif wanted:
                    tally.unreadable[self.path.name] = f"a block of {block.dim} components"
            except Damaged:
                if not read.reaches(block.end):  # its writer, whose call failed, has just cut it off again
                    self._offset = block.offset
                    return
                tally.add("bad_blocks")
                tally.add("skipped_bytes", block.end - block.offset)
                yield from self._unsealed(rows, block.next_sequence, query, tally)
            self._sequence = max(self._sequence, block.next_sequence)
            self._key = max(self._key, block.high)
            if batch is not None:
                inside = known <= 0 and query.start <= block.low and block.high < query.end
                yield from _chosen(batch, None if inside else known, floor, query)

    def _rows(self, rows: journal.Rows, query: Query, tally: Tally) -> Iterator[Chunk]:
        if rows.bad > self._bad_rows:
            tally.add("bad_rows", rows.bad - self._bad_rows)
            tally.add("skipped_bytes", rows.skipped)
        self._bad_rows = rows.bad
        if len(rows.sequences):
            yield from self._unsealed(rows, int(rows.sequences[-1]) + 1, query, tally)

    def _unsealed(self, rows: journal.Rows, end: int, query: Query, tally: Tally) -> Iterator[Chunk]:
        """Rows up to the sequence number `end` that no block gave, from the journal, if it has them.

        Of a block that was being sealed when the power went, any part may be on the disk. The journal is
        emptied after that, so it still has the rows that it had.
        """
        if end <= self._sequence:
            return
        new = (rows.sequences >= self._sequence) & (rows.sequences < end)
        tally.add("missing_rows", end - self._sequence - int(new.sum()))
        self._sequence = end
        if new.any():
            floor = self._key
            wanted = {"timestamp", *query.columns}
            columns = {name: column[new] for name, column in rows.batch.columns.items() if name in wanted}
            batch = Batch(columns, rows.batch.names)
            self._key = max(floor, float(np.fmax.reduce(batch.timestamp)))
            yield from _chosen(batch, 0, floor, query)


def _chosen(batch: Batch, known: int | None, floor: float, query: Query) -> Iterator[Chunk]:
    """Of a batch without its first `known` rows, what the query asks for, if that is anything.

    None: all of it is known to be asked for.
    """
    times = batch.columns["timestamp"]
    keys = np.fmax(np.fmax.accumulate(times), floor)
    if known is not None:
        wanted = (times >= query.start) & (times < query.end)
        wanted[: max(0, known)] = False
        if not wanted.all():
            keys, batch = keys[wanted], batch.take(wanted)
    if len(keys):
        if "timestamp" not in query.columns:
            columns = {name: column for name, column in batch.columns.items() if name != "timestamp"}
            batch = Batch(columns, batch.names)
        yield Chunk(keys, batch)


def journal_mark(segment: Path) -> tuple[int, bytes]:
    """Length and first bytes of the journal beside a segment: two of equal mark have equal rows."""
    try:
        with opened(journal_of(segment)) as descriptor:
            return os.fstat(descriptor).st_size, os.pread(descriptor, journal.PREFIX_BYTES, 0)
    except FileNotFoundError:
        return 0, b""


def read_journal(segment: Path) -> bytes:
    """The journal beside a segment, as it was at one moment; nothing where there is none.

    A writer may empty the journal and begin it anew during the read. Its first bytes tell: they are never
    the same again, because sequence numbers only grow.
    """
    try:
        with opened(journal_of(segment)) as descriptor:
            for _ in range(_ATTEMPTS):
                data = os.pread(descriptor, journal.MAX_JOURNAL, 0)
                if os.pread(descriptor, journal.PREFIX_BYTES, 0) == data[: journal.PREFIX_BYTES]:
                    break
            return data
    except FileNotFoundError:
        return b""
