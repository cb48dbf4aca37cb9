"""The messages of the commits that a forge makes: what was seen, what was measured, and the trailers.

The same change gives the same message, byte for byte. Text from strategies and reviewers cannot
pose as a trailer: it stands above the last paragraph, without control characters. Nor can it call
people or close issues where the commit is shown: what a forge would take for a mention, a number of an
issue or an address is broken by a space.
"""

from __future__ import annotations

import re
import textwrap

from qigheal.records import Change

WIDTH = 72
CHANGE, LEDGER = "Qigheal-Change", "Qigheal-Ledger"
LIVE = re.compile(r"(?<![\w])@(?=\w)|#(?=\d)|(?<=\bGH)-(?=\d)|:(?=//)|\b(?<=www)\.", re.IGNORECASE)


def title(change: Change) -> str:
    """One line that names the change."""
    return _subject(f"{change.patch.strategy}: {change.patch.rationale}")


def opening(change: Change) -> str:
    """The message of the commit on the change's own branch."""
    patch = change.patch
    heals = ", ".join(patch.heals)
    return _message(
        title(change),
        patch.rationale,
        f"Meant to heal: {heals}." if heals else "",
        _measured(change),
        trailers={CHANGE: change.id},
    )


def merging(change: Change) -> str:
    """The message of the merge commit; it seals the ledger's head into the history."""
    return _message(
        f"Merge {change.branch}",
        change.patch.rationale,
        _measured(change),
        trailers={CHANGE: change.id, LEDGER: change.ledger_head, "Reviewed-by": change.reviewer},
    )


def reverting(change: Change) -> str:
    """The message of the commit that takes the merge back."""
    return _message(
        f"Revert {change.branch}",
        f"This takes back merge {change.merge_commit}.",
        change.reason,
        trailers={CHANGE: change.id},
    )


def _measured(change: Change) -> str:
    verdict = change.verdict
    if verdict is None:
        return "Put through by an operator, without a trial."
    fitness = verdict.fitness
    score = (
        f"Fitness {fitness.point:.3f}, 95 % bounds {fitness.low:.3f} and {fitness.high:.3f}, "
        if fitness is not None
        else "Not scored, "
    )
    return f"{score}{verdict.pairs} pairs, sandbox level {verdict.sandbox_level}. {verdict.reason}"


def _message(subject: str, *paragraphs: str, trailers: dict[str, str]) -> str:
    blocks = [_subject(subject)]
    blocks += [textwrap.fill(_plain(text), WIDTH) for text in paragraphs if text]
    blocks.append("\n".join(f"{key}: {_plain(value)}" for key, value in trailers.items() if value))
    return "\n\n".join(blocks) + "\n"


def _subject(text: str) -> str:
    return textwrap.shorten(_plain(text), WIDTH, placeholder=" ...")


def _plain(text: str) -> str:
    shown = LIVE.sub(lambda found: f"{found[0]} ", text)
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split())
