"""Many classes to few bins, by a rule that needs no data and is the same in every process.

Up to `dim` classes have a bin each, in their order; the bins behind them stay 0. More are dealt out: they
are sorted by SplitMix64(SplitMix64(seed) ⊕ class), and the class at rank i goes to bin i mod dim. So each bin has as
many classes as any other, or one more, and neighbouring classes, which are often alike, go different ways.

What is kept: all mass. What is lost: whatever moves between classes of one bin. Pooling never enlarges a
Fisher–Rao distance (Čencov 1982, "Statistical Decision Rules and Optimal Inference", §11), so a drift that is seen
after it was there before it; one that is not seen may have been pooled away. Another seed pools otherwise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qigcore._estimators import mixed


def pooled_bins(classes: int, dim: int = 64, seed: int = 0) -> npt.NDArray[np.int32]:
    """The bin of each class, int32 [classes], each in [0, dim)."""
    if classes <= dim:
        return np.arange(classes, dtype=np.int32)
    salt = mixed(seed)
    order = sorted(range(classes), key=lambda each: mixed(salt ^ each))
    bins = np.empty(classes, dtype=np.int32)
    bins[order] = np.arange(classes) % dim
    return bins
