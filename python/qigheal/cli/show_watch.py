"""What `qigheal watch` prints: a frame that fits its terminal, or a line a snapshot where there is none.

Text of a service or a ledger is shown as text. In a terminal without blocks or Greek, ASCII stands for them;
without colour, words say the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from qigcore.durations import worded
from qigcore.rows import METRICS, Batch
from qigheal.cli import sparks
from qigheal.cli.show import COLOUR, _snapshots, _when, plain
from qigheal.cli.watching import Scene
from qigheal.records import HealthReport

UNITS: Final = {
    "phi": ("Φ", "Phi", "", "{:.3f}"),
    "kappa": ("κ", "kappa", "", "{:.2f}"),
    "basin_drift": ("drift", "drift", " rad", "{:.3f}"),
    "latency": ("latency", "latency", " ms", "{:.4g}"),
    "errors": ("errors", "errors", "", "{:.4f}"),
    "memory": ("memory", "memory", " MB", "{:.5g}"),
}
"""By metric: its name, the same in ASCII, its unit, its form."""

WAYS: Final = {"improving": "better", "degrading": "worse", "stable": "steady", "unknown": ""}
LEAST_WIDTH: Final = 20
FINDINGS: Final = 4


class Frame:
    """One scene as something that rich draws, in as many rows and columns as there are.

    height: rows to fill at most; None takes as many as are wanted.
    """

    def __init__(self, scene: Scene, *, blocks: bool, keys: str = "", height: int | None = None) -> None:
        self.scene = scene
        self.blocks = blocks
        self.keys = keys
        self.height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(LEAST_WIDTH, options.max_width)
        rows = self.height if self.height is not None else 10_000
        head = [self._title(width), self._state(), *self._findings()]
        foot = [*self._moved(width), *self._healing()]
        room = rows - len(head) - len(foot) - 2
        tall = 3 if room >= 3 * len(METRICS) and self.height is not None else 1
        body = [line for metric in METRICS for line in self._metric(metric, width, tall)]
        lines = [*head, Text(), *body, Text(), *foot]
        if len(lines) > rows:  # the state and the figures are what a small window is for
            lines = [*head, *body, *foot]
        for line in lines[:rows]:
            line.truncate(width, overflow="ellipsis" if self.blocks else "crop")
            line.no_wrap = True
            yield line

    def _title(self, width: int) -> Text:
        right = f"{_clock(self.scene.at)}  {self.keys}".rstrip()
        place, room = one_line(self.scene.store), max(1, width - len(right) - 11)
        if len(place) > room:  # its end tells stores apart
            mark = "…" if self.blocks else "..."
            place = mark + place[len(place) - max(0, room - len(mark)) :]
        left = f"qigheal  {place}"
        return Text(f"{left}{' ' * max(2, width - len(left) - len(right))}{right}", style="dim")

    def _state(self) -> Text:
        report, text = self.scene.report, Text()
        if not report.snapshots:
            return Text("no snapshots are stored here yet")
        text.append(word(report), style=f"bold {COLOUR[report.severity]}")
        text.append(f" after {report.snapshots} snapshots")
        if self.scene.last_at is not None:
            age = self.scene.at - self.scene.last_at
            text.append(f", the newest {worded(age)} ago" if age >= 1 else ", the newest just now")
        count = self.scene.writers
        text.append(f", {count} writer{'' if count == 1 else 's'}" if count else ", no living writer")
        return text

    def _findings(self) -> Iterator[Text]:
        findings = self.scene.report.findings
        for finding in findings[:FINDINGS]:
            text = Text("  ")
            text.append(f"{finding.severity:8}", style=COLOUR[finding.severity])
            since = f" (since {_clock(finding.since)})" if finding.since else ""
            text.append(f" {self._said(finding.message)}{since}")
            yield text
        if len(findings) > FINDINGS:
            yield Text(f"  and {len(findings) - FINDINGS} more: qigheal status")

    def _metric(self, metric: str, width: int, tall: int) -> Iterator[Text]:
        scene = self.scene
        greek, latin, unit, form = UNITS[metric]
        name = greek if self.blocks else latin
        values, (low, high) = scene.series[metric], scene.edges[metric]
        newest = next((value for value in reversed(values) if math.isfinite(value)), None)
        beyond = newest is not None and (
            (low is not None and newest < low) or (high is not None and newest > high)
        )
        shown = "" if newest is None else form.format(newest) + unit
        left = f"{name:8}{shown:>13}{'!' if beyond else ' '} "
        band = scene.bands.get(metric) if metric != "memory" else None
        healthy = self._healthy(metric, low, high, form)
        way = WAYS[scene.trends[metric].direction] if metric in scene.trends else ""
        right = f"  {healthy:21}{way:6}" if width >= 64 else f" {way:6}" if width >= 48 else ""
        cells = max(0, width - len(left) - len(right))
        edges = (low, high) if band is None else (band.low, band.high)
        drawn = sparks.thinned(values, cells) if cells else []
        bottom, top = sparks.span(drawn, *edges)
        lines = sparks.line(drawn, cells, tall, bottom, top, blocks=self.blocks) if cells else [""] * tall
        outside = [
            (low is not None and value < low) or (high is not None and value > high) for value in drawn
        ]
        for row, line in enumerate(lines):
            last = row == tall - 1
            text = Text(left if last else " " * len(left))
            if last and beyond:
                text.stylize("red")
            for red, marks in groupby(zip(line, outside, strict=False), key=itemgetter(1)):
                text.append("".join(mark for mark, _ in marks), style="red" if red else "cyan")
            text.append(" " * (cells - len(line)) + (right if last else ""))
            yield text

    def _healthy(self, metric: str, low: float | None, high: float | None, form: str) -> str:
        if metric == "memory":
            return ""
        dash = "–" if self.blocks else " to "
        if low is not None and high is not None:
            return f"{form.format(low)}{dash}{form.format(high)}"
        if low is not None:
            return f"at least {form.format(low)}"
        return f"at most {form.format(high)}" if high is not None else ""

    def _moved(self, width: int) -> Iterator[Text]:
        if not self.scene.moved:
            return
        parts = [f"{share.index} {share.share:.0%}" for share in self.scene.moved]
        if width < 100:
            yield Text("moved most: " + ", ".join(parts))
            return
        text = Text("moved most: ")
        for share, part in zip(self.scene.moved, parts, strict=True):
            drawn = sparks.bar(share.share, 8, blocks=self.blocks)
            text.append(f"{part} ").append(f"{drawn:8}", style="cyan").append("  ")
        yield text

    def _healing(self) -> Iterator[Text]:
        healing = self.scene.healing
        if healing.problem:
            yield Text(f"ledger: {self._said(healing.problem)}", style="red")
            return
        yield Text(f"phase {healing.phase}" + (f", {healing.means}" if healing.means else ""))
        for change in healing.changes[:3]:
            strategy, reason = one_line(change.patch.strategy), one_line(change.reason)
            said = f"  change {change.id} {change.state} by {strategy}, {_clock(change.opened_at)}"
            yield Text(said + (f": {reason}" if reason else ""))

    def _said(self, text: str) -> str:
        text = one_line(text)
        return text if self.blocks else text.replace("Φ", "Phi").replace("κ", "kappa")


def one_line(text: str) -> str:
    """Text of others on one line, without what a terminal would obey."""
    return " ".join(plain(text).split())


def word(report: HealthReport) -> str:
    """The state in one word."""
    return "learning" if report.state == "learning" else "healthy" if report.healthy else report.severity


def _clock(at: float | None) -> str:
    return _when(at)[:19]  # without the offset from UTC, for which a line has no room


def lines(batch: Batch, report: HealthReport, *, blocks: bool) -> Iterator[str]:
    """A line for each snapshot of a batch."""
    phi, kappa = ("Φ", "κ") if blocks else ("phi", "kappa")
    for row in _snapshots(batch):
        yield (
            f"{_when(row['timestamp'])}  {phi} {row['phi']:.3f}  {kappa} {row['kappa_eff']:.2f}  "
            f"drift {row['basin_drift']:.3f}  errors {row['error_rate']:.4f}  {row['avg_latency_ms']:.2f} ms  "
            f"{row['memory_mb']:.0f} MB  {word(report)}"
        )


def documents(batch: Batch, report: HealthReport) -> Iterator[dict[str, Any]]:
    """The same for programs: as `history --json` has it, without the basin, and with the state after it."""
    for row in _snapshots(batch):
        del row["basin_coords"]
        yield {**row, "status": word(report), "severity": report.severity, "issues": report.issues}
