from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple, Self, final

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from qigcore.rows import FloatArray

_OnInvalid = Literal["nan", "raise"]
_Float32s = npt.NDArray[np.float32]

INSTRUCTIONS: Final[Literal["plain", "avx2"]]

class Reading(NamedTuple):
    phi: float
    kappa: float
    basin: FloatArray

class Readings(NamedTuple):
    phi: FloatArray
    kappa: FloatArray
    basin: FloatArray

@disjoint_base
class Kernel:
    @property
    def dim(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def skipped(self) -> int: ...
    @property
    def ready(self) -> bool: ...
    def update(self, x: object, /) -> Reading: ...
    def update_many(self, rows: Iterable[object], /) -> Readings: ...

@final
class Classes(Kernel):
    def __new__(
        cls, bins: npt.NDArray[np.int32], dim: int, memory: int, logits: bool, on_invalid: _OnInvalid
    ) -> Self: ...

@final
class Centroids:
    def __new__(cls, rows: _Float32s) -> Self: ...
    @property
    def k(self) -> int: ...
    @property
    def n(self) -> int: ...
    def cosines(self, units: _Float32s) -> FloatArray: ...

@final
class Embeddings(Kernel):
    def __new__(
        cls,
        centroids: Centroids,
        temperature: float,
        memory: int,
        start: FloatArray,
        start_phi: float,
        on_invalid: _OnInvalid,
    ) -> Self: ...

@final
class Events(Kernel):
    def __new__(
        cls,
        bins: dict[str, int] | None,
        used: int,
        dim: int,
        memory: int,
        seed: int,
        on_invalid: _OnInvalid,
    ) -> Self: ...

@final
class States(Kernel):
    def __new__(
        cls,
        bins: npt.NDArray[np.int32],
        dim: int,
        memory: int,
        refresh: int,
        figures: Callable[[FloatArray, FloatArray, float], tuple[float, float]],
        on_invalid: _OnInvalid,
    ) -> Self: ...
    @property
    def covariance(self) -> FloatArray: ...
    @property
    def mean(self) -> FloatArray: ...
    @property
    def samples(self) -> float: ...

def entropy(weights: npt.ArrayLike) -> float: ...
def unit_rows(
    rows: npt.NDArray[np.floating] | npt.NDArray[np.integer],
) -> tuple[_Float32s, npt.NDArray[np.bool_]]: ...
def cluster_sums(units: _Float32s, labels: npt.NDArray[np.int64], k: int) -> FloatArray: ...
def mixed(value: int) -> int: ...
def hashed_bin(text: str, seed: int, dim: int) -> int: ...
