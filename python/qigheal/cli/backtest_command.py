"""`qigheal backtest`: reads its arguments, has the history replayed, and hands the answer to `show_backtest`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from qigcore.baseline import Baseline
from qigcore.durations import seconds
from qigcore.errors import InvalidLimit
from qigheal.backtest.marks import mark, read_marks
from qigheal.backtest.records import ByChange, ByRules, Mark, Variant
from qigheal.cli import FINE, NOTHING_TO_SAY
from qigheal.cli.options import asked
from qigheal.errors import MarksError, MissingExtra
from qigheal.moments import moment
from qigheal.settings import MonitorSettings, default_store

Value = TypeVar("Value")


def _refused(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """A reader of text whose refusals are errors of usage."""

    def reading(text: str) -> Value:
        try:
            return read(text)
        except (ValueError, MarksError) as error:
            raise typer.BadParameter(str(error)) from None

    return reading


def _window(text: str) -> tuple[float, float]:
    start, parted, end = text.partition("..")
    if not parted or not start or not end:
        raise ValueError(f"expected START..END, got {text}")
    window = moment(start), moment(end)
    if not window[0] < window[1]:
        raise ValueError(f"expected START..END with an end after the start, got {text}")
    return window


def _duration(text: str) -> float:
    try:
        return float(text) if float(text) >= 0.0 else seconds(text, "length of time")
    except ValueError:
        return seconds(text, "length of time")


def _run_length(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 10.0 <= found <= 1e15:
        raise typer.BadParameter(f"expected 10 to 1e15 snapshots between false alarms, got {text}")
    return found


def _rate(text: str) -> str:
    seconds(text, "rate")
    return text


Moment = Annotated[
    float | None, typer.Option(parser=_refused(moment), metavar="TIME", help="ISO 8601, or Unix seconds.")
]


def backtest(
    store: Annotated[
        Path | None, typer.Argument(help="Folder of the history; default $QIGHEAL_STORE, else .qigheal.")
    ] = None,
    false_alarm_every: Annotated[
        list[str] | None,
        typer.Option(
            parser=_refused(_rate),
            metavar="TIME",
            help="Detect changes at one false alarm in 30d; repeatable.",
        ),
    ] = None,
    average_run_length: Annotated[
        list[float] | None,
        typer.Option(
            parser=_run_length,
            metavar="N",
            help="The same, as snapshots between two false alarms; repeatable.",
        ),
    ] = None,
    phi_min: Annotated[
        list[float] | None,
        typer.Option(metavar="Φ", help="Rules as before learning, with this limit of Φ; repeatable."),
    ] = None,
    drift_max: Annotated[
        list[float] | None,
        typer.Option(metavar="RAD", help="Rules with this ceiling of the drift; repeatable."),
    ] = None,
    errors_max: Annotated[
        list[float] | None, typer.Option(metavar="RATE", help="Rules with this error rate; repeatable.")
    ] = None,
    latency_max: Annotated[
        list[float] | None, typer.Option(metavar="MS", help="Rules with this latency; repeatable.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What healthy is; default: the store's baseline.json.")
    ] = None,
    learn: Annotated[
        str | None,
        typer.Option(
            parser=_refused(_window),
            metavar="START..END",
            help="Learn it from this part of the history, and replay what comes after.",
        ),
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(
            parser=_refused(mark), metavar="START[..END][=LABEL]", help="An event you know of; repeatable."
        ),
    ] = None,
    events: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Events as CSV or JSON: start, end, label.")
    ] = None,
    within: Annotated[
        str,
        typer.Option(parser=_refused(_duration), metavar="TIME", help="Alarms count so long after an event."),
    ] = "1h",
    interval: Annotated[
        str | None,
        typer.Option(
            parser=_refused(_duration), metavar="TIME", help="Between snapshots; default: as in the baseline."
        ),
    ] = None,
    start: Moment = None,
    end: Moment = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw it, too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """What other settings would have done with the recorded past. Exit 2 without snapshots.

    The rows of all processes are replayed as one stream. Nothing is written but the picture.

    Example: qigheal backtest --learn 2026-01-01..2026-01-08 --false-alarm-every 7d --false-alarm-every 30d
    """
    from qigcore.history import History
    from qigheal.backtest.replaying import backtest as run
    from qigheal.backtest.replaying import series_names
    from qigheal.backtest.thinning import Thinned
    from qigheal.cli import show_backtest

    place = default_store() if store is None else store
    if baseline is not None and learn is not None:
        raise typer.BadParameter("expected --baseline or --learn, got both")
    if picture is not None:
        _drawable()
    known = _baseline(place, baseline, learn is not None)
    marks: list[Mark] = [*(event or ())]
    if events is not None:
        marks += read_marks(events)
    with asked(InvalidLimit):
        rules = _rules(phi_min, drift_max, errors_max, latency_max, known is not None or learn is not None)
        for each in rules:
            each.applied(MonitorSettings())
    variants = [*_changes(false_alarm_every, average_run_length, known, learn is not None), *rules]
    thinned = None if picture is None else Thinned(series_names(variants))
    with History.read_only(place) as history:
        found, used = run(
            history,
            variants=variants,
            baseline=known,
            learn=learn,  # type: ignore[arg-type]  # typer knows of no other types, and the parser made this
            marks=marks,
            within_s=within,  # type: ignore[arg-type]
            start=start,
            end=end,
            interval_s=interval,  # type: ignore[arg-type]
            thinned=thinned,
        )
    if picture is not None and thinned is not None and found.snapshots:
        from qigheal.backtest.picture import draw

        draw(found, used, thinned, picture)
    show_backtest.backtest(found, picture if found.snapshots else None, json=json)
    return FINE if found.snapshots else NOTHING_TO_SAY


def _drawable() -> None:
    """Said before a long replay, not after it."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "demo", "the picture of a replay")


def _baseline(place: Path, named: Path | None, learns: bool) -> Baseline | None:
    if named is not None:
        return Baseline.load(named)
    own = place / "baseline.json"
    return Baseline.load(own) if own.exists() and not learns else None


def _changes(
    rates: list[str] | None, lengths: list[float] | None, known: Baseline | None, learns: bool
) -> list[Variant]:
    """Those asked for; by default one in 30 days where there is a baseline that tells of changes and of time."""
    if rates or lengths:
        return [
            *(ByChange(false_alarm_every=rate) for rate in rates or ()),
            *(ByChange(average_run_length=length) for length in lengths or ()),
        ]
    if learns:
        return [ByChange(false_alarm_every="30d")]
    if known is None or known.calibration is None:
        return []
    return [ByChange() if known.calibration.interval_s is None else ByChange(false_alarm_every="30d")]


def _rules(
    phi: list[float] | None,
    drift: list[float] | None,
    errors: list[float] | None,
    latency: list[float] | None,
    learned: bool,
) -> list[ByRules]:
    """The service's rules, and every combination of the limits asked for. A limit of Φ is only the absolute rules'."""
    made = [ByRules(rules="learned" if learned else "absolute")]
    none: list[float | None] = [None]
    tried = itertools.product(phi or none, drift or none, errors or none, latency or none)
    for phi_min, drift_max, error_max, latency_max in itertools.islice(tried, 65):
        variant = ByRules(
            rules="learned" if learned and phi_min is None else "absolute",
            phi_min=phi_min,
            basin_drift_max=drift_max,
            error_rate_max=error_max,
            latency_max_ms=latency_max,
        )
        if variant.changed:
            made.append(variant)
    if len(made) > 64:
        raise InvalidLimit("expected at most 64 settings to try at once, got more")
    return made
