"""The store on disk: services write their snapshots to it, healers and dashboards read it.

A store is a folder of segments, one per writing process (`segment` has their layout, `journal` that of
the rows not yet sealed). The folder is the whole interface between the process that serves and the one
that heals; other files may lie in it. Readers never write.

A store keeps what it was given as closely as its `precision` says, and says which. What is damaged costs
at most its block and is counted in `History.damage`. No thread is started here, and nothing is kept in
memory that grows with the rows of a store.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from qigcore.errors import HistoryError
from qigcore.history.columns import rounded
from qigcore.history.files import segments_in
from qigcore.history.merge import merged, newest
from qigcore.history.reader import Damage, Query, Source, Tally
from qigcore.history.segment import MAX_DIM, PRECISIONS
from qigcore.history.standing import Standing
from qigcore.history.survey import SegmentInfo, counting, dim_of, shape_of, surveyed
from qigcore.history.upkeep import GRACE_S, Compacted, Expired, compact, expire
from qigcore.history.writer import Part, Writer
from qigcore.rows import COLUMNS, DIM, HEAD, REGIMES, Array, Batch, FloatArray

__all__ = ["Compacted", "Damage", "Expired", "History", "SegmentInfo"]

_ALIASES = {"code_hash": "code", "module_name": "module"}
_NAP_S = 0.05


class History:
    """A folder of snapshots: append to it as one of its writers, read what all of them wrote.

    path: the folder; made where it does not exist (mode 0700, with a `.gitignore` of `*`).
    precision: of what this writer adds; a store may hold both.
        "compact" keeps figures to 14 significant bits (relative 6.1e-5), times to 1 µs, and a basin as a
        state: within 1e-4 rad of the one reported, with weights that sum to 1 (simplex) or length 1
        (sphere), so that the scale in which it was reported is not kept. Rows come back with rounded
        figures at once, and with rounded basins once they are sealed.
        "exact" keeps every float64 bit for bit, in three to four times the bytes.
    durability: "block" survives the death of the process at any moment, and a power loss up to the last
        block of 256 rows; "snapshot" forces every `append` to the disk, which costs milliseconds each.
    dim, geometry: of the basins. One store holds one kind.
    clock: Unix seconds; names the segments.

    Attributes: path, precision (None when only read), durability.

    Raises HistoryError. Where the folder cannot be made now (disk full), `append` tries again and says why.
    Safe for several threads; after a fork the child writes a segment of its own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        precision: Literal["exact", "compact"] = "compact",
        durability: Literal["block", "snapshot"] = "block",
        dim: int = DIM,
        geometry: str = "simplex",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if precision not in PRECISIONS:
            raise HistoryError(f"precision: expected 'compact' or 'exact', got {precision!r}")
        if durability not in ("block", "snapshot"):
            raise HistoryError(f"durability: expected 'block' or 'snapshot', got {durability!r}")
        if geometry not in ("simplex", "sphere"):
            raise HistoryError(f"geometry: expected 'simplex' or 'sphere', got {geometry!r}")
        if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= MAX_DIM:
            raise HistoryError(f"dim: expected a whole number from 1 to {MAX_DIM}, got {dim!r}")
        self.path = Path(path).absolute()
        self.precision: str | None = precision
        self.durability = durability
        self._clock = clock
        self._tally = Tally()
        self._shape: tuple[int, str] | None = None
        if os.path.exists(self.path):
            self._check_folder()
            found = self._find_shape()
            if found not in (None, (dim, geometry)):
                raise HistoryError(
                    f"{self.path} holds basins of {found[0]} components, geometry {found[1]!r}; asked for {dim}, "
                    f"{geometry!r}: one store holds one kind, use another folder"
                )
        self._shape = dim, geometry
        self._writer: Writer | None = Writer(
            self.path,
            dim=dim,
            geometry=geometry,
            precision=precision,
            sync=durability == "snapshot",
            clock=clock,
        )

    @classmethod
    def read_only(cls, path: str | os.PathLike[str]) -> Self:
        """Open a store that others write; no file is made or changed. Dimension and geometry are theirs.

        Raises HistoryError where there is no such folder.
        """
        history = cls.__new__(cls)
        history.path = Path(path).absolute()
        history.precision = None
        history.durability = "block"
        history._clock = time.time
        history._tally = Tally()
        history._shape = None
        history._writer = None
        history._check_folder()
        return history

    @property
    def dim(self) -> int:
        """Components of a basin; of a store that is only read, those of its newest segment (64 if empty)."""
        shape = self._find_shape()
        if shape is not None:
            return shape[0]
        return next((dim for dim in map(dim_of, reversed(list(self._segments()))) if dim), DIM)

    @property
    def geometry(self) -> str:
        """ "simplex" or "sphere"; known as `dim` is."""
        return (self._find_shape() or (DIM, "simplex"))[1]

    @property
    def damage(self) -> Damage:
        """What the latest `scan`, `last` or `follow` could not read, as far as it has come."""
        return self._tally.damage()

    def append(self, rows: Batch | Any | Iterable[Any]) -> None:
        """Store a batch with all columns, one `GeometricSnapshot`, or several.

        Raises HistoryError when they cannot be written (disk full, folder gone or read-only) or do not
        fit; then none of them is stored. A later call works again once the cause is gone.
        """
        if not isinstance(rows, Batch):
            try:
                rows = Batch.of_snapshots([rows] if hasattr(rows, "basin_coords") else rows, self.dim)
            except ValueError as error:
                raise HistoryError(f"cannot store these snapshots: {error}") from error
        missing = [name for name in COLUMNS if name not in rows.columns]
        if missing:
            raise HistoryError(
                f"a batch to store needs every column, and this one lacks {', '.join(missing)}"
            )
        self.append_rows(rows.heads(), rows.columns["basin_coords"], rows.names)

    def append_rows(self, heads: Array, basins: FloatArray, names: Sequence[str]) -> None:
        """The same for rows as the ring holds them: heads [n] of HEAD, basins [n, dim], table of names.

        The arrays are copied. Names are kept to their first 1,024 characters.
        """
        writer = self._writing()
        heads = np.array(heads)
        basins = np.array(basins, dtype="<f8", order="C")
        dim = self.dim
        if heads.dtype != HEAD or heads.ndim != 1 or basins.shape != (len(heads), dim):
            raise HistoryError(
                f"expected heads [n] of HEAD and basins [n, {dim}], got {heads.dtype} {list(heads.shape)} "
                f"and {list(basins.shape)}"
            )
        if not len(heads):
            return
        if not np.isfinite(heads["timestamp"]).all():
            raise HistoryError("timestamp: expected finite Unix seconds in every row")
        if max(heads["code"].max(), heads["module"].max()) >= len(names):
            raise HistoryError(f"code and module point past the table of {len(names)} names")
        if heads["regime"].max() >= len(REGIMES):
            raise HistoryError(f"regime: expected an index into {REGIMES}, got {heads['regime'].max()}")
        if self.precision == "compact":
            heads = rounded(
                heads
            )  # before the journal: a row gives the same figures from there as from its block
        writer.append(Part(heads, basins, tuple(names)))

    def flush(self) -> None:
        """Force all that was appended to the disk."""
        self._writing().flush()

    def seal(self) -> None:
        """Seal the rows pending in this writer's journal into a block now."""
        self._writing().seal()

    def close(self) -> None:
        """Seal what is pending and let go of the segment. Reading goes on working."""
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"History({str(self.path)!r}{'' if self._writer else ', read only'})"

    def scan(
        self, start: float | None = None, end: float | None = None, columns: Iterable[str] | None = None
    ) -> Iterator[Batch]:
        """Batches in time order, of the rows with start <= timestamp < end (Unix seconds).

        columns: names of `rows.COLUMNS` (or `code_hash`, `module_name`); only these are read from sealed
        blocks. Several writers are merged by timestamp; the rows of one writer stay in the order in
        which it wrote them, even where its clock stepped back.
        """
        query = self._query(start, end, columns)
        self._tally = tally = Tally()
        sources = [Source(path, logged) for path, logged in self._segments().items()]
        return self._read(self._standing(sources, Standing(), tally), query, tally)

    def last(self, n: int) -> Batch:
        """The last n snapshots of the order that `scan` gives; fewer where there are fewer."""
        if not isinstance(n, Integral) or n < 0:
            raise HistoryError(f"n: expected a whole number of at least 0, got {n!r}")
        self._tally = tally = Tally()
        return newest(self._segments(), int(n), self._query(None, None, None), tally)

    def follow(
        self,
        *,
        poll_s: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        start: float | None = None,
    ) -> Iterator[Batch]:
        """What is there (from timestamp `start` on), and then what comes, of every writer, new ones too.

        Each round of reading is in time order by itself; no row that was stored is missed or given twice.
        Looks every `poll_s` seconds, and ends when `stop()` is true, after one round that begins later
        than that.

        A round that falls into the very moment of an `append` that fails (a full disk) may give rows which
        that call then refuses. When its caller appends them again, as the monitor does, they come again.
        """
        poll_s = _number("poll_s", poll_s)
        if not poll_s >= 0:
            raise HistoryError(f"poll_s: expected seconds of at least 0, got {poll_s!r}")
        self._query(start, None, None)
        self._tally = tally = Tally()
        return self._follow(poll_s, stop, start, tally)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: Literal["parquet", "arrow", "feather", "csv", "json"] | None = None,
        start: float | None = None,
        end: float | None = None,
        columns: Iterable[str] | None = None,
    ) -> int:
        """Write what `scan` gives to one file for other programs; gives the number of snapshots.

        format: None says it by the suffix. Parquet and Arrow need the extra `export`; JSON is the file of
            the earlier modules. What each looks like: `history.arrow`, `history.csvtext`, `history.earlier`.
        columns: of `history.fields.EXPORTED`, in the order wanted; not for JSON, which has its own.

        A file of that name is replaced in one step; raising HistoryError or MissingExtra, it is left alone.
        """
        from qigcore.history.export import export

        return export(self, path, format=format, start=start, end=end, columns=columns)

    def segments(self) -> tuple[SegmentInfo, ...]:
        """What each segment says of itself, by its beginning; without those that compaction has replaced."""
        return tuple(found.info for found in counting(surveyed(self._segments(), self.dim)))

    def expire(self, *, keep_s: float | None = None, keep_bytes: float | None = None) -> Expired:
        """Remove whole segments of dead writers, oldest first, and say what was removed.

        keep_s: those whose last row is older than so many seconds. keep_bytes: the oldest while the store
        is larger. A segment covers a day at most, so that much more may be kept. What living processes
        write, and files that are not the store's, stay. A reader amid a removed segment finishes it.

        Raises HistoryError.
        """
        for name, value in (("keep_s", keep_s), ("keep_bytes", keep_bytes)):
            if value is not None and not _number(name, value) >= 0:
                raise HistoryError(f"{name}: expected a number of at least 0, or None, got {value!r}")
        keep_s = None if keep_s is None else float(keep_s)
        now = float(self._clock())
        with self._keeping():
            return expire(self.path, keep_s=keep_s, keep_bytes=keep_bytes, now=now, dim=self.dim)

    def compact(self, *, grace_s: float = GRACE_S) -> Compacted:
        """Make few segments of many small ones of dead writers, with their journals, and say what was done.

        Every reading gives the same rows in the same order before, meanwhile and after. No state is rounded
        a second time. Segments that are large, damaged or alive stay as they are.

        grace_s: the segments that another took over are removed by a call so many seconds later, for
        readers that have begun with them; 0 removes them now.

        Raises HistoryError, also while another process compacts the same store.
        """
        grace = _number("grace_s", grace_s)
        if not grace >= 0:
            raise HistoryError(f"grace_s: expected seconds of at least 0, got {grace_s!r}")
        with self._keeping():
            return compact(self.path, grace_s=grace, clock=self._clock, dim=self.dim)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        self._writing()
        try:
            yield
        except OSError as error:
            raise HistoryError(f"cannot tidy {self.path}: {error.strerror or error}") from error

    def _follow(
        self, poll_s: float, stop: Callable[[], bool], start: float | None, tally: Tally
    ) -> Iterator[Batch]:
        sources: dict[Path, Source] = {}
        standing = Standing()
        while True:
            stopping = stop()
            found = self._segments()
            self._tell([s for path, s in sources.items() if path not in found and not s.done], tally)
            sources = {
                path: sources.get(path) or Source(path, logged, patient=True)
                for path, logged in found.items()
            }
            for source in sources.values():
                source.logged = found[source.path]
            fresh = [source for source in self._standing(sources.values(), standing, tally) if source.peek()]
            yield from self._read(fresh, self._query(start, None, None), tally)
            if stopping:
                return
            until = time.monotonic() + poll_s
            while (left := until - time.monotonic()) > 0 and not stop():
                time.sleep(min(left, _NAP_S))

    def _standing(self, sources: Iterable[Source], standing: Standing, tally: Tally) -> list[Source]:
        """Those to be read, their headers known."""
        for source in sources:
            source.begin(tally)
        left = standing.left(source.header for source in sources if source.header is not None)
        for source in sources:
            if source.header is not None and source.header.segment in left:
                source.done = True
        return [source for source in sources if not (source.done or source.waiting)]

    def _read(self, sources: Sequence[Source], query: Query, tally: Tally) -> Iterator[Batch]:
        segments = [(source.bound, partial(source.chunks, query, tally)) for source in sources]
        yield from merged(segments, query.dim)
        self._tell([source for source in sources if source.gone], tally)

    def _tell(self, gone: Iterable[Source], tally: Tally) -> None:
        """Of segments removed before they were read to their end: were they too old, or are their rows elsewhere?"""
        left = {source.header.segment: source for source in gone if source.header}
        if not left:
            return
        there: list[Source] = []
        with suppress(HistoryError):  # the folder itself may be gone
            there = [Source(path, logged) for path, logged in self._segments().items()]
        for source in there:
            source.begin(Tally())
        for identity in {other for each in there if each.header for other in each.header.replaces}:
            if identity in left:
                tally.unreadable[left[identity].path.name] = "compacted while it was read; read again"

    def _query(self, start: float | None, end: float | None, columns: Iterable[str] | None) -> Query:
        since = -math.inf if start is None else _number("start", start)
        until = math.inf if end is None else _number("end", end)
        for name, value in (("start", since), ("end", until)):
            if math.isnan(value):
                raise HistoryError(f"{name}: expected Unix seconds or None, got {value!r}")
        chosen = COLUMNS
        if columns is not None:
            asked = [columns] if isinstance(columns, str) else list(columns)
            chosen = tuple(dict.fromkeys(_ALIASES.get(name, name) for name in asked))
            unknown = [name for name in chosen if name not in COLUMNS]
            if unknown or not chosen:
                raise HistoryError(f"columns: expected some of {', '.join(COLUMNS)}, got {asked}")
        certain = self._find_shape() is not None  # looked up before `dim`, which may then know more
        return Query(self.dim, chosen, since, until, certain=certain)

    def _writing(self) -> Writer:
        if self._writer is None:
            raise HistoryError(f"{self.path} was opened for reading only; open History(path) to write to it")
        return self._writer

    def _segments(self) -> dict[Path, bool]:
        try:
            return segments_in(self.path)
        except OSError as error:
            raise HistoryError(
                f"cannot read {self.path}: {error.strerror}; is it the right folder?"
            ) from error

    def _check_folder(self) -> None:
        if not os.path.isdir(self.path):
            raise HistoryError(
                f"expected a folder of snapshots at {self.path}, and there is none; name the one "
                "that the service writes (on the command line --store, or QIGHEAL_STORE)"
            )

    def _find_shape(self) -> tuple[int, str] | None:
        """Dimension and geometry, once known; else those of the newest segment that tells."""
        if self._shape is None:
            shapes = map(shape_of, reversed(list(self._segments())))
            self._shape = next((shape for shape in shapes if shape is not None), None)
        return self._shape


def _number(name: str, value: Any) -> float:
    if not isinstance(value, Real):
        raise HistoryError(f"{name}: expected a number, got {value!r:.40}")
    try:
        return float(value)
    except OverflowError:  # its digits may be too many even to print
        raise HistoryError(f"{name}: expected a number that a float can hold, got a larger one") from None
