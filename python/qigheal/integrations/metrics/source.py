"""Which figures a source has: a monitor's own, or those of a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from qigheal.integrations.metrics.reading import Reading

if TYPE_CHECKING:
    from qigheal.monitor import GeometricHealthMonitor

    Source = GeometricHealthMonitor | str | os.PathLike[str]


class Figures(Protocol):
    """Whatever can be read at any time, by any thread, without raising."""

    def read(self) -> Reading: ...


def figures_of(source: Source, *, clock: Callable[[], float] = time.time) -> Figures:
    """The figures of a monitor, or of a store given by its folder."""
    if isinstance(source, (str, os.PathLike)):
        from qigheal.integrations.metrics.stored import StoreFigures  # a service does not need it

        return StoreFigures(source, clock=clock)
    from qigheal.integrations.metrics.service import ServiceFigures

    return ServiceFigures(source, clock=clock)
