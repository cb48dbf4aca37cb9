"""Attention over remembered digits: recognises images, and measures how well it concentrates.

For a request x and keys k, the attention is w = softmax(-|x - k|^2 / temperature). Summed by label
it is the posterior over the ten digits.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from digits.data import CLUSTERS, ROOT, Images, Labels, Recorded

DIGITS = 10
FAINTEST = np.float32(-60.0)
"""Scores this far below the best are cut: e^-60 adds nothing, and denormal numbers are slow."""


@dataclass(frozen=True)
class Response:
    """The answers to one batch, and what the model measured of itself meanwhile."""

    labels: Labels  # the digit recognised, for each request
    phi: float  # certainty: 1 when each posterior is one digit, 0 when it is all ten alike
    kappa: float  # keys attended: exp of the attention's entropy, mean over the batch
    basin: npt.NDArray[np.float64]  # attention in each cluster of keys, mean over the batch; sums to 1


class Model:
    """Attends to the keys of `recorded` with a temperature: low looks at few keys, high at all."""

    def __init__(self, recorded: Recorded, temperature: float) -> None:
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
        self.temperature = temperature
        # |x - k|^2 = |x|^2 - 2 x·k + |k|^2, and |x|^2 is the same for all keys: softmax drops it.
        self._slopes = np.ascontiguousarray(recorded.keys.T * np.float32(2 / temperature))
        self._offsets = (recorded.keys**2).sum(axis=1) / np.float32(temperature)
        self._is_label = np.eye(DIGITS, dtype=np.float32)[recorded.key_labels]
        self._is_cluster = np.eye(CLUSTERS)[recorded.key_clusters]

    def respond(self, images: Images) -> Response:
        """Recognise images of shape [n, 64], n at least 1."""
        scores = images @ self._slopes
        scores -= self._offsets
        scores -= scores.max(axis=1, keepdims=True)
        np.maximum(scores, FAINTEST, out=scores)
        weights = np.exp(scores)
        total = weights.sum(axis=1)
        # With w = e^s / Z the entropy is ln Z - Σ w s: no logarithm of a vanishing weight.
        entropy = np.log(total) - np.einsum("nk,nk->n", weights, scores) / total
        weights /= total[:, None]

        posterior = weights @ self._is_label
        uncertainty = -(posterior * np.log(np.maximum(posterior, np.float32(1e-30)))).sum(axis=1)
        return Response(
            labels=posterior.argmax(axis=1).astype(np.uint8),
            phi=1.0 - float(uncertainty.mean(dtype=np.float64)) / math.log(DIGITS),
            kappa=float(np.exp(entropy, dtype=np.float64).mean()),
            basin=weights.mean(axis=0, dtype=np.float64) @ self._is_cluster,
        )


def configured(recorded: Recorded, path: Path = ROOT / "config" / "model.toml") -> Model:
    """The model as the configuration file describes it."""
    return Model(recorded, tomllib.loads(path.read_text())["attention"]["temperature"])
