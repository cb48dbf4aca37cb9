"""A signed state vector (a hidden layer, a set of gauges) as readings."""

from __future__ import annotations

from typing import Self

from qigcore._estimators import States
from qigcore.estimators.definition import MOST, Definition, Estimator, OnInvalid, within
from qigcore.estimators.figures import shrunk_correlation, total_correlation
from qigcore.estimators.pooling import pooled_bins
from qigcore.rows import FloatArray


class StateDefinition(Definition, frozen=True, kw_only=True, tag_field="kind", tag="state"):
    """components: 2 to 128; dim, seed: see `pooling`; refresh: requests between two looks at the covariance."""

    components: int
    dim: int = 64
    seed: int = 0
    refresh: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        within("components", self.components, 2, 128)
        within("dim", self.dim, 2, MOST)
        within("seed", self.seed, 0, 2**64 - 1)
        within("refresh", self.refresh, 1, 10**9)


def _figures(covariance: FloatArray, mean: FloatArray, samples: float) -> tuple[float, float]:
    return total_correlation(shrunk_correlation(covariance, samples, mean=mean).matrix)


class StateEstimator(Estimator[StateDefinition]):
    """From a state vector of `components` signed numbers, by its streaming covariance.

    update(x): x array-like, shape [components], each at most 1e100 in size, not all 0. Components should be of
    comparable scale: the basin is of their squares. Anything else: see `on_invalid`.

    basin: average of x²/‖x‖² over requests, pooled to `dim` bins, summing to 1: where the activity lies.
    phi: normalised total correlation of the components, in [0, 1]; kappa: their effective rank, in [1, components].
        Formulas, and what they do not mean: `figures.total_correlation`. Both are of the covariance of the last
        `memory` requests or so, shrunk by `figures.shrunk_correlation`; they are renewed at the first request
        and at each `refresh`-th, because that takes far longer than a request: 0.2 ms for 64 components, 0.7 ms for
        128; beyond, threads of the linear algebra library would make it tens of ms on a busy machine.

    Raises ValueError for a setting out of range.
    """

    TYPE = StateDefinition

    def __init__(
        self,
        components: int,
        *,
        memory: int = 500,
        dim: int = 64,
        seed: int = 0,
        refresh: int = 50,
        on_invalid: OnInvalid = "nan",
    ) -> None:
        definition = StateDefinition(
            memory=memory, components=components, dim=dim, seed=seed, refresh=refresh
        )
        bins = pooled_bins(components, dim, seed)
        super().__init__(definition, States(bins, dim, definition.memory, refresh, _figures, on_invalid))

    @classmethod
    def of(cls, definition: StateDefinition, *, on_invalid: OnInvalid = "nan") -> Self:
        return cls(
            definition.components,
            memory=definition.memory,
            dim=definition.dim,
            seed=definition.seed,
            refresh=definition.refresh,
            on_invalid=on_invalid,
        )
