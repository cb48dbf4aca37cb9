"""A FastAPI service with self-healing under load for minutes, beside the same service without it.

    python -m tests.web_soak --minutes 30

Both have two uvicorn workers on the loopback and live through the whole run. One client process sends requests at a
bounded rate, to one of the two for a block of seconds and then to the other, in the order ABBA, with as many
connections to each worker. Printed and judged:

    memory      the slope of each worker's resident memory after a warm-up of a third: its 95 % interval includes 0
    snapshots   every tick of every worker is in the store, and none came too late to be taken
    latency     the 99th percentile beside that of the bare service, within 3 %: the 95 % interval of the ratio by a
                bootstrap over pairs of blocks

Exit code 0: all three hold. 1: one does not. 2: the interval of the ratio holds 1.03, and nothing is decided.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from qigheal.standing import Standing
from tests.hosts.server import Server, serving, uvicorn

WORKERS = 2
CONNECTIONS = 4  # to each worker
EVERY_S = 1.0  # sixty times as often as by default
FLUSH_S = 5.0
SAMPLE_S = 0.5
MARGIN = 1.03
MOST_ASKED = 400

Floats = npt.NDArray[np.float64]


class Result(NamedTuple):
    """requests: of each side. ratio: of the 99th percentiles, with its interval. slopes: MB an hour by worker."""

    requests: tuple[int, int]
    failed: int
    p99_ms: tuple[float, float]
    ratio: tuple[float, float, float]
    slopes: dict[str, tuple[float, float, float]]
    ticks: int
    stored: int
    missed: int
    losses: int
    notes: tuple[str, ...]

    @property
    def flat(self) -> bool:
        return all(low <= 0.0 for name, (_, low, _) in self.slopes.items() if name.startswith("healed"))

    @property
    def whole(self) -> bool:
        return self.stored >= self.ticks > 0 and not self.losses

    @property
    def code(self) -> int:
        if not (self.flat and self.whole) or self.missed or self.failed or self.ratio[1] > MARGIN:
            return 1
        return 0 if self.ratio[2] <= MARGIN else 2


async def _connect(port: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """As many connections to each worker of a server, whichever of them takes a new one."""
    held: dict[bytes, list[Any]] = {}
    for _ in range(MOST_ASKED):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        _, pid = await _ask(reader, writer)
        mine = held.setdefault(pid, [])
        if len(mine) < CONNECTIONS:
            mine.append((reader, writer))
        else:
            writer.close()
        if len(held) == WORKERS and all(len(each) == CONNECTIONS for each in held.values()):
            return [pair for each in held.values() for pair in each]
    raise RuntimeError(f"port {port}: no {CONNECTIONS} connections to each of {WORKERS} workers")


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bool, bytes]:
    writer.write(b"GET /work HTTP/1.1\r\nHost: soak\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    return head.startswith(b"HTTP/1.1 200"), await reader.readexactly(length)


async def _block(
    pairs: list[Any], ends: float, rate: float, rng: np.random.Generator
) -> tuple[list[float], int]:
    """Seconds of each request of one block. Requests come at random moments, at `rate` in all."""
    found, failed = [], 0

    async def one(pair: tuple[Any, Any], gaps: Floats) -> None:
        nonlocal failed
        due = time.perf_counter()
        for gap in gaps:
            due += gap
            if due >= ends:
                return
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            begun = time.perf_counter()
            well, _ = await _ask(*pair)
            found.append(time.perf_counter() - begun)
            failed += not well

    share = len(pairs) / rate
    await asyncio.gather(*(one(pair, rng.exponential(share, 10_000)) for pair in pairs))
    return found, failed


async def client(ports: tuple[int, int], seconds: float, block_s: float, rate: float, out: Path) -> None:
    """The load: blocks on the bare (0) and the healed (1) service; rows of block, side, seconds go to `out`."""
    rng = np.random.default_rng(0)
    ends, number, failed = time.monotonic() + seconds, 0, 0
    rows: list[tuple[int, int, float]] = []
    gc.disable()
    connections = [await _connect(port) for port in ports]
    while time.monotonic() < ends or number % 4:
        side = (0, 1, 1, 0)[number % 4]
        found, wrong = await _block(connections[side], time.perf_counter() + block_s, rate, rng)
        failed += wrong
        rows += [(number, side, each) for each in found]
        number += 1
        gc.collect()
    for _, writer in (pair for each in connections for pair in each):
        writer.close()
    np.savez(out, rows=np.array(rows), failed=failed)


def resident_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def slope_of(seconds: Floats, megabytes: Floats, parts: int = 20) -> tuple[float, float, float]:
    """MB an hour with its 95 % interval, from the means of `parts` stretches: neighbouring samples are alike."""
    x = np.array([part.mean() for part in np.array_split(seconds, parts)]) / 3600
    y = np.array([part.mean() for part in np.array_split(megabytes, parts)])
    x = x - x.mean()
    slope = float((x * y).sum() / (x * x).sum())
    residuals = y - y.mean() - slope * x
    error = float(np.sqrt((residuals**2).sum() / (parts - 2) / (x * x).sum()))
    quantile = 2.101  # Student's t with 18 degrees of freedom
    return slope, slope - quantile * error, slope + quantile * error


def ratio_of(rows: Floats, draws: int = 2000) -> tuple[tuple[float, float], tuple[float, float, float]]:
    """99th percentiles in ms, and their ratio with its interval; quadruples of blocks (ABBA) are drawn anew."""
    quads = (rows[:, 0] // 4).astype(int)
    count = quads.max() + 1
    edges = np.quantile(rows[:, 2], np.linspace(0.9, 1.0, 4001))
    bins = np.clip(np.searchsorted(edges, rows[:, 2]), 0, len(edges))
    counted = np.zeros((2, count, len(edges) + 1))
    np.add.at(counted, (rows[:, 1].astype(int), quads, bins), 1)

    def p99(side: int, weights: Floats) -> float:
        total = np.cumsum(weights @ counted[side])
        return float(edges[min(np.searchsorted(total, 0.99 * total[-1]), len(edges) - 1)])

    ones = np.ones(count)
    bare, healed = p99(0, ones), p99(1, ones)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        weights = rng.multinomial(count, ones / count).astype(float)
        drawn.append(p99(1, weights) / p99(0, weights))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return (1000 * bare, 1000 * healed), (healed / bare, float(low), float(high))


def ticks_of(server: Server) -> dict[int, dict[str, Any]]:
    """What each worker says of its ticks."""
    found: dict[int, dict[str, Any]] = {}
    for _ in range(MOST_ASKED):
        _, said = server.get("/ticks")
        found[said["pid"]] = said
        if len(found) == WORKERS:
            return found
    raise RuntimeError("one of the workers did not answer")


def soak(folder: Path, minutes: float, rate: float, block_s: float) -> Result:
    for name in ("bare", "healed"):
        (folder / name).mkdir()
    every = {"QIGHEAL_TEST_EVERY_S": str(EVERY_S), "QIGHEAL_TEST_FLUSH_S": str(FLUSH_S)}
    with (
        serving(uvicorn(WORKERS), folder / "bare", WORKERS, QIGHEAL_TEST_BARE="1") as bare,
        serving(uvicorn(WORKERS), folder / "healed", WORKERS, **every) as healed,
    ):
        out = folder / "requests.npz"
        load = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.web_soak", "--client", str(bare.port), str(healed.port)),
                *("--minutes", str(minutes), "--rate", str(rate), "--block", str(block_s), "--out", str(out)),
            ]
        )
        workers = {f"bare {pid}": pid for pid in bare.pids} | {f"healed {pid}": pid for pid in healed.pids}
        samples: list[list[float]] = []
        begun = time.monotonic()
        while load.poll() is None:
            samples.append([time.monotonic() - begun, *map(resident_mb, workers.values())])
            time.sleep(SAMPLE_S)
        if load.returncode:
            raise RuntimeError(f"the client failed with {load.returncode}")
        told = ticks_of(healed)
    sampled = np.array(samples)
    late = sampled[len(sampled) // 3 :]
    slopes = {name: slope_of(late[:, 0], late[:, 1 + at]) for at, name in enumerate(workers)}
    stored = Counter(Standing(folder / "healed" / "store").last(10_000_000).batch.module_name)
    with np.load(out) as saved:
        rows, failed = saved["rows"], int(saved["failed"])
    p99_ms, ratio = ratio_of(rows)
    return Result(
        requests=(int((rows[:, 1] == 0).sum()), int((rows[:, 1] == 1).sum())),
        failed=failed,
        p99_ms=p99_ms,
        ratio=ratio,
        slopes=slopes,
        ticks=sum(said["ticks"] for said in told.values()),
        # A worker ticks on after it was asked: of each, no more is counted than it had told.
        stored=sum(min(stored[f"worker {pid}"], said["ticks"]) for pid, said in told.items()),
        missed=sum(said["missed"] for said in told.values()),
        losses=sum(said["losses"] for said in told.values()),
        notes=tuple(note for said in told.values() for note in said["notes"]),
    )


def told(result: Result) -> str:
    lines = [
        f"requests: {result.requests[0]:,} to the bare service, {result.requests[1]:,} to the other, "
        f"{result.failed} failed",
        "p99: {:.3f} ms bare, {:.3f} ms with self-healing; ratio {:.4f}, 95 %: {:.4f} to {:.4f}".format(
            *result.p99_ms, *result.ratio
        ),
        f"snapshots: {result.ticks:,} ticks, {result.stored:,} of them stored, {result.missed} too late, "
        f"{result.losses} lost",
    ]
    lines += [
        f"memory, {name}: {slope:+.3f} MB an hour, 95 %: {low:+.3f} to {high:+.3f}"
        for name, (slope, low, high) in result.slopes.items()
    ]
    lines += [f"note: {note}" for note in result.notes]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--block", type=float, default=2.0, help="seconds on one service")
    parser.add_argument("--client", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        asyncio.run(client(tuple(given.client), 60 * given.minutes, given.block, given.rate, given.out))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        result = soak(Path(folder), given.minutes, given.rate, given.block)
    print(told(result))
    print(
        ("all of it holds", "FAILED", "the ratio of latencies is not decided: longer tells more")[result.code]
    )
    return result.code


if __name__ == "__main__":
    sys.exit(main())
