"""Embeddings as readings: which of the regions of healthy traffic do requests lie in?"""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from qigcore._estimators import Centroids, Embeddings
from qigcore.estimators.definition import MOST, Definition, Estimator, OnInvalid, within
from qigcore.estimators.fitting import Float32s, fit


class EmbeddingDefinition(Definition, frozen=True, kw_only=True, tag_field="kind", tag="embedding"):
    """What was fitted. Make it by `EmbeddingEstimator.fit`.

    centroids: k unit vectors of `components` numbers, row after row, as little-endian float32.
    temperature: τ, of shares exp(−d²/τ). start, start_phi: mean shares [k] and mean Φ of the embeddings
    fitted to. fitted, skipped: how many were used, and how many could not be.
    """

    components: int
    centroids: bytes
    temperature: float
    start: tuple[float, ...]
    start_phi: float
    fitted: int
    skipped: int
    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        within("components", self.components, 2, MOST)
        within("centroids", len(self.start), 2, MOST)
        within("temperature", self.temperature, 1e-7, 1e7)
        within("start_phi", self.start_phi, 0.0, 1.0)
        if len(self.centroids) != 4 * len(self.start) * self.components:
            raise ValueError(
                f"centroids: expected {len(self.start)} of {self.components} float32, got {len(self.centroids)} bytes"
            )
        if not (abs(sum(self.start) - 1.0) < 1e-12 and min(self.start) >= 0.0):
            raise ValueError("start: expected shares of at least 0 that sum to 1")
        lengths = np.linalg.norm(self.rows.astype(np.float64), axis=1)
        if not (np.abs(lengths - 1.0) < 1e-6).all():
            raise ValueError("centroids: expected vectors of unit length")

    @property
    def rows(self) -> Float32s:
        """The centroids, float32 [k, components]; read-only."""
        return np.frombuffer(self.centroids, dtype="<f4").reshape(len(self.start), self.components)


class EmbeddingEstimator(Estimator[EmbeddingDefinition]):
    """From one embedding per request, by soft assignment to centroids of healthy traffic.

    update(x): x array-like, shape [components], at any positive scale (only the direction counts). Anything else,
    of whatever type: see `on_invalid`.

    With d² = 2 − 2·cos of the angle to a centroid, a request's shares are p = softmax(−d²/τ); τ is what gives the
    embeddings fitted to a mean Φ of 0.75, about 64^¼ = 2.8 effective centroids for each of 64.

    basin: average of p over requests, shape [k], summing to 1. It begins as that of the embeddings fitted to.
    phi: average of 1 − H(p)/ln k, in [0, 1]. Its level is set by the rule for τ and says nothing; a fall
        says that requests lie between the regions of healthy traffic, or far from all. It does not mean
        that answers are worse.
    kappa: exp H(basin), in [1, k]: over how many regions the traffic spreads; not how many topics there are.

    Construct it by `fit` or `load`.
    """

    TYPE = EmbeddingDefinition

    def __init__(self, definition: EmbeddingDefinition, *, on_invalid: OnInvalid = "nan") -> None:
        kernel = Embeddings(
            Centroids(definition.rows),
            definition.temperature,
            definition.memory,
            np.array(definition.start),
            definition.start_phi,
            on_invalid,
        )
        super().__init__(definition, kernel)

    @classmethod
    def of(cls, definition: EmbeddingDefinition, *, on_invalid: OnInvalid = "nan") -> Self:
        return cls(definition, on_invalid=on_invalid)

    @classmethod
    def fit(
        cls,
        rows: npt.ArrayLike,
        *,
        centroids: int = 64,
        memory: int = 500,
        seed: int = 0,
        on_invalid: OnInvalid = "nan",
    ) -> Self:
        """A new one, fitted to the embeddings of healthy traffic, shape [n, components].

        centroids: at least 2; each needs 10 embeddings. Raising it tells finer changes of traffic and makes the
        basin noisier. Unusable rows are skipped and counted in `definition.skipped`. Another fit is another
        definition with another `identity`: what was learned from readings of the old one does not hold for it.

        Raises TooLittleData, InvalidBasin, or ValueError for a setting out of range.
        """
        within("centroids", centroids, 2, MOST)
        within("seed", seed, 0, 2**64 - 1)
        found = fit(rows, centroids, seed)
        definition = EmbeddingDefinition(
            memory=memory,
            components=found.centroids.shape[1],
            centroids=found.centroids.astype("<f4").tobytes(),
            temperature=found.temperature,
            start=tuple(found.start.tolist()),
            start_phi=found.phi,
            fitted=found.used,
            skipped=found.skipped,
            seed=seed,
        )
        return cls(definition, on_invalid=on_invalid)
