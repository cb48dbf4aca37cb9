"""What self-healing costs and saves: by the user's own rates, and by what was recorded.

The two are kept apart. `by_assumption` is a plan: every figure in it is the user's word, or a default that is
named as such. `by_record` counts what stands in the store, at the user's rates for one event; what nobody
recorded is left out, and said to be. Nothing is extrapolated from less than `MINIMUM_DAYS`.

Money is computed in decimal and rounded half up to hundredths at the end; months to hundredths, per cent to tenths.
Nothing is written, and nothing is measured here that `health` or the ledger does not say.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np

from qigcore.history import History
from qigcore.rows import HEAD
from qigcore.rules import LOOK_BACK, RuleSet, severities
from qigheal.errors import LedgerError, QighealError
from qigheal.health import remeasure, rules_for
from qigheal.records import Record
from qigheal.standing import Standing

MINIMUM_DAYS: Final = 28.0
"""A shorter period says nothing about a month."""

DAYS_A_MONTH: Final = Decimal("365.25") / 12
MOST: Final = 1e9
GAP: Final = 10.0
"""Usual intervals that one snapshot stands for at most: time in which none came was not watched."""

TAKEN_BACK: Final = frozenset({"reverting", "reverted", "rolled_back"})


class RoiError(QighealError, ValueError):
    """A rate that makes no sense; one line: which, what was expected, what came."""


class Meaning(NamedTuple):
    """What a rate is, in words."""

    unit: str
    text: str


MEANINGS: Final[Mapping[str, Meaning]] = {
    "hourly_rate": Meaning("money an hour", "what an hour of the people concerned costs"),
    "development_hours": Meaning("h", "to fit the service with monitoring, a probe and a manifest"),
    "deployment_hours": Meaning("h", "to bring it into operation"),
    "watching_hours_month": Meaning("h a month", "to look after it: reviews, false alarms"),
    "detection_hours_week": Meaning("h a week", "that finding degradations would take people, saved"),
    "debugging_hours_week": Meaning("h a week", "that mending them would take people, saved"),
    "incidents_month": Meaning("a month", "incidents avoided"),
    "incident_cost": Meaning("money", "what one incident costs"),
    "uptime_gain": Meaning("share", "of the time that the service is up more than before, 0 to 1"),
    "revenue_month": Meaning("money a month", "what depends on the service being up"),
    "weeks_month": Meaning("weeks", "that are counted as a month"),
    "hours_per_detection": Meaning("h", "that people would take to find one degradation"),
    "hours_per_debugging": Meaning("h", "that people would take to mend what one confirmed change mended"),
    "hours_per_incident": Meaning("h", "that one change which was taken back costs people"),
    "uptime_before": Meaning("share", "of the time that the service was up before, 0 to 1"),
}
SHARES: Final = ("uptime_gain", "uptime_before")


class Rates(Record, frozen=True):
    """The user's figures; units and meanings stand in `MEANINGS`.

    The defaults are those of the published example and of no service. The last four are what one recorded event
    is worth, and have no default: None leaves it out.

    Raises RoiError for what is no finite number from 0 to 1e9, or above 1 for a share.
    """

    hourly_rate: float = 150.0
    development_hours: float = 40.0
    deployment_hours: float = 20.0
    watching_hours_month: float = 4.0
    detection_hours_week: float = 2.0
    debugging_hours_week: float = 4.0
    incidents_month: float = 1.0
    incident_cost: float = 5000.0
    uptime_gain: float = 0.005
    revenue_month: float = 100_000.0
    weeks_month: float = 4.0
    hours_per_detection: float | None = None
    hours_per_debugging: float | None = None
    hours_per_incident: float | None = None
    uptime_before: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None and name in EVENTS:
                continue
            most = 1.0 if name in SHARES else MOST
            usable = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not usable or not 0.0 <= value <= most:
                raise RoiError(f"{name}: expected a number from 0 to {most:g}, got {value!r}")
            if not isinstance(value, int | float):
                msgspec.structs.force_setattr(self, name, float(value))

    def decimal(self, name: str) -> Decimal:
        """A rate that has a value, exactly as it was written."""
        return Decimal(str(getattr(self, name)))


EVENTS: Final = ("hours_per_detection", "hours_per_debugging", "hours_per_incident", "uptime_before")


class Assumption(Record, frozen=True):
    """One figure that nobody recorded. given: by the user; else it is a default of the published example."""

    name: str
    value: float
    unit: str
    meaning: str
    given: bool


class Recorded(Record, frozen=True):
    """What a store says, and of which period.

    degradations: runs of snapshots that were not healthy and of which one was critical; warnings: the others.
    Both by the limits in force now, replayed over the history. confirmed, taken_back: changes that came to
    that in the period, by the ledger.
    """

    history: str  # the source: a folder
    first: float | None  # Unix seconds of the first snapshot
    until: float | None  # of the last one, or of what the ledger says after it
    days: float  # from the one to the other
    watched_days: float  # of these, without the time in which no snapshot came
    snapshots: int
    limits: Literal["absolute", "learned"]
    degradations: int
    warnings: int
    degraded_hours: float  # of both
    longest_hours: float
    uptime_share: float | None  # 0 to 1; None: too few snapshots
    ledger: str | None = None  # the source: a file; None: there is none
    confirmed: int = 0
    taken_back: int = 0
    before: int = 0  # changes that came to their end before the first snapshot, and are not counted


class Line(Record, frozen=True):
    """One term of the saving, money a month; below 0 it is a loss. how: the sum in words."""

    what: str
    amount: float
    how: str


class Result(Record, frozen=True):
    """What comes of it. payback_months: None, never. first_year_percent: None where nothing is paid up front."""

    basis: Literal["assumed", "recorded"]
    up_front: float
    saved_month: float
    watching_month: float
    net_month: float  # saved, less watching
    payback_months: float | None
    first_year_percent: float | None
    lines: tuple[Line, ...]


class Roi(Record, frozen=True):
    """The whole answer. by_record: None where too little is recorded or no rate for one event is given."""

    assumptions: tuple[Assumption, ...]
    recorded: Recorded | None
    by_assumption: Result
    by_record: Result | None
    minimum_days: float = MINIMUM_DAYS
    notes: tuple[str, ...] = ()


def calculate(given: Mapping[str, Any], recorded: Recorded | None) -> Roi:
    """The answer for the user's figures, by the names of `Rates`, and for what `read` found.

    Raises RoiError for a name that is none, or a value that makes no sense.
    """
    if unknown := sorted(set(given) - set(MEANINGS)):
        raise RoiError(f"rates: expected some of {', '.join(MEANINGS)}, got {', '.join(unknown)}")
    rates = Rates(**given)
    assumptions = tuple(
        Assumption(name=name, value=value, unit=meaning.unit, meaning=meaning.text, given=name in given)
        for name, meaning in MEANINGS.items()
        if (value := getattr(rates, name)) is not None
    )
    by_record, notes = _by_record(rates, recorded)
    return Roi(
        assumptions=assumptions,
        recorded=recorded,
        by_assumption=_result("assumed", rates, _planned(rates)),
        by_record=by_record,
        notes=notes,
    )


Terms = list[tuple[str, Decimal, str]]


def _planned(rates: Rates) -> Terms:
    hour, weeks = rates.decimal("hourly_rate"), rates.decimal("weeks_month")
    terms: Terms = [
        (
            what,
            rates.decimal(name) * weeks * hour,
            f"{_said(rates.decimal(name))} h a week x {_said(weeks)} x {_said(hour)}",
        )
        for what, name in (("detection", "detection_hours_week"), ("debugging", "debugging_hours_week"))
    ]
    number, cost = rates.decimal("incidents_month"), rates.decimal("incident_cost")
    gain, revenue = rates.decimal("uptime_gain"), rates.decimal("revenue_month")
    terms.append(("incidents", number * cost, f"{_said(number)} a month x {_said(cost)}"))
    terms.append(("uptime", gain * revenue, f"{_said(gain * 100)} % of {_said(revenue)}"))
    return terms


def _by_record(rates: Rates, recorded: Recorded | None) -> tuple[Result | None, tuple[str, ...]]:
    """The recorded events at the user's rates; else None, and why."""
    if recorded is None or not recorded.snapshots:
        return None, ("nothing is recorded, so nothing is said of what self-healing has saved",)
    if recorded.watched_days < MINIMUM_DAYS:
        return None, (
            f"{recorded.watched_days:.1f} days were watched; less than {MINIMUM_DAYS:g} are not extrapolated "
            "to a month",
        )
    wanted = [name for name in EVENTS if getattr(rates, name) is None]
    if len(wanted) == len(EVENTS):
        return None, (f"what is recorded has no price yet: give one of {', '.join(wanted)}",)
    months = Decimal(str(recorded.days)) / DAYS_A_MONTH
    hour = rates.decimal("hourly_rate")
    terms: Terms = []
    for what, name, number, sign in (
        ("detection", "hours_per_detection", recorded.degradations, 1),
        ("debugging", "hours_per_debugging", recorded.confirmed, 1),
        ("changes taken back", "hours_per_incident", recorded.taken_back, -1),
    ):
        if getattr(rates, name) is not None:
            each = rates.decimal(name)
            how = f"{number} in {recorded.days:.1f} days x {_said(each)} h x {_said(hour)}"
            terms.append((what, sign * number * each * hour / months, how))
    notes = [f"{name} is not given: what it would count is left out" for name in wanted]
    if rates.uptime_before is not None and recorded.uptime_share is None:
        notes.append("uptime is not known: no process recorded three snapshots")
    elif rates.uptime_before is not None:
        gain = Decimal(str(recorded.uptime_share)) - rates.decimal("uptime_before")
        revenue = rates.decimal("revenue_month")
        terms.append(("uptime", gain * revenue, f"{float(gain * 100):+.4g} % of {_said(revenue)}"))
    notes.append("incidents that did not happen are not recorded, and not counted")
    return _result("recorded", rates, terms), tuple(notes)


