"""Φ, κ and a basin for services that have none of their own: from what such a service does have.

    ClassEstimator      class probabilities or logits
    EmbeddingEstimator  embeddings, by centroids fitted on healthy traffic
    EventEstimator      categories: routes, status codes, tools called, tokens
    StateEstimator      a signed state vector, say a hidden layer

Each takes one request at a time and returns what `record` takes first:

    reading = estimator.update(embedding)
    monitor.record(*reading, error_rate, latency_ms, memory_mb)

Parts, lowest first: figures (Φ and κ of one distribution or covariance), pooling (many classes to few
bins), definition (what an estimator is, its fingerprint and its file), then the four. The loops are
compiled, in `qigcore._estimators`. Nothing in this room records, judges or learns a baseline.

Φ and κ are figures about a distribution. They say how concentrated and how spread it is, and nothing
about whether answers are right.
"""

from qigcore._estimators import Reading, Readings
from qigcore.estimators.classes import ClassEstimator
from qigcore.estimators.embeddings import EmbeddingEstimator
from qigcore.estimators.events import EventEstimator
from qigcore.estimators.figures import concentration, effective_states, shrunk_correlation, total_correlation
from qigcore.estimators.pooling import pooled_bins
from qigcore.estimators.states import StateEstimator

__all__ = [
    "ClassEstimator",
    "EmbeddingEstimator",
    "EventEstimator",
    "Reading",
    "Readings",
    "StateEstimator",
    "concentration",
    "effective_states",
    "pooled_bins",
    "shrunk_correlation",
    "total_correlation",
]
