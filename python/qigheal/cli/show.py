"""What the commands print: tables for a person, one JSON document for a program.

Text from a service (module names, reasons) is shown as text: never as markup.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich import markup
from rich.console import Console
from rich.table import Table

from qigcore.history import Compacted, Damage, Expired, SegmentInfo
from qigcore.rows import METRICS, REGIMES, REPAIRABLE, Batch

if TYPE_CHECKING:
    from qigcore.trends import TimeTo, Trend
    from qigheal.importing import Imported
    from qigheal.records import Change, HealResult, HealthReport

METRIC_NAMES = tuple(METRICS)
CALLED = {"phi": "Φ", "kappa": "κ", "basin_drift": "drift", "errors": "error rate"}
COLOUR = {"normal": "green", "warning": "yellow", "critical": "red"}

WIDE = 160
"""Columns where the output is no terminal: a file or a pipe has no edge at which to cut a word off."""

console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)


def document(content: Any) -> None:
    """One JSON document on standard output."""
    try:
        encoded = msgspec.json.encode(content)
    except UnicodeEncodeError:  # the name of a file need not be text
        encoded = msgspec.json.encode(_encodable(msgspec.to_builtins(content)))
    print(msgspec.json.format(encoded, indent=2).decode())


def _encodable(content: Any) -> Any:
    """The same plain data with U+FFFD for what UTF-8 cannot hold."""
    if isinstance(content, str):
        return content.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(content, dict):
        return {_encodable(key): _encodable(value) for key, value in content.items()}
    return [_encodable(value) for value in content] if isinstance(content, list | tuple) else content


def line(text: str) -> None:
    """One line for a person."""
    console.print(plain(text), markup=False, soft_wrap=not sys.stdout.isatty())


def plain(text: str) -> str:
    """Text of others without what a terminal would obey: escape sequences, carriage returns, and such."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def escape(text: str) -> str:
    """Text of others for a cell of a table, which is one line."""
    return markup.escape(plain(text).replace("\n", " "))


def silent_line(text: str) -> None:
    """Nothing: standard output belongs to the JSON document."""


def step(stage: str, sentence: str) -> None:
    """One step of the engine, as it is taken."""
    line(f"  {stage:10} {sentence}")


def silent(stage: str, sentence: str) -> None:
    """Nothing: standard output belongs to the JSON document."""


def _when(at: float | None) -> str:
    """Local time; where a service's clock was beyond the calendar, the seconds that it gave."""
    try:
        return "" if not at else datetime.fromtimestamp(at, UTC).astimezone().isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):
        return f"{at:.6g} s"


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column)
    return table


def status(report: HealthReport, *, json: bool) -> None:
    if json:
        document(report)
        return
    if not report.snapshots:
        unread = report.notes[1:]  # the first says that it is learning
        line("no snapshots can be read here" if unread else "no snapshots are stored here")
        for note in unread:
            line(f"  note     {note}; see: qigheal doctor")
        return
    word = "learning" if report.state == "learning" else "healthy" if report.healthy else report.severity
    newest = f", the newest of {_when(report.last_at)}" if report.last_at else ""
    console.print(f"[{COLOUR[report.severity]}]{word}[/]", f"after {report.snapshots} snapshots{newest}")
    for finding in report.findings:
        since = f" (since {_when(finding.since)})" if finding.since else ""
        line(f"  {finding.severity:8} {finding.message}{since}")
        if finding.components:
            moved = ", ".join(f"{share.index} ({share.share:.0%})" for share in finding.components)
            line(f"           components that moved: {moved}")
    for note in report.notes:
        line(f"  note     {note}")
    table = _table("metric", "value")
    for metric, value in report.metrics.items():
        table.add_row(escape(metric), f"{value:.4g}")
    console.print(table)


def trends(found: Mapping[str, Trend], *, json: bool) -> None:
    if json:
        document(found)
        return
    table = _table("metric", "direction", "slope a snapshot", "± error", "mean")
    for metric, trend in found.items():
        table.add_row(
            metric, trend.direction, f"{trend.slope:+.3g}", f"{trend.stderr:.2g}", f"{trend.recent_avg:.4g}"
        )
    console.print(table)
    for metric, trend in found.items():
        if trend.reaches is not None:
            line(_reaching(CALLED.get(metric, metric), trend.reaches))


def _reaching(name: str, reaches: TimeTo) -> str:
    if reaches.course == "away":  # what degrades does so outwards: the line was beyond from the first on
        return f"{name} is beyond {reaches.limit:.6g} already"
    return reaches.sentence(name)


def history(batch: Batch, segments: Sequence[SegmentInfo], damage: Damage, *, json: bool) -> None:
    if json:
        document({"segments": segments, "damage": damage, "snapshots": [*_snapshots(batch)]})
        return
    table = _table("time", "Φ", "κ", "drift", "regime", "errors", "ms", "MB", "code", "repaired")
    for row in _snapshots(batch):
        table.add_row(
            _when(row["timestamp"]),
            f"{row['phi']:.3f}",
            f"{row['kappa_eff']:.2f}",
            f"{row['basin_drift']:.3f}",
            row["regime"],
            f"{row['error_rate']:.3f}",
            f"{row['avg_latency_ms']:.2f}",
            f"{row['memory_mb']:.0f}",
            escape(row["code_hash"][:10]),
            ", ".join(row["repaired"]),
        )
    console.print(table)
    for segment in segments:
        state = "live" if segment.alive else "ended"
        line(f"{segment.rows} snapshots by process {segment.pid} on {segment.host} ({state})")
    _damage(damage)


