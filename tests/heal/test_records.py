"""Records: what follows from them by arithmetic, and that they survive JSON."""

from __future__ import annotations

import msgspec
import pytest

from qigheal.records import BandOf, Finding, HealingPatch, HealthReport

DIFF = """diff --git a/config/a.toml b/config/a.toml
index 1111111..2222222 100644
--- a/config/a.toml
+++ b/config/a.toml
@@ -1,2 +1,2 @@
 [attention]
-temperature = 5.0
+temperature = 0.85
"""


def patch(diff: str = DIFF, base: str = "c0ffee") -> HealingPatch:
    return HealingPatch(strategy="attention", tier="safe", base=base, diff=diff, rationale="", heals=("phi",))


def test_fingerprint_names_the_change_and_its_base() -> None:
    moved = DIFF.replace("@@ -1,2 +1,2 @@", "@@ -11,2 +11,2 @@").replace("2222222", "3333333")
    assert patch(moved).fingerprint == patch().fingerprint
    assert patch(DIFF.replace("0.85", "0.9")).fingerprint != patch().fingerprint
    assert patch(base="deadbeef").fingerprint != patch().fingerprint
    assert len(patch().fingerprint) == 16


def test_files_of_a_patch() -> None:
    assert patch().files == ("config/a.toml",)


def test_band_excess_is_counted_from_the_edge_in_half_widths() -> None:
    band = BandOf(mean=1.0, sd=0.1, low=0.7, high=1.3)
    assert band.excess(1.29) == 0.0
    assert band.excess(1.6) == pytest.approx(1.0)
    assert band.excess(0.4) == pytest.approx(1.0)


def test_report_reads_like_a_mapping() -> None:
    finding = Finding(
        kind="phi_low",
        metric="phi",
        value=0.55,
        limit=0.65,
        severity="critical",
        message="Φ degraded: 0.550 < 0.65",
    )
    report = HealthReport(
        healthy=False,
        severity="critical",
        issues=(finding.message,),
        findings=(finding,),
        metrics={"phi": 0.55},
        state="absolute",
        snapshots=12,
    )
    assert report["healthy"] is False
    assert report["issues"] == ("Φ degraded: 0.550 < 0.65",)
    with pytest.raises(KeyError, match="severity"):
        report["no such field"]
    assert msgspec.json.decode(msgspec.json.encode(report), type=HealthReport) == report
    with pytest.raises(AttributeError):
        report.healthy = True  # type: ignore[misc]
