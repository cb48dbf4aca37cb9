"""The pass over the rows: every setting sees each batch once, and nothing grows with the length of the history.

Results do not depend on how rows are cut into batches. The rows of all processes are replayed as the one
stream in time that `History.scan` gives, for compaction leaves none of one process alone; where each worker
watches its own rows, as many detectors as workers share these snapshots, and a rate per snapshot is the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from qigcore.baseline import Baseline
from qigcore.durations import worded
from qigcore.errors import BaselineError, InvalidLimit, TooLittleData
from qigcore.history import History
from qigcore.rows import Batch, FloatArray
from qigheal.backtest.records import Backtest, ByChange, Learned, Mark, Variant
from qigheal.backtest.thinning import Thinned
from qigheal.backtest.watches import ChangeWatch, RuleWatch, Slice, Tally, Watch
from qigheal.health import remeasure, rules_for
from qigheal.settings import MonitorSettings

CHUNK = 4096
"""Rows that are taken together at least, where there are so many; blocks of a store may be of a few."""

GAP = 10.0
"""Intervals between two snapshots from which on the time between them was not watched."""

MOST_LEARNED = 200_000
"""Snapshots in a learning window at most: they are held in memory together, 600 bytes each."""

MOST_VARIANTS = 64

WITHIN_S = 3600.0


def backtest(
    store: str | os.PathLike[str] | History,
    *,
    variants: Sequence[Variant],
    baseline: Baseline | None = None,
    learn: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
    within_s: float = WITHIN_S,
    start: float | None = None,
    end: float | None = None,
    interval_s: float | None = None,
    settings: MonitorSettings | None = None,
    thinned: Thinned | None = None,
) -> tuple[Backtest, Baseline | None]:
    """Replay what a store holds from `start` to before `end`; returns that, and the baseline. Nothing is written.

    learn: a window (from, to before) of the store to learn the baseline from, instead of `baseline`; what is
        replayed then begins after it. settings: those of the service, by default as it left them in the store.
    The rest: as for `replay`.

    Raises TooLittleData for a learning window with too few snapshots, InvalidLimit for one that holds more than
    200,000 or what is to be replayed, BaselineError for a baseline that does not fit, HistoryError.
    """
    history = store if isinstance(store, History) else History.read_only(store)
    settings = MonitorSettings.load(history.path) if settings is None else settings
    settings = msgspec.structs.replace(settings, dim=history.dim, geometry=history.geometry)
    learned = None
    if learn is not None:
        if baseline is not None:
            raise InvalidLimit("baseline: expected one, or a window to learn one from, got both")
        if start is not None and start < learn[1]:
            raise InvalidLimit(
                "start: expected a time at or after the end of the learning window, for nothing is judged on "
                f"what it was learned from; it lies {worded(learn[1] - start)} before; move either"
            )
        baseline, learned = _learned(history, learn, settings)
        start = learn[1] if start is None else start
    made = replay(
        history.scan(start, end),
        variants=variants,
        baseline=baseline,
        marks=marks,
        within_s=within_s,
        interval_s=interval_s,
        settings=settings,
        thinned=thinned,
    )
    segments = [segment for segment in history.segments() if segment.rows]
    writers = len({(segment.host, segment.pid) for segment in segments})
    notes = made.notes
    if writers > 1:
        notes += (f"rows of {writers} processes are replayed as one stream in time",)
    whole = msgspec.structs.replace(
        made, writers=writers, learned=learned, damage=history.damage, notes=notes
    )
    return whole, baseline


def replay(
    batches: Iterable[Batch],
    *,
    variants: Sequence[Variant],
    baseline: Baseline | None,
    marks: Sequence[Mark] = (),
    within_s: float = WITHIN_S,
    interval_s: float | None = None,
    settings: MonitorSettings | None = None,
    thinned: Thinned | None = None,
) -> Backtest:
    """Replay batches with all columns, in order of time, in bounded memory.

    variants: the settings to try, 64 at most. Those by change need a `baseline` with a calibration.
    within_s: an alarm counts for an event from its start until so many seconds after its end.
    interval_s: time between snapshots that a rate stated in time counts with; default: the baseline's.
    settings: what `ByRules` changes limits of. thinned: is filled with "phi", "drift" and
        "evidence 0" to "evidence n", of each variant by change in order (see `series_names`).

    Raises BaselineError without what a variant needs, InvalidLimit for a limit that makes no sense.
    """
    if not 1 <= len(variants) <= MOST_VARIANTS:
        raise InvalidLimit(f"variants: expected 1 to {MOST_VARIANTS} settings to try, got {len(variants)}")
    if not 0.0 <= within_s < math.inf:
        raise InvalidLimit(f"within_s: expected seconds of at least 0, got {within_s!r}")
    settings = MonitorSettings() if settings is None else settings
    watches = [_watch(variant, baseline, settings, interval_s) for variant in variants]
    tallies = [
        Tally(variant, watch, [mark.start for mark in marks])
        for variant, watch in zip(variants, watches, strict=True)
    ]
    calibration = None if baseline is None else baseline.calibration
    if interval_s is None and calibration is not None:
        interval_s = calibration.interval_s
    clock = _Clock(marks, within_s, interval_s)
    older = 0
    for recorded in _chunks(batches):
        part = clock.take(recorded.columns["timestamp"])
        batch = recorded if baseline is None else remeasure(recorded, baseline)
        if baseline is not None:
            older += int((part.times < baseline.created).sum())
        heads = batch.heads()
        for tally in tallies:
            tally.take(batch, heads, part)
        if thinned is not None:
            thinned.add(part.times, _drawn(batch, [w for w in watches if isinstance(w, ChangeWatch)]))
    changes = any(isinstance(variant, ByChange) for variant in variants)
    return Backtest(
        snapshots=clock.rows,
        first=clock.first,
        last=clock.last,
        watched_s=clock.watched_us / 1e6,
        gaps=clock.gaps,
        interval_s=interval_s,
        writers=None,
        learned=None,
        kind=calibration.kind if calibration is not None and changes else None,
        doubts=calibration.doubts if calibration is not None and changes else (),
        within_s=within_s,
        marks=tuple(marks),
        outcomes=tuple(tally.outcome(clock.firsts) for tally in tallies),
        notes=_notes(clock, interval_s, older, variants),
    )


def series_names(variants: Sequence[Variant]) -> tuple[str, ...]:
    """What `replay` fills a `Thinned` with."""
    changes = sum(isinstance(variant, ByChange) for variant in variants)
    return ("phi", "drift", *(f"evidence {index}" for index in range(changes)))


def _drawn(batch: Batch, watches: list[ChangeWatch]) -> dict[str, FloatArray]:
    drawn = {
        name: np.where(batch.good(column), batch.columns[column], np.nan)
        for name, column in (("phi", "phi"), ("drift", "basin_drift"))
    }
    return drawn | {f"evidence {index}": watch.evidence for index, watch in enumerate(watches)}


def _watch(
    variant: Variant, baseline: Baseline | None, settings: MonitorSettings, interval_s: float | None
) -> Watch:
    if isinstance(variant, ByChange):
        if baseline is None:
            raise BaselineError(
                f"{variant.name}: changes are told from a baseline, and there is none; learn one from a healthy "
                "part of the history, or name its file"
            )
        return ChangeWatch(variant, baseline, interval_s)
    if variant.rules == "learned" and baseline is None:
        raise BaselineError(f"{variant.name}: learned rules need a baseline, and there is none")
    rules_for(settings, baseline)  # refuses one of another geometry or dimension, whatever the rules
    return RuleWatch(rules_for(variant.applied(settings), baseline if variant.rules == "learned" else None))


def _learned(
    history: History, window: tuple[float, float], settings: MonitorSettings
) -> tuple[Baseline, Learned]:
    start, end = window
    if not start < end:
        raise InvalidLimit("learn: expected a window whose end lies after its start")
    parts: list[Batch] = []
    count = 0
    for batch in history.scan(start, end):
        count += len(batch)
        if count > MOST_LEARNED:
            raise InvalidLimit(f"learn: expected a window of at most {MOST_LEARNED:,} snapshots, got more")
        parts.append(batch)
    if not count:
        raise TooLittleData("learn: no snapshots lie in the window; are its times right?")
    made = Baseline.learn(
        Batch.concat(parts, history.dim),
        geometry=settings.geometry,
        drift_ceiling=settings.basin_drift_max,
        phi_min=settings.phi_min,
        kappa_tolerance=settings.kappa_tolerance,
        error_rate_max=settings.error_rate_max,
        latency_max_ms=settings.latency_max_ms,
        created=end,
    )
    return made, Learned(start=start, end=end, snapshots=count)


def _chunks(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same rows in batches of about CHUNK: a detector and NumPy cost microseconds for each."""
    held: list[Batch] = []
    count = 0
    for batch in batches:
        if not len(batch):
            continue
        held.append(batch)
        count += len(batch)
        if count >= CHUNK:
            yield held[0] if len(held) == 1 else Batch.concat(held)
            held, count = [], 0
    if held:
        yield Batch.concat(held)


