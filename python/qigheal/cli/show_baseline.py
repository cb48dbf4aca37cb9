"""What the baseline commands print."""

from __future__ import annotations

from pathlib import Path

import msgspec

from qigcore.baseline import Baseline
from qigcore.comparison import Comparison
from qigheal.cli.show import _table, _when, console, document, escape, line


def none_yet(store: Path, *, json: bool) -> None:
    if json:
        document(None)
    else:
        line(f"{store}: no baseline is learned here yet")


def baseline(found: Baseline, *, json: bool) -> None:
    if json:
        document(found)
        return
    skipped = f", {found.skipped} left out" if found.skipped else ""
    when = _when(found.created)
    line(f"learned from {found.count} snapshots{skipped}{', ' if when else ''}{when}")
    code = f", code {found.code_hash}" if found.code_hash else ""
    line(f"  {found.geometry} of {found.dim} components{code}")
    line(f"  spread {found.variance**0.5:.3g} rad, drift limit {found.drift_limit:.3g} rad")
    table = _table("metric", "mean", "sd", "low", "high", "autocorrelation", "values")
    for name, band in found.bands.items():
        figures = (band.mean, band.sd, band.low, band.high)
        table.add_row(
            escape(name),
            *(f"{figure:.4g}" for figure in figures),
            f"{band.autocorrelation:.2f}",
            str(band.count),
        )
    console.print(table)
    for note in found.notes:
        line(f"  note     {note}")


def comparison(found: Comparison, *, json: bool) -> None:
    if json:
        document({**msgspec.structs.asdict(found), "changed": found.changed})
        return
    for sentence in found.sentences:
        line(sentence)
    if not found.sentences:
        line("nothing changed beyond noise" if found.conclusive else "too few independent snapshots to say")
    line(f"  centre: {found.distance:.3g} rad apart, of which noise {found.noise:.2g}")
    if found.variance_ratio is not None:
        line(
            f"  spread: Fréchet variance × {found.variance_ratio:.3g} "
            f"(95 %: {found.variance_low:.3g} to {found.variance_high:.3g})"
        )
    table = _table("metric", "before", "sd", "after", "sd", "difference in sd", "95 %", "changed")
    for each in found.metrics:
        known = each.difference is not None
        table.add_row(
            escape(each.metric),
            f"{each.mean_before:.4g}",
            f"{each.sd_before:.3g}",
            f"{each.mean_after:.4g}",
            f"{each.sd_after:.3g}",
            f"{each.difference:+.2g}" if known else "",
            f"{each.low:.2g} to {each.high:.2g}" if known else "",
            "yes" if each.changed else "no",
        )
    console.print(table)
    for name in found.missing:
        line(f"  note     {escape(name)} was learned in one of the two only")
