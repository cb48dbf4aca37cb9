"""A service that Prometheus can scrape: its monitor, a store with a ledger, and a way to have it record more.

    python -m tests.metrics.live STORE

prints its port. POST /record?count=&phi= records; POST /heal lets the ledger tell of three patches more: one was
confirmed, one not accepted, one taken back.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, make_asgi_app

from qigheal import GeometricHealthMonitor
from qigheal.integrations.prometheus import HealthCollector
from tests.metrics.scraped import confirmed, healed_store, judged, record, taken_back


def made(store: Path) -> tuple[FastAPI, GeometricHealthMonitor]:
    monitor = GeometricHealthMonitor(history=store)
    record(monitor, 320)
    monitor.flush()
    ledger = healed_store(store, at=time.time() - 3600)
    app = FastAPI()
    registry = CollectorRegistry()
    HealthCollector(store, registry=registry)
    app.mount("/metrics", make_asgi_app(registry))
    numbers = iter(range(10, 1000))

    @app.post("/record")
    def more(count: int, phi: float) -> dict[str, Any]:
        record(monitor, count, phi=phi, seed=monitor.snapshots.total)
        monitor.flush()
        return {"total": monitor.snapshots.total}

    @app.post("/heal")
    def heal() -> dict[str, Any]:
        now = time.time()
        number = next(numbers)
        judged(ledger, number, at=now)
        confirmed(ledger, number, at=now)
        judged(ledger, next(numbers), score=None, at=now)
        number = next(numbers)
        judged(ledger, number, at=now)
        taken_back(ledger, number, at=now)
        return {}

    return app, monitor


def main(store: Path) -> None:
    app, monitor = made(store)
    with monitor, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
