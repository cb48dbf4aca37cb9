"""The audit trail: what was judged, whether its proof still stands, and whether nobody rewrote it.

Reads the ledger, the proof bundles and, where it is at hand, the host's merge commits, and holds each
against the others. A trial is judged again from its bundle alone: no host, no probe, no sandbox. The only
thing written here is what `retain` removes, and that stands in the ledger first.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from qigheal.errors import EngineError, LedgerError
from qigheal.healing.forge.messages import CHANGE, LEDGER
from qigheal.healing.ledger import GENESIS, Entry, Judged, Ledger
from qigheal.healing.proofs import FOLDER, SUFFIX, Kept, Proof, read
from qigheal.records import Change, Evaluation, HealingPatch, Record, Verdict
from qigheal.repo import Repo

KEPT: Final = 200
"""Proofs that stay besides those of changes that were opened, the newest: some 100 kB each."""

ORPHANED_S: Final = 86_400.0
"""After a day, a bundle that no entry names was left by a healer that was killed before it wrote one."""

REMOVED: Final = "proof_removed"
CLOSE: Final = 1e-9
"""Relative difference at which two figures are the same on another machine, whose sums may round differently."""


class Standing(Record, frozen=True):
    """A patch that was judged, as the ledger has it. kind: "verdict" or "evaluation"."""

    kind: str
    seq: int
    at: float
    patch: HealingPatch
    verdict: Verdict
    bundle: str = ""
    digest: str = ""

    @property
    def kept(self) -> Kept:
        return Kept(self.bundle, self.digest)


class Removed(Record, frozen=True):
    """The data of a `proof_removed` entry."""

    bundle: str
    digest: str


class Replay(Record, frozen=True):
    """A trial judged again. `differences` says in which figures, one sentence each; empty: to the same verdict."""

    verdict: Verdict
    differences: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        return not self.differences


def standing(ledger: Ledger) -> list[Standing]:
    """Everything that was judged, in order."""
    found = []
    for entry in ledger.entries():
        if entry.kind == "verdict":
            judged = entry.read(Judged)
            found.append(_standing(entry, judged.patch, judged.verdict, judged.bundle, judged.proof))
        elif entry.kind == "evaluation":
            told = entry.read(Evaluation)
            found.append(_standing(entry, told.patch, told.verdict, told.bundle, told.proof))
    return found


def _standing(entry: Entry, patch: HealingPatch, verdict: Verdict, bundle: str, digest: str) -> Standing:
    return Standing(
        kind=entry.kind,
        seq=entry.seq,
        at=entry.at,
        patch=patch,
        verdict=verdict,
        bundle=bundle,
        digest=digest,
    )


def named(ledger: Ledger, patch_id: str) -> list[Standing]:
    """All judgements of the one patch whose fingerprint begins so. Raises EngineError when it is not one."""
    every = standing(ledger)
    ids = dict.fromkeys(each.patch.fingerprint for each in every)
    matching = [one for one in ids if patch_id and one.startswith(patch_id)]
    if len(matching) != 1:
        raise EngineError(
            f"{patch_id!r} names {len(matching)} of the patches that were judged; give one id of: "
            f"{', '.join(ids) or '(none)'}"
        )
    return [each for each in every if each.patch.fingerprint == matching[0]]


def proof_of(store: Path, judged: Standing) -> Proof:
    """The proof of a judgement, as the ledger knows it. Raises LedgerError when there is none to trust."""
    if not judged.bundle:
        raise LedgerError(
            f"no proof was kept of {judged.patch.fingerprint} (entry {judged.seq}): nothing was measured, its trial "
            "was too large, or an earlier version judged it"
        )
    proof = read(store / FOLDER, judged.kept)
    if proof.verdict != judged.verdict or proof.trial.patch.fingerprint != judged.patch.fingerprint:
        raise LedgerError(
            f"bundle {judged.bundle} is the proof of another verdict than entry {judged.seq} has"
        )
    return proof


def replay(proof: Proof) -> Replay:
    """Judge a trial again, by the settings that it was judged by."""
    from qigheal.healing import judge  # not for a process that serves the list and judges nothing

    again = judge.verdict(proof.trial, proof.settings)
    if again == proof.verdict:
        return Replay(verdict=again)
    # Sentences hold figures, rounded; what decides is compared, and the figures by themselves.
    told = [msgspec.to_builtins(verdict) for verdict in (proof.verdict, again)]
    for verdict in told:
        del verdict["reason"]
        verdict["vetoes"] = len(verdict["vetoes"])
    return Replay(verdict=again, differences=tuple(_differences("", *told)))


def _differences(where: str, was: Any, now: Any) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*was, *now)):
            yield from _differences(f"{where}.{key}" if where else key, was.get(key), now.get(key))
    elif isinstance(was, list | tuple) and isinstance(now, list | tuple) and len(was) == len(now):
        for number, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _differences(f"{where}[{number}]", one, other)
    elif isinstance(was, float) and isinstance(now, float):
        if not math.isclose(was, now, rel_tol=CLOSE, abs_tol=CLOSE):
            yield f"{where} was {was:.6g} and is {now:.6g}"
    elif was != now:
        yield f"{where} was {was!r} and is {now!r}"


def retain(store: Path, ledger: Ledger, at: float, most: int = KEPT) -> tuple[str, ...]:
    """Remove the oldest proofs beyond `most`, but none of a change that was opened; gives their names."""
    folder = store / FOLDER
    there = {path.name for path in folder.glob(f"*{SUFFIX}")}
    if len(there) <= most:
        return ()
    opened = set(ledger.changes())
    every = [each for each in standing(ledger) if each.bundle]
    loose = [each for each in every if each.patch.fingerprint not in opened and each.bundle in there]
    going = loose[: max(0, len(loose) - most)]
    for each in going:
        ledger.append(
            REMOVED, each.patch.fingerprint, Removed(bundle=each.bundle, digest=each.digest), at
        )  # first, so that a missing file is never a riddle
        with contextlib.suppress(OSError):
            (folder / each.bundle).unlink()
    for name in there - {each.bundle for each in every}:
        with contextlib.suppress(OSError):
            if (folder / name).stat().st_mtime < time.time() - ORPHANED_S:
                (folder / name).unlink()
    return tuple(each.bundle for each in going)


class Audit(Record, frozen=True):
    """What was held together, and every discrepancy, one sentence each. merges: None without a host."""

    problems: tuple[str, ...]
    entries: int
    proofs: int
    merges: int | None


def verify(ledger: Ledger, store: Path, repo: Repo | None = None) -> Audit:
    """Hold the chain, the proofs and the host's merge commits against one another; nothing is written."""
    broken = list(ledger.verify())
    proofs, merges = 0, None if repo is None else 0
    try:
        for kept, problem in _proofs(ledger, store):
            proofs += kept
            broken += [problem] if problem else []
        if repo is not None:
            trailers = {sha: _trailers(message) for sha, message in repo.commits_saying(f"{LEDGER}: ")}
            merges = sum(LEDGER in said for said in trailers.values())
            broken += _merges(ledger, repo, trailers)
    except LedgerError as error:  # a row that can no longer be read
        broken.append(str(error))
    return Audit(problems=tuple(broken), entries=len(ledger.entries()), proofs=proofs, merges=merges)


