"""The writing side of a history: one process's own segment and the journal beside it.

Rows go to the journal with one write(2) per call. When 256 or more are pending they are sealed: blocks
of up to 1,024 are written to the segment and forced to the disk, and only then is the journal emptied, so
that neither a kill nor a power loss finds a row in neither file. A row in both is told by its sequence
number.

A call stores all of its rows or, raising, none of them. What a failed call had written already is cut off,
and no more is written to those files: a reader may have seen it, and must never meet other rows under the
same numbers. Nothing here reads a segment.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qigcore.errors import HistoryError
from qigcore.forks import Forks
from qigcore.history.columns import encode_block, recode
from qigcore.history.files import (
    create_pair,
    host_name,
    in_place,
    journal_of,
    make_folder,
    opened,
    segment_name,
    write_all,
)
from qigcore.history.journal import MAX_JOURNAL, decode, encode_names, encode_rows
from qigcore.history.segment import LEAST_ROWS, LOWEST, MOST_ROWS, Header, encode_header, rows_per_block
from qigcore.rows import Array, FloatArray

SEGMENT_BYTES = 1 << 26
SEGMENT_SPAN_S = 86_400.0
"""A segment of 64 MiB, or of a day's rows, is ended and a new one begun: what is too old or too much goes
by whole segments, so that a store keeps at most a day more than it was asked to. Smaller ones would make
files by the thousand: a busy service fills 64 MiB in half a million snapshots."""

_GROUP = 1 << 24  # bytes of blocks gathered before they are written

_REMEDIES = {
    errno.ENOSPC: "free space on the disk",
    errno.EDQUOT: "free space within the quota",
    errno.EROFS: "make the file system writable",
    errno.EACCES: "let this user write to the folder",
    errno.EPERM: "let this user write to the folder",
    errno.ENOENT: "make the folder",
}


class Part(NamedTuple):
    """Rows of one call: heads [n] of HEAD, basins [n, dim], and the table that heads point into."""

    heads: Array
    basins: FloatArray
    names: Sequence[str]


class Writer:
    """Appends rows to a segment of its own, made with the first row. Safe for several threads.

    After a fork the child leaves the parent's files alone and makes a segment of its own. When the
    files vanish, the rows pending in the journal move to new ones; those already sealed are gone.
    A signal handler that interrupts a call in its own thread is refused, for it could only wait for ever.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dim: int,
        geometry: str,
        precision: str,
        sync: bool,
        clock: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._dim = dim
        self._geometry = geometry
        self._precision = precision
        self._sync = sync
        self._clock = clock
        self._least = rows_per_block(dim, LEAST_ROWS)
        self._most = rows_per_block(dim, MOST_ROWS)
        self._closed = False
        self._made = False
        with suppress(OSError):  # a disk may be full now and not later: append tries again, and says why
            make_folder(folder)
            self._made = True
        self._begin()
        _forks.watch(self)

    def _begin(self) -> None:
        """The state of a writer without files: of a new one, and of every child after a fork."""
        self._lock = threading.RLock()
        self._busy = False  # a call is under way; who holds the lock and finds it true interrupted that call
        self._parts: list[Part] = []  # pending rows
        self._pending = 0
        self._unforced: OSError | None = None  # why rows in files already left may not be on the disk
        self._detach()

    def _detach(self) -> None:
        """The state of a writer whose next row goes to new files."""
        self._segment = self._journal = -1
        self._path = Path()
        self._identity = 0
        self._first = LOWEST
        self._segment_size = self._journal_size = 0
        self._sealed = 0  # rows in blocks; the sequence number of the first pending row
        self._floor = LOWEST  # greatest timestamp in blocks
        self._carried = True  # what is pending is not in this journal
        self._astray = False  # the folder does not show these files
        self._known: dict[str, int] = {"": 0}  # names that the journal defines

    def append(self, part: Part) -> None:
        """Store rows, n at least 1. Raises HistoryError, and then none of them is stored."""
        with self._writing(f"{len(part.heads)} rows were not stored"):
            self._ready(part)
            if self._pending + len(part.heads) < self._least:
                self._log(part)
            else:
                self._seal([*self._parts, part])

    def flush(self) -> None:
        """Force what was appended to the disk."""
        with self._writing("rows may not survive a power loss"):
            if self._parts and not self._in_place():
                self._seal_pending()
            elif self._journal >= 0:
                os.fdatasync(self._journal)
            error, self._unforced = self._unforced, None
            if error is not None:
                raise error

    def seal(self) -> None:
        """Seal the pending rows into a block, however few."""
        with self._writing(
            f"{self._pending} rows are {'in no file' if self._carried or self._astray else 'not sealed'}"
        ):
            self._seal_pending()

    def close(self) -> None:
        """Seal what is pending, remove the empty journal, let go of the segment.

        Raises HistoryError when rows are in no file, or a signal handler interrupted a call that writes;
        then, in the latter case only, the history stays open.
        """
        if self._closed:
            return
        try:
            with self._writing(f"{self._pending} rows are in no file"):
                try:
                    self._seal_pending()
                finally:
                    self._let_go()
                    self._closed = True
        except HistoryError:
            if not self._closed or (self._parts and (self._carried or self._astray)):
                raise

    def release(self) -> None:
        """Close the files as they are."""
        for descriptor in (self._journal, self._segment):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)
        self._segment = self._journal = -1

    def forget(self) -> None:
        """In a child: drop the parent's files, rows and lock, which a thread of the parent may have held."""
        self.release()
        self._begin()

    def __del__(self) -> None:
        if hasattr(self, "_segment"):
            self.release()

    @contextmanager
    def _writing(self, loss: str) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise HistoryError(f"history {self._folder} is closed: {loss}; open it again to write")
            if self._busy:
                raise HistoryError(
                    f"{loss}: a signal handler interrupted a call that writes to {self._folder}, and cannot "
                    "wait for it; have the handler set a flag, and write when the call has returned"
                )
            try:
                self._busy = True
                yield
            except OSError as error:
                remedy = _REMEDIES.get(error.errno or 0, "see to the disk")
                raise HistoryError(
                    f"cannot write to {self._folder}: {error.strerror or error}; {loss}; {remedy}"
                ) from error
            finally:
                self._busy = False

    def _ready(self, part: Part) -> None:
        """Make the files where there are none, where they are no longer in the folder, or have had their day."""
        if self._in_place():
            span = float(part.heads["timestamp"][0]) - self._first
            if self._segment_size < SEGMENT_BYTES and span < SEGMENT_SPAN_S:
                return
            if self._parts:
                self._seal(self._parts)
            self._let_go()
            self._detach()
        self._pass_over_copied()
        self._create(part)

    def _in_place(self) -> bool:
        """Whether there are files, and the folder shows them."""
        if self._segment >= 0:
            journal = journal_of(self._path)
            self._astray = not (in_place(self._path, self._segment) and in_place(journal, self._journal))
        return self._segment >= 0 and not self._astray

    def _pass_over_copied(self) -> None:
        """Forget pending rows that lie in a copy of these files, which somebody put in their place."""
        if not (self._astray and self._parts and self._path.is_file()):
            return
        try:
            with opened(journal_of(self._path)) as copy:
                found = decode(os.pread(copy, MAX_JOURNAL, 0), self._dim, self._sealed).sequences
                os.fdatasync(copy)
        except OSError:
            return
        count = min(self._pending, int((found == self._sealed + np.arange(len(found))).cumprod().sum()))
        parts, skip = [], count
        for heads, basins, names in self._parts:
            parts += [Part(heads[skip:], basins[skip:], names)] if skip < len(heads) else []
            skip = max(0, skip - len(heads))
        self._parts, self._pending, self._sealed = parts, self._pending - count, self._sealed + count
        self._known = {"": 0}

    def _let_go(self) -> None:
        """Close the files, and remove the journal when nothing is in it."""
        if self._journal >= 0 and not self._parts and self._journal_size == 0:
            with suppress(OSError):
                os.unlink(journal_of(self._path))
        self.release()

    def _create(self, *parts: Part) -> None:
        """New files, for what is pending and for these rows. Where that fails, what there was stays as it is."""
        first = float([*self._parts, *parts][0].heads["timestamp"][0])
        if not self._made:
            make_folder(self._folder)
            self._made = True
        created, random = float(self._clock()), os.urandom(8)
        host, pid = host_name(), os.getpid()
        path = self._folder / segment_name(created, host, pid, random)
        identity = int.from_bytes(random, "little")
        data = encode_header(
            Header(identity, self._dim, self._geometry, self._precision, host, pid, created, first)
        )
        size = len(data)
        pair = create_pair(path, data)
        self.release()  # not before: until there are new files, the old ones may be put back
        self._detach()
        self._path, self._identity, self._segment_size, self._first = path, identity, size, first
        self._segment, self._journal = pair

    def _log(self, part: Part) -> None:
        known = dict(self._known)
        held = [*self._parts, part]
        parts = held if self._carried else [part]
        heads = np.concatenate([recode(part.heads, part.names, known) for part in parts])
        basins = np.concatenate([part.basins for part in parts])
        sequence = self._sealed + (0 if self._carried else self._pending)
        data = encode_names(list(known)[len(self._known) :], len(self._known), self._sealed)
        data += encode_rows(heads, basins, sequence, self._sealed)
        size, pending = self._journal_size + len(data), self._pending + len(part.heads)
        try:
            write_all(self._journal, data)
            if self._sync:
                os.fdatasync(self._journal)
            # No call in between: an exception out of a signal handler comes before all of this or after.
            self._journal_size, self._pending, self._parts, self._known = size, pending, held, known
            self._carried = False
        except BaseException:
            self._take_back(self._journal, self._journal_size)
            raise

    def _seal_pending(self) -> None:
        if self._parts and not self._in_place():
            self._pass_over_copied()
            if self._parts:
                self._create()
        if self._parts:
            self._seal(self._parts)

    def _seal(self, parts: list[Part]) -> None:
        sequence, floor, size = self._sealed, self._floor, self._segment_size
        data = bytearray()
        try:
            for heads, basins, names in _blocks(parts, self._most):
                data += encode_block(
                    heads,
                    basins,
                    names,
                    first=sequence,
                    segment=self._identity,
                    floor=floor,
                    precision=self._precision,
                    geometry=self._geometry,
                )
                sequence += len(heads)
                floor = max(floor, float(heads["timestamp"].max()))
                if len(data) >= _GROUP:
                    size += write_all(self._segment, data)
                    data.clear()
            size += write_all(self._segment, data)
            os.fdatasync(self._segment)
            # No call in between, as above.
            self._sealed, self._floor, self._segment_size = sequence, floor, size
            self._parts, self._pending, self._known = [], 0, {"": 0}
        except BaseException:
            self._take_back(self._segment, self._segment_size)
            raise
        try:
            os.ftruncate(self._journal, 0)
            self._journal_size = 0
        except BaseException as error:  # what it holds is sealed: harmless, but it must not grow
            self.release()
            self._detach()
            if not isinstance(error, OSError):
                raise

    def _take_back(self, descriptor: int, size: int) -> None:
        """After a failed call: what it wrote is cut off, and these files are left, for it may have been seen.

        A reader that was given refused rows has passed their sequence numbers, and would miss others that came
        under the same ones. Pending rows stay where they are, in the journal; where even the cut fails, so
        does what was refused. Files in which nothing stands that was stored are removed.
        """
        with suppress(OSError):
            if os.fstat(descriptor).st_size == size:
                return
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        # What was cut off must not come back, beside what its caller appends again; what stays must stay.
        with suppress(OSError):
            os.fdatasync(self._segment)
        error = None
        try:
            os.fdatasync(self._journal)
        except OSError as failed:
            error = failed
        if self._parts and not self._carried:
            self._parts, self._pending = [], 0
            self._unforced = error or self._unforced
        else:
            self._remove(journal_of(self._path), self._journal)
            if self._sealed == 0:
                self._remove(self._path, self._segment)
        self.release()
        self._detach()

    def _remove(self, path: Path, descriptor: int) -> None:
        with suppress(OSError):
            if in_place(path, descriptor):
                os.unlink(path)


def _blocks(parts: Sequence[Part], limit: int) -> Iterator[tuple[Array, FloatArray, tuple[str, ...]]]:
    """The rows of all parts, cut into equal pieces of at most `limit`, each with just the names it uses."""
    total = sum(len(part.heads) for part in parts)
    pieces = -(-total // limit)
    ends = [total * (piece + 1) // pieces for piece in range(pieces)]
    heads: list[Array] = []
    basins: list[FloatArray] = []
    names: dict[str, int] = {"": 0}
    passed = 0
    for part in parts:
        taken = 0
        while taken < len(part.heads):
            count = min(len(part.heads) - taken, ends[0] - passed)
            piece = slice(taken, taken + count)
            heads.append(recode(part.heads[piece], part.names, names))
            basins.append(part.basins[piece])
            taken += count
            passed += count
            if passed == ends[0]:
                yield np.concatenate(heads), np.concatenate(basins), tuple(names)
                del ends[0]
                heads, basins, names = [], [], {"": 0}


_forks: Forks[Writer] = Forks(Writer.forget)  # a child leaves the parent's files alone
