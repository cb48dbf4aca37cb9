"""The gates between the phases: what each needs, held against the evidence that exists now.

A criterion that nobody measured says so, and is unmet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from qigcore.constants import FITNESS_THRESHOLD
from qigcore.durations import worded
from qigheal.healing.phases.evidence import Figures, figures, share
from qigheal.records import Record

if TYPE_CHECKING:
    from qigheal.healing.ledger import Ledger

GATES: Final = {1: "1→2", 2: "2→3", 3: "3→4", 4: "stay in 4"}
NOT_MEASURED: Final = "not measured"
REVIEWS: Final = 3
"""Patches that must be reviewed before the approved ones among them say anything."""


class Criterion(Record, frozen=True):
    """One line of a gate: what is needed, what was found, whether that is enough, and if not, what to do."""

    gate: str  # a value of GATES
    name: str
    needed: str
    found: str
    met: bool
    advice: str = ""


class StoreEvidence(Record, frozen=True):
    """Evidence from outside the ledger; None is what nobody measured."""

    snapshots: int | None = None
    present_share: float | None = None  # recorded of the expected ones, 0 to 1
    silent_s: float | None = None  # since the last one, where that is longer than usual; None: it is not
    baseline_learned: bool | None = None
    trends_known: int | None = None  # of Φ, drift, latency and errors
    memory_mb: float | None = None  # what recording costs the service
    strategies: tuple[str, ...] | None = (
        None  # with something to work on in this host, for what was diagnosed
    )
    uptime_share: float | None = None
    hours_saved: float | None = None
    drills: int | None = None  # performed on the host's repository; None: no host was named


def gate_status(ledger: Ledger, evidence: StoreEvidence) -> tuple[Criterion, ...]:
    """Every criterion of every gate, in order, held against the evidence there is now."""
    found = figures(ledger)
    scores = sorted(found.scores)
    within = [
        FITNESS_THRESHOLD <= score <= ceiling
        for score, ceiling in zip(found.scores, found.score_ceilings, strict=True)
    ]
    tried = set(found.strategies)
    wanted = evidence.strategies
    confirmed = found.confirmed_share
    return (
        _least(1, "snapshots", evidence.snapshots, 1000, "let the service record on"),
        _present(evidence),
        _line(
            1,
            "baseline learned",
            "yes",
            _known(evidence.baseline_learned, "no", "yes"),
            evidence.baseline_learned,
            "let the service record its first healthy snapshots, or see: qigheal baseline --help",
        ),
        _least(
            1, "trends known", evidence.trends_known, 4, "let it record; qigheal trends says which is unknown"
        ),
        _line(
            1,
            "memory of the monitor",
            "< 100 MB",
            None if evidence.memory_mb is None else f"{evidence.memory_mb:.1f} MB",
            evidence.memory_mb is not None and evidence.memory_mb < 100,
            "make the monitor with a smaller history_size",
        ),
        _least(
            2, "patches judged", found.patches, 10, "let the loop run, or start it by hand: qigheal heal HOST"
        ),
        _line(
            2,
            "strategies that apply, tried",
            "all" if wanted is None else ", ".join(wanted) or "none applies",
            None if wanted is None else ", ".join(sorted(tried)) or "none",
            bool(wanted) and tried.issuperset(wanted or ()),
            "name the host, whose manifest says which apply: --host HOST"
            if wanted is None
            else f"while the service is unwell: qigheal heal HOST --strategy {min({*wanted} - tried)}; one that is "
            "asked and has no patch is tried as well"
            if {*wanted} - tried
            else "nothing was diagnosed yet that a strategy could heal here: let the service record, and declare "
            "levers, sites or files that may be patched in qigheal.toml",
        ),
        _portion(
            2,
            "trials completed",
            share(found.completed, found.trials),
            "≥ 95 %",
            0.95,
            "see to why the probe breaks off: the reasons stand in qigheal patches",
        ),
        _portion(
            2,
            "reviewed patches approved",
            share(found.approved, found.reviewed) if found.reviewed >= REVIEWS else None,
            f"≥ 80 % of at least {REVIEWS}",
            0.8,
            f"{found.reviewed} reviewed; say what you think of measured patches: qigheal review PATCH --approve "
            "or --reject",
        ),
        _line(
            2,
            "scores of accepted patches",
            "0.6 to 0.8, up to 1 where several terms improve",
            f"{scores[0]:.2f} to {scores[-1]:.2f}" if scores else None,
            all(within),
            "no patch was accepted yet"
            if not scores
            else "a score outside is beyond what the formula gives: look at its trial in qigheal patches",
        ),
        _least(3, "changes applied", found.applied, 5, "approve changes that are open: qigheal patches"),
        _portion(
            3,
            "applied changes confirmed",
            confirmed,
            "> 70 %",
            0.7,
            "deploy what was merged and let it record, so that the watch can speak",
            strictly=True,
        ),
        _line(
            3,
            "false positives",
            "< 10 % of cases",
            f"{found.false_positives} of {found.cases}" if found.cases else None,
            found.false_positives < 0.1 * found.cases,
            "the healer was called on healthy code: learn the baseline from a longer or more varied time",
        ),
        _line(
            3,
            "rollbacks rehearsed",
            "of every change merged",
            None if found.rehearsed is None else f"{found.rehearsed} of {found.merges}",
            found.merges > 0 and found.rehearsed == found.merges,
            "each merge is rehearsed by itself; nothing was merged yet, or an older version did it",
        ),
        _rollbacks(found, evidence.drills),
        _portion(
            4,
            "applied changes confirmed",
            confirmed,
            "> 80 %",
            0.8,
            "look at what was not confirmed, and why: qigheal patches",
            strictly=True,
        ),
        _portion(
            4,
            "uptime reported",
            evidence.uptime_share,
            "a figure",
            0.0,
            "let the service record: three snapshots do",
        ),
        _line(
            4,
            "hours saved reported",
            "a figure",
            None if evidence.hours_saved is None else f"{evidence.hours_saved:.1f} h",
            True,
            "say how long such a repair takes a person, which nothing here can measure: --hours-per-repair H",
        ),
    )


def _line(phase: int, name: str, needed: str, found: str | None, met: bool | None, advice: str) -> Criterion:
    """A criterion; one without a finding is not measured, and never met."""
    enough = found is not None and bool(met)
    return Criterion(
        gate=GATES[phase],
        name=name,
        needed=needed,
        found=NOT_MEASURED if found is None else found,
        met=enough,
        advice="" if enough else advice,
    )


def _least(phase: int, name: str, count: int | None, least: int, advice: str) -> Criterion:
    return _line(
        phase,
        name,
        f"≥ {least}",
        None if count is None else str(count),
        count is not None and count >= least,
        advice,
    )


def _portion(
    phase: int,
    name: str,
    part: float | None,
    needed: str,
    least: float,
    advice: str,
    *,
    strictly: bool = False,
) -> Criterion:
    met = part is not None and (part > least if strictly else part >= least)
    # Rounded down: 99.96 % must not be shown as the 100 % that it is not.
    shown = None if part is None else f"{int(part * 1000 + 1e-9) / 10:g} %"
    return _line(phase, name, needed, shown, met, advice)


def _present(evidence: StoreEvidence) -> Criterion:
    """However large the share, a service that is silent now is not present: of long ago, it tells nothing."""
    line = _portion(
        1,
        "expected snapshots present",
        evidence.present_share,
        "≥ 99.9 %",
        0.999,
        "find out what stops the recording: restarts, a full disk, a worker that hangs",
    )
    if evidence.silent_s is None or evidence.present_share is None:
        return line
    return replace(
        line,
        found=f"{line.found}, none for {worded(evidence.silent_s)}",
        met=False,
        advice="start the service, or name the store that it writes now: nothing has come since",
    )


def _rollbacks(found: Figures, drills: int | None) -> Criterion:
    """A drill shows that the repository it was done on can take a merge back, and nothing of another one."""
    drill, name = "qigheal phase drill --host HOST", "rollbacks performed, drills included"
    if drills is None and found.drills and not found.rolled_back:
        elsewhere = f"{found.drills} drilled, on a repository that is not named"
        return _line(3, name, "≥ 1", elsewhere, False, "name the host, whose drills count: --host HOST")
    if not drills and found.drills:
        drill += ": what was drilled was another repository"
    return _least(3, name, found.rolled_back + (drills or 0), 1, drill)


def _known(value: bool | None, no: str, yes: str) -> str | None:
    return None if value is None else (yes if value else no)
