"""What the jobs found, summed up, and the page made of it. Nothing is measured here."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.detection import measure
from benchmarks.detection.plan import ALWAYS, ORACLE, Stream
from benchmarks.report import machine, table

__all__ = ["machine", "page", "summary", "versions"]

ASKED = {0.05: 55, 0.1: 15, 0.2: 5, 0.4: 2}
"""Median delays asked of ours on dirichlet-500 after so many radians, with a measured run length of 10,000."""

OURS = "qigheal"


def versions(python: str) -> dict[str, str]:
    """Of Python and those packages that the figures hang on."""
    found = {"python": sys.version.split()[0]}
    for name in ("numpy", "scipy", "scikit-learn", "river"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    code = "from importlib.metadata import version; print(version('frouros'), version('numpy'))"
    found["frouros"] = "absent"
    if python:
        asked = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            found["frouros"] = "{} (with numpy {})".format(*asked.stdout.split())
    return found


def summary(
    stream: Stream, worlds: Sequence[dict[str, Any]], knobs: dict[str, float], limits: dict[str, float]
) -> dict[str, Any]:
    """One stream's figures: for each detector run length, false alarms, delays. Infinities become None."""
    rows = []
    for name in worlds[0]:
        parts = [world[name] for world in worlds]
        if "absent" in parts[0]:
            rows.append({"detector": name, "absent": parts[0]["absent"]})
            continue
        count, alarms = (sum(part["quiet"][i] for part in parts) for i in (0, 1))
        early = [sum(part["early"][i] for part in parts) for i in (0, 1)]
        delays = {}
        for change in stream.changes:
            seen = [delay for part in parts for delay in part["delays"].get(change.name, ())]
            if seen:
                median, low, high = measure.quantiles(seen)
                delays[change.name] = {
                    "median": finite(median),
                    "p10": finite(low),
                    "p90": finite(high),
                    "changes": len(seen),
                    "unseen": sum(map(math.isinf, seen)),
                }
        length, low, high = measure.run_length(count, alarms) if count else (math.nan, math.nan, math.nan)
        rows.append(
            {
                "detector": name,
                "run_length": finite(length),
                "low": finite(low),
                "high": finite(high),
                "rows": count,
                "alarms": alarms,
                "streams": sum(part["quiet"][0] > 0 for part in parts),
                "dispersion": finite(measure.dispersion([part["quiet"][1] for part in parts])),
                "us_a_row": 1e6 * sum(part["quiet"][2] for part in parts) / max(count, 1),
                "early": early,
                "knob": knobs.get(name),
                "delays": delays,
            }
        )
    rows.sort(key=lambda row: (row["detector"] == ALWAYS, row["detector"] == ORACLE))
    return {
        "stream": stream.name,
        "about": stream.about,
        "learned": list(stream.learned),
        "changes": [
            {"name": change.name, "kind": change.kind, "size": change.size} for change in stream.changes
        ],
        "oracle_limits": limits,
        "rows": rows,
    }


