"""Rows from elsewhere into a store: all of them or none, and none that it holds already.

They go to one segment in a folder of its own inside the store's, which readers do not look into; when it is
whole it takes its place among the others, by one renaming. So however long and large, an import is one
segment: whatever kills the process, the store has all of its rows or none, and by retention they go together.
They are stored bit for bit, whatever the precision of the others, since what they came from may be thrown
away afterwards.

A row is there already when the store holds one of the same microsecond, figures (Φ, κ, errors, latency and
memory, as closely as a compact segment keeps them), code hash and module name. A moment near the middle of two
microseconds may have been taken to the one by a compact segment of an earlier version, and to the other by a file: such
a row is there if the basins are the same as well, and the stored row is not that of another row of the file.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from qigcore.errors import HistoryError, InvalidBasin
from qigcore.geometry import Geometry, distance
from qigcore.history import History
from qigcore.history.columns import MAX_NAME, rounded
from qigcore.history.fields import encodable, microseconds
from qigcore.history.files import SEGMENT_SUFFIX, make_folder, sync_folder
from qigcore.history.writer import Part, Writer
from qigcore.rows import HEAD, Batch, FloatArray

STAGE = ".import"

_FIGURES = ("timestamp", "phi", "kappa_eff", "error_rate", "avg_latency_ms", "memory_mb")
_NAMES = ("code", "module")
_ROUNDING_S = 1e-5
_SAME_RAD = 2e-4
"""Twice of what a compact segment may turn a basin by: the file may come from one, too."""

_PATIENCE_S = 30.0


class Mark(NamedTuple):
    """What a row is known by. moment: whole microseconds, or as it is where there are none."""

    moment: float
    figures: bytes
    code: str
    module: str

    def beside(self) -> tuple[Mark, ...]:
        """The same, a microsecond before and after."""
        return self._replace(moment=self.moment - 1.0), self._replace(moment=self.moment + 1.0)


class Taken(NamedTuple):
    """Rows that were stored, and those that were there already."""

    stored: int
    known: int


class _Undivided(Writer):
    """One whose segment is never too large, and spans any time."""

    def _ready(self, part: Part) -> None:
        if not self._in_place():
            super()._ready(part)


def take_in(
    folder: Path,
    parts: Iterable[Part],
    *,
    dim: int,
    geometry: str,
    settle: Callable[[Path], None] = lambda stage: None,
) -> Taken:
    """Store the rows of all parts, none of them empty, in a store that may not exist yet.

    settle: writes into a folder it is given the JSON files that are to lie beside the rows. They come to the
    store just before the rows, unless it has files of these names.

    A part costs a look at what the store holds of its range of time: rows in the order of time are best.

    Raises HistoryError, and whatever `parts` raises; then the store is as it was.
    """
    made = not folder.exists()
    try:
        make_folder(folder)
        try:
            with _alone(folder):
                return _take_in(folder, parts, dim, geometry, settle)
        except BaseException:
            if made:
                _unmake(folder)
            raise
    except OSError as error:
        raise HistoryError(f"{folder}: nothing was stored: {error.strerror or error}") from error


def _take_in(
    folder: Path, parts: Iterable[Part], dim: int, geometry: str, settle: Callable[[Path], None]
) -> Taken:
    stage = folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)  # of one that was killed
    stored = known = 0
    try:
        writer = _Undivided(stage, dim=dim, geometry=geometry, precision="exact", sync=False, clock=time.time)
        with History.read_only(folder) as store, closing(writer):
            for part in parts:
                new = ~_known(store, part, cast(Geometry, geometry))
                if new.any():
                    writer.append(Part(part.heads[new], part.basins[new], part.names))
                stored += int(new.sum())
                known += int((~new).sum())
            writer.seal()
        if stored:
            settle(stage)
            _move(stage, folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return Taken(stored, known)


def _known(store: History, part: Part, kind: Geometry) -> npt.NDArray[np.bool_]:
    """Where the rows of a part are in the store."""
    marks = _marks(Batch.of_rows(part.heads, part.basins, part.names))
    times = part.heads["timestamp"]
    # A little more than their range: what the store holds may have been rounded.
    first, last = times.min() - _ROUNDING_S, times.max() + _ROUNDING_S
    wanted = {*marks, *(near for mark in marks for near in mark.beside())}
    there: Counter[Mark] = Counter()
    for batch in store.scan(first, last, (*_FIGURES, *_NAMES)):
        there.update(mark for mark in _marks(batch) if mark in wanted)
    known = np.array([mark in there for mark in marks], dtype=np.bool_)
    left = there - Counter(marks)  # each row of the file is the one of its own microsecond first
    unsure: dict[Mark, list[int]] = {}
    for i in np.flatnonzero(~known).tolist():
        for near in marks[i].beside():
            if near in left:
                unsure.setdefault(near, []).append(i)
    if unsure:
        moments = [times[i] for places in unsure.values() for i in places]
        span = min(moments) - _ROUNDING_S, max(moments) + _ROUNDING_S
        for batch in store.scan(*span, (*_FIGURES, *_NAMES, "basin_coords")):
            for mark, basin in zip(_marks(batch), batch.basin_coords, strict=True):
                same = (
                    i for i in unsure.get(mark, ()) if not known[i] and _alike(part.basins[i], basin, kind)
                )
                if left[mark] > 0 and (found := next(same, None)) is not None:
                    known[found] = True
                    left[mark] -= 1
    return known


def _alike(one: FloatArray, other: FloatArray, kind: Geometry) -> bool:
    """Whether these are one basin, as closely as a compact segment keeps it."""
    try:
        return distance(one, other, kind) <= _SAME_RAD
    except InvalidBasin:  # which is kept bit for bit
        return one.tobytes() == other.tobytes()


def _marks(batch: Batch) -> list[Mark]:
    heads = np.zeros(len(batch), HEAD)
    for name in _FIGURES:
        heads[name] = batch.columns[name]
    kept = rounded(heads)
    figures = np.stack([kept[name] for name in _FIGURES[1:]], axis=1) + 0.0  # which makes -0.0 to 0.0
    packed = [row.tobytes() for row in figures]
    times = np.asarray(batch.timestamp)
    whole, beyond = microseconds(times)
    moments = np.where(beyond, times, whole).tolist()
    # As the store keeps them, and as an export writes them.
    names = [encodable(name[:MAX_NAME]) for name in batch.names]
    codes, modules = ([names[number] for number in batch.columns[name]] for name in _NAMES)
    return [Mark(*fields) for fields in zip(moments, packed, codes, modules, strict=True)]


def _move(stage: Path, folder: Path) -> None:
    """The segment takes its place, last of all."""
    beside = [path for path in sorted(stage.glob("*.json")) if not (folder / path.name).exists()]
    segments = list(stage.glob(f"*{SEGMENT_SUFFIX}"))
    if len(segments) != 1:
        raise HistoryError(f"{folder}: nothing was stored: somebody else removed files from {stage}")
    moved: list[Path] = []
    try:
        for path in beside:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        for path in (*beside, *segments):
            moved.append(folder / path.name)
            path.rename(folder / path.name)
        sync_folder(folder)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise


def _unmake(folder: Path) -> None:
    """Remove a store that was made for nothing, unless somebody began to use it."""
    with suppress(OSError):
        if [entry.name for entry in folder.iterdir()] == [".gitignore"]:
            (folder / ".gitignore").unlink()
            folder.rmdir()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No compaction and no other import while this lasts."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise HistoryError(
                        f"{folder} is being compacted, or imported into, by another process; try again later"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)
