"""One example of each document, for the OpenAPI description: figures of a small service after a bad deploy."""

from __future__ import annotations

from typing import Final

from qigcore.constants import PHI_MIN
from qigcore.fitness import Fitness
from qigheal.api.records import (
    Error,
    GateLine,
    Glance,
    Health,
    Job,
    Judgement,
    PatchDetail,
    Patches,
    PatchSummary,
    Phase,
    Range,
    ReviewRequest,
    Snapshot,
    Snapshots,
    State,
    TimeToLimit,
    TrendOf,
    Trends,
    Triggered,
)
from qigheal.records import Change, Finding, Guard, HealingPatch, Share, Verdict

AT: Final = 1767225600.0  # 2026-01-01
PATCH_ID: Final = "3f2a9c0d1e4b5a67"
JOB_ID: Final = "9d0c4e8b7a615f32"
FINGERPRINT: Final = "0b7e4c1a9d3f52680b7e4c1a9d3f5268"

ERROR: Final = Error(
    error="busy", detail=f"job {JOB_ID} is at work on this store; ask again when it has ended"
)
GLANCE: Final = Glance(status="critical", severity="critical")
HEALTH: Final = Health(
    status="critical",
    severity="critical",
    healthy=False,
    issues=("Φ degraded: 0.410 < 0.72",),
    findings=(
        Finding(
            kind="phi_low",
            metric="phi",
            value=0.41,
            limit=0.72,
            severity="critical",
            message="Φ degraded: 0.410 < 0.72",
            since=AT - 600.0,
            snapshots=11,
            components=(Share(index=7, share=0.62),),
        ),
    ),
    metrics={"phi": 0.41, "kappa": 412.0, "basin_drift": 0.35, "error_rate": 0.0, "latency_ms": 12.1},
    limits="learned",
    snapshots=1440,
    last_at=AT,
)
SNAPSHOT: Final = Snapshot(
    timestamp=AT,
    phi=0.41,
    kappa_eff=412.0,
    basin_drift=0.35,
    error_rate=0.0,
    avg_latency_ms=12.1,
    memory_mb=181.0,
    regime="geometric",
    code_hash="a1b2c3d4",
    module_name="digits.service",
)
SNAPSHOTS: Final = Snapshots(snapshots=(SNAPSHOT,), next_since=AT)
TRENDS: Final = Trends(
    window=50,
    trends={
        "phi": TrendOf(
            direction="degrading",
            slope=-0.001,
            stderr=0.0002,
            recent_avg=0.74,
            snapshots=50,
            reaches=TimeToLimit(limit=0.72, course="reaches", seconds=1200.0, low=900.0, high=1800.0),
            sentence="Φ reaches 0.72 in about 20 min, 95 %: 15-30 min",
        )
    },
)
STATE: Final = State(
    geometry="simplex",
    dim=4,
    learned=True,
    learned_from=300,
    phi_min=PHI_MIN,
    drift_limit=0.4,
    bands={"phi": Range(mean=0.77, low=0.72, high=0.82)},
    distance=0.35,
    baseline=(0.25, 0.25, 0.25, 0.25),
    current=(0.4, 0.2, 0.2, 0.2),
    shares=(0.76, 0.08, 0.08, 0.08),
)
JOB: Final = Job(id=JOB_ID, kind="heal", state="running", started_at=AT)
TRIGGERED: Final = Triggered(triggered=True, message="Φ degraded: 0.410 < 0.72", job=JOB)
NOT_TRIGGERED: Final = Triggered(triggered=False, message="healthy: nothing to heal")
VERDICT: Final = Verdict(
    decision="improved",
    accepted=True,
    fitness=Fitness(point=0.75, low=0.7, high=0.8, components={"phi": 1.0, "drift": 0.5, "service": 0.5}),
    guards=(Guard(metric="latency", margin=0.03, estimate=0.001, low=-0.01, high=0.012, result="pass"),),
    vetoes=(),
    pairs=80,
    sandbox_level="namespaces",
    reason="Φ is back in its band, and nothing else is worse",
)
PATCH: Final = HealingPatch(
    strategy="attention",
    tier="safe",
    base="0123456789abcdef0123456789abcdef01234567",
    diff="--- a/config/model.toml\n+++ b/config/model.toml\n@@ -2 +2 @@\n-temperature = 5.0\n+temperature = 0.85\n",
    rationale="attention.temperature from 5.0 to 0.85 brings Φ back to the centre of its band",
    heals=("phi", "kappa"),
)
CHANGE: Final = Change(
    id=PATCH_ID,
    state="open",
    patch=PATCH,
    verdict=VERDICT,
    branch=f"qigheal/attention-{PATCH_ID}",
    target="main",
    opened_at=AT,
    head="89abcdef0123456789abcdef0123456789abcdef",
)
PATCHES: Final = Patches(
    patches=(
        PatchSummary(
            id=PATCH_ID,
            state="open",
            strategy="attention",
            tier="safe",
            files=("config/model.toml",),
            rationale=PATCH.rationale,
            at=AT,
            waits_for_review=True,
            fitness=0.75,
            decision="improved",
        ),
    )
)
DETAIL: Final = PatchDetail(
    id=PATCH_ID,
    fingerprint=FINGERPRINT,
    waits_for_review=True,
    patch=PATCH,
    change=CHANGE,
    judged=(
        Judgement(
            kind="verdict",
            at=AT,
            verdict=VERDICT,
            before={"phi": 0.41, "latency": 12.1},
            after={"phi": 0.77, "latency": 12.0},
            proof=f"{PATCH_ID}-1.qproof",
        ),
    ),
)
REVIEW: Final = ReviewRequest(
    approve=True, fingerprint=FINGERPRINT, reviewer="Ada Lovelace", reason="the value before the deploy"
)
GATE: Final = GateLine(
    gate="1→2",
    name="snapshots",
    needed="≥ 1000",
    found="640",
    met=False,
    advice="let the service record on",
)
PHASE: Final = Phase(
    phase=1,
    means="monitor: watches and reports, proposes nothing",
    gate="1→2",
    criteria=(GATE,),
    missing=(GATE,),
    since=AT,
    demotion="",
    breaker_open=False,
)