class _Clock:
    """Times and events, which all settings share."""

    def __init__(self, marks: Sequence[Mark], within_s: float, interval_s: float | None) -> None:
        self.rows = self.gaps = self.steps = self.watched_us = 0
        self.first: float | None = None
        self.last: float | None = None
        self.firsts: list[int | None] = [None] * len(marks)
        self._before: float | None = None
        self._most = math.inf if interval_s is None else GAP * interval_s
        self._windows = [
            (mark.start, (mark.start if mark.end is None else mark.end) + within_s) for mark in marks
        ]

    def take(self, times: FloatArray) -> Slice:
        base = self.rows
        before = float(times[0]) if self._before is None else self._before
        steps = np.diff(times, prepend=before)
        # A clock that stepped back tells of no time; the row after a gap follows nothing.
        within = np.isfinite(steps) & (steps >= 0.0) & (steps < self._most)
        self.gaps += int((steps >= self._most).sum())
        self.steps += int(within.sum()) - (self._before is None)
        whole = np.rint(np.where(within, steps, 0.0) * 1e6).astype(np.int64)
        self.watched_us += int(whole.sum())
        outside = np.ones(len(times), bool)
        near: list[tuple[int, npt.NDArray[np.bool_]]] = []
        low, high = float(times.min()), float(times.max())
        for index, (start, end) in enumerate(self._windows):
            if start > high or end < low:
                continue
            rows = (times >= start) & (times <= end)
            if rows.any():
                near.append((index, rows))
                outside &= ~rows
                if self.firsts[index] is None:
                    self.firsts[index] = base + int(np.argmax(rows))
        self._before = self.last = float(times[-1])
        self.first = float(times[0]) if self.first is None else self.first
        self.rows += len(times)
        return Slice(times, whole, outside, tuple(near), base, self.firsts)


def _notes(
    clock: _Clock, interval_s: float | None, older: int, variants: Sequence[Variant]
) -> tuple[str, ...]:
    notes = []
    if older:
        notes.append(
            f"{older:,} of {clock.rows:,} snapshots are older than the baseline, which may have been learned "
            f"from them: where it was, they alarm too seldom; leave them out with a later start"
        )
    stated = any(isinstance(variant, ByChange) and variant.false_alarm_every for variant in variants)
    if stated and interval_s and clock.steps and clock.watched_us:
        seen = clock.watched_us / 1e6 / clock.steps
        if not 2.0 / 3.0 <= seen / interval_s <= 1.5:
            notes.append(
                f"rates in time are counted with a snapshot every {worded(interval_s)}, as when the baseline was "
                f"learned; here one came every {worded(seen)}"
            )
    return tuple(notes)
