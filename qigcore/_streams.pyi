import numpy.typing as npt

from qigcore.timeto import Course

COURSES: tuple[str, ...]

def recent_line(
    values: npt.ArrayLike, recent: int, target: float | None = None
) -> tuple[float, float, float, float, int, float]: ...
def least_squares(
    values: npt.ArrayLike,
) -> tuple[float, float, float, int, int, float, float, float, float]: ...
def crossing(
    values: npt.ArrayLike, limit: float, interval: float, timestamps: npt.ArrayLike | None = None
) -> tuple[Course, float, float, float, float, float, float, float, float, int, int]: ...
