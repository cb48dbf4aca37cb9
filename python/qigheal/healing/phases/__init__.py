"""Phases: what the autonomous loop may do, and on what evidence it may do more.

    1 monitor    2 evaluate    3 open changes, merge after review    4 autonomous

A phase is entered through its gate, on evidence that stands in the ledger or is handed in; an
override is possible, needs a reason, and is logged. Nothing here measures a service, opens a change,
or writes anything but moves between phases.

    evidence   what the ledger holds, counted
    gates      the criteria, held against it
    moves      the table of permissions; advance, override, demote
    brakes     breaker, rate, when to go back a phase
    standing   all of that at one moment, to be shown
"""

from qigheal.healing.phases.brakes import breaker_open, demotion_due, next_change_at
from qigheal.healing.phases.evidence import (
    ALONE,
    Asked,
    Drilled,
    DrillPlan,
    Figures,
    Rehearsal,
    Review,
    TrialFacts,
    figures,
    trial_facts,
)
from qigheal.healing.phases.gates import GATES, NOT_MEASURED, Criterion, StoreEvidence, gate_status
from qigheal.healing.phases.moves import (
    PHASES,
    Move,
    Permissions,
    advance,
    allowed,
    current,
    demote,
    override,
)
from qigheal.healing.phases.standing import Standing, standing

__all__ = [
    "ALONE",
    "GATES",
    "NOT_MEASURED",
    "PHASES",
    "Asked",
    "Criterion",
    "DrillPlan",
    "Drilled",
    "Figures",
    "Move",
    "Permissions",
    "Rehearsal",
    "Review",
    "Standing",
    "StoreEvidence",
    "TrialFacts",
    "advance",
    "allowed",
    "breaker_open",
    "current",
    "demote",
    "demotion_due",
    "figures",
    "gate_status",
    "next_change_at",
    "override",
    "standing",
    "trial_facts",
]
