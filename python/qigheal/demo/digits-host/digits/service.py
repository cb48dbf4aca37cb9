"""Answers recorded requests in batches, as a stand-in for live traffic, and reports to qigheal.

Prints one JSON line when it starts and whenever its health changes. SIGHUP takes up new code and
configuration, SIGTERM and SIGINT end it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from qigheal import GeometricHealthMonitor

from digits.data import CLUSTERS, ROOT, Images, load
from digits.deploy import pid_file
from digits.model import Model, configured

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


def resident_mb() -> float:
    """Memory of this process that is in RAM, by the kernel's count."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def serve_batch(model: Model, images: Images, monitor: GeometricHealthMonitor) -> None:
    """Answer one batch and report on it. Every request of a batch waits for all of it."""
    phi, kappa, basin, error_rate = math.nan, math.nan, np.full(CLUSTERS, math.nan), 1.0
    started = time.perf_counter()
    try:
        response = model.respond(images)
    except Exception:
        traceback.print_exc()
    else:
        phi, kappa, basin, error_rate = response.phi, response.kappa, response.basin, 0.0
    latency_ms = 1000 * (time.perf_counter() - started)
    monitor.record(phi, kappa, basin, error_rate, latency_ms, resident_mb())


def serve(arguments: argparse.Namespace) -> tuple[int, int | None]:
    """Serve until a signal comes or the batches are served.

    Returns the number of the next batch and the signal, None when no batches are left.
    """
    recorded = load()
    model = configured(recorded)
    batch = arguments.first
    last = math.inf if arguments.batches is None else batch + arguments.batches
    with GeometricHealthMonitor(history=arguments.store, repo=ROOT, flush_every_s=1.0) as monitor:
        say(
            event="start",
            pid=os.getpid(),
            code_hash=monitor.code_hash,
            batch=batch,
            temperature=model.temperature,
        )
        severity = "normal"
        due = time.monotonic()
        while batch < last:
            serve_batch(model, recorded.requests[recorded.draw(arguments.seed, batch)], monitor)
            batch += 1
            health = monitor.check_health()
            if health.severity != severity:
                severity = health.severity
                say(event="health", severity=severity, issues=health.issues, batch=batch)
            due += 1 / arguments.rate
            # The pause between batches is also where signals are heard: never inside a batch.
            heard = signal.sigtimedwait(SIGNALS, max(0.0, due - time.monotonic()))
            if heard is not None:
                return batch, heard.si_signo
            due = max(due, time.monotonic())  # a slow batch is not made up for by a burst
    return batch, None


def say(**line: object) -> None:
    """One JSON line for whoever runs the service."""
    print(json.dumps(line, ensure_ascii=False), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m digits.service", description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="folder of the history that qigheal reads")
    parser.add_argument("--rate", type=float, default=50.0, help="batches per second (default 50)")
    parser.add_argument("--batches", type=int, help="end after so many batches (default: serve on)")
    parser.add_argument("--seed", type=int, default=0, help="which requests arrive (default 0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first batch (a reload goes on)")
    parser.add_argument("--pid-file", type=Path, default=pid_file(), help="where `digits.deploy` looks")
    arguments = parser.parse_args(argv)
    if not arguments.rate > 0:
        parser.error(f"--rate: expected batches per second above 0, got {arguments.rate:g}")

    # Blocked signals wait until `serve` asks for them, and still wait after a reload's exec:
    # none is lost, and none ends a service that is just starting.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    arguments.pid_file.parent.mkdir(parents=True, exist_ok=True)
    arguments.pid_file.write_text(f"{os.getpid()}\n")
    batch, heard = serve(arguments)
    if heard == signal.SIGHUP:
        reload(arguments, batch)
    arguments.pid_file.unlink(missing_ok=True)
    say(event="stop", batch=batch)
    return 0


def reload(arguments: argparse.Namespace, batch: int) -> None:
    """Become a new process of the same number that runs the code now checked out."""
    command = [sys.executable, "-m", "digits.service", "--store", str(arguments.store)]
    command += ["--rate", str(arguments.rate), "--seed", str(arguments.seed), "--first", str(batch)]
    command += ["--pid-file", str(arguments.pid_file)]
    if arguments.batches is not None:
        command += ["--batches", str(arguments.first + arguments.batches - batch)]
    os.execv(sys.executable, command)  # noqa: S606 - a list of arguments, and no shell wanted


if __name__ == "__main__":
    sys.exit(main())
