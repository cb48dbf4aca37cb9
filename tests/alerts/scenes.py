"""Made-up looks at a service and its ledger, for tests of what is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from qigheal.alerts import Alert, AlertSettings
from qigheal.alerts.events import Scene, compare
from qigheal.alerts.records import Said
from qigheal.alerts.seeing import Move, Seen, Step, Turn
from qigheal.records import Change, Finding, HealingPatch, HealthReport, Severity, Share

START = 1_700_000_000.0
DIFF = "--- a/config/app.toml\n+++ b/config/app.toml\n@@ -1 +1 @@\n-gain = 6.0\n+gain = 1.0\n"


def finding(severity: Severity = "critical", **fields: Any) -> Finding:
    given: dict[str, Any] = {
        "kind": "phi_low",
        "metric": "phi",
        "value": 0.55,
        "limit": 0.65,
        "message": "Φ degraded: 0.550 < 0.65",
        "since": START - 600,
        "snapshots": 10,
        "components": (Share(index=12, share=0.34), Share(index=3, share=0.2)),
    }
    return Finding(**{**given, "severity": severity, **fields})


def report(
    severity: Severity = "normal", *found: Finding, state: Literal["learning", "learned"] = "learned"
) -> HealthReport:
    if severity != "normal" and not found:
        found = (finding(severity),)
    return HealthReport(
        healthy=severity == "normal",
        severity=severity,
        issues=tuple(each.message for each in found),
        findings=found,
        metrics={},
        state=state,
        snapshots=1000,
    )


def change(state: str, id: str = "3f2a", **fields: Any) -> Change:
    patch = HealingPatch(
        strategy="attention",
        tier="safe",
        base="b" * 40,
        diff=DIFF,
        rationale="attention.gain from 6 to 1",
        heals=("phi",),
    )
    given: dict[str, Any] = {
        "patch": patch,
        "verdict": None,
        "branch": "qigheal/x",
        "target": "main",
        "opened_at": START,
    }
    return Change(**{**given, "id": id, "state": state, **fields})


def move(how: str, before: int, to: int, reason: str = "") -> Move:
    return Move(before=before, to=to, how=how, actor="Ada", reason=reason)


class Story:
    """What was said so far, look by look. The first look is of a healthy service with an empty ledger."""

    def __init__(self, store: Path = Path("/srv/digits/.qigheal"), **settings: Any) -> None:
        self.settings = AlertSettings(**settings)
        self.store = store
        self.said = Said()
        self.now = START
        self.seq = 0
        self.look(report())

    def look(
        self,
        health: HealthReport | None = None,
        *changes: Change,
        after: float = 30.0,
        dashboard: str = "",
        moves: tuple[Move, ...] = (),
        **seen: Any,
    ) -> list[Alert]:
        self.now += after
        self.seq += len(changes) + len(moves)
        given: dict[str, Any] = {
            "report": health,
            "last_at": self.now,
            "interval_s": 1.0,
            "steps": tuple(Step(self.now, each) for each in changes),
            "turns": tuple(Turn(self.now, each) for each in moves),
            "ledger_seq": self.seq,
            "ledger_digest": str(self.seq),
        }
        scene = Scene("digits", self.store, dashboard, self.now, START, self.settings)
        self.said, alerts = compare(self.said, Seen(**{**given, **seen}), scene)
        return alerts
