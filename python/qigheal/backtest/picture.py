"""The picture of a replay: Φ, drift and evidence over time, the events shaded, each setting's alarms in a lane."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np

from qigcore.baseline import Baseline
from qigheal.backtest.records import Backtest, ByChange, Outcome
from qigheal.backtest.thinning import Thinned
from qigheal.errors import MissingExtra

INK, CURVE, BAND, EVENT = "#333333", "#1f5f99", "#7fb77e", "#e0a030"
LINES = ("#6a3d9a", "#00796b", "#8d6e00", "#c2185b")
"""Settings by change that are drawn, each in its colour; those beyond have their lane only."""

TRUE, FALSE = "#2e7d32", "#b3261e"
MOST_LINES = 40
MOST_LANES = 12
MOST_LABELS = 8
LABEL = 18


def draw(found: Backtest, baseline: Baseline | None, thinned: Thinned, path: Path) -> None:
    """Write a PNG. `thinned`: what `replay` filled, with the names that `series_names` gives.

    Raises MissingExtra without matplotlib, OSError where the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "demo", "the picture of a replay") from None

    changes = [outcome for outcome in found.outcomes if isinstance(outcome.variant, ByChange)]
    lanes = found.outcomes[:MOST_LANES]
    heights = [2.2, 2.2, *([2.2] if changes else []), 0.5 + 0.32 * len(lanes)]
    figure = Figure(figsize=(12, 1.2 + sum(heights)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    zone = _zone(found.last)
    _band(axes[0], thinned, "phi", None if baseline is None else baseline.bands.get("phi"), zone)
    axes[0].set_ylabel("Φ", color=INK)
    drift = None if baseline is None else baseline.bands["basin_drift"]
    _band(axes[1], thinned, "drift", drift, zone)
    axes[1].set_ylim(bottom=0.0)
    axes[1].set_ylabel("drift, rad", color=INK)
    if changes:
        _evidence(axes[2], thinned, changes, zone)
    _lanes(axes[-1], lanes, found, zone)
    spans = [
        (mark.start, mark.start + found.within_s if mark.end is None else mark.end, mark.label)
        for mark in found.marks
        if found.first is not None
        and found.last is not None
        and mark.start <= found.last
        and (mark.start if mark.end is None else mark.end) >= found.first
    ]
    for axis in axes:
        for spine in ("top", "right"):
            axis.spines[spine].set_visible(False)
        for start, end, _ in spans:
            axis.axvspan(_at(start, zone), _at(end, zone), color=EVENT, alpha=0.3, lw=1.0, zorder=0)
    _labels(axes[0], spans, found, zone)
    for outcome, colour in zip(changes, LINES, strict=False):
        for raised in outcome.raised if outcome.alarms <= MOST_LINES else ():
            for axis in axes[:-1]:
                axis.axvline(_at(raised.timestamp, zone), color=colour, lw=0.8, ls=(0, (4, 3)), alpha=0.8)
    if found.first is not None and found.last is not None:
        axes[-1].set_xlim(_at(found.first, zone), _at(found.last, zone) if found.last > found.first else None)
        locator = AutoDateLocator(tz=zone, minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
        axes[-1].xaxis.set_major_locator(locator)
        axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call]
        first, last = (_at(at, zone) for at in (found.first, found.last))
        name = first.strftime("%z")
        axes[-1].set_xlabel(
            f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}, UTC{name[:3]}:{name[3:5]}", color=INK
        )
    figure.align_ylabels(axes[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a label may have letters that no font here has
        figure.savefig(path, format="png")


def _zone(at: float | None) -> tzinfo:
    """The local offset at the end of the history; one for the whole axis, so that no hour is drawn twice."""
    try:
        return datetime.fromtimestamp(0.0 if at is None else at, UTC).astimezone().tzinfo or UTC
    except (OverflowError, ValueError, OSError):
        return UTC


def _at(seconds: float, zone: tzinfo) -> Any:
    """A time on the axis; those beyond the calendar lie at its end."""
    return datetime.fromtimestamp(min(max(seconds, -6.2e10), 2.5e11), UTC).astimezone(zone)


def _times(seconds: Any, zone: tzinfo) -> list[Any]:
    return [None if math.isnan(each) else _at(each, zone) for each in seconds.tolist()]


def _curve(axis: Any, thinned: Thinned, name: str, zone: tzinfo, colour: str, label: str | None) -> Any:
    """Extremes as a faint area, means as a line; returns the largest of each bin."""
    seconds, low, mean, high = thinned.series(name)
    # matplotlib takes no missing time: a break is drawn by its values, at the time before it.
    filled = np.where(np.isnan(seconds), np.concatenate([seconds[:1], seconds[:-1]]), seconds)
    times = _times(filled, zone)
    axis.fill_between(times, low, high, color=colour, alpha=0.3, lw=0)
    axis.plot(times, mean, color=colour, lw=0.8, label=label)
    return high


def _band(axis: Any, thinned: Thinned, name: str, band: Any, zone: tzinfo) -> None:
    if band is not None:
        low = 0.0 if name == "drift" else band.low
        axis.axhspan(low, band.high, color=BAND, alpha=0.3, lw=0, label="healthy band")
    _curve(axis, thinned, name, zone, CURVE, None)
    if name == "phi" and band is not None:
        axis.legend(loc="lower left", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)


def _evidence(axis: Any, thinned: Thinned, changes: Sequence[Outcome], zone: tzinfo) -> None:
    for index, (outcome, colour) in enumerate(zip(changes, LINES, strict=False)):
        _curve(axis, thinned, f"evidence {index}", zone, colour, outcome.name)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, 1e-2), min(max(high, 4.0), 1e4))
    axis.axhline(1.0, color=INK, lw=0.8)
    axis.set_ylabel("evidence / limit", color=INK)
    axis.legend(loc="upper left", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8, ncols=2)


def _lanes(axis: Any, lanes: Sequence[Outcome], found: Backtest, zone: tzinfo) -> None:
    for lane, outcome in enumerate(lanes):
        for raised in outcome.raised:
            colour = TRUE if raised.marks else FALSE if found.marks else INK
            end = found.last if raised.ended_at is None else raised.ended_at
            until = raised.timestamp if end is None else max(end, raised.timestamp)
            axis.plot(
                [_at(raised.timestamp, zone), _at(until, zone)],
                [lane, lane],
                color=colour,
                lw=5,
                solid_capstyle="butt",
                alpha=1.0 if raised.severity == "critical" else 0.55,
            )
            axis.plot([_at(raised.timestamp, zone)], [lane], "|", color=colour, ms=11, mew=1.2)
    axis.set_ylim(len(lanes) - 0.4, -0.6)
    axis.set_yticks(range(len(lanes)), [_short(outcome.name, 34) for outcome in lanes], fontsize=8)
    axis.grid(axis="y", color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    said = "green: for an event, red: for none" if found.marks else "no events were marked"
    axis.set_title(f"alarms ({said}; faint: a warning)", fontsize=8, color=INK, loc="left")


def _labels(axis: Any, spans: Sequence[tuple[float, float, str]], found: Backtest, zone: tzinfo) -> None:
    """Names above the first panel, in as many steps of height as keep them apart; beyond eight events none."""
    if not 0 < len(spans) <= MOST_LABELS or found.first is None or found.last is None:
        return
    span = max(found.last - found.first, 1e-9)
    free = [-math.inf] * MOST_LABELS  # how far right each step is taken, as a part of the axis
    for start, _, label in sorted(spans):
        text = _short(label, LABEL)
        place = min(max((start - found.first) / span, 0.0), 1.0)
        right = place > 0.85
        width = 0.008 * len(text) + 0.01
        left = place - width if right else place
        step = next((k for k, taken in enumerate(free) if taken <= left), 0)
        free[step] = left + width
        axis.annotate(
            text,
            xy=(place, 1.02 + 0.09 * step),
            xycoords="axes fraction",
            color="#8a5a00",
            fontsize=8,
            ha="right" if right else "left",
            parse_math=False,
        )


def _short(text: str, most: int) -> str:
    """Text of others as one line of so many characters at most."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
