"""A host of TOML files whose probe is a formula, for strategies that turn levers."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from qigheal.errors import RepoError
from qigheal.host import Lever
from qigheal.records import Answer

Respond = Callable[[dict[str, Any], int], Answer]


def answer(batch: int, phi: float, kappa: float, basin: tuple[float, ...] = (0.5, 0.3, 0.2)) -> Answer:
    return Answer(
        batch=batch,
        phi=phi,
        kappa_eff=kappa,
        basin=basin,
        error_rate=0.0,
        avg_latency_ms=1.0,
        wall_ms=1.0,
        cpu_ms=1.0,
        rss_mb=10.0,
    )


class FakeRepo:
    """One commit of a few text files, and the trees made by editing it."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.trees: dict[str, dict[str, str]] = {}
        self.patched: dict[str | None, dict[str, str]] = {None: files}  # by diff

    def read(self, commit: str, path: str) -> bytes:
        if path not in self.files:
            raise RepoError(f"{path}: no such file at {commit}")
        return self.files[path].encode()

    def edit(self, base: str, edits: dict[str, bytes]) -> str:
        tree = f"tree{len(self.trees)}"
        self.trees[tree] = self.files | {path: content.decode() for path, content in edits.items()}
        return tree

    def diff(self, a: str, b: str) -> str:
        lines: list[str] = []
        for path, after in self.trees[b].items():
            before = self.files[path].splitlines(keepends=True)
            lines += difflib.unified_diff(before, after.splitlines(keepends=True), f"a/{path}", f"b/{path}")
        text = "".join(lines)
        self.patched[text] = self.trees[b]
        return text


class FakeBench:
    """Probes that answer by formula; remembers what each was asked."""

    base = "c0ffee"

    def __init__(self, repo: FakeRepo, respond: Respond, levers: Sequence[Lever]) -> None:
        self.repo = repo
        self.respond = respond
        self.manifest = SimpleNamespace(levers=tuple(levers))
        self.asked: list[tuple[str | None, list[tuple[int, int]]]] = []

    def search_requests(self, count: int, start: int = 0) -> list[tuple[int, int]]:
        return [(i, 11) for i in range(start, start + count)]

    @contextmanager
    def probe(self, diff: str | None = None) -> Iterator[SimpleNamespace]:
        files = self.repo.patched[diff]
        config: dict[str, Any] = {}
        for path, content in files.items():
            if path != "broken.toml":
                config |= tomllib.loads(content)
        requests: list[tuple[int, int]] = []
        self.asked.append((diff, requests))

        def ask(batch: int, seed: int) -> Answer:
            requests.append((batch, seed))
            return self.respond(config, batch)

        yield SimpleNamespace(ask=ask)
