"""The demo host's service as a stream: attention over handwritten digits, in batches of 256 requests.

What each request would report is computed once for each state of the service (its keys, the noise on the
pixels); a batch is a draw of 256 requests with replacement and reports their mean, as `Model.respond` does.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import qigheal
from benchmarks.detection.streams import DIM, Change, Changed, Floats, Rng, Rows, joined, scalars
from qigcore import geometry

BATCH = 256
TEMPERATURE = 0.85
STEPS = 20
"""A growing change is computed at so many degrees of it; rows take the nearest."""

PHI, KAPPA = DIM, DIM + 1  # columns of a table, behind the basin


@cache
def recorded() -> Any:
    """The images of the demo host, made as the demo makes them."""
    root = str(Path(qigheal.__file__).parent / "demo" / "digits-host")
    if root not in sys.path:
        sys.path.append(root)
    from digits.data import Recorded
    from qigheal.demo.repository import _images

    return Recorded(**_images())


def answers(keys: npt.NDArray[np.float32], requests: npt.NDArray[np.float32]) -> Floats:
    """What every request alone reports: basin, Φ, κ. Shape [n, 66]."""
    from digits.model import Model

    known = recorded()
    model = Model(
        type(known)(keys, known.key_labels, known.key_clusters, requests, known.request_labels), TEMPERATURE
    )
    alone = [model.respond(request[None]) for request in requests]
    return np.array([[*answer.basin, answer.phi, answer.kappa] for answer in alone])


@cache
def healthy_table() -> Floats:
    return answers(recorded().keys, recorded().requests)


@cache
def noisy_tables(size: float) -> Floats:
    """Tables under pixel noise of a standard deviation of 0 to `size`, shape [STEPS + 1, 597, 66]."""
    rng = np.random.default_rng(88)
    known = recorded()
    made = []
    for step in range(STEPS + 1):
        noise = rng.normal(0.0, size * step / STEPS, known.requests.shape)
        made.append(answers(known.keys, np.clip(known.requests + noise, 0.0, 1.0).astype(np.float32)))
    return np.array(made)


@cache
def damaged_table(kind: str, share: float, which: int) -> Floats:
    """A table where a share of the key images is blank, or has its pixels in disorder. which: 0 to 9."""
    rng = np.random.default_rng((77, which))
    keys = recorded().keys.copy()
    for key in rng.choice(len(keys), round(share * len(keys)), replace=False):
        keys[key] = 0.0 if kind == "blank" else rng.permutation(keys[key])
    return answers(keys, recorded().requests)


def batches(rng: Rng, table: Floats, n: int, start: int, chances: Floats | None = None) -> Rows:
    """n rows. table: [597, 66]. chances: of each request, shape [597] or [n, 597]; equal when left out."""
    found = np.empty((n, DIM + 2))
    count = len(table)
    for at in range(0, n, 500):
        size = min(500, n - at)
        if chances is None:
            drawn = rng.integers(count, size=(size, BATCH))
            drawn += count * np.arange(size)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        else:
            counts = rng.multinomial(BATCH, chances[at : at + size] if chances.ndim == 2 else chances, size)
        found[at : at + size] = (counts / BATCH) @ table
    basins = np.ascontiguousarray(found[:, :DIM])
    drift = geometry.distances(basins, healthy_table()[:, :DIM].mean(axis=0))
    return Rows(basins, scalars(rng, start, found[:, PHI], found[:, KAPPA], drift))


@dataclass(frozen=True)
class Digits:
    """The service with the requests that it always had."""

    def healthy(self, rng: Rng, n: int, start: int = 0) -> Rows:
        return batches(rng, healthy_table(), n, start)

    def changed(self, rng: Rng, change: Change) -> Changed:
        return Altered(change, int(rng.integers(10)))


@dataclass(frozen=True)
class Altered:
    """The service after a change; nobody knows its likelihood ratio."""

    change: Change
    which: int

    def rows(self, rng: Rng, before: int, n: int, start: int) -> Rows:
        return joined([Digits().healthy(rng, before, start), self.after(rng, n, start + before)])

    def after(self, rng: Rng, n: int, start: int) -> Rows:
        """The n rows after the change."""
        change = self.change
        reached = np.minimum(1.0, (np.arange(n) + 1) / change.over) if change.over else np.ones(n)
        if change.kind == "mix":
            labels = recorded().request_labels
            few = np.isin(labels, (1, 7)) / np.isin(labels, (1, 7)).sum()
            chances = (
                few if not change.over else few * reached[:, None] + (1.0 - reached[:, None]) / len(labels)
            )
            return batches(rng, healthy_table(), n, start, chances)
        if change.kind == "noise":
            steps = np.rint(reached * STEPS)
            parts = []
            for step in np.unique(steps):
                first, count = int((steps < step).sum()), int((steps == step).sum())
                parts.append(batches(rng, noisy_tables(change.size)[int(step)], count, start + first))
            return joined(parts)
        return batches(rng, damaged_table(change.kind, change.size, self.which), n, start)

    def statistic(self, rows: Rows, start: int) -> None:
        return None
