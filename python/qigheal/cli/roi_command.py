"""The command about cost and return, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qigheal.cli import FINE
from qigheal.cli.options import Json, asked, existing
from qigheal.cli.show import _table, _when, console, document, escape, line
from qigheal.settings import default_store

if TYPE_CHECKING:
    from qigheal.roi import Recorded, Result, Roi


Figure = float | None


def roi(
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", help="Folder of the history; default $QIGHEAL_STORE or .qigheal, if it is there."
        ),
    ] = None,
    hourly_rate: Annotated[Figure, typer.Option(help="What an hour of your people costs.")] = None,
    development_hours: Annotated[Figure, typer.Option(help="Hours up front: fitting the service.")] = None,
    deployment_hours: Annotated[
        Figure, typer.Option(help="Hours up front: bringing it into operation.")
    ] = None,
    watching_hours: Annotated[Figure, typer.Option(help="Hours a month that looking after it takes.")] = None,
    detection_hours: Annotated[Figure, typer.Option(help="Hours a week of finding faults, saved.")] = None,
    debugging_hours: Annotated[Figure, typer.Option(help="Hours a week of mending them, saved.")] = None,
    incidents: Annotated[Figure, typer.Option(help="Incidents a month, avoided.")] = None,
    incident_cost: Annotated[Figure, typer.Option(help="What one incident costs.")] = None,
    uptime_gain: Annotated[
        Figure, typer.Option(help="Share of the time up more than before, 0 to 1.")
    ] = None,
    revenue: Annotated[Figure, typer.Option(help="Money a month that depends on being up.")] = None,
    weeks: Annotated[Figure, typer.Option(help="Weeks counted as a month.")] = None,
    hours_per_detection: Annotated[
        Figure,
        typer.Option(help="Hours in which people would find one degradation: counts the recorded ones."),
    ] = None,
    hours_per_debugging: Annotated[
        Figure, typer.Option(help="Hours in which people would mend one: counts confirmed changes.")
    ] = None,
    hours_per_incident: Annotated[
        Figure, typer.Option(help="Hours that a change which was taken back cost: counts those.")
    ] = None,
    uptime_before: Annotated[
        Figure, typer.Option(help="Share of the time up before, 0 to 1: counts the recorded uptime.")
    ] = None,
    json: Json = False,
) -> int:
    """What self-healing costs and saves: by your assumptions, and by what was recorded at your rates.

    Rates that are not given are those of a published example, and are marked as such.

    Example: qigheal roi --hourly-rate 110 --hours-per-debugging 3 --store /var/lib/digits/.qigheal
    """
    from qigheal.roi import RoiError, calculate, read

    rates = {
        "hourly_rate": hourly_rate,
        "development_hours": development_hours,
        "deployment_hours": deployment_hours,
        "watching_hours_month": watching_hours,
        "detection_hours_week": detection_hours,
        "debugging_hours_week": debugging_hours,
        "incidents_month": incidents,
        "incident_cost": incident_cost,
        "uptime_gain": uptime_gain,
        "revenue_month": revenue,
        "weeks_month": weeks,
        "hours_per_detection": hours_per_detection,
        "hours_per_debugging": hours_per_debugging,
        "hours_per_incident": hours_per_incident,
        "uptime_before": uptime_before,
    }
    given = {name: value for name, value in rates.items() if value is not None}
    with asked(RoiError):
        calculate(given, None)  # a mistyped rate is said before a missing store
    place = None if store is None and not default_store().is_dir() else existing(store)
    found = calculate(given, None if place is None else read(place))
    if json:
        document(found)
    else:
        _show(found)
    return FINE


def _show(found: Roi) -> None:
    line("assumed")
    table = _table("figure", "value", "unit", "whose", "meaning")
    for each in found.assumptions:
        whose = "yours" if each.given else "default"
        table.add_row(each.name, f"{each.value:,.10g}", each.unit, whose, escape(each.meaning))
    console.print(table)
    if not all(each.given for each in found.assumptions):
        line("A default is a figure of a published example and says nothing of your service.")
    line("")
    _recorded(found.recorded)
    line("")
    _result("by assumption alone", found.by_assumption)
    if found.by_record is not None:
        line("")
        _result("by what was recorded, at your rates", found.by_record)
    for note in found.notes:
        line(f"  note  {note}")


def _recorded(found: Recorded | None) -> None:
    if found is None or not found.snapshots:
        line("recorded: nothing" + ("" if found is None else f" in {found.history}"))
        return
    line(
        f"recorded from {_when(found.first)} to {_when(found.until)}, {found.days:.1f} days, of which "
        f"{found.watched_days:.1f} were watched"
    )
    table = _table("figure", "count", "source")
    limits = f"history {escape(found.history)}, {found.limits} limits"
    table.add_row("snapshots", f"{found.snapshots:,}", f"history {escape(found.history)}")
    table.add_row("degradations, critical", str(found.degradations), limits)
    table.add_row("degradations, warnings only", str(found.warnings), limits)
    table.add_row("hours degraded", f"{found.degraded_hours:.2f}", limits)
    table.add_row("the longest, hours", f"{found.longest_hours:.2f}", limits)
    share = "not known" if found.uptime_share is None else f"{found.uptime_share:.4%}"
    table.add_row("uptime", share, f"history {escape(found.history)}")
    ledger = "there is none" if found.ledger is None else f"ledger {escape(found.ledger)}"
    table.add_row("changes confirmed", "-" if found.ledger is None else str(found.confirmed), ledger)
    table.add_row("changes taken back", "-" if found.ledger is None else str(found.taken_back), ledger)
    if found.before:
        table.add_row("changes before that, not counted", str(found.before), ledger)
    console.print(table)


def _result(title: str, found: Result) -> None:
    line(title)
    table = _table("", "money", "")
    table.add_row("up front", f"{found.up_front:,.2f}", "once")
    for each in found.lines:
        table.add_row(each.what, f"{each.amount:,.2f}", f"a month: {escape(each.how)}")
    table.add_row("saved", f"{found.saved_month:,.2f}", "a month")
    table.add_row("watching", f"{-found.watching_month:,.2f}", "a month")
    table.add_row("net", f"{found.net_month:,.2f}", "a month")
    console.print(table)
    months = "never" if found.payback_months is None else f"after {found.payback_months:.2f} months"
    year = (
        ""
        if found.first_year_percent is None
        else f"; return in the first year {found.first_year_percent:,.0f} %"
    )
    line(f"  pays back {months}{year}" if months != "never" else f"  never pays back{year}")