def _result(basis: Literal["assumed", "recorded"], rates: Rates, terms: Terms) -> Result:
    hour = rates.decimal("hourly_rate")
    up_front = (rates.decimal("development_hours") + rates.decimal("deployment_hours")) * hour
    saved = sum((amount for _, amount, _ in terms), Decimal(0))
    watching = rates.decimal("watching_hours_month") * hour
    net = saved - watching
    return Result(
        basis=basis,
        up_front=_rounded(up_front),
        saved_month=_rounded(saved),
        watching_month=_rounded(watching),
        net_month=_rounded(net),
        # A gain that is none when rounded never pays back.
        payback_months=_rounded(up_front / net) if _rounded(net) > 0 else None,
        first_year_percent=_rounded((net * 12 - up_front) / up_front * 100, "0.1") if up_front else None,
        lines=tuple(Line(what=what, amount=_rounded(amount), how=how) for what, amount, how in terms),
    )


def _rounded(value: Decimal, to: str = "0.01") -> float:
    """Half up. A value beyond what can be said to hundredths is given as it is."""
    if abs(value) >= Decimal("1e20"):
        return float(value)
    return float(value.quantize(Decimal(to), ROUND_HALF_UP))


def _said(value: Decimal) -> str:
    """Without needless zeros."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def read(store: Path) -> Recorded:
    """What the store recorded. Nothing is written; memory grows by 9 bytes a snapshot.

    Raises HistoryError without a store, BaselineError, LedgerError for a ledger whose chain is broken.
    """
    from qigheal.healing.stored import store_evidence  # what it needs is not for who only plans

    standing = Standing(store)
    rules = rules_for(standing.settings, standing.baseline)
    times, levels = _replayed(standing, rules)
    found: dict[str, Any] = _degradations(times, levels)
    first = float(times[0]) if len(times) else None
    until = float(times[-1]) if len(times) else None
    path = store / "ledger.db"
    if path.exists():
        found |= {"ledger": str(path)}
        ends = _ends(path)
        inside = [(state, at) for state, at in ends if first is not None and at >= first]
        found["confirmed"] = sum(state == "confirmed" for state, _ in inside)
        found["taken_back"] = sum(state in TAKEN_BACK for state, _ in inside)
        found["before"] = len(ends) - len(inside)
        until = max((at for _, at in inside if until is None or at > until), default=until)
    return Recorded(
        history=str(store),
        first=first,
        until=until,
        days=0.0 if first is None or until is None else (until - first) / 86_400.0,
        snapshots=len(times),
        limits=rules.state,
        uptime_share=store_evidence(store, now=None).uptime_share,
        **found,
    )


def _ends(path: Path) -> list[tuple[str, float]]:
    """(state, Unix seconds) of the changes that were confirmed or taken back, as they stand now."""
    from qigheal.healing.ledger import Ledger
    from qigheal.records import Change

    ledger = Ledger(path, read_only=True)
    if broken := ledger.verify():
        raise LedgerError(
            f"{path}: the ledger's chain is broken: {broken[0]}; what it says is not counted. See to who wrote "
            "to it, then move it away"
        )
    latest = {entry.subject: entry for entry in ledger.entries("change")}
    states = [(entry.read(Change).state, entry.at) for entry in latest.values()]
    return [(state, at) for state, at in states if state == "confirmed" or state in TAKEN_BACK]


def _replayed(standing: Standing, rules: RuleSet) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Time and severity (0 to 2) of every snapshot in order. Each depends on the last 14 alone."""
    times, levels = [np.empty(0)], [np.empty(0, np.uint8)]
    ahead = np.empty(0, HEAD)
    baseline = standing.baseline
    with History.read_only(standing.store) as history:
        for batch in history.scan():
            measured = batch if baseline is None else remeasure(batch, baseline)
            heads = np.concatenate([ahead, measured.heads()])
            levels.append(severities(heads, rules)[len(ahead) :])
            times.append(batch.timestamp)
            ahead = heads[-(LOOK_BACK - 1) :]
    return np.concatenate(times), np.concatenate(levels)


def _degradations(times: np.ndarray[Any, Any], levels: np.ndarray[Any, Any]) -> dict[str, Any]:
    """How many runs of unhealthy snapshots, how long they were, and how long all snapshots were.

    Each snapshot stands for the time until the next one, and for ten usual intervals at most.
    """
    steps = np.clip(np.diff(times), 0.0, None)
    usual = float(np.median(steps)) if len(steps) else 0.0
    stands = np.append(np.minimum(steps, GAP * usual), usual)[: len(times)]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (levels > 0).astype(np.int8), [0]])))
    runs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    critical = sum(int(levels[start:end].max()) > 1 for start, end in runs)
    hours = [float(stands[start:end].sum()) / 3600.0 for start, end in runs]
    return {
        "watched_days": float(stands.sum()) / 86_400.0,
        "degradations": critical,
        "warnings": len(runs) - critical,
        "degraded_hours": math.fsum(hours),
        "longest_hours": max(hours, default=0.0),
    }
