import numpy.typing as npt

def recent_line(
    values: npt.ArrayLike, recent: int, target: float | None = None
) -> tuple[float, float, float, float, int, float]: ...
def least_squares(
    values: npt.ArrayLike,
) -> tuple[float, float, float, int, int, float, float, float, float, float, float]: ...
