"""The Numba kernel of the scoring bootstrap. Imported by `fitness` when a score is asked for.

Precision: float64 sums of at most some thousand blocks, in block order; no fast-math, one thread, and
counter-based random numbers, so that the same seed gives the same bits on every machine and with any
number of threads elsewhere.
"""

from __future__ import annotations

import math

import numpy as np

from qigcore._jit import jit
from qigcore.rows import FloatArray


@jit
def resample(
    scalars: FloatArray,
    amplitudes: FloatArray,
    counts: FloatArray,
    target: FloatArray,
    resamples: int,
    seed: int,
) -> FloatArray:
    """Side means of `resamples` draws of blocks with replacement.

    scalars: [blocks, 2, k] sums per block and side (before, after). amplitudes: [blocks, 2, dim]
    sums of unit amplitudes. counts: [blocks] pairs per block. target: [dim] a unit amplitude.
    seed: 0 to 2^63 - 1.

    Gives [resamples, 2, k + 1]: the k means, and last the chord between the target and the normalised
    mean amplitude, 0 to 2. Block number `draw` of resample r is splitmix64 (Steele, Lea and Flood,
    OOPSLA 2014) of `seed` and r * blocks + draw, scaled by the high half of a product (Lemire 2019).
    """
    blocks, sides, width = scalars.shape
    dim = target.size
    out = np.empty((resamples, sides, width + 1))
    total = np.empty((sides, width))
    summed = np.empty((sides, dim))
    for r in range(resamples):
        total[:] = 0.0
        summed[:] = 0.0
        pairs = 0.0
        for draw in range(blocks):
            x = np.uint64(seed) + np.uint64(r * blocks + draw + 1) * np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
            block = np.int64(((x >> np.uint64(32)) * np.uint64(blocks)) >> np.uint64(32))
            pairs += counts[block]
            for side in range(sides):
                for column in range(width):
                    total[side, column] += scalars[block, side, column]
                for component in range(dim):
                    summed[side, component] += amplitudes[block, side, component]
        for side in range(sides):
            for column in range(width):
                out[r, side, column] = total[side, column] / pairs
            squared = 0.0
            for component in range(dim):
                squared += summed[side, component] * summed[side, component]
            if squared > 0.0:
                scale = 1.0 / math.sqrt(squared)
                gap = 0.0
                for component in range(dim):
                    step = summed[side, component] * scale - target[component]
                    gap += step * step
                out[r, side, width] = math.sqrt(gap)
            else:
                out[r, side, width] = 2.0  # states that cancel have no mean: as far as can be
    return out
