"""The recorded images of `data/digits.npz`, and the requests drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
CLUSTERS = 64
"""Groups of similar keys; a basin has one component for each."""

Images = npt.NDArray[np.float32]  # shape [n, 64]: 8 x 8 pixels, row by row, 0 (paper) to 1 (ink)
Labels = npt.NDArray[np.uint8]  # shape [n]


@dataclass(frozen=True)
class Recorded:
    """Everything the service knows: what it attends to, and the requests it answers."""

    keys: Images
    key_labels: Labels  # 0 to 9
    key_clusters: Labels  # 0 to CLUSTERS - 1, by k-means
    requests: Images
    request_labels: Labels  # the truth, for tests only: the service never sees it

    def draw(self, seed: int, batch: int, size: int = 256) -> npt.NDArray[np.intp]:
        """Positions of `size` requests, drawn with replacement; the same question, the same requests."""
        return np.random.default_rng((seed, batch)).integers(len(self.requests), size=size)


def load(path: Path = ROOT / "data" / "digits.npz") -> Recorded:
    """Read the recorded images."""
    with np.load(path, allow_pickle=False) as file:
        return Recorded(**{name: file[name] for name in file.files})
