"""When healthy is gone: sequential tests of the whole state, at a false-alarm rate that the user states.

Two tests look at each snapshot.

* The *charts*: moving averages of the whitened amplitudes with weights 1, 0.3, 0.1 and 0.03, each compared
  with a limit of its squared length (multivariate EWMA: Lowry, Woodall, Champ and Rigdon 1992; weight 1 is
  Hotelling's T²). They are quick, and as good as the learned spread is: their alarms are `nominal`.
* The *bets*: sums of Shiryaev–Roberts type over bets that cannot win on average while every mean stays in
  its learned interval (e-detectors: Shin, Ramdas and Rinaldo, arXiv 2203.03532). Bets are laid on each
  component and each figure, up and down, and along the moving averages, whose direction is known before the
  row is. Their alarms are `bounded` where the check on held-out rows found nothing against the assumption.

`docs/detection.md` says what is guaranteed, under which assumption, and how to see whether it holds. The
loops are in `ext/_detectors.pyx`. No file, no clock, no severity of a host is decided here.
"""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from qigcore._detectors import EVENTS, MOST_FIGURES, Core, banded, padded
from qigcore.calibration.limits import bets_limit, chart_limits, chart_rate, longest_step
from qigcore.calibration.record import CLIP, WEIGHTS, Calibration
from qigcore.durations import seconds, shown
from qigcore.errors import BaselineError, InvalidBasin, InvalidLimit
from qigcore.rows import BIT, HEAD, METRICS, Array, Batch, FloatArray

if TYPE_CHECKING:
    from qigcore.baseline import Baseline

__all__ = ["Alarm", "ChangeDetector", "Event", "Moved", "Share"]

STAKES = (0.95, 0.5, 0.2, 0.08)
"""Parts of the wealth that the bets stake: the larger win sooner on large changes, the smaller on small ones."""

EVIDENCE = math.log(1e4)
"""Log likelihood ratio that says that a shift is over."""

REMEMBERED = 512
"""Rows that are kept to say when a change began."""

NAMED = 8
"""Components that an alarm names at most."""

_OFFSETS = {name: int(field[1]) for name, field in dict(HEAD.fields or {}).items()}


class Share(msgspec.Struct, frozen=True):
    """One component that moved: its part of what all have moved beyond noise, and by how many of its sd."""

    index: int
    share: float  # 0 to 1
    shift: float  # mean deviation of the amplitude since the onset, in its sd


