"""The sentences of alerts, and text of others made harmless.

Whatever a service, a strategy or a person wrote is data: it comes out as one line without characters that a
terminal, a mail header or a chat would obey. Nothing here decides what is told.
"""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

from qigheal.alerts.records import Alert, Moved, Note, number
from qigheal.records import Finding

TITLE = 80
LINE = 400
TEXT = 3500
"""Characters; a chat cuts messages at 4,000."""
FINDINGS, COMPONENTS = 8, 5


def one_line(text: str, most: int = LINE) -> str:
    """Text of others as one line of at most `most` characters, with U+FFFD for what a terminal would obey."""
    flat = " ".join(text[: 8 * most].split())
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in flat)
    return clean if len(clean) <= most else clean[: most - 1].rstrip() + "…"


def titled(service: str, text: str) -> str:
    """A first line, short enough for a phone."""
    return one_line(f"{one_line(service, 30)}: {text}", TITLE)


def when(at: float | None) -> str:
    """A time as a person reads it, in UTC; the seconds themselves where they are beyond the calendar."""
    if at is None:
        return "an unknown time"
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"{at:.6g} s"


def moved(finding: Finding) -> Moved:
    return Moved(
        kind=finding.kind,
        metric=finding.metric,
        value=number(finding.value),
        limit=number(finding.limit),
        severity=finding.severity,
        message=one_line(finding.message),
        since=None if finding.since is None else number(finding.since),
        snapshots=finding.snapshots,
        components=finding.components[:COMPONENTS],
    )


def findings_lines(found: tuple[Moved, ...]) -> list[str]:
    """What moved, by how much, since when, and in which components."""
    lines = []
    for each in found[:FINDINGS]:
        figures = [
            f"{name} {figure:.4g}"
            for name, figure in (("value", each.value), ("limit", each.limit))
            if figure is not None
        ]
        since = "" if each.since is None else f", since {when(each.since)}"
        lasted = f", {each.snapshots} snapshots" if each.snapshots else ""
        lines.append(f"{each.severity}: {each.message} ({', '.join(figures)}){since}{lasted}")
        if each.components:
            named = ", ".join(f"{share.index} ({share.share:.0%})" for share in each.components)
            lines.append(f"components that moved: {named}")
    if len(found) > FINDINGS:
        lines.append(f"and {len(found) - FINDINGS} more: qigheal status")
    return lines


def change_line(change: str, note: Note, store: Path) -> str:
    """Where one change stands, and what a person can do about it."""
    files = one_line(", ".join(note.files), 120)
    line = f"change {change} ({one_line(note.strategy, 40)}{': ' + files if files else ''}) is {note.state}"
    if note.state == "open":
        return f"{line} and waits for a review: {review_command(change, store)}"
    return f"{line} since {when(note.at)}"


def review_command(change: str, store: Path) -> str:
    """To be run in the service's repository."""
    place = one_line(shlex.quote(str(store)))
    return f"qigheal review {one_line(change, 64)} --approve --store {place} (or --reject)"


def said(alert: Alert) -> str:
    """The whole alert as text, one line each."""
    lines = [alert.title, *alert.lines]
    if alert.held_back:
        lines.append(f"{alert.held_back} more alerts of this kind were held back before this one")
    if alert.undelivered:
        lines.append(f"{alert.undelivered} alerts before this one could not be delivered here")
    return "\n".join(lines)


def for_chat(alert: Alert) -> str:
    """The same for a chat that reads Slack's format: nobody is called, and nothing becomes a link but addresses."""
    text = said(alert)
    text = text if len(text) <= TEXT else text[:TEXT].rstrip() + "…"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"@(?=\w)", "@ ", text.replace("](", "] ("))
