import numpy.typing as npt

def least_squares(
    values: npt.ArrayLike, recent: int, target: float | None = None
) -> tuple[float, float, float, float, int, int]: ...
