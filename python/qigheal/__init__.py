"""qigheal watches a service from inside, says when healthy is gone, and repairs its repository.

What a service needs is loaded when it is first named, and the healing chain only when that is: an import
of this package costs a service nothing that it does not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qigcore.recorder import GeometricSnapshot
    from qigheal.healing.engine import SelfHealingEngine
    from qigheal.monitor import GeometricHealthMonitor
    from qigheal.records import HealingPatch, HealthReport

    __version__: str

__all__ = [
    "GeometricHealthMonitor",
    "GeometricSnapshot",
    "HealingPatch",
    "HealthReport",
    "SelfHealingEngine",
    "__version__",
]

_ROOMS = {
    "GeometricHealthMonitor": "qigheal.monitor",
    "GeometricSnapshot": "qigcore.recorder",
    "HealingPatch": "qigheal.records",
    "HealthReport": "qigheal.records",
    "SelfHealingEngine": "qigheal.healing.engine",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("qigheal")
    elif name in _ROOMS:
        found = getattr(import_module(_ROOMS[name]), name)
    else:
        raise AttributeError(f"module 'qigheal' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
