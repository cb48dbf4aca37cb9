"""One decorator for the Numba kernels: compiled on their first call, never when they are imported.

Numba costs 0.7 s and 65 MB, which nobody pays who does not score a trial. Machine code is kept beside
the source or in the user's cache folder, so that it is compiled once per machine and not per process;
where neither is writable, or the disk is full, it is compiled anew and kept nowhere.

Kernels take everything as arguments: a module's globals freeze into compiled code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar, cast

from qigcore.errors import MissingExtra

P = ParamSpec("P")
R = TypeVar("R")


class Kernel(Generic[P, R]):
    """A function that compiles itself when it is first called. `twin` is the plain Python of it."""

    def __init__(self, twin: Callable[P, R]) -> None:
        functools.update_wrapper(self, twin)
        self.twin = twin
        self._compiled: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._compiled is None:
            self._compiled = self._compile(cache=True)
        try:
            return self._compiled(*args, **kwargs)
        except OSError:  # the cache could not be written: a kernel itself opens nothing
            self._compiled = self._compile(cache=False)
            return self._compiled(*args, **kwargs)

    def _compile(self, *, cache: bool) -> Callable[P, R]:
        try:
            import numba
        except ImportError as error:
            raise MissingExtra("numba", "heal", f"{self.twin.__module__}.{self.twin.__name__}") from error
        try:
            compiled = numba.njit(cache=cache, nogil=True)(self.twin)
        except RuntimeError:  # "cannot cache function": no folder is writable
            compiled = numba.njit(nogil=True)(self.twin)
        return cast("Callable[P, R]", compiled)


def jit(function: Callable[P, R]) -> Kernel[P, R]:
    """Decorate a kernel. Its first call raises MissingExtra when Numba is not installed."""
    return Kernel(function)
