"""Runs the benchmarks and writes docs/performance.md: the machine, the limits asked, all tables.

    python -m benchmarks.report [--rows N] [--quick] [--from FILE] [--raw FILE] [--out docs/performance.md]

Each benchmark runs in a process of its own, with one thread for numpy's linear algebra. What they found
is one JSON document (--raw keeps it; --from makes the page of a kept one again). Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.limits import judged

ROOT = Path(__file__).resolve().parent.parent


def gathered(rows: int, quick: bool) -> dict[str, Any]:
    """What every benchmark found, by name; the quick form is for trying this out, its figures are rough."""
    options = {
        "peers": ["--rounds", "15"] if quick else [],
        "parts": ["--rounds", "15"] if quick else [],
        "tail": ["--seconds", "2"] if quick else [],
        "footprint": ["--runs", "3"] if quick else [],
        "instructions": [],
        "store": ["--rows", str(rows), *(["--segments", "500"] if quick else [])],
    }
    return {"machine": machine(), **{name: _ran(name, more) for name, more in options.items()}}


def _ran(name: str, options: list[str]) -> Any:
    argv = [sys.executable, "-m", f"benchmarks.{name}", "--json", *options]
    print(" ".join(argv[1:]), file=sys.stderr)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    cpu = "unknown"
    for line in _text("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = next((int(line.split()[1]) for line in _text("/proc/meminfo").splitlines()), 0)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "virtual": " hypervisor " in _text("/proc/cpuinfo"),
        "memory_gb": round(memory / 1e6),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, {platform.libc_ver()[0]} "
        f"{platform.libc_ver()[1]}",
        "python": f"{platform.python_implementation()} {platform.python_version()} "
        f"({platform.python_compiler()})",
        "load": round(os.getloadavg()[0], 1),
        "cython": _version("cython"),
    }


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, padded so that it reads as text too; all columns but the first to the right."""
    widths = [max(3, *(len(row[i]) for row in (head, *rows))) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w if i == 0 else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return [line(head), f"| {' | '.join(rule)} |", *map(line, rows), ""]


def ns(figure: float) -> str:
    """A time, in the unit that suits it."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if figure >= size:
            return f"{figure / size:,.{1 if figure >= 10 * size else 2}f} {unit}"
    return f"{figure:,.0f} ns"


def page(found: dict[str, Any]) -> str:
    """docs/performance.md."""
    lines = [
        "# Performance",
        "",
        "Written by `make bench` (`make bench-store` for the history at full size); do not edit by hand.",
        "",
        *_machine(found),
        *_limits(found),
        *_peers(found),
        *_parts(found),
        *_tail(found),
        *_footprint(found),
        *_store(found),
        *_reading(),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _machine(found: dict[str, Any]) -> list[str]:
    here = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in found["peers"]["versions"].items())
    return [
        "## Where this was measured",
        "",
        *table(
            ("", ""),
            [
                ("date", here["date"]),
                ("processor", f"{here['cpu']}, {here['cores']} cores{', virtual' * here['virtual']}"),
                ("memory", f"{here['memory_gb']} GB"),
                ("system", here["system"]),
                ("Python", here["python"]),
                ("extensions", f"Cython {here['cython']}; {found['parts']['flags']}"),
                ("instruction counts", found["instructions"]["build"]),
                ("load before the run", f"{here['load']} (others may have used the machine too)"),
            ],
        ),
        f"Versions: {versions}.",
        "",
    ]


def _limits(found: dict[str, Any]) -> list[str]:
    rows = [
        (limit.what, limit.asked, limit.found, "yes" if limit.reached else "NO") for limit in judged(found)
    ]
    return ["## What was asked", "", *table(("work", "limit", "measured", "reached"), rows)]


def _peers(found: dict[str, Any]) -> list[str]:
    lines = [
        "## Beside others",
        "",
        "The same work on the same data in one process; the ratio is to the line with 1.00. What calling a",
        "Python function in a loop costs is taken off everywhere.",
        "",
    ]
    for group in found["peers"]["results"]:
        unit = group["unit"].removeprefix("ns ")
        rows = [
            (
                row["candidate"],
                ns(row["ns"]),
                f"{ns(row['low_ns'])} – {ns(row['high_ns'])}",
                f"{row['ratio']:.2f}" if row["ratio"] is not None else "",
            )
            for row in group["rows"]
        ]
        lines += [
            f"### {group['work'][0].upper()}{group['work'][1:]}",
            "",
            *table((unit, "median", "all turns", "ratio"), rows),
        ]
        if group["note"]:
            lines += [group["note"], ""]
        if group["absent"]:
            lines += [f"Not installed: {', '.join(group['absent'])}.", ""]
    return lines


def _parts(found: dict[str, Any]) -> list[str]:
    parts, works = found["parts"], found["instructions"]["works"]
    rows = [(row["part"], f"{row['ns']:.0f} ns", f"{row['share']:.0%}") for row in parts["parts"]]
    rows += [
        ("sum of the parts", f"{parts['sum_ns']:.0f} ns", f"{parts['sum_ns'] / parts['whole_ns']:.0%}"),
        ("`record`, measured as a whole", f"{parts['whole_ns']:.0f} ns", "100%"),
    ]
    counted = [(w["work"], f"{w['instructions']:,}", f"{w['ratio']:.2f}") for w in works]
    functions = [(f"`{name}`", f"{n}") for name, n in works[0]["functions"].items() if n >= 10]
    return [
        "## Where the time of one `record` goes",
        "",
        "Each part in a C loop of its own over the recorder's own functions (`benchmarks/parts.pyx`), and the call",
        "by a method that takes the same and does nothing. The last part is what is left of the recorder's inner",
        "function. By itself a part overlaps with its own next turn, in `record` with its neighbours, so that the",
        "sum may come out on either side of the whole.",
        "",
        *table(("part", "time", "of the whole"), rows),
        "In instructions, which no noise blurs (callgrind; a test holds them below a ceiling):",
        "",
        *table(("work", "instructions", "ratio to Gauge.set"), counted),
        "`record` by function:",
        "",
        *table(("function", "instructions"), functions),
    ]


def _tail(found: dict[str, Any]) -> list[str]:
    lines = [
        "## The slowest calls",
        "",
        "One thread serves requests and measures three calls in each, in rotating order; beside it the monitor's",
        "own thread writes a history to the disk at least every 50 ms, and another asks for `check_health` and",
        "`get_trend` a hundred times a second. What *nothing* shows is the clock's and the machine's; what",
        "`Gauge.set` shows beyond it, any call pays that finds its code and data out of the caches. Of three runs",
        "of the first kind that is shown in which the machine disturbed `Gauge.set` least.",
        "",
    ]
    for run in found["tail"]:
        rows = [
            (row["call"], *(f"{row[name]:.2f} µs" for name in ("p50", "p99", "p99.9", "max")))
            for row in run["rows"]
        ]
        lines += [
            f"{run['what']}: {run['requests']:,} requests, {run['per_second']:,.0f} a second, {run['lost']:,} "
            "snapshots left the ring unwritten.",
            "",
            *table((run["scenario"], "p50", "p99", "p99.9", "max"), rows),
        ]
    paced = found["tail"][0]
    return [
        *lines,
        f"Twice in a process's life `record` does more: the first call starts the thread ({paced['first_us']:.0f} "
        f"µs), and the one that completes the lesson copies its rows ({paced['lesson_us']:.0f} µs).",
        "",
    ]


def _footprint(found: dict[str, Any]) -> list[str]:
    foot = found["footprint"]
    rows = [
        (
            "`from qigheal import GeometricHealthMonitor`",
            f"{foot['import_ms']:.0f} ms",
            f"{foot['import_mb']:.1f} MB",
        )
    ]
    if foot["prometheus_client_ms"] is not None:
        rows.append(("`import prometheus_client`", f"{foot['prometheus_client_ms']:.0f} ms", ""))
    rows.append(("the former, and a monitor with 1,000 snapshots", "", f"{foot['monitor_mb']:.1f} MB"))
    return ["## Import and memory, over numpy's", "", *table(("", "time", "memory"), rows)]


def _store(found: dict[str, Any]) -> list[str]:
    store = found["store"]
    lines = [
        "## The history",
        "",
        f"{store['rows']:,} snapshots of 64 components like those of the demo's service, `{store['precision']}`; each",
        "line in a process of its own, the files in the page cache. Memory is what the process grew by.",
        "",
    ]
    rows = []
    for name, figures in store.items():
        if isinstance(figures, dict):
            rows.append(
                (
                    name,
                    f"{figures['rows_per_s']:,.0f}" if "rows_per_s" in figures else "",
                    ns(figures["seconds"] * 1e9) if "seconds" in figures else "",
                    f"{figures['bytes_per_row']:.0f}" if "bytes_per_row" in figures else "",
                    f"{figures['peak_mb']:.0f} MB" if "peak_mb" in figures else "",
                )
            )
    lines += table(("", "rows a second", "time", "bytes a row", "memory"), rows)
    if "left out" in store:
        lines += [f"Left out: {store['left out']}.", ""]
    return lines


def _reading() -> list[str]:
    return [
        "## How to read this",
        "",
        "Nanoseconds belong to the machine, and change with what else it does; ratios are taken in one process, turn",
        "by turn, and hold elsewhere. Counts of instructions repeat on any machine with the same interpreter and",
        "compiler, but say nothing of caches and of waiting. A limit in nanoseconds that is missed here on a busy",
        "machine may be reached on a quiet one; a ratio or a count that is missed is a fault of ours.",
        "",
        "Single benchmarks: `python -m benchmarks.peers`, `.parts`, `.tail`, `.footprint`, `.instructions`, `.store`,",
        "each with `--json`. Over the commits: `make asv`.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the history (default a million)")
    parser.add_argument("--quick", action="store_true", help="rough figures in a minute")
    parser.add_argument("--raw", type=Path, help="where to keep what was found, as JSON")
    parser.add_argument(
        "--from", type=Path, dest="kept", help="make the page of what --raw kept; measure nothing"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.md")
    asked = parser.parse_args()
    if asked.kept:
        found = json.loads(asked.kept.read_text())
    else:
        found = gathered(min(asked.rows, 100_000) if asked.quick else asked.rows, asked.quick)
    if asked.raw:
        asked.raw.write_text(json.dumps(found, indent=2))
    text = page(found)
    asked.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
