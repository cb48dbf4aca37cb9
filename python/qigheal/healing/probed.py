"""Health measured by the probe instead of read from the live service's history.

For hosts that record nothing yet: the healthy state is measured at a commit that a person names, the
present state at another, under the same conditions. Latency and memory are the parent's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qigcore.baseline import Baseline
from qigcore.rows import HEAD, Batch
from qigheal.healing.bench import Bench
from qigheal.records import Answer
from qigheal.settings import Geometry

LEARN_BATCHES = 300


def batch_of(answers: Sequence[Answer], *, code_hash: str, at: float) -> Batch:
    """Answers as a batch of snapshots of `code_hash`, one second apart and ending at `at` (Unix seconds)."""
    heads = np.zeros(len(answers), HEAD)
    heads["timestamp"] = at - np.arange(len(answers) - 1, -1, -1)
    heads["phi"] = [answer.phi for answer in answers]
    heads["kappa_eff"] = [answer.kappa_eff for answer in answers]
    heads["error_rate"] = [answer.error_rate for answer in answers]
    heads["avg_latency_ms"] = [answer.wall_ms for answer in answers]
    heads["memory_mb"] = [answer.rss_mb for answer in answers]
    heads["code"] = 1
    for optional in ("confidence", "surprise", "agency"):
        heads[optional] = np.nan
    return Batch.of_rows(heads, np.array([answer.basin for answer in answers]), ("", code_hash))


def learn_from_probe(bench: Bench, geometry: Geometry, *, at: float) -> tuple[Baseline, Batch]:
    """The baseline of the bench's base commit, and the `LEARN_BATCHES` probe batches that it is learned from.

    Raises ProbeError when the probe does not answer, TooLittleData when fewer than 30 are usable.
    """
    answers = bench.batches(None, LEARN_BATCHES)
    batch = batch_of(answers, code_hash=bench.base, at=at)
    return Baseline.learn(batch, geometry=geometry, created=at), batch
