"""Categories as readings: routes, status codes, tools called, languages, tokens.

With a vocabulary, its categories are pooled to dim − 1 bins by `pooling`, in their given order, and all
others share the last bin. Without one, a category's bin is its 64-bit FNV-1a hash over UTF-8, mixed by
SplitMix64 with the seed, times dim over 2^64: the same in every process, unlike Python's `hash`. Categories that share
a bin cannot be told apart; of k equally frequent ones, k(k − 1)/(2·dim) pairs do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from qigcore._estimators import Events
from qigcore.estimators.definition import MOST, Definition, Estimator, OnInvalid, within
from qigcore.estimators.pooling import pooled_bins


class EventDefinition(Definition, frozen=True, kw_only=True, tag_field="kind", tag="event"):
    """vocabulary: the known categories, all different, or None to hash all; dim, seed: see `events`."""

    vocabulary: tuple[str, ...] | None = None
    dim: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        within("dim", self.dim, 2, MOST)
        within("seed", self.seed, 0, 2**64 - 1)
        if self.vocabulary is not None and not len(set(self.vocabulary)) == len(self.vocabulary) > 0:
            raise ValueError("vocabulary: expected at least one category, all of them different")


class EventEstimator(Estimator[EventDefinition]):
    """From one category per request, as a histogram that forgets exponentially.

    update(x): x text (other types: name the category with `str()`). Anything else: see `on_invalid`.

    basin: the histogram, shape [dim], summing to 1.
    phi: 1 − H(basin)/ln n, in [0, 1], n the bins that can be used: how concentrated the traffic is, not how well
        it is served.
    kappa: exp H(basin), in [1, n], the effective number of bins in use; not how many categories occur. Here
        Φ = 1 − ln κ/ln n: the two carry the same information.

    Raises ValueError for a setting out of range, or a vocabulary that is empty or names a category twice.
    """

    TYPE = EventDefinition

    def __init__(
        self,
        vocabulary: Iterable[str] | None = None,
        *,
        memory: int = 500,
        dim: int = 64,
        seed: int = 0,
        on_invalid: OnInvalid = "nan",
    ) -> None:
        if isinstance(vocabulary, str):
            raise ValueError(f"vocabulary: expected categories, got one text of {len(vocabulary)} characters")
        known = None if vocabulary is None else tuple(vocabulary)
        if known is not None and not all(type(each) is str for each in known):
            raise ValueError("vocabulary: expected categories as text")
        definition = EventDefinition(memory=memory, vocabulary=known, dim=dim, seed=seed)
        bins, used = None, dim
        if known is not None:
            bins = dict(zip(known, pooled_bins(len(known), dim - 1, seed).tolist(), strict=True))
            used = min(len(known), dim - 1) + 1
        super().__init__(definition, Events(bins, used, dim, definition.memory, seed, on_invalid))

    @classmethod
    def of(cls, definition: EventDefinition, *, on_invalid: OnInvalid = "nan") -> Self:
        return cls(
            definition.vocabulary,
            memory=definition.memory,
            dim=definition.dim,
            seed=definition.seed,
            on_invalid=on_invalid,
        )
