"""What `qigheal watch` knows at one moment: snapshots as they come, and what they mean. Draws nothing."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from qigcore import geometry
from qigcore.errors import InvalidBasin, QigcoreError
from qigcore.history import History
from qigcore.rows import METRICS, Batch
from qigcore.trends import Trend
from qigheal.errors import QighealError
from qigheal.health import LAST_GOOD, remeasure, rules_for, trend_of
from qigheal.records import BandOf, Change, HealthReport, Record, Share
from qigheal.standing import LOOKED_AT, Read, Standing

TREND_WINDOW = 50
SHOWN = 240
"""Values of each metric that a frame draws."""


class Healing(Record, frozen=True):
    """Where the healer stands; `problem` says why it is not known."""

    phase: int = 1
    means: str = ""
    changes: tuple[Change, ...] = ()  # newest first
    problem: str = ""


class Scene(Record, frozen=True):
    """All that one frame shows. Times are Unix seconds, drift is in radians.

    series: by metric the last values, NaN where one was unusable. edges: where each stops being healthy, below
    and above. moved: the components that make up most of the way from the healthy state.
    """

    store: str
    at: float
    report: HealthReport
    last_at: float | None
    writers: int
    series: dict[str, tuple[float, ...]]
    edges: dict[str, tuple[float | None, float | None]]
    bands: dict[str, BandOf]
    trends: dict[str, Trend]
    moved: tuple[Share, ...]
    healing: Healing


class Watched:
    """The newest snapshots of a store, kept up to date by what `take` is given."""

    def __init__(self, store: Path) -> None:
        self._now = 0.0
        self.standing = Standing(store, clock=lambda: self._now)
        found = self.standing.last(LOOKED_AT)
        self.batch = found.batch.take(slice(0, 0))
        self.start = float(found.batch.timestamp[0]) if len(found.batch) else None
        self.newest = float(found.batch.timestamp[-1]) if len(found.batch) else None
        self._total = found.total - len(found.batch)
        self._healing = Healing()
        self._ledger_seen: Any = None
        self._empty = not len(found.batch)

    def take(self, batch: Batch) -> None:
        """More snapshots, of any writer."""
        self._total += len(batch)
        if self._empty:
            joined, self._empty = batch, False
        else:
            joined = Batch.concat([self.batch, batch], batch.basin_coords.shape[1])
        order = np.argsort(joined.timestamp, kind="stable")[-LOOKED_AT:]
        self.batch = joined.take(order)

    def scene(self, now: float) -> Scene:
        """What they mean now. Raises the errors of an unusable baseline or store."""
        standing, self._now = self.standing, now
        baseline, settings = standing.baseline, standing.settings
        batch = self.batch if baseline is None or self._empty else remeasure(self.batch, baseline)
        with History.read_only(standing.store) as history:
            segments = history.segments()
            damage = history.damage
        report = standing.report(Read(batch, self._total, segments, damage))
        rules = rules_for(settings, baseline)
        recent = batch.take(slice(-TREND_WINDOW, None))
        bands = {} if baseline is None else baseline.bands
        return Scene(
            store=str(standing.store),
            at=now,
            report=report,
            last_at=float(batch.timestamp[-1]) if len(batch) else None,
            writers=sum(segment.alive for segment in segments),
            series={metric: _values(batch, column) for metric, column in METRICS.items()},
            edges=rules.edges,
            bands={
                name: BandOf(mean=band.mean, sd=band.sd, low=band.low, high=band.high)
                for name, band in bands.items()
            },
            trends={metric: trend_of(recent, metric, baseline, rules) for metric in METRICS},
            moved=() if baseline is None else _moved(batch, baseline.point, baseline.geometry),
            healing=self.healing(),
        )

    def healing(self) -> Healing:
        """Read anew only when the ledger's files are others than before."""
        path = self.standing.store / "ledger.db"
        seen = [_stamp(file) for file in (path, path.with_name("ledger.db-wal"))]
        if seen != self._ledger_seen:
            self._ledger_seen = seen
            self._healing = _healing(path)
        return self._healing


def _values(batch: Batch, column: str) -> tuple[float, ...]:
    values = np.where(batch.good(column), batch.columns[column], math.nan)[-SHOWN:]
    return tuple(values.tolist())


def _moved(batch: Batch, healthy: Any, kind: Any) -> tuple[Share, ...]:
    rows = batch.basin_coords[batch.good("basin_coords")][-LAST_GOOD:]
    if not len(rows):
        return ()
    try:
        mean = geometry.from_amplitudes(geometry.frechet_mean(rows, geometry=kind), kind)
        shares = geometry.contributions(healthy, mean, kind)
    except InvalidBasin:
        return ()
    top = np.argsort(-shares, kind="stable")[:5]
    return tuple(Share(index=int(i), share=float(shares[i])) for i in top if shares[i] > 0.0)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size


def _healing(path: Path) -> Healing:
    if not path.exists():
        return Healing()
    from qigheal.healing.ledger import Ledger
    from qigheal.healing.phases import current
    from qigheal.healing.phases.moves import PHASES

    try:
        ledger = Ledger(path, read_only=True)
        phase = current(ledger)
        changes = sorted(ledger.changes().values(), key=lambda change: change.opened_at, reverse=True)
    except QighealError as error:
        return Healing(problem=" ".join(str(error).split()))
    return Healing(phase=phase, means=PHASES[phase], changes=tuple(changes))


class Feed(threading.Thread):
    """Follows a store beside the one that draws; `taken` gives what has come.

    stop: ends it, within a moment.
    """

    def __init__(self, store: Path, start: float | None, every_s: float) -> None:
        super().__init__(name="qigheal-watch", daemon=True)
        self.stop = threading.Event()
        self._store, self._start_at, self._every_s = store, start, every_s
        self._queue: queue.SimpleQueue[Batch | Exception] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            with History.read_only(self._store) as history:
                for batch in history.follow(
                    poll_s=self._every_s, stop=self.stop.is_set, start=self._start_at
                ):
                    self._queue.put(batch)
        except (QigcoreError, OSError) as error:
            self._queue.put(error)

    def taken(self, wait_s: float = 0.0) -> Iterable[Batch]:
        """What has come since, waiting so long for the first. Raises what ended the following."""
        until = time.monotonic() + wait_s
        while True:
            try:
                found = self._queue.get(timeout=max(0.0, until - time.monotonic())) if wait_s else None
                found = self._queue.get_nowait() if found is None else found
            except queue.Empty:
                return
            wait_s = 0.0
            if isinstance(found, Exception):
                raise found
            yield found
