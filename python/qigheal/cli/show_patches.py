"""What `qigheal patches` prints: the list, one patch with its proof, and what does not hold together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qigheal.cli.show import _table, _when, console, document, escape, line
from qigheal.cli.show_judged import proof_table
from qigheal.healing.asking import Vain
from qigheal.healing.audit import Replay, Standing
from qigheal.healing.proofs import Proof
from qigheal.records import Change


def listed(
    changes: Sequence[Change],
    measured: Sequence[Standing],
    evaluated: Sequence[Standing],
    vain: Sequence[Vain],
    *,
    json: bool,
) -> None:
    """The changes, the healer's patches that were measured, diffs of others that were evaluated, and who had none."""
    if json:
        document(
            {
                "changes": changes,
                "measured": [_judged(each) for each in measured],
                "evaluated": [_judged(each) for each in evaluated],
                "without": [
                    {"strategy": each.strategy, "at": each.at, **each.answer.to_dict()} for each in vain
                ],
            }
        )
        return
    table = _table("change", "state", "strategy", "opened", "reviewer", "reason", title="Changes")
    for made in changes:
        table.add_row(
            made.id,
            made.state,
            escape(made.patch.strategy),
            _when(made.opened_at),
            escape(made.reviewer),
            escape(made.reason),
        )
    console.print(table)
    for title, judged in (("Measured patches", measured), ("Evaluated diffs of others", evaluated)):
        if not judged and judged is evaluated:
            continue
        table = _table("patch", "decision", "fitness", "pairs", "measured", "reason", title=title)
        for each in judged:
            verdict, fitness = each.verdict, each.verdict.fitness
            score = f"{fitness.point:.2f} ({fitness.low:.2f}-{fitness.high:.2f})" if fitness else ""
            table.add_row(
                each.patch.fingerprint,
                verdict.decision,
                score,
                str(verdict.pairs),
                _when(each.at),
                escape(verdict.reason),
            )
        console.print(table)
    if vain:
        table = _table("strategy", "asked", "commit", "unwell", "why", title="Strategies that had no patch")
        for strategy, answer, at in vain:
            unwell = ", ".join(answer.metrics)
            table.add_row(escape(strategy), _when(at), answer.base[:10], unwell, _why(answer.reasons))
        console.print(table)


def _why(reasons: Sequence[str]) -> str:
    more = f" (and {len(reasons) - 1} more, with --json)" if len(reasons) > 1 else ""
    return f"{escape(reasons[0])}{more}" if reasons else ""


def _judged(each: Standing) -> dict[str, Any]:
    return {"patch": each.patch, "verdict": each.verdict, "at": each.at}


def one(
    judged: Sequence[Standing],
    proofs: Sequence[Proof | str],
    replays: Sequence[Replay | None],
    change: Change | None,
    figures: Sequence[tuple[dict[str, float], dict[str, float]]],
    *,
    json: bool,
) -> None:
    """One patch, with each time that it was judged.

    proofs: of each time the proof, or why there is none. replays: of each time what judging it again came
    to, None where that was not asked or not possible. figures: what each side came to.
    """
    if json:
        trials = zip(judged, proofs, replays, figures, strict=True)
        document({"patch": judged[-1].patch, "change": change, "judged": [_told(*each) for each in trials]})
        return
    patch = judged[-1].patch
    state = f"; its change is {change.state}" if change else ""
    line(f"{patch.fingerprint} by {patch.strategy}, tier {patch.tier}, on {patch.base[:10]}{state}")
    line(patch.rationale)
    line(patch.diff.rstrip())
    for each, proof, replay, sides in zip(judged, proofs, replays, figures, strict=True):
        verdict = each.verdict
        line(f"{_when(each.at)} ({each.kind}): {verdict.decision}; {verdict.reason}")
        for veto in verdict.vetoes:
            line(f"  veto     {veto}")
        if verdict.guards:
            console.print(proof_table(verdict, *sides))
        if isinstance(proof, str):
            line(f"  proof    {proof}")
            continue
        line(f"  proof    {each.bundle}, {len(proof.trial.pairs)} pairs, seed {proof.trial.seed}")
        line("  made by  " + ", ".join(f"{name} {found}" for name, found in proof.versions.items()))
        if replay is not None:
            line(
                f"  replay   {'the same verdict' if replay.same else 'another verdict'}: {replay.verdict.reason}"
            )
            for difference in replay.differences:
                line(f"           {difference}")


def _told(
    each: Standing,
    proof: Proof | str,
    replay: Replay | None,
    sides: tuple[dict[str, float], dict[str, float]],
) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "at": each.at,
        "verdict": each.verdict,
        "before": sides[0],
        "after": sides[1],
        "bundle": each.bundle,
        "digest": each.digest,
        "problem": "" if isinstance(proof, Proof) else proof,
        "seed": proof.trial.seed if isinstance(proof, Proof) else None,
        "versions": proof.versions if isinstance(proof, Proof) else {},
        "evidence": proof.trial.patch.evidence if isinstance(proof, Proof) else {},
        "replay": None if replay is None else {"same": replay.same, "differences": replay.differences},
    }


def verified(problems: Sequence[str], entries: int, bundles: int, commits: int | None, *, json: bool) -> None:
    """What `--verify` found. commits: merge commits that were looked at, None without a host."""
    if json:
        document({"problems": problems, "entries": entries, "proofs": bundles, "merges": commits})
        return
    for problem in problems:
        line(problem)
    merges = "" if commits is None else f", {commits} merges"
    word = f"{len(problems)} discrepancies" if problems else "all holds together"
    line(f"{word}: {entries} entries, {bundles} proofs{merges}")