def finite(figure: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return figure if math.isfinite(figure) else None


def page(found: dict[str, Any]) -> str:
    """docs/detection-figures.md."""
    lines = [
        "# Detection: run lengths and delays",
        "",
        "Written by `make detection`; do not edit by hand. `docs/detection.md` says what is guaranteed.",
        "",
        *(["**A quick run: the figures are rough.**", ""] if found["quick"] else []),
        *_machine(found),
        *_limits(found),
        *_reading(found),
    ]
    for stream in found["streams"]:
        lines += _stream(stream, found["size"]["horizon"])
    lines += _who(found)
    return "\n".join(lines)


def _machine(found: dict[str, Any]) -> list[str]:
    where = found["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return [
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, {where['system']}; {packages}. "
        f"The run took {found['seconds'] / 60:.0f} min.",
        "",
    ]


def _limits(found: dict[str, Any]) -> list[str]:
    """What was asked of ours, and whether it is so."""
    rows: list[tuple[str, str, str, str]] = []
    for stream in found["streams"]:
        for row in stream["rows"]:
            if row["detector"] != OURS or "absent" in row:
                continue
            if stream["stream"] in {"dirichlet-500", "ar-0.9"}:
                rows.append(
                    (
                        f"run length, {stream['stream']}",
                        f"≥ {found['run_length']:,.0f}",
                        _length(row),
                        _reached(row, found["run_length"]),
                    )
                )
            if stream["stream"] == "dirichlet-500":
                for change in stream["changes"]:
                    if change["kind"] == "shift":
                        asked, median = ASKED[change["size"]], row["delays"][change["name"]]["median"]
                        good = median is not None and median <= asked
                        rows.append(
                            (
                                f"median delay, {change['name']}",
                                f"≤ {asked}",
                                _delay(row["delays"][change["name"]], found["size"]["horizon"]),
                                "yes" if good else "NO",
                            )
                        )
    if not rows:
        return []
    head = ("asked of qigheal with 2,000 learned rows", "limit", "measured", "reached")
    return ["## Limits", "", *table(head, rows)]


def _reached(row: dict[str, Any], asked: float) -> str:
    """A run length is reached or missed for certain only where its interval lies on one side.

    The interval is widened by the root of the spread, in logarithms: baselines differ, alarms are not Poisson.
    """
    found, low, high = row["run_length"], row["low"], row["high"]
    if found is None:
        return "yes" if low >= asked else "too few rows"
    wider = math.sqrt(max(1.0, row["dispersion"] or 1.0))
    if found * (low / found) ** wider >= asked:
        return "yes"
    if found * (high / found) ** wider < asked:
        return "NO"
    return "yes, within the error" if found >= asked else "no, within the error"


def _reading(found: dict[str, Any]) -> list[str]:
    size = found["size"]
    return [
        "## How to read the tables",
        "",
        f"Run length: healthy rows over false alarms, with the exact 95 % interval of a Poisson process, over "
        f"{size['worlds']} streams of {size['quiet']:,} rows, each with a baseline of its own, so that the error of "
        "learning counts; slow detectors see fewer rows, and the table says how many. A detector is restarted after "
        "each alarm. Spread: variance over mean of the alarms in these streams; well above 1, some of the baselines "
        "alarm much more often than others, and the interval is too narrow by about its root. False: alarms in the "
        "100 to 199 healthy rows before each change, per 10,000 rows; a stream that starts anew so often "
        "shows what a detector does right after its start.",
        "",
        f"Delays: median (10 %–90 %) rows from the change to the first alarm after it, 1 being the first changed row, "
        f"over {size['worlds'] * size['trials']} changes, each in a direction of its own; — is a change not seen "
        f"within {size['horizon']:,} rows, and counts as later than all others. A detector with a short run length "
        "has short delays that mean nothing: `always fires` shows the end of that road. The oracle knows centre, "
        "noise, season and the change itself, all but its time; where the likelihood is unknown it has no row. Its run "
        "length is over all sudden changes together: of large ones it has no false alarm at any limit.",
        "",
        "All detectors see the same rows. Those with a knob (tuned, and the oracle) are set to a run length of "
        f"{found['run_length']:,.0f} on healthy streams of other seeds, for each kind of stream anew: more than a user "
        "could do, who has only one stream. qigheal is told that number and nothing else.",
        "",
    ]


def _stream(stream: dict[str, Any], horizon: int) -> list[str]:
    learned = " (few: {1:,})".join(("", "")).format(*stream["learned"])
    lines = [
        f"## {stream['stream']}",
        "",
        f"{stream['about'][0].upper()}{stream['about'][1:]}. Learned rows: {stream['learned'][0]:,}{learned}.",
        "",
    ]
    lengths = []
    for row in stream["rows"]:
        if "absent" in row:
            lengths.append((row["detector"], row["absent"], "", "", "", "", ""))
            continue
        early = 1e4 * row["early"][1] / row["early"][0] if row["early"][0] else 0.0
        spread = row["dispersion"]
        lengths.append(
            (
                row["detector"],
                _length(row),
                f"{row['alarms']:,}",
                f"{row['rows']:,}",
                "" if spread is None or row["detector"] == ORACLE else f"{spread:.1f}",
                f"{early:.1f}",
                "" if row["detector"] in {ORACLE, ALWAYS} else f"{row['us_a_row']:.2g}",
            )
        )
    lines += table(("detector", "run length", "alarms", "rows", "spread", "false", "µs a row"), lengths)
    names = [change["name"] for change in stream["changes"]]
    for part in (names[at : at + 5] for at in range(0, len(names), 5)):
        delays = [
            (row["detector"], *(_delay(row["delays"].get(name), horizon) for name in part))
            for row in stream["rows"]
            if any(name in row.get("delays", ()) for name in part)
        ]
        lines += table(("delay", *part), delays)
    return lines


def _length(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return ""
    if row["run_length"] is None:
        return f"no alarm (≥ {row['low']:,.0f})"
    return f"{row['run_length']:,.0f} ({row['low']:,.0f}–{row['high']:,.0f})"


def _delay(found: dict[str, Any] | None, horizon: int) -> str:
    if found is None:
        return ""
    low, middle, high = ("—" if found[q] is None else f"{found[q]:,.0f}" for q in ("p10", "median", "p90"))
    return "—" if {low, middle, high} == {"—"} else f"{middle} ({low}–{high})"


def _who(found: dict[str, Any]) -> list[str]:
    head = ("detector", "as used", *(stream["stream"] for stream in found["streams"]))
    rows = []
    for name, note in found["notes"].items():
        knobs = []
        for stream in found["streams"]:
            row = next((row for row in stream["rows"] if row["detector"] == name), {})
            knobs.append("" if row.get("knob") is None else f"{row['knob']:.3g}")
        rows.append((name, note, *knobs))
    return ["## The detectors, and their knobs as tuned", "", *table(head, rows)]
