"""Estimators, over the commits."""

from __future__ import annotations

from benchmarks import workloads
from qigcore.estimators import EmbeddingEstimator

CALLS = range(1000)


class Update:
    params = ("embedding", "class", "logits", "event", "state")
    param_names = ("kind",)

    def setup(self, kind: str) -> None:
        self.update = getattr(workloads, f"{kind}_update")()

    def time_1000_updates(self, kind: str) -> None:
        for _ in CALLS:
            self.update()


class Fit:
    def setup(self) -> None:
        self.rows = workloads.embeddings()

    def time_fit_1000_embeddings(self) -> None:
        EmbeddingEstimator.fit(self.rows)
