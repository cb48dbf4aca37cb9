"""The history at size: how fast rows go in and come out, what they weigh, what reading them costs in memory.

    python benchmarks/store.py [--rows 10_000_000] [--precision compact] [--segments 10_000] [--json]

Works in a temporary folder, under --folder where that is given (a store of 10 million rows takes 2 GB), and
removes it. Each figure comes from a process of its own, the files fresh in the page cache; rows_per_cpu_s
leaves out what other processes took, and the waiting for the disk. Beside the store the same rows are written
and scanned as Parquet (pyarrow, zstd), where pyarrow is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

DIM = 64
POOL = 1 << 16
NAMES = ("", "0123456789abcdef0123456789abcdef01234567", "digits.service")
START = 1.7e9
RATE = 10.0  # rows a second that the service records
GROUP = 1 << 16  # rows of a Parquet row group


class Rows:
    """Snapshots like those of the demo's service: basins 0.29 rad apart, Φ 0.77 ± 0.01, κ 66.8 ± 2.1."""

    def __init__(self, seed: int = 0) -> None:
        from qigcore.rows import HEAD

        rng = np.random.default_rng(seed)
        self._basins = rng.dirichlet(1500.0 * rng.dirichlet(np.full(DIM, 4.0)), POOL)
        self._heads = heads = np.zeros(POOL, HEAD)
        heads["phi"] = rng.normal(0.772, 0.01, POOL)
        heads["kappa_eff"] = rng.normal(66.8, 2.1, POOL)
        heads["basin_drift"] = np.abs(rng.normal(0.2, 0.02, POOL))
        heads["avg_latency_ms"] = rng.lognormal(1.6, 0.2, POOL)
        heads["memory_mb"] = 120.0 + np.cumsum(rng.random(POOL) < 0.01) / 256.0
        for name in ("confidence", "surprise", "agency"):
            heads[name] = np.nan
        heads["regime"] = 1
        heads["code"], heads["module"] = 1, 2
        self._jitter = rng.normal(0.0, 1e-3, POOL)

    def chunks(self, total: int, size: int) -> Iterator[tuple[Any, Any]]:
        """Heads and basins of `total` rows, `size` at a time."""
        assert POOL % size == 0
        for start in range(0, total, size):
            count, at = min(size, total - start), start % POOL
            heads = self._heads[at : at + count]
            heads["timestamp"] = (
                START + np.arange(start, start + count) / RATE + self._jitter[at : at + count]
            )
            yield heads, self._basins[at : at + count]


def written(folder: Path, rows: int, chunk: int, precision: Any) -> dict[str, float]:
    from qigcore.history import History

    source, spent = Rows(), 0.0
    for heads, basins in source.chunks(chunk, chunk):  # what the first call loads
        with History(folder / "warm", precision=precision) as history:
            history.append_rows(heads, basins, NAMES)
    history, worked = History(folder / "store", precision=precision), 0.0
    for heads, basins in source.chunks(rows, chunk):
        began, before = time.perf_counter(), time.process_time()
        history.append_rows(heads, basins, NAMES)
        worked += time.process_time() - before
        spent += time.perf_counter() - began
    began = time.perf_counter()
    history.close()
    spent += time.perf_counter() - began
    infos = history.segments()
    weight = sum(info.bytes for info in infos)
    return {
        "rows_per_s": rows / spent,
        "rows_per_cpu_s": rows / worked,
        "bytes_per_row": weight / rows,
        "segments": len(infos),
        "peak_mb": growth(),
    }


def segmented(folder: Path, segments: int, precision: Any) -> dict[str, float]:
    """As many segments as a year of short-lived workers leaves, of 16 rows each."""
    from qigcore.history import History, writer

    os.fdatasync = os.fsync = lambda descriptor: None  # it is the reading that is measured
    writer.SEGMENT_BYTES = 0  # every call begins a segment
    with History(folder, precision=precision) as history:
        for heads, basins in Rows().chunks(segments * 16, 16):
            history.append_rows(heads, basins, NAMES)
    return {"segments": segments}


def scanned(folder: Path, columns: Any, start: float | None, end: float | None) -> dict[str, float]:
    from qigcore.history import History

    before = peak_mb()
    history = History.read_only(folder)
    began, started = time.perf_counter(), time.process_time()
    rows = 0
    for batch in history.scan(start, end, columns):
        rows += len(batch)
    seconds, worked = time.perf_counter() - began, time.process_time() - started
    assert not history.damage, history.damage
    return {
        "rows": rows,
        "seconds": seconds,
        "rows_per_s": rows / seconds,
        "rows_per_cpu_s": rows / worked,
        "peak_mb": peak_mb() - before,
    }


