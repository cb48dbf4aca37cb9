"""Reads what alerts are made from: the store's health, what is new in the ledger, the settings of the healer.

What cannot be read is a sentence among the problems, never an error: a store that does not exist yet is no reason to
stop. Nothing is compared here, and nothing is written. Of healing only the ledger is known: the rooms of the phases
load what a serving process shall not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from qigcore.errors import QigcoreError
from qigcore.history import Damage
from qigheal.alerts.records import Said
from qigheal.errors import LedgerError, QighealError
from qigheal.records import Change, HealthReport, Record
from qigheal.settings import HealSettings
from qigheal.standing import Standing

LEDGER = "ledger.db"


class Step(NamedTuple):
    """A change enters a state; `at` in Unix seconds."""

    at: float
    change: Change


class Move(Record, frozen=True):
    """As much of a `phase` entry as is told; `how` is "advance", "override" or "demote"."""

    before: int
    to: int
    how: str
    actor: str
    reason: str


class Turn(NamedTuple):
    """The healer enters a phase; `at` in Unix seconds."""

    at: float
    move: Move


class Seen(NamedTuple):
    """One look at a store."""

    report: HealthReport | None = None  # None: there is nothing to judge by
    last_at: float | None = None  # time of the newest snapshot
    interval_s: float | None = None  # usually between two of them, of whatever process
    damage: Mapping[str, int] = MappingProxyType({})
    losses: int = 0  # snapshots that this process could not write, since it began
    steps: tuple[Step, ...] = ()
    turns: tuple[Turn, ...] = ()
    ledger_seq: int = 0
    ledger_digest: str = ""
    ledger_unread: bool = False  # it is there, and could not be read
    anew: bool = False  # the ledger is another than the one known: all of it was read
    brakes: HealSettings = (
        HealSettings()
    )  # of the healer's last pass; the usual ones where they cannot be read
    problems: tuple[str, ...] = ()


def look(store: Path, said: Said, losses: int = 0) -> Seen:
    """What stands in the store now, and what the ledger got since the last look."""
    seen = Seen(losses=losses, ledger_seq=said.ledger_seq, ledger_digest=said.ledger_digest)
    for read in (_health, _ledger, _brakes):
        try:
            seen = read(seen, store)
        except (QigcoreError, QighealError, OSError) as error:
            unread = seen.ledger_unread or read is _ledger
            seen = seen._replace(problems=(*seen.problems, str(error)), ledger_unread=unread)
    return seen


def _health(seen: Seen, store: Path) -> Seen:
    standing = Standing(store)
    read = standing.last()
    times = read.batch.timestamp
    seen = seen._replace(damage=_counted(read.damage))
    if not len(times):
        return seen
    gaps = np.diff(times[-200:])
    seen = seen._replace(last_at=float(times.max()), interval_s=float(np.median(gaps)) if len(gaps) else None)
    return seen._replace(report=standing.judged(read))  # a silence is an alert of its own


def _counted(damage: Damage) -> dict[str, int]:
    """What is lost. A torn tail is not: it is half a row of a process that was killed."""
    counts = {
        "damaged segment headers": damage.bad_headers,
        "damaged blocks": damage.bad_blocks,
        "damaged rows": damage.bad_rows,
        "missing rows": damage.missing_rows,
        "unreadable segments": len(damage.unreadable),
    }
    return {name: count for name, count in counts.items() if count}


def _ledger(seen: Seen, store: Path) -> Seen:
    path = store / LEDGER
    if not path.exists():  # no healer has run here yet
        return seen
    from qigheal.healing.ledger import Ledger

    ledger = Ledger(path, read_only=True)
    entries = ledger.entries(after=max(0, seen.ledger_seq - 1))
    known = seen.ledger_seq == 0 or (bool(entries) and entries[0].digest == seen.ledger_digest)
    if not known:
        entries = ledger.entries()
    fresh = [each for each in entries if not known or each.seq > seen.ledger_seq]
    steps, turns, problems = [], [], list(seen.problems)
    for each in fresh:
        try:
            if each.kind == "change":
                steps.append(Step(each.at, each.read(Change)))
            elif each.kind == "phase":
                turns.append(Turn(each.at, each.read(Move)))
        except LedgerError as error:  # of a later version: it hides no other
            problems.append(str(error))
    if not entries:
        return seen._replace(ledger_seq=0, ledger_digest="", anew=True)
    return seen._replace(
        steps=tuple(steps),
        turns=tuple(turns),
        problems=tuple(problems),
        ledger_seq=entries[-1].seq,
        ledger_digest=entries[-1].digest,
        anew=not known,
    )


def _brakes(seen: Seen, store: Path) -> Seen:
    return seen._replace(brakes=HealSettings.load(store))
