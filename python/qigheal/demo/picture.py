"""The demo's picture: Φ, κ and drift over the snapshots, the healthy bands, the events marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qigcore.baseline import Baseline
from qigcore.rows import Batch
from qigheal.errors import MissingExtra

PANELS = (("phi", "phi", "Φ"), ("kappa", "kappa_eff", "κ"), ("basin_drift", "basin_drift", "drift, rad"))
INK, CURVE, BAND = "#333333", "#1f5f99", "#7fb77e"
COLOURS = {"fault": "#b3261e", "heal": "#2e7d32"}


def draw(batch: Batch, baseline: Baseline, events: Sequence[Mapping[str, str | int]], path: Path) -> None:
    """Write a PNG. `events` are mappings with `snapshot` (position), `label`, `kind` ("fault" or "heal").

    Raises MissingExtra without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "demo", "the demo's picture") from None

    figure = Figure(figsize=(10, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(PANELS), 1, sharex=True)
    for axis, (metric, column, label) in zip(axes, PANELS, strict=True):
        band = baseline.bands[metric]
        low = 0.0 if metric == "basin_drift" else band.low
        axis.axhspan(low, band.high, color=BAND, alpha=0.35, lw=0, label="healthy band")
        axis.plot(batch.columns[column], color=CURVE, lw=0.8)
        axis.set_ylabel(label, color=INK)
        axis.margins(x=0.01)
        for spine in ("top", "right"):
            axis.spines[spine].set_visible(False)
        for event in events:
            axis.axvline(int(event["snapshot"]), color=COLOURS[str(event["kind"])], lw=1, ls="--")
    axes[1].set_yscale("log")
    axes[0].legend(loc="lower left", frameon=False, fontsize=8)
    # Events come close together; steps of height keep their labels apart.
    for i, event in enumerate(events):
        axes[0].annotate(
            str(event["label"]),
            xy=(int(event["snapshot"]), 1.02 + 0.10 * (i % 3)),
            xycoords=("data", "axes fraction"),
            color=COLOURS[str(event["kind"])],
            fontsize=8,
            ha="left",
        )
    axes[-1].set_xlabel("snapshot")
    axes[1].set_ylabel("κ (log scale)", color=INK)
    figure.suptitle("What the service recorded, and what was done", color=INK, fontsize=11)
    figure.savefig(path)