def _damage(damage: Damage) -> None:
    lost = {name: count for name, count in msgspec.to_builtins(damage).items() if count}
    if lost:
        line("damage: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in lost.items()))


def _snapshots(batch: Batch) -> list[dict[str, Any]]:
    scalars = [
        name for name in batch.columns if name not in ("basin_coords", "repaired", "regime", "code", "module")
    ]
    codes, modules = batch.code_hash, batch.module_name
    return [
        {
            **{name: float(batch.columns[name][i]) for name in scalars},
            "basin_coords": batch.basin_coords[i].tolist(),
            "regime": REGIMES[int(batch.regime[i])],
            "repaired": [name for bit, name in enumerate(REPAIRABLE) if int(batch.repaired[i]) >> bit & 1],
            "code_hash": codes[i],
            "module_name": modules[i],
        }
        for i in range(len(batch))
    ]


def exported(file: Path, rows: int, damage: Damage, *, json: bool) -> None:
    if json:
        document({"file": str(file), "snapshots": rows, "damage": damage})
        return
    line(f"{rows} snapshots in {file}")
    _damage(damage)


def compacted(expired: Expired, done: Compacted, *, json: bool) -> None:
    if json:
        document({"expired": expired, "compacted": done})
        return
    if expired.segments:
        line(f"{expired.rows} snapshots removed, in {_files(expired.segments, expired.bytes)}")
    if done.segments:
        line(
            f"{_files(done.segments, done.bytes_before)} became {_files(done.made, done.bytes_after)}, "
            f"with {done.rows} snapshots"
        )
    else:
        line("no files were small and dead enough to become one")
    for reason in done.left:
        line(f"  left     {reason}")


def nothing_to_compact(store: Path, *, json: bool) -> None:
    if json:
        document({"expired": Expired(), "compacted": Compacted()})
        return
    line(f"no snapshots in {store}")


def _files(number: int, size: int) -> str:
    held = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
    return f"{number} file{'' if number == 1 else 's'} of {held}"


def imported(file: Path, done: Imported, *, json: bool) -> None:
    if json:
        document(done)
        return
    if not done.snapshots:
        line(f"{file} has no snapshots")
        return
    line(
        f"{done.stored} snapshots stored of {done.snapshots}, from {_when(done.first)} to {_when(done.last)}"
    )
    if done.known:
        line(f"  {done.known} were there already")
    if done.repaired:
        line(f"  {done.repaired} have a value that was unusable, and is flagged")
    for note in done.notes:
        line(f"  note     {note}")


MOST_REASONS = 8
"""Lines of why nothing came of a pass; the others with --verbose."""


def healed(result: HealResult, again: str, *, json: bool, verbose: bool = False) -> None:
    """`again`: the options that another command needs for the same host and store.

    Why nothing came of it is told where no patch helped; with `verbose` always, and all of it.
    """
    if json:
        document(result)
        return
    for patch in result.patches:
        line(patch.diff.rstrip())
    for outcome in result.outcomes:
        line(outcome.reason)
    why = _why(result, verbose)
    if why and _helped(result):
        line(result.message)
        line("why other strategies and patches came to nothing:")
    else:
        line(result.message + (":" if why else ""))
    for told in why:
        line(told)
    for made in result.changes:
        if made.state == "open":
            line(f"review it with: qigheal review {made.id} --approve {again}")
        elif made.state == "watching":
            line("the live service is being watched; the next `qigheal heal` says what became of it")


def _helped(result: HealResult) -> bool:
    """Whether something came of the pass, so that the reasons are of what else was tried."""
    return bool(result.changes) or any(verdict.accepted for verdict in result.verdicts)


def _why(result: HealResult, verbose: bool) -> list[str]:
    """A line for each reason: of every strategy the first ones, as many of each as there is room for."""
    if _helped(result) and not verbose:
        return []
    told = [reason for reason in result.reasons if reason.text not in result.message]
    turn: Counter[str] = Counter()
    ranks = []
    for reason in told:
        ranks.append(turn[reason.strategy])
        turn[reason.strategy] += 1
    first = sorted(range(len(told)), key=lambda i: (ranks[i], i))
    kept = sorted(first if verbose else first[:MOST_REASONS])
    lines = [f"  {told[i].strategy:10} {told[i].text}" for i in kept]
    if left := len(told) - len(kept):
        lines.append(f"  and {left} more, with --verbose")
    return lines


def change(made: Change, *, json: bool) -> None:
    if json:
        document(made)
        return
    line(f"change {made.id} is {made.state}" + (f": {made.reason}" if made.reason else ""))
