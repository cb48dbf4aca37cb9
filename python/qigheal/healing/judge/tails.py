"""What the guards cannot see: a few answers that take very long, and a growth that is small beside the process.

The guards of latency ask for the middle answer of each start of the processes, since an answer that waited
for a disk is not the code's; those of memory tolerate a part of what the process holds. A patch could hide
behind either. Both are doubts: more pairs may clear them up, and what stays in doubt is never accepted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qigcore.noninferiority import SignedRank
from qigcore.rows import FloatArray

MEAN_RATIO = 1.25
"""The mean answer may take so many times as long. Of 80 answers of which 2 % wait two to five times as long by
chance, the ratio of two means varies by about 6 %: a fourth standard deviation is above this."""

SLOW = 3.0
"""Multiples of the unpatched side's median from which on an answer is named as slow."""

GROWTH_MB = 0.03
"""Growth for each answer, beyond that of the unpatched code, that is doubted however large the process is."""

GROWTH_LEVEL = 0.02


def slow_tail(before: FloatArray, after: FloatArray, ratio: float, resolution_ms: float) -> str:
    """Whether the mean answer takes longer than `ratio` times, in words; "" when it does not.

    before, after: wall times of the two sides in ms, shape [n], waiting for processors left out.
    """
    if after.mean() <= max(ratio, MEAN_RATIO) * before.mean() + resolution_ms:
        return ""
    slow = SLOW * float(np.median(before))
    return (
        f"the mean answer takes {after.mean():.1f} ms, {before.mean():.1f} ms without the patch: "
        f"{int((after > slow).sum())} of {len(after)} take more than {slow:.1f} ms, "
        f"{int((before > slow).sum())} without it"
    )


def growing(before: Sequence[float] | FloatArray, after: Sequence[float] | FloatArray) -> str:
    """Whether memory certainly grows where it did not, in words; "" when it does not.

    before, after: MB per answer, one value for each start of the processes, shape [n].
    """
    more = SignedRank(np.asarray(after) - np.asarray(before))
    if more.low(GROWTH_LEVEL) <= GROWTH_MB:
        return ""
    return f"memory grows by {more.value:.2f} MB more for each answer than without the patch"