def removed(ledger: Ledger) -> dict[Kept, int]:
    """The proofs that are no longer kept, and the entry that says so of each."""
    found = ((entry.read(Removed), entry.seq) for entry in ledger.entries(REMOVED))
    return {Kept(told.bundle, told.digest): seq for told, seq in found}


def _proofs(ledger: Ledger, store: Path) -> Iterator[tuple[bool, str]]:
    """Of each proof that was kept: whether it still is, and what is wrong with it."""
    opened: dict[str, int] = {}
    for entry in ledger.entries("change"):
        opened.setdefault(entry.subject, entry.seq)
    gone = removed(ledger)
    for each in standing(ledger):
        if not each.bundle:
            continue
        if (seq := gone.get(each.kept)) is not None:
            wrong = seq > opened.get(each.patch.fingerprint, seq)
            yield (
                False,
                f"bundle {each.bundle} was removed, and the proof of a change that was opened never is"
                if wrong
                else "",
            )
            continue
        try:
            proof_of(store, each)
        except LedgerError as error:
            yield False, str(error)
        else:
            yield True, ""


def _merges(ledger: Ledger, repo: Repo, trailers: dict[str, dict[str, str]]) -> Iterator[str]:
    """The heads of the chain that stand in merge commits, which no rewriting of the ledger reaches."""
    digests = {GENESIS: 0, **{entry.digest: entry.seq for entry in ledger.entries()}}
    merging: dict[tuple[str, str], int] = {}
    for entry in ledger.entries("change"):
        change = entry.read(Change)
        if change.state == "merging":
            merging.setdefault((change.id, change.ledger_head), entry.seq)
    for sha, said in trailers.items():
        change_id, head = said.get(CHANGE, ""), said.get(LEDGER, "")
        if not head:
            continue  # somebody wrote about it
        if head not in digests:
            yield f"commit {sha[:10]} names ledger head {head[:10]}, which no entry has: the chain was rewritten"
        elif merging.get((change_id, head), 0) <= digests[head]:
            yield f"commit {sha[:10]} names ledger head {head[:10]}, which was not written before its merge"
    for change in ledger.changes().values():
        if not change.merge_commit or not repo.has(change.patch.base):
            continue  # of another host, which shares the store
        if change.merge_commit not in trailers:
            yield f"change {change.id}: no ref of {repo.root} leads to its merge {change.merge_commit[:10]}"
        elif trailers[change.merge_commit].get(LEDGER) != change.ledger_head:
            yield f"change {change.id}: its merge names another ledger head than the ledger has"


def _trailers(message: str) -> dict[str, str]:
    last = re.split(r"\n\s*\n", message.strip())[-1]
    pairs = (line.partition(": ") for line in last.splitlines())
    return {key: value.strip() for key, _, value in pairs}
