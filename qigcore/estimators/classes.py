"""A classifier's answers as readings."""

from __future__ import annotations

from typing import Literal, Self

from qigcore._estimators import Classes
from qigcore.estimators.definition import MOST, Definition, Estimator, OnInvalid, within
from qigcore.estimators.pooling import pooled_bins


class ClassDefinition(Definition, frozen=True, kw_only=True, tag_field="kind", tag="class"):
    """classes: their number, 2 to 2^20; inputs: what `update` gets; dim, seed: see `pooling`."""

    classes: int
    inputs: Literal["probabilities", "logits"] = "probabilities"
    dim: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        within("classes", self.classes, 2, 1 << 20)
        within("dim", self.dim, 2, MOST)
        within("seed", self.seed, 0, 2**64 - 1)


class ClassEstimator(Estimator[ClassDefinition]):
    """From class probabilities, or logits, of `classes` classes.

    update(x): x array-like, shape [classes]. Probabilities: non-negative, finite, at any positive scale.
    Logits: softmax is taken of them; −∞ is a class ruled out. Anything else, of whatever type: see `on_invalid`.

    phi: average of 1 − H(p)/ln classes over requests, in [0, 1]: how decided single answers are; not how
        right, and not how well calibrated.
    basin: average of p, pooled to `dim` bins by `pooling.pooled_bins`, summing to 1.
    kappa: exp H(basin), in [1, min(classes, dim)]: how many bins the answers spread over, single answers and
        traffic taken together; not how many classes occur.

    Raises ValueError for a setting out of range.
    """

    TYPE = ClassDefinition

    def __init__(
        self,
        classes: int,
        *,
        inputs: Literal["probabilities", "logits"] = "probabilities",
        memory: int = 500,
        dim: int = 64,
        seed: int = 0,
        on_invalid: OnInvalid = "nan",
    ) -> None:
        if inputs not in ("probabilities", "logits"):
            raise ValueError(f"inputs: expected 'probabilities' or 'logits', got {inputs!r}")
        definition = ClassDefinition(memory=memory, classes=classes, inputs=inputs, dim=dim, seed=seed)
        bins = pooled_bins(classes, dim, seed)
        super().__init__(definition, Classes(bins, dim, definition.memory, inputs == "logits", on_invalid))

    @classmethod
    def of(cls, definition: ClassDefinition, *, on_invalid: OnInvalid = "nan") -> Self:
        return cls(
            definition.classes,
            inputs=definition.inputs,
            memory=definition.memory,
            dim=definition.dim,
            seed=definition.seed,
            on_invalid=on_invalid,
        )
