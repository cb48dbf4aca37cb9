"""The figures of a ledger: what the healer tried, and what came of it.

A ledger only grows, and each entry is counted once, so these counters are the same for whoever reads it and
whenever. Only a sidecar comes here: this room imports the healer's.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from qigcore.errors import HistoryError
from qigheal.errors import LedgerError
from qigheal.healing.ledger import Entry, Judged, Ledger
from qigheal.healing.phases import Move, TrialFacts, breaker_open
from qigheal.healing.phases.evidence import TAKEN_BACK
from qigheal.integrations.metrics.reading import Distribution, Reading
from qigheal.records import FINAL_STATES, Change, HealingPatch
from qigheal.settings import HealSettings

FILE = "ledger.db"
NEITHER = frozenset({"confirmed", "superseded"})
"""Ends of a change that are no failure; one that was superseded is measured again, as another."""


class HealingFigures:
    """Folds a store's ledger, entry by entry, from where it was left. Owned by one thread at a time."""

    def __init__(self, store: Path) -> None:
        self._path = store / FILE
        self._begin()

    def _begin(self) -> None:
        self._file: tuple[int, int] | None = None
        self._seq = 0
        self._unread = ""
        self._unusable = ""
        self._counts: Counter[str] = Counter()
        self._decisions: Counter[str] = Counter()
        self._states: dict[str, str] = {}
        self._merging: dict[str, float] = {}
        self._score: float | None = None
        self._phase = 1
        self._durations = {name: Distribution() for name in ("generation", "test", "apply")}

    def tell(self, reading: Reading, now: float) -> None:
        """Put the figures into a reading. `now`: Unix seconds.

        Raises LedgerError where the ledger cannot be read, or has entries that this version cannot, or where the
        healer's settings are unusable; those that it can are put all the same, the breaker by the usual settings.
        """
        broken = False
        try:
            broken = self._take_up(now)
        finally:
            self._tell(reading, breaker=broken)
        if problem := self._unread or self._unusable:
            raise LedgerError(problem)

    def _take_up(self, now: float) -> bool:
        """Fold what is new; whether the breaker is open."""
        self._unusable = ""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._begin()  # moved away: another one begins at nothing
            return False
        if self._file not in (None, (status.st_dev, status.st_ino)):
            self._begin()
        self._file = status.st_dev, status.st_ino
        ledger = Ledger(self._path, read_only=True)
        for entry in ledger.entries(after=self._seq):
            try:
                self._fold(entry)
            except LedgerError as error:
                self._unread = str(error)
            self._seq = entry.seq
        back = any(state in TAKEN_BACK for state in self._states.values())
        return back and breaker_open(ledger, self._settings(), now)

    def _settings(self) -> HealSettings:
        try:
            return HealSettings.load(self._path.parent)
        except HistoryError as error:
            self._unusable = str(error)
            return HealSettings()

    def _fold(self, entry: Entry) -> None:
        if entry.kind == "verdict":
            verdict = entry.read(Judged).verdict
            self._counts["attempts"] += 1
            self._counts["failures"] += not verdict.accepted
            self._decisions[verdict.decision] += 1
            if verdict.fitness is not None:
                self._score = verdict.fitness.point
        elif entry.kind == "patch":
            if (seconds := entry.read(HealingPatch).found_s) is not None:
                self._durations["generation"].observe(seconds)
        elif entry.kind == "trial":
            facts = entry.read(TrialFacts)
            if not facts.refusals:
                self._durations["test"].observe(facts.seconds)
        elif entry.kind == "change":
            self._enter(entry.read(Change), entry.at)
        elif entry.kind == "phase":
            self._phase = entry.read(Move).to

    def _enter(self, change: Change, at: float) -> None:
        """A change enters a state, or stays in it for another reason."""
        before = self._states.get(change.id)
        self._states[change.id] = change.state
        if change.state == before:
            return
        if change.state == "merging":
            self._merging[change.id] = at
        elif change.state == "watching" and change.id in self._merging:
            self._durations["apply"].observe(max(0.0, at - self._merging.pop(change.id)))
        self._counts["rollbacks"] += change.state == "rolled_back"
        if change.verdict is None:  # an operator's override is neither the healer's success nor its failure
            return
        self._counts["success"] += change.state == "confirmed"
        self._counts["failures"] += change.state in FINAL_STATES - NEITHER

    def _tell(self, reading: Reading, *, breaker: bool) -> None:
        for name in ("attempts", "success", "failures", "rollbacks"):
            reading.put(f"healing_{name}_total", self._counts[name])
        reading.put_all("healing_patches_total", self._decisions)
        reading.put_all("healing_changes", Counter(self._states.values()))
        reading.put("healing_fitness_score", self._score)
        reading.put("healing_phase", self._phase)
        reading.put("healing_breaker_open", float(breaker))
        for name, seconds in self._durations.items():
            reading.distributions[f"healing_patch_{name}_duration_seconds"] = seconds.copy()
