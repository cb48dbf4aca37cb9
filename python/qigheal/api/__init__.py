"""What is served under `/api/self-healing`, whatever serves it.

    records      what is sent and taken, as JSON
    routes       the table of routes
    exchange     a request and its answer, the one serialiser
    packing      which answers are compressed
    access       who may ask for what; limits: how often
    service      the routes of one store: `Api`
    reading      answers from the snapshots; judged: from the ledger; unchanged: kept while the files are the same
    jobs         healing passes and reviews, in processes of their own
    stream       live events
    pages        the dashboard's files
    description  the OpenAPI document

No web framework is known in this room: `qigheal.integrations.fastapi` and `.flask` put the routes into a host's
application; `qigheal serve` serves them beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qigheal.api.access import Access
    from qigheal.api.service import Api

__all__ = ["PREFIX", "Access", "Api"]

PREFIX = "/api/self-healing"

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Loaded at first use: who only needs the records, or the prefix, loads no more."""
        if name == "Api":
            from qigheal.api.service import Api

            return Api
        if name == "Access":
            from qigheal.api.access import Access

            return Access
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
