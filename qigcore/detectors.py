"""When healthy is gone: sequential tests of the whole state, at a false-alarm rate that the user states.

Two tests look at each snapshot.

* The *charts*: moving averages of the whitened amplitudes with weights 1, 0.3, 0.1 and 0.03, each compared
  with a limit of its squared length (multivariate EWMA: Lowry, Woodall, Champ and Rigdon 1992; weight 1 is
  Hotelling's T²); and the same, but for weight 1, of the figures' scores. They are quick, and as good as the
  learned spread is: their alarms are `nominal`.
* The *bets*: sums of Shiryaev–Roberts type over bets that cannot win on average while every mean stays in
  its learned interval (e-detectors: Shin, Ramdas and Rinaldo, arXiv 2203.03532). Bets are laid on each
  component and each figure, up and down, and along the moving averages, whose direction is known before the
  row is. Their alarms are `bounded` where the check on held-out rows found nothing against the assumption.

`docs/detection.md` says what is guaranteed, under which assumption, and how to see whether it holds. The
loops are in `ext/_detectors.pyx`. No file, no clock, no severity of a host is decided here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from qigcore._detectors import EVENTS, MOST_FIGURES, Core, banded, padded, whiten
from qigcore.alarms import Alarm, Event, Moved, Share, mean_of, moved, onset, shares
from qigcore.calibration.limits import bets_limit, chart_limits, chart_rate, figure_limits, longest_step
from qigcore.calibration.record import CLIP, REACH, WEIGHTS, Calibration
from qigcore.errors import BaselineError, InvalidBasin
from qigcore.rows import BIT, HEAD, METRICS, Array, Batch, FloatArray
from qigcore.runlength import run_length_of

if TYPE_CHECKING:
    from qigcore.baseline import Baseline

__all__ = ["Alarm", "ChangeDetector", "Event", "Moved", "Share"]

STAKES = (0.95, 0.5, 0.2, 0.08)
"""Parts of the wealth that the bets stake: the larger win sooner on large changes, the smaller on small ones."""

EVIDENCE = math.log(1e4)
"""Log likelihood ratio that says that a shift is over, at least; more where the run length is more than a thousand."""

REMEMBERED = 512
"""Rows that are kept to say when a change began."""

_OFFSETS = {name: int(field[1]) for name, field in dict(HEAD.fields or {}).items()}


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
        since = onset(rows, learned.support, memory)
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
        """The components and the figures that moved, by the rows since the onset.

        Where no figure did, some component must have: the one that moved most is named, however little.
        """
        dim = self.dim
        figures = moved(deviations[:, dim:], rows[:, dim:], self._learned)
        return shares(deviations[:, :dim], self._learned, 0 if figures else 1), figures

    def _memory(self) -> FloatArray:
        """AR(1) coefficients of the components and the figures."""
        learned = self._learned
        return np.array(
            [*(learned.memory or [0.0] * self.dim), *(signal.memory for signal in learned.signals.values())]
        )

    def _scaled(self, residual: FloatArray) -> FloatArray:
        """Residuals [..., components + figures] whitened, those of the figures over their scale."""
        learned, dim = self._learned, self.dim
        scale = np.array(learned.scale)
        left = np.clip(residual[..., :dim], -REACH * scale, REACH * scale)
        if learned.whitener:
            white = whiten(np.atleast_2d(left), None, learned.matrix).reshape(left.shape)
        else:
            white = left / scale
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
        mean = np.nan_to_num(mean_of(deviations))
        noise = min(1.0 / len(deviations), (1.0 - memory) / (1.0 + memory))
        self.shifted(self._scaled((1.0 - self._memory()) * mean), len(deviations), noise)

    def _weight_of(self) -> float:
        """Of the chart that is furthest beyond its limit."""
        return (*WEIGHTS, *WEIGHTS[1:])[int(np.argmax(self.charts()))]


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
        "reach": wide(REACH * scale),
        "bands": bands,
        "scaling": wide(1.0 / scale),
        "inverse": wide(1.0 / (CLIP * scale)),
        "bounds": np.concatenate([wide(learned.up), wide(learned.down)]),
        "weight": wide(part / (2 * len(STAKES) * dim)),
        "charts": WEIGHTS,
        "limits": chart_limits(learned, chart_rate(run_length)),
        "figure_limits": figure_limits(learned, chart_rate(run_length)),
        "figure_whitener": _figure_whitener(learned),
        "longest": longest_step(learned, chart_rate(run_length)),
        "directions": (0.0, *learned.directions),
        "direction_weight": part / ((len(WEIGHTS) - 1) * len(STAKES)),
        "stakes": STAKES,
        "figures": figures,
        "sure": bets_limit(run_length),
        "season": _season(learned, m),
        "evidence": max(EVIDENCE, math.log(10.0 * run_length)),
        "rows": learned.support,
        "quiet": (whole, math.sqrt(2.0 * (learned.trace2 + len(signals)))),
        "slots": REMEMBERED,
    }


def _figure_whitener(learned: Calibration) -> FloatArray:
    """Shape [figures, figures]; zeros where the figures have no chart."""
    k = len(learned.signals)
    return np.array(learned.figure_whitener) if learned.figures is not None else np.zeros((k, k))


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
