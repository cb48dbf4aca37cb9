"""What the ledger of a store says, as documents: patches, one patch with its proof, the phase.

Read only. Of healing what reads its records is loaded, at the first such request, and never what proposes or
judges.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qigcore.errors import QigcoreError
from qigheal.api.exchange import Refused
from qigheal.api.records import GateLine, Judgement, PatchDetail, Patches, PatchSummary, Phase
from qigheal.errors import LedgerBusy, LedgerError, QighealError
from qigheal.records import Change, HealingPatch, Verdict
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.audit import Standing
    from qigheal.healing.ledger import Ledger

LEDGER: Final = "ledger.db"
BUSY_S: Final = 1.0
"""How long a request waits for a process that holds the ledger; a healer does for milliseconds."""

UNREADABLE: Final = (QigcoreError, QighealError, OSError, ValueError)


def patches(store: Path) -> Patches:
    """Everything that was judged or opened, newest first. Raises Refused: 409 for a ledger that others hold."""
    try:
        ledger = _ledger(store)
        if ledger is None:
            return Patches(patches=())
        known = _Known(ledger)
        found = [known.summary(identity) for identity in known.ids]
        broken = ledger.verify()
    except LedgerBusy as error:
        raise _refused(error) from error
    except UNREADABLE as error:
        return Patches(patches=(), notes=(str(error),))
    found.sort(key=lambda each: each.at, reverse=True)
    return Patches(patches=tuple(found), notes=tuple(_broken(broken[0]) for _ in broken[:1]))


def detail(store: Path, identity: str) -> PatchDetail:
    """One patch with each time that it was judged. Raises Refused: 404, 409 for a ledger that cannot be read."""
    try:
        ledger = _ledger(store)
        known = None if ledger is None else _Known(ledger)
        if known is None or identity not in known.ids:
            raise Refused(
                404, "not_found", f"expected the id of a patch, got {identity[:64]!r}; see GET patches"
            )
        judged = known.judged.get(identity, [])
        change = known.changes.get(identity)
        return PatchDetail(
            id=identity,
            fingerprint=known.fingerprint(identity),
            waits_for_review=known.waits(identity),
            patch=known.patch(identity),
            change=change,
            judged=tuple(_judgement(store, each) for each in judged),
        )
    except Refused:
        raise
    except UNREADABLE as error:
        raise _refused(error) from error


def reviewable(store: Path, identity: str, fingerprint: str) -> bool:
    """Whether it is a change, which a review merges, and not a patch that was only measured.

    Raises Refused unless it is the patch that the reviewer saw and waits for a review.
    """
    found = detail(store, identity)
    if found.fingerprint != fingerprint:
        raise Refused(
            409,
            "changed",
            f"patch {identity} is not what was reviewed: it has another fingerprint now; "
            "look at it again (GET patches/{id})",
        )
    if not found.waits_for_review:
        state = found.change.state if found.change is not None else "measured"
        raise Refused(409, "not_waiting", f"patch {identity} waits for no review: it is {state}")
    try:
        ledger = _ledger(store)
        broken = () if ledger is None else ledger.verify()
    except UNREADABLE as error:
        raise _refused(error) from error
    if broken:
        raise Refused(409, "store_unusable", _broken(broken[0]))
    return found.change is not None


def phase(store: Path) -> Phase:
    """The phase and the next gate; of a store that is not there yet, as of one without a snapshot.

    Raises Refused: 409 for a store, a ledger or a healer's settings that cannot be read.
    """
    from qigheal.healing import phases
    from qigheal.healing.stored import store_evidence

    empty = phases.StoreEvidence(snapshots=0, baseline_learned=False)
    try:
        now = time.time()
        evidence = store_evidence(store, now=now) if os.path.lexists(store) else empty
        ledger = _ledger(store)
        if ledger is None:  # as the command line has it: a ledger that was just made
            ledger = _empty(store)
        found = phases.standing(ledger, evidence, HealSettings.load(store), now)
    except UNREADABLE as error:
        raise _refused(error) from error
    lines = [GateLine(**msgspec.structs.asdict(line)) for line in found.criteria]
    return Phase(
        phase=found.phase,
        means=found.means,
        gate=found.gate,
        criteria=tuple(lines),
        missing=tuple(line for line in lines if line.gate == found.gate and not line.met),
        since=found.since,
        demotion=found.demotion,
        breaker_open=found.breaker_open,
    )


class _Known:
    """The ledger, read once: judgements and changes by the id of their patch, the reviews of measured ones."""

    def __init__(self, ledger: Ledger) -> None:
        from qigheal.healing.audit import standing
        from qigheal.healing.phases import Review

        self.judged: dict[str, list[Standing]] = {}
        for each in standing(ledger):
            self.judged.setdefault(each.patch.fingerprint, []).append(each)
        entries = {entry.subject: entry for entry in ledger.entries("change")}
        self.changes = {subject: entry.read(Change) for subject, entry in entries.items()}
        self._entered = {subject: (entry.seq, entry.at) for subject, entry in entries.items()}
        self._words = {entry.subject: entry.read(Review) for entry in ledger.entries("review")}
        self.ids = dict.fromkeys((*self.judged, *self.changes))

    def patch(self, identity: str) -> HealingPatch:
        judged = self.judged.get(identity)
        return judged[-1].patch if judged else self.changes[identity].patch

    def verdict(self, identity: str) -> Verdict | None:
        judged = self.judged.get(identity)
        return judged[-1].verdict if judged else self.changes[identity].verdict

    def waits(self, identity: str) -> bool:
        """An open change does; of what was only measured, what was accepted and nobody has spoken about."""
        if (change := self.changes.get(identity)) is not None:
            return change.state == "open"
        last = self.judged[identity][-1]
        return last.kind == "verdict" and last.verdict.accepted and identity not in self._words

    def fingerprint(self, identity: str) -> str:
        """32 hex digits over all that a reviewer looks at: another diff, base, head, state or judgement is another."""
        patch, change = self.patch(identity), self.changes.get(identity)
        judged = self.judged.get(identity, [])
        parts = [
            identity,
            patch.base,
            patch.diff,
            (change.head, change.state, change.target) if change is not None else None,
            [each.seq for each in judged],
            identity in self._words,
        ]
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]

    def summary(self, identity: str) -> PatchSummary:
        patch, verdict = self.patch(identity), self.verdict(identity)
        change, judged = self.changes.get(identity), self.judged.get(identity)
        word = self._words.get(identity)
        times = [judged[-1].at] if judged else []
        if change is not None:
            times.append(self._entered[identity][1])
        return PatchSummary(
            id=identity,
            state=change.state if change is not None else "measured",
            strategy=patch.strategy,
            tier=patch.tier,
            files=patch.files,
            rationale=patch.rationale,
            at=max(times),
            waits_for_review=self.waits(identity),
            fitness=verdict.fitness.point if verdict is not None and verdict.fitness is not None else None,
            decision=None if verdict is None else verdict.decision,
            reviewer=change.reviewer if change is not None else word.reviewer if word is not None else "",
            reason=change.reason if change is not None else word.reason if word is not None else "",
        )


def _judgement(store: Path, each: Standing) -> Judgement:
    """With what each side measured, from the proof; `problem` says why there is none."""
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    problem = ""
    try:
        before, after = _measured(store, each)
    except LedgerError as error:
        problem = str(error)
    return Judgement(
        kind="verdict" if each.kind == "verdict" else "evaluation",
        at=each.at,
        verdict=each.verdict,
        before=_finite(before),
        after=_finite(after),
        proof=each.bundle,
        problem=problem,
    )


def _measured(store: Path, each: Standing) -> tuple[dict[str, float], dict[str, float]]:
    from qigheal.healing.audit import proof_of
    from qigheal.healing.sides import measured

    return measured(proof_of(store, each).trial)


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _ledger(store: Path) -> Ledger | None:
    """None where no healer has come by."""
    from qigheal.healing.ledger import Ledger

    return Ledger(store / LEDGER, read_only=True, busy_s=BUSY_S) if (store / LEDGER).exists() else None


def _refused(error: Exception) -> Refused:
    return Refused(409, "store_busy" if isinstance(error, LedgerBusy) else "store_unusable", str(error))


def _empty(store: Path) -> Any:
    """A ledger without entries, that no file is made for."""

    class Empty:
        path = store / LEDGER

        def entries(self, *_: Any, **__: Any) -> tuple[()]:
            return ()

        def changes(self) -> dict[str, Change]:
            return {}

        def verdicts(self) -> list[Any]:
            return []

    return Empty()


def _broken(first: str) -> str:
    return f"the ledger's chain is broken: {first}; trust nothing after that row (all of it: qigheal patches --verify)"