def opened(folder: Path, how: str) -> dict[str, float]:
    from qigcore.history import History

    ways: dict[str, Callable[[Any], Any]] = {
        "scan": lambda history: next(history.scan()),
        "last": lambda history: history.last(50),
        "segments": lambda history: history.segments(),
    }
    began = time.perf_counter()
    found = ways[how](History.read_only(folder))
    return {"seconds": time.perf_counter() - began, "found": len(found), "peak_mb": growth()}


def parquet_written(path: Path, rows: int) -> dict[str, float]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    spent, writer = 0.0, None
    for heads, basins in Rows().chunks(rows, GROUP):
        columns = {
            name: np.ascontiguousarray(heads[name]) for name in heads.dtype.names if name != "reserved"
        }
        began = time.perf_counter()
        arrays = {name: pa.array(column) for name, column in columns.items()}
        arrays["basin"] = pa.FixedSizeListArray.from_arrays(pa.array(basins.reshape(-1)), DIM)
        table = pa.table(arrays)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=GROUP)
        spent += time.perf_counter() - began
    assert writer is not None
    writer.close()
    return {"rows_per_s": rows / spent, "bytes_per_row": path.stat().st_size / rows, "peak_mb": growth()}


def parquet_scanned(path: Path, columns: Any) -> dict[str, float]:
    import pyarrow.parquet as pq

    before = peak_mb()
    began = time.perf_counter()
    file = pq.ParquetFile(path, pre_buffer=False)  # else it holds all that it has read
    rows = sum(len(batch) for batch in file.iter_batches(batch_size=GROUP, columns=columns))
    seconds = time.perf_counter() - began
    return {"rows": rows, "seconds": seconds, "rows_per_s": rows / seconds, "peak_mb": peak_mb() - before}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


_AT_START = peak_mb()


def growth() -> float:
    return peak_mb() - _AT_START


def measured(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """The result of a function of this file, called in a process of its own that has imported the store."""
    script = (
        f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path;"
        f"import store, qigcore.history; store._AT_START = store.peak_mb();"
        f"print(json.dumps(store.{function.__name__}(Path(sys.argv[1]), *json.loads(sys.argv[2]))))"
    )
    folder, *rest = arguments
    command = [sys.executable, "-c", script, str(folder), json.dumps(rest)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(folder: Path, rows: int, precision: str, segments: int) -> dict[str, Any]:
    """All figures, by name."""
    found: dict[str, Any] = {"rows": rows, "precision": precision}
    found["append, 4,096 rows a call"] = measured(written, folder / "a", rows, 4096, precision)
    found["append, 256 rows a call"] = measured(written, folder / "b", max(4096, rows // 10), 256, precision)
    store = folder / "a" / "store"
    found["scan, all columns"] = measured(scanned, store, None, None, None)
    found["scan, one column"] = measured(scanned, store, ["phi"], None, None)
    middle, part = START + rows / RATE / 2, rows / RATE / 100
    found["scan, 1 % of the time"] = measured(scanned, store, None, middle, middle + part)
    found["last 50"] = measured(opened, store, "last")
    measured(segmented, folder / "c", segments, precision)
    for how in ("scan", "last", "segments"):
        found[f"{segments:,} segments, {how}"] = measured(opened, folder / "c", how)
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        found["left out"] = "Parquet: pyarrow is not installed"
        return found
    path = folder / "rows.parquet"
    found["Parquet, written"] = measured(parquet_written, path, rows)
    found["Parquet, all columns"] = measured(parquet_scanned, path, None)
    found["Parquet, one column"] = measured(parquet_scanned, path, ["phi"])
    return found


def told(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['rows']:,} rows of {DIM} components, {found['precision']}"
    for name, figures in found.items():
        if isinstance(figures, dict):
            said = ", ".join(f"{value:,.4g} {key}" for key, value in figures.items())
            yield f"  {name:32s} {said}"
    if "left out" in found:
        yield f"  left out: {found['left out']}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000, help="200_000 gives an impression in seconds")
    parser.add_argument("--precision", choices=("compact", "exact"), default="compact")
    parser.add_argument("--segments", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qigheal-store-", dir=chosen.folder) as folder:
        found = measure(Path(folder), chosen.rows, chosen.precision, chosen.segments)
    print(json.dumps(found, indent=2) if chosen.json else "\n".join(told(found)))


if __name__ == "__main__":
    main()