class Moved(msgspec.Struct, frozen=True):
    """One figure that moved: its mean since the onset less that in health, in its sd (of latency, of its logarithm)."""

    metric: str  # key of rows.METRICS
    shift: float


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """One change.

    row: of the alarm, counted from the detector's first. timestamp: its time, None where none was told.
    kind: "bounded" when the bets have confirmed it and their assumption was found to hold on held-out rows,
        else "nominal". severity: "warning", and "critical" once the bets have confirmed it.
    test: "average" (which `weight`) or "bets". statistic: its value over its limit.
    onset: the row with which the change most likely began (maximum likelihood over the last 512 rows).
    components: those that moved beyond noise, most first. metrics: the figures that did.
    """

    row: int
    timestamp: float | None
    kind: Literal["bounded", "nominal"]
    severity: Literal["warning", "critical"]
    test: Literal["average", "bets"]
    statistic: float
    weight: float | None
    onset: int
    onset_timestamp: float | None
    components: tuple[Share, ...]
    metrics: tuple[Moved, ...]

    @property
    def delay(self) -> int:
        """Snapshots from the likely onset to the alarm, both counted."""
        return self.row - self.onset + 1


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What one row brought about: a new alarm, its confirmation by the bets, or the end of the change.

    alarm: the alarm as it then stood.
    """

    kind: Literal["alarm", "confirmed", "recovered"]
    row: int
    timestamp: float | None
    alarm: Alarm


class ChangeDetector(Core):
    """Tells when the stream of snapshots has left the baseline, once per change, and when it is back.

    baseline: learned from at least 100 snapshots.
    average_run_length: healthy snapshots between two false alarms, on average, over all tests together;
        higher alarms more rarely and later. 10 at least.
    false_alarm_every: the same in time, such as "30d"; needs the time between snapshots, which the baseline
        holds if it was learned from snapshots with times, else `interval_s`.
    horizon, alpha: another way to state it: the probability of any false alarm within `horizon` (a length of
        time, or a whole number of snapshots) is at most `alpha`.

    After an alarm there is no other until the state is back in health (`current` is then None again), and the
    tests begin anew. Rows come by `update` one at a time, or by `scan` in batches; both give the same.

    Attributes: average_run_length; current, the alarm in force or None; rows and skipped, counts; statistic and
    wealth, of the last row (the charts' largest part of its limit, and the bets' wealth, of which `sure` is the
    limit); alarmed, confirmed.

    Raises BaselineError for a baseline without a calibration, InvalidLimit for a rate that makes no sense.
    """

    def __new__(cls, baseline: Baseline, *args: Any, **kwargs: Any) -> ChangeDetector:
        learned = calibration_of(baseline)
        run_length = run_length_of(learned, *args, **kwargs)
        made: ChangeDetector = super().__new__(cls, _tables(baseline, learned, run_length))  # type: ignore[assignment]
        made.average_run_length = run_length
        made._learned = learned
        return made

    average_run_length: float
    _learned: Calibration

    def __init__(
        self,
        baseline: Baseline,
        average_run_length: float | None = None,
        *,
        false_alarm_every: str | float | None = None,
        horizon: str | int | None = None,
        alpha: float | None = None,
        interval_s: float | None = None,
    ) -> None:
        self.baseline = baseline
        self.current: Alarm | None = None
        self._well = 0  # row with which the state was last known to be in health
        self.sure = bets_limit(self.average_run_length)

    def run(self, rows: FloatArray | Batch) -> int | None:
        """The position of the first alarm in `rows`, None where there is none; from a fresh state, and to one.

        rows: basins of shape [n, dim], or a `Batch` in order of time.
        """
        basins, heads = _arrays(rows)
        self.reset()
        taken, event = self.feed(basins, heads)
        self.reset()
        return taken - 1 if event else None

    def scan(self, rows: FloatArray | Batch, trace: FloatArray | None = None) -> list[Event]:
        """Take all rows, and return what they brought about, in order.

        rows: as for `run`. trace: float64 [n, 2], filled with `statistic` and `wealth` after each row.
        """
        basins, heads = _arrays(rows)
        return self.taken(basins, heads, trace)

    def taken(self, basins: FloatArray, heads: Array | None, trace: FloatArray | None = None) -> list[Event]:
        """`scan` of rows as the ring has them: basins [n, dim], heads [n] of `rows.HEAD`."""
        events: list[Event] = []
        start = 0
        while start < len(basins):
            done, event = self.feed(basins, heads, start, trace)
            start += done
            if event:
                events += self._events(event)
        return events

    def reset(self) -> None:
        """Begin anew: no row was seen, no alarm is in force."""
        super().reset()
        self.current = None
        self._well = 0

    def _respond(self, event: int) -> Alarm | None:
        made = self._events(event)
        return made[0].alarm if made and made[0].kind == "alarm" else None

    def _events(self, event: int) -> list[Event]:
        row = self.rows - 1
        made: list[Event] = []
        if self.current is None:
            self.current = alarm = self._alarm(event)
            return [Event(kind="alarm", row=row, timestamp=alarm.timestamp, alarm=alarm)]
        deviations, times = self.recent()
        now = _known(times[-1])
        if event & EVENTS["sure"]:
            since = max(len(times) - (self.rows - self.current.onset), 0)
            components, metrics = self._where(deviations[since:], self._scores(deviations)[since:])
            self.current = msgspec.structs.replace(
                self.current,
                severity="critical",
                kind=self._learned.kind,
                components=components or self.current.components,
                metrics=metrics or self.current.metrics,
            )
            made.append(Event(kind="confirmed", row=row, timestamp=now, alarm=self.current))
        if event & EVENTS["recovered"]:
            made.append(Event(kind="recovered", row=row, timestamp=now, alarm=self.current))
            self.current = None
            self._well = self.rows
        return made

    def _alarm(self, event: int) -> Alarm:
        """Why, since when, and where; and what the way back is measured from."""
        learned, sure = self._learned, bool(event & EVENTS["sure"])
        deviations, times = self.recent()
        rows = self._scores(deviations)
        kept = min(len(rows), self.rows - self._well)  # the change before this one is not a part of it
        deviations, times, rows = deviations[-kept:], times[-kept:], rows[-kept:]
        memory = float(np.mean(learned.memory)) if learned.memory else 0.0
        since = _onset(rows, learned.support, memory)
        self._expect_shift(deviations[since:], memory)
        components, metrics = self._where(deviations[since:], rows[since:])
        first = self.rows - len(rows) + since
        return Alarm(
            row=self.rows - 1,
            timestamp=_known(times[-1]),
            kind=learned.kind if sure else "nominal",
            severity="critical" if sure else "warning",
            test="average" if event & EVENTS["fast"] else "bets",
            statistic=self.statistic if event & EVENTS["fast"] else self.wealth / self.sure,
            weight=self._weight_of() if event & EVENTS["fast"] else None,
            onset=first,
            onset_timestamp=_known(times[since]),
            components=components,
            metrics=metrics,
        )

    def _where(self, deviations: FloatArray, rows: FloatArray) -> tuple[tuple[Share, ...], tuple[Moved, ...]]:
        """The components and the figures that moved, by the rows since the onset."""
        dim = self.dim
        return (
            _shares(deviations[:, :dim], self._learned),
            _moved(deviations[:, dim:], rows[:, dim:], self._learned),
        )

    def _memory(self) -> FloatArray:
        """AR(1) coefficients of the components and the figures."""
        learned = self._learned
        return np.array(
            [*(learned.memory or [0.0] * self.dim), *(signal.memory for signal in learned.signals.values())]
        )

    def _scaled(self, residual: FloatArray) -> FloatArray:
        """Residuals [..., components + figures] whitened, those of the figures over their scale."""
        learned, dim = self._learned, self.dim
        if learned.whitener:
            white = residual[..., :dim] @ learned.matrix.T
        else:
            white = residual[..., :dim] / np.array(learned.scale)
        figures = residual[..., dim:] / np.array([signal.scale for signal in learned.signals.values()])
        return np.concatenate([white, np.clip(figures, -6.0, 6.0)], axis=-1)

    def _scores(self, deviations: FloatArray) -> FloatArray:
        """The rows of `recent()` as the tests saw them."""
        memory = self._memory()
        left = deviations * np.sqrt(1.0 - memory * memory)
        before = deviations[:-1]
        left[1:] = np.where(np.isfinite(before), deviations[1:] - memory * before, left[1:])
        return self._scaled(left)

    def _expect_shift(self, deviations: FloatArray, memory: float) -> None:
        """Say what rows look like while the change lasts: a shift of the state by μ shows as (1 − memory)·μ."""
        mean = np.nan_to_num(_mean(deviations))
        noise = min(1.0 / len(deviations), (1.0 - memory) / (1.0 + memory))
        self.shifted(self._scaled((1.0 - self._memory()) * mean), len(deviations), noise)

    def _weight_of(self) -> float:
        """Of the chart that is furthest beyond its limit."""
        return WEIGHTS[int(np.argmax(self.charts()))]


def calibration_of(baseline: Baseline) -> Calibration:
    """What was learned for detection. Raises BaselineError where nothing was, saying what is missing."""
    learned = baseline.calibration
    if learned is None:
        from qigcore.calibration.learning import MIN_ROWS

        missing = max(MIN_ROWS - baseline.count, 0)
        raise BaselineError(
            "the baseline says nothing of changes: "
            + (
                f"it was learned from {baseline.count} snapshots, {missing} fewer than a detector needs"
                if missing
                else "it was learned by an earlier version; learn it again"
            )
        )
    return learned


def run_length_of(
    learned: Calibration,
    average_run_length: float | None = None,
    *,
    false_alarm_every: str | float | None = None,
    horizon: str | int | None = None,
    alpha: float | None = None,
    interval_s: float | None = None,
) -> float:
    """Healthy snapshots to a false alarm, from whichever way it was stated; 10,000 where none was.

    For `horizon` and `alpha` it is horizon/alpha: both tests alarm with a probability of at most 1 over the run
    length at each snapshot (the charts), or of n over it within n (the bets; Ville's inequality).
    """
    stated = [average_run_length is not None, false_alarm_every is not None, horizon is not None]
    if sum(stated) > 1 or (alpha is None) != (horizon is None):
        said = ", ".join(
            f"{name}={shown(value)}"
            for name, value in (
                ("average_run_length", average_run_length),
                ("false_alarm_every", false_alarm_every),
                ("horizon", horizon),
                ("alpha", alpha),
            )
        )
        raise InvalidLimit(
            f"expected one of average_run_length, false_alarm_every, or horizon together with alpha, got {said}"
        )
    interval = learned.interval_s if interval_s is None else interval_s

    def snapshots(text: str | float, name: str) -> float:
        duration = seconds(text, name)
        if interval is None or not 0.0 < interval < math.inf:
            raise InvalidLimit(
                f"{name}: the time between snapshots is not known (the baseline was learned without times); "
                f"say it with interval_s, or state average_run_length in snapshots; got interval_s={interval!r}"
            )
        return duration / interval

    value: float = 1e4
    if average_run_length is not None:
        value = average_run_length
    elif false_alarm_every is not None:
        value = snapshots(false_alarm_every, "false_alarm_every")
    elif horizon is not None and alpha is not None:
        if not isinstance(alpha, numbers.Real) or not 0.0 < alpha < 1.0:
            raise InvalidLimit(f"alpha: expected a probability between 0 and 1, got {alpha!r}")
        whole = isinstance(horizon, numbers.Integral) and not isinstance(horizon, bool)
        if whole and not 1 <= int(horizon) <= 10**15:
            raise InvalidLimit(f"horizon: expected 1 to 1e15 snapshots, got {shown(horizon)}")
        value = (int(horizon) if whole else snapshots(horizon, "horizon")) / alpha
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 10.0 <= value <= 1e15:
        raise InvalidLimit(
            f"average_run_length: expected 10 to 1e15 snapshots between false alarms, got {shown(value)}"
        )
    return float(value)


def _tables(baseline: Baseline, learned: Calibration, run_length: float) -> dict[str, Any]:
    """Everything that the loops read, padded. Groups of bets have equal shares of the starting wealth."""
    dim, m = baseline.dim, padded(baseline.dim)
    scale = np.array(learned.scale)

    def wide(values: Any, filled: float = 0.0) -> FloatArray:
        made = np.full(m, filled)
        made[:dim] = values
        return made

    signals = list(learned.signals.items())
    part = 1.0 / (3 if signals else 2)
    bands = None
    if learned.whitener:
        matrix = np.zeros((m, m))
        matrix[:dim, :dim] = learned.matrix
        bands = banded(matrix)
    memory = np.array(learned.memory) if learned.memory else None
    figures = []
    for metric, signal in signals:
        column = METRICS[metric]
        offset = -1 if metric == "basin_drift" else _OFFSETS[column]
        weight = part / (2 * len(STAKES) * len(signals))
        figures.append(
            (offset, BIT[column], signal.log, signal.floor, signal.center, signal.scale, signal.memory, signal.up,
             signal.down, weight)
        )  # fmt: skip
    whole = learned.trace + len(signals)
    return {
        "dim": dim,
        "geometry": baseline.geometry,
        "basin": np.array(baseline.basin),
        "center": wide(learned.center),
        "memory": None if memory is None else wide(memory),
        "spread": wide(1.0 if memory is None else np.sqrt(1.0 - memory * memory)),
        "bands": bands,
        "scaling": wide(1.0 / scale),
        "inverse": wide(1.0 / (CLIP * scale)),
        "bounds": np.concatenate([wide(learned.up), wide(learned.down)]),
        "weight": wide(part / (2 * len(STAKES) * dim)),
        "charts": WEIGHTS,
        "limits": chart_limits(learned, chart_rate(run_length)),
        "longest": longest_step(learned, chart_rate(run_length)),
        "directions": (0.0, *learned.directions),
        "direction_weight": part / ((len(WEIGHTS) - 1) * len(STAKES)),
        "stakes": STAKES,
        "figures": figures,
        "sure": bets_limit(run_length),
        "season": _season(learned, m),
        "evidence": EVIDENCE,
        "rows": learned.support,
        "quiet": (whole, math.sqrt(2.0 * (learned.trace2 + len(signals)))),
        "slots": REMEMBERED,
    }


def _season(learned: Calibration, m: int) -> tuple[FloatArray, float, float] | None:
    """(Offsets [bins, m + figures] in the loops' layout, period, its beginning), None where there is no season."""
    season = learned.season
    if season is None:
        return None
    dim, table = len(learned.center), season.table
    offsets = np.zeros((season.bins, m + MOST_FIGURES))
    offsets[:, :dim] = table[:, :dim]
    for i, metric in enumerate(learned.signals):
        if metric in learned.seasonal:
            offsets[:, m + i] = table[:, dim + learned.seasonal.index(metric)]
    return offsets, float(season.period_s), float(season.begin)


def _arrays(rows: FloatArray | Batch) -> tuple[FloatArray, Array | None]:
    if isinstance(rows, Batch):
        return rows.basin_coords, rows.heads()
    basins = np.asarray(rows, dtype=np.float64)
    if basins.ndim != 2:
        raise InvalidBasin(f"rows: expected shape [n, dim], got {list(basins.shape)}")
    return basins, None


def _known(moment: float) -> float | None:
    return float(moment) if math.isfinite(moment) else None


def _mean(rows: FloatArray) -> FloatArray:
    """Column means of the finite values, NaN where there are none."""
    finite = np.isfinite(rows)
    counts = finite.sum(axis=0)
    total = np.where(finite, rows, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, counts, out=np.full(len(total), np.nan), where=counts > 0))


def _onset(rows: FloatArray, learned: float, memory: float) -> int:
    """Where a shift of unknown size began, by maximum likelihood for rows of unit covariance.

    A shift μ shows as μ in the first row and as (1 − memory)·μ in each later one; its estimate from k rows is
    held against the noise of those and of what it is measured from, 1/`learned`. Rows without any usable
    value say nothing.
    """
    filled = np.nan_to_num(rows[::-1])
    sums = (1.0 - memory) * np.cumsum(filled, axis=0) + memory * filled
    counts = np.maximum(np.cumsum(np.isfinite(rows[::-1]).any(axis=1)), 1)
    weight = (1.0 - memory) ** 2 * counts + 1.0 - (1.0 - memory) ** 2
    against_noise = np.einsum("ij,ij->i", sums, sums) / (weight * (1.0 + counts / learned))
    return len(rows) - 1 - int(np.argmax(against_noise))


def _shares(deviations: FloatArray, learned: Calibration) -> tuple[Share, ...]:
    """The components whose mean deviation is more than noise would give one of them in 64, most first."""
    good = np.isfinite(deviations).all(axis=1)
    n = int(good.sum())
    if not n:
        return ()
    scale = np.array(learned.scale)
    memory = np.array(learned.memory) if learned.memory else np.zeros(len(scale))
    mean = deviations[good].mean(axis=0)
    error = scale * scale * (1.0 / n / (1.0 - memory) ** 2 + 1.0 / learned.support)
    beyond = np.maximum(mean * mean - error, 0.0)
    total = float(beyond.sum())
    if total == 0.0:
        return ()
    sd = scale / np.sqrt(1.0 - memory * memory)
    order = np.argsort(-beyond, kind="stable")[:NAMED]
    strong = mean * mean > 9.0 * error
    return tuple(
        Share(index=int(i), share=float(beyond[i] / total), shift=float(mean[i] / sd[i]))
        for rank, i in enumerate(order)
        if beyond[i] > 0.0 and (strong[i] or rank == 0)
    )


def _moved(deviations: FloatArray, scores: FloatArray, learned: Calibration) -> tuple[Moved, ...]:
    """The figures whose mean score is beyond 3.5 of its standard errors, most first."""
    made = []
    for column, (metric, signal) in enumerate(learned.signals.items()):
        values = scores[:, column]
        values = values[np.isfinite(values)]
        seen = deviations[:, column]
        seen = seen[np.isfinite(seen)]
        if len(values) and abs(values.mean()) * math.sqrt(len(values)) > 3.5:
            sd = signal.scale / math.sqrt(1.0 - signal.memory**2)
            made.append(Moved(metric=metric, shift=float(seen.mean() / sd)))
    return tuple(sorted(made, key=lambda moved: -abs(moved.shift)))
