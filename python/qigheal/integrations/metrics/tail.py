"""What was added to a store since the last look, by all processes that write it, each row once.

The counters of a sidecar need every row, and a scrape must not read a history of months: what lies there when
the tail begins is passed over, but for the newest rows of the processes that are alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from qigcore.history import History
from qigcore.history.files import segments_in
from qigcore.history.merge import merged
from qigcore.history.reader import Chunk, Damage, Query, Source, Tally
from qigcore.history.standing import Standing
from qigcore.history.survey import Surveyed, counting, surveyed
from qigcore.rows import COLUMNS, Batch
from qigheal.integrations.metrics.judged import Latest

RECENT = 10
"""Rows of each living process that are looked at when the tail begins, for figures that were not repaired."""


def told_of(damage: Damage) -> str:
    """What could not be read, in words; "" for nothing. Rows that are known to be gone are told elsewhere."""
    counted = {
        "damaged headers": damage.bad_headers,
        "damaged blocks": damage.bad_blocks,
        "damaged runs of rows": damage.bad_rows,
    }
    return ", ".join([*damage.unreadable, *(f"{count} {what}" for what, count in counted.items() if count)])


class Tail:
    """One store, followed from look to look; owned by one thread at a time.

    found: the segments at the last look. latest: of those with rows that were read, the newest figures.
    missing: rows known to be gone from the store, by gaps in their numbers, since the tail began.
    whole: what lies there when it begins is new too.

    Raises HistoryError where there is no such folder, OSError where it cannot be read.
    """

    def __init__(self, folder: Path, *, whole: bool = False) -> None:
        self.folder = folder
        self.found: list[Surveyed] = []
        self.latest: dict[Path, Latest] = {}
        self._sources: dict[Path, Source] = {}
        self._dead: dict[Path, Surveyed] = {}  # what nobody writes any more stays as it is
        self._standing = Standing()
        self._tallies: dict[Path, Tally] = {}
        self._gone = 0  # rows missing from segments that are no longer there
        self._query = self._look()
        alive = {each.path for each in self.found if each.info.alive}
        for path, source in () if whole else self._begun().items():
            if path in alive:
                for chunk in source.chunks(self._query._replace(newest=RECENT), Tally()):
                    self._noted(path, chunk)
            else:
                source.done = True

    @property
    def missing(self) -> int:
        return self._gone + sum(tally.counts["missing_rows"] for tally in self._tallies.values())

    def damage(self) -> str:
        """What of the segments that are there cannot be read, as far as it was tried; "" for nothing.

        An end cut off by a kill is none: what was lost with it are `missing` rows.
        """
        problems = {each.info.name: each.info.problem for each in self.found if each.info.problem}
        for path, tally in self._tallies.items():
            if told := told_of(tally.damage()):
                problems.setdefault(path.name, told)
        return "; ".join(f"{name}: {problem}" for name, problem in problems.items())

    def new(self) -> Iterator[Batch]:
        """Batches of what is new, in time order."""
        self._query = self._look()
        fresh = [(path, source) for path, source in self._begun().items() if source.peek()]
        streams = [(source.bound, partial(self._read, path, source)) for path, source in fresh]
        return merged(streams, self._query.dim)

    def _look(self) -> Query:
        """Survey the folder."""
        with History.read_only(self.folder) as history:
            dim = history.dim
        paths = segments_in(self.folder)
        self._dead = {path: each for path, each in self._dead.items() if path in paths}
        unknown = {path: logged for path, logged in paths.items() if path not in self._dead}
        for each in surveyed(unknown, dim):
            self._dead[each.path] = each
        everything = [self._dead[path] for path in paths]
        self._dead = {each.path: each for each in everything if not each.info.alive and not each.info.problem}
        self.found = counting(everything)
        self._sources = {
            path: self._sources.get(path) or Source(path, logged, patient=True)
            for path, logged in paths.items()
        }
        for path, logged in paths.items():
            self._sources[path].logged = logged
        self.latest = {path: latest for path, latest in self.latest.items() if path in paths}
        for path in self._tallies.keys() - paths.keys():
            self._gone += self._tallies.pop(path).counts["missing_rows"]
        return Query(dim, COLUMNS, certain=bool(paths))

    def _begun(self) -> dict[Path, Source]:
        """The sources that are to be read, their headers known."""
        for path, source in self._sources.items():
            source.begin(self._tally(path))
        headers = [source.header for source in self._sources.values() if source.header is not None]
        left = self._standing.left(headers)
        for source in self._sources.values():
            if source.header is not None and source.header.segment in left:
                source.done = True
        return {path: source for path, source in self._sources.items() if not (source.done or source.waiting)}

    def _read(self, path: Path, source: Source) -> Iterator[Chunk]:
        for chunk in source.chunks(self._query, self._tally(path)):
            self._noted(path, chunk)
            yield chunk

    def _tally(self, path: Path) -> Tally:
        return self._tallies.setdefault(path, Tally())

    def _noted(self, path: Path, chunk: Chunk) -> None:
        self.latest.setdefault(path, Latest()).note(chunk.batch)
