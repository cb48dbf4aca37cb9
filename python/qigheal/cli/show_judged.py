"""What a verdict on other people's work looks like: for a terminal, for a pull request, for a program.

In Markdown, whatever a probe, a test or a diff brought along is shown as code: it can neither mention a
person, nor link, nor close an issue, nor end the block that it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.table import Table

from qigheal.cli import show
from qigheal.errors import EngineError
from qigheal.records import Evaluation, Guard, Verdict

WORDS = {
    "improved": "Improved",
    "equivalent": "No worse",
    "worse": "Worse",
    "inconclusive": "Not decided",
    "refused": "Refused",
}
NAMES = {
    "phi": "Φ",
    "kappa": "κ",
    "basin_drift": "drift (rad)",
    "errors": "error rate",
    "latency": "latency (ms)",
    "memory": "memory (MB)",
    "memory_growth": "memory growth",
}
RELATIVE = ("latency", "memory")
BOUNDLESS = 1e8
"""A bound as large as this says that there is none yet."""

LONGEST = 2000
"""Characters of one text of others that a summary shows."""


def one_document(markdown: Path | None, *, json: bool) -> None:
    """Refuse two documents on one standard output."""
    if json and markdown == Path("-"):
        raise typer.BadParameter("--json and --markdown - both write to standard output; give a file to one")


def evaluation(found: Evaluation, markdown: Path | None, *, json: bool) -> None:
    """Show what a trial came to, and write the summary where it is wanted."""
    if markdown is not None and markdown != Path("-"):
        try:
            markdown.write_text(summary(found), "utf-8")
        except OSError as error:
            raise EngineError(f"{markdown}: the summary cannot be written: {error.strerror}") from error
    if json:
        show.document(found)
    elif markdown == Path("-"):
        print(summary(found), end="")
    else:
        _terminal(found)


def _terminal(found: Evaluation) -> None:
    verdict = found.verdict
    show.line(f"{WORDS[verdict.decision].lower()}: {verdict.reason}")
    for veto in verdict.vetoes:
        show.line(f"  veto     {veto}")
    for path in found.unmeasured:
        show.line(f"  as BASE  {path}")
    for note in found.notes:
        show.line(f"  note     {note}")
    if verdict.guards:
        show.console.print(proof_table(verdict, found.before, found.after))
    for sentence in (_how(found), _outputs(found)):
        if sentence:
            show.line(sentence)


def proof_table(verdict: Verdict, before: Mapping[str, float], after: Mapping[str, float]) -> Table:
    """Each guard, with what both sides came to."""
    table = show._table(*COLUMNS)
    for row in _rows(verdict, before, after):
        table.add_row(*row)
    return table


COLUMNS = ("metric", "before", "after", "degradation", "at most", "tolerated", "detectable", "result")


def _rows(verdict: Verdict, before: Mapping[str, float], after: Mapping[str, float]) -> list[tuple[str, ...]]:
    return [
        (
            NAMES.get(guard.metric, guard.metric),
            _value(before.get(guard.metric)),
            _value(after.get(guard.metric)),
            _amount(guard, guard.estimate),
            _amount(guard, guard.high),
            _amount(guard, guard.margin),
            "" if guard.detectable is None else _amount(guard, guard.detectable),
            guard.result,
        )
        for guard in verdict.guards
    ]


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _amount(guard: Guard, value: float) -> str:
    if abs(value) >= BOUNDLESS:
        return "no bound"
    if guard.metric in RELATIVE:
        return f"{100 * value:+.2f} %"
    if guard.metric == "errors":
        return f"{100 * value:+.3f} points"
    return f"{value:+.3g}"


def _how(found: Evaluation) -> str:
    verdict = found.verdict
    healthy = f"as {found.healthy[:10]} answers" if found.healthy else "as the service learned"
    if not verdict.pairs:
        return "nothing was measured"
    # A commit is asked to do no harm; only of a diff is it of interest which gain would have been seen.
    least = (
        ""
        if found.head or verdict.detectable is None
        else f"; detectable is a score of {verdict.detectable:.3f}"
    )
    return (
        f"{verdict.pairs} pairs in {found.seconds:.0f} s, sandbox level {verdict.sandbox_level}; "
        f"healthy is {healthy}{least}"
    )


def _outputs(found: Evaluation) -> str:
    differ = found.outputs_differ
    if differ is None:
        return ""
    return (
        f"outputs differ in {differ} of {found.verdict.pairs} answers" if differ else "outputs are the same"
    )


def summary(found: Evaluation) -> str:
    """The Markdown summary, the same for the same evaluation."""
    verdict = found.verdict
    what = f"`{found.patch.base[:10]}` to `{found.head[:10]}`" if found.head else "the submitted diff"
    parts = [f"### qigheal: {WORDS[verdict.decision].lower()}", f"Judged: {what}.", fenced(verdict.reason)]
    if others := [veto for veto in verdict.vetoes if veto not in verdict.reason]:
        parts += ["What forbids it:", fenced("\n".join(others))]
    if found.unmeasured:
        parts += ["Measured as in the base, though changed, so that nothing can be said:"]
        parts += [fenced("\n".join(found.unmeasured))]
    if found.notes:
        parts += [fenced("\n".join(found.notes))]
    if rows := _rows(verdict, found.before, found.after):
        table = [COLUMNS, ("---",) * len(COLUMNS), *rows]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in table))
    parts += [
        f"{sentence[0].upper()}{sentence[1:]}." for sentence in (_how(found), _outputs(found)) if sentence
    ]
    return "\n\n".join(parts) + "\n"


def fenced(text: str) -> str:
    """Text of others as a block of code that it cannot end."""
    shown = show.plain(text).replace("\t", " ")
    if len(shown) > LONGEST:
        shown = f"{shown[:LONGEST]} ..."
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"
