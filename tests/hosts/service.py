"""A small service for tests and the soak: FastAPI as `app`, Flask as `flask_app`, plain or with self-healing.

QIGHEAL_TEST_BARE leaves self-healing out; QIGHEAL_TEST_EVERY_S is the time between snapshots, QIGHEAL_TEST_FLUSH_S
that between writes; QIGHEAL_TEST_HOST a repository to heal. The store is $QIGHEAL_STORE.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np


def telemetry() -> dict[str, Any]:
    basin = np.random.default_rng(os.getpid()).normal(size=64)
    return {"phi": 0.75, "kappa_eff": 64.0, "basin_coords": basin, "module_name": f"worker {os.getpid()}"}


def how() -> dict[str, Any]:
    return {
        "every_s": float(os.environ.get("QIGHEAL_TEST_EVERY_S", "0.2")),
        "host": os.environ.get("QIGHEAL_TEST_HOST"),
        "flush_every_s": float(os.environ.get("QIGHEAL_TEST_FLUSH_S", "0.2")),
        "history_size": 200,
        "learn_after": 100,
    }


KEYS = np.random.default_rng(0).normal(size=(64, 1200))
QUERY = np.random.default_rng(1).normal(size=(2, 64))

BARE = bool(os.environ.get("QIGHEAL_TEST_BARE"))


def make_fastapi() -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/items/{item}")
    async def one(item: int) -> dict[str, int]:
        return {"item": item, "pid": os.getpid()}

    @app.get("/work")
    async def work() -> dict[str, int]:
        for _ in range(8):  # about a millisecond, as a small model takes
            QUERY @ KEYS
        return {"pid": os.getpid()}

    @app.get("/ticks")
    async def ticks() -> dict[str, Any]:
        handle = getattr(app.state, "self_healing", None)
        found = (
            {}
            if handle is None
            else {
                "ticks": handle.ticker.ticks,
                "missed": handle.ticker.missed,
                "losses": handle.monitor.losses,
                "notes": handle.notes,
            }
        )
        return {"pid": os.getpid(), **found}

    @app.get("/modules")
    async def modules() -> list[str]:
        return sorted(sys.modules)

    if not BARE:
        from qigheal.integrations.fastapi import setup_self_healing

        setup_self_healing(app, telemetry=telemetry, **how())
    return app


def make_flask() -> Any:
    from flask import Flask, jsonify

    app = Flask("service")

    @app.get("/items/<int:item>")
    def one(item: int) -> Any:
        return jsonify(item=item, pid=os.getpid())

    if not BARE:
        from qigheal.integrations.flask import setup_self_healing

        setup_self_healing(app, telemetry=telemetry, **how())
    return app


def __getattr__(name: str) -> Any:
    if name == "app":
        found = make_fastapi()
    elif name == "flask_app":
        found = make_flask()
    else:
        raise AttributeError(name)
    globals()[name] = found
    return found
