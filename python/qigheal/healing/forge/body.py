"""The words of a pull request: what was seen, what is proposed, the proof, the diff, how to reject.

Whatever came from telemetry, probes, tracebacks, commits or people stands in a fenced block or a code
span, where a mention calls nobody, a number closes no issue, an address is no link and HTML is text.
Characters that cannot be seen, or that turn the direction of what can, are written out. The rest is
this module's own.
"""

from __future__ import annotations

import re
from typing import Final

from qigheal.records import Change, Guard, Verdict

LIMIT: Final = 60_000
"""Of the 65,536 characters that GitHub takes, those beyond U+FFFF counted twice."""

RUN_LIMIT: Final = 40
"""Backticks in a row; a fence must be longer than any, and so would fill the page itself."""

SHOWN: Final = 12
"""Entries of a list or table that a foreign strategy may have made as long as it likes."""

TEXT_LIMIT: Final = 4_000
LINE_LIMIT: Final = 1_000
CELL_LIMIT: Final = 120
LABEL_LIMIT: Final = 50


def labels(change: Change) -> tuple[str, ...]:
    """The labels of a change's pull request."""
    found = ("qigheal", f"strategy: {change.patch.strategy}", f"tier: {change.patch.tier}")
    return tuple(visible(label).replace("\n", " ").replace(",", " ")[:LABEL_LIMIT] for label in found)


def request(change: Change, seen: str) -> str:
    """The body of the pull request that asks for a change to be merged."""
    patch, verdict = change.patch, change.verdict
    parts = [
        f"A patch by strategy {code(patch.strategy)} (tier {code(patch.tier)}) for {code(change.target)} at "
        f"`{patch.base[:10]}`. It was made and measured without a person; a person decides about it.",
        "## What was seen",
        fenced(seen or "An operator put the change through; nothing was diagnosed."),
        "## What is proposed",
        fenced(patch.rationale),
        *(
            ["Meant to heal: " + ", ".join(code(metric) for metric in patch.heals[:SHOWN]) + "."]
            if patch.heals
            else []
        ),
        *([_parameters(patch.parameters)] if patch.parameters else []),
        "## The proof",
        *(_proof(verdict) if verdict is not None else ["None: an operator put it through without a trial."]),
        "## How to accept or reject",
        HOW.format(target=code(change.target), id=change.id),
    ]
    head, tail = "\n\n".join(parts), f"\n\n<sub>Change `{change.id}`</sub>\n"
    room = LIMIT - _size(head) - _size(tail) - len(CUT) - 2 * RUN_LIMIT
    return f"{head}\n\n## The diff\n\n{_diff(patch.diff, room)}{tail}"


def revert(change: Change) -> str:
    """The body of a pull request that asks a person to take a merged change back."""
    return "\n\n".join(
        [
            f"The live service is worse since `{change.merge_commit[:10]}` (change `{change.id}`), and "
            f"{code(change.target)} takes no commit from the healer. Merging this takes the change back.",
            "## What was seen",
            fenced(change.reason),
            "Close this pull request to keep the change; the healer then lets go of it.",
        ]
    )


def farewell(change: Change) -> str:
    """The comment on a pull request that the healer closes."""
    return f"Closed: the change is {code(change.state)}.\n\n{fenced(change.reason or 'No reason was given.')}"


HOW: Final = """\
* **Accept**: approve this pull request. The healer merges it when the checks have passed, if {target} has
  not moved by then, watches the live service, and takes the merge back if the service gets worse. Merging
  it by hand does the same, apart from the wait.
* **Reject**: close this pull request, or `qigheal review {id} --reject`. The same patch is not
  proposed again.
* **Wait**: request changes. Nothing is merged until the objection is withdrawn or dismissed.
* Commits of others on this branch are neither merged nor overwritten by the healer: then merge or close
  it by hand."""

RUN: Final = re.compile(f"`{{{RUN_LIMIT + 1},}}")
CUT: Final = "\n\nThe diff is cut here; all of it stands under *Files changed*."


def _proof(verdict: Verdict) -> list[str]:
    rows: list[tuple[str, ...]] = [("figure", "measured", "bounds", "asked for", "result"), ("---",) * 5]
    if (fitness := verdict.fitness) is not None:
        rows.append(
            (
                "fitness",
                f"{fitness.point:.3f}",
                f"{fitness.low:.3f} to {fitness.high:.3f}",
                "lower bound above the threshold",
                "accepted" if verdict.accepted else "not accepted",
            )
        )
        rows += [(f"· {code(name)}", f"{gain:.3f}", "", "", "") for name, gain in _some(fitness.components)]
    rows += [_guard(guard) for guard in verdict.guards[:SHOWN]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    told = (
        f"Decision: **{verdict.decision}**, from {verdict.pairs} interleaved pairs against the unpatched code, "
        f"sandbox level {code(verdict.sandbox_level)}. The guards' figures are degradations in the unit of their "
        "margin."
    )
    vetoes = [fenced("\n".join(verdict.vetoes))] if verdict.vetoes else []
    return [told, table, fenced(verdict.reason), *vetoes]


def _guard(guard: Guard) -> tuple[str, ...]:
    span = f"{guard.low:+.4g} to {guard.high:+.4g}"
    return (
        f"guard {code(guard.metric)}",
        f"{guard.estimate:+.4g}",
        span,
        f"under {guard.margin:.4g}",
        guard.result,
    )


def _parameters(parameters: dict[str, float]) -> str:
    return "Set: " + ", ".join(f"{code(name)} = {value:.6g}" for name, value in _some(parameters)) + "."


def _diff(diff: str, room: int) -> str:
    shown = visible(diff.rstrip("\n"))
    if _size(shown) <= room:
        return _block(shown, "diff")
    room = room if _size(shown) == len(shown) else room // 2
    whole = shown[:room].rpartition("\n")[0] or shown[:room]
    return _block(whole, "diff") + CUT


def fenced(text: str) -> str:
    """Text as a block of code that nothing in it can end."""
    lines = [
        line if len(line) <= LINE_LIMIT else line[:LINE_LIMIT] + "…" for line in visible(text).split("\n")
    ]
    shown = "\n".join(lines)
    return _block(shown if len(shown) <= TEXT_LIMIT else shown[:TEXT_LIMIT] + "\n…", "text")


def code(text: str) -> str:
    """A word or two as a code span that nothing in it can end, fit for a table's cell as well."""
    shown = visible(text).replace("\n", " ").replace("|", "\\u007c").strip() or " "
    shown = shown if len(shown) <= CELL_LIMIT else shown[:CELL_LIMIT] + "…"
    ticks = "`" * (_longest_run(shown) + 1)
    pad = " " if "`" in shown else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def visible(text: str) -> str:
    """The text with everything that cannot be seen written out; lines and tabs stay."""
    shown = RUN.sub("`" * RUN_LIMIT + "…", text.replace("\r\n", "\n"))
    return "".join(c if c.isprintable() or c in "\n\t" else _written_out(c) for c in shown)


def _written_out(c: str) -> str:
    return f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08x}"


def _block(text: str, language: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _size(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _some(figures: dict[str, float]) -> list[tuple[str, float]]:
    return list(figures.items())[:SHOWN]
