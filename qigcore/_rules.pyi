from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt

from qigcore.rows import Array, FloatArray

STATISTICS: tuple[str, ...]

@final
class Program:
    def __new__(cls, rows: Sequence[tuple[str, int, bool, bool, int, int, int, float]]) -> Program: ...
    def last(self, heads: Array) -> list[tuple[int, float, int, int]]: ...
    def severities(self, heads: Array) -> npt.NDArray[np.uint8]: ...

def summary(heads: Array) -> tuple[float, float, float, float, float, float, int]: ...
def growth(values: FloatArray) -> FloatArray: ...
