"""The OpenAPI description of the routes, made from the records: one for every framework."""

from __future__ import annotations

from typing import Any, Final

from qigheal.api.access import HOLDING, VARIABLES
from qigheal.api.exchange import Right
from qigheal.api.routes import Route

SCHEMES: Final[dict[Right, tuple[str, str]]] = {
    right: (f"qigheal_{right}", f"The token of {' or '.join(VARIABLES[held] for held in HOLDING[right])}.")
    for right in VARIABLES
}
"""Name and description of the security scheme of each right."""


def operation(route: Route) -> dict[str, Any]:
    """What OpenAPI calls an operation, without its security."""
    return {"summary": route.name, "description": route.name, "responses": {"200": {"description": "fine"}}}


def document(prefix: str) -> dict[str, Any]:
    """The whole description."""
    return {"openapi": "3.1.0"}
