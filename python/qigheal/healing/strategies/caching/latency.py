"""Heals slow requests: caches a hot function that is proved pure.

The host's own profile says which functions would save time if they remembered; `purity` says which may. A
cache has a bound, so that it is no leak, and tells 1 from 1.0 at the top level of its arguments. That a
function is slow is no fault of it, and a cache no repair of what made it so: the patch gives the service
its time back, and a person may look for the cause.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import msgspec

from qigheal.errors import ProbeError, RepoError
from qigheal.healing.strategies.caching.purity import Unproven, prove
from qigheal.healing.strategies.caching.sources import Module, Sources
from qigheal.host.refusals import refused_path
from qigheal.records import Diagnosis, HealingPatch, Tier
from qigheal.settings import HealSettings

if TYPE_CHECKING:
    from qigheal.healing.bench import Bench
    from qigheal.repo import Repo

log = logging.getLogger("qigheal")

LOOKED_AT = 24
"""Answers under the profiler."""

LEAST_SIZE, MOST_SIZE = 128, 16_384
"""Bounds of a cache, in entries: of small values, the larger takes a few megabytes."""

MOST_PATCHES = 4
CREDIT = 0.5
"""A profile slows calls of small functions down, so that half of the time that has to go is enough to try."""

NUMBERS = frozenset(("int", "float", "bool", "complex"))


class Profiled(msgspec.Struct, frozen=True):
    """What the instrument `profile` saw of one function."""

    file: str
    line: int
    name: str
    calls: int
    plain: int  # calls with plain values for arguments
    distinct: int  # different ones of these
    repeats: int
    total_s: float
    own_s: float
    repeat_s: float  # in calls that had been made before
    arguments: tuple[str, ...]
    results: tuple[str, ...]


class Profile(msgspec.Struct, frozen=True):
    """What the instrument `profile` saw."""

    cpu_s: float
    functions: tuple[Profiled, ...]


@dataclass(frozen=True)
class Candidate:
    """A function that may be cached, and what that would save."""

    module: Module
    node: ast.FunctionDef
    seen: Profiled
    saves: float  # part of the time

    @property
    def size(self) -> int:
        """Entries of its cache: twice what was needed in the profile, as a power of two."""
        return min(max(LEAST_SIZE, 1 << (2 * self.seen.distinct - 1).bit_length()), MOST_SIZE)


class Latency:
    """Proposes a bounded cache on functions that are hot, asked the same again, and proved pure."""

    name = "latency"
    tier: Tier = "safe"
    metrics = ("latency",)

    def __init__(self, settings: HealSettings) -> None:
        self._settings = settings

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        """Patches that save most first: of one function each, and where none is enough, of two.

        Costs one start of the probe, with `LOOKED_AT` answers.
        """
        needed = _needed(diagnosis)
        if needed <= 0.0:
            return
        try:
            profile = bench.inspect("profile", bench.search_requests(LOOKED_AT), Profile)
        except ProbeError as error:
            log.info("latency: no profile: %s", error)
            return
        program = _program(bench, repo)
        candidates = sorted(_candidates(profile, program, bench), key=lambda found: -found.saves)
        sets: list[tuple[Candidate, ...]] = [(one,) for one in candidates if one.saves >= CREDIT * needed]
        if not any(chosen[0].saves >= needed for chosen in sets):
            pairs = [two for two in combinations(candidates[:3], 2) if _add_up(*two) >= CREDIT * needed]
            sets = [*sorted(pairs, key=lambda two: -_add_up(*two)), *sets]
        for chosen in sets[:MOST_PATCHES]:
            yield self._patch(chosen, bench, repo)

    def _patch(self, chosen: Sequence[Candidate], bench: Bench, repo: Repo) -> HealingPatch:
        edits: dict[str, bytes] = {}
        for module in dict.fromkeys(one.module.path for one in chosen):
            inside = [one for one in chosen if one.module.path == module]
            edits[module] = cached(repo.read(bench.base, module).decode(), inside).encode()
        told = "; ".join(
            f"{one.node.name} ({one.module.path}:{one.node.lineno}) computed {one.seen.repeats} of "
            f"{one.seen.calls} results again, {100 * one.saves:.0f} % of the time"
            for one in chosen
        )
        return HealingPatch(
            strategy=self.name,
            tier=self.tier,
            base=bench.base,
            diff=repo.diff(bench.base, repo.edit(bench.base, edits)),
            rationale=f"Caches what is proved to depend on its arguments alone: {told}.",
            heals=("latency",),
            same_output=True,
            batches_needed=self._settings.round_pairs,
            parameters={f"{one.module.name}.{one.node.name}": float(one.size) for one in chosen},
            searched=LOOKED_AT,
        )


def cached(text: str, chosen: Sequence[Candidate]) -> str:
    """The text of one file with a cache on each chosen function. Every other character stays."""
    module = chosen[0].module
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    name, missing = _cache_name(module)
    for one in sorted(chosen, key=lambda found: -found.node.lineno):
        indent = " " * one.node.col_offset
        lines.insert(one.node.lineno - 1, f"{indent}@{name}(maxsize={one.size}, typed=True){end}")
    if missing:
        line, free = _import_place(module)
        lines.insert(line, f"from functools import lru_cache{end}{free * end}")
    return "".join(lines)


def _cache_name(module: Module) -> tuple[str, bool]:
    """What `lru_cache` is called in a file, and whether it must be imported. Raises Unproven where its name
    is taken."""
    for node in module.tree.body:
        if isinstance(node, ast.Import):
            known = [a.asname or a.name for a in node.names if a.name == "functools"]
            if known and module.binding(known[0]) is node:
                return f"{known[0]}.lru_cache", False
        if isinstance(node, ast.ImportFrom) and node.module == "functools" and not node.level:
            known = [a.asname or a.name for a in node.names if a.name == "lru_cache"]
            if known and module.binding(known[0]) is node:
                return known[0], False
    if "lru_cache" in module.bindings:
        raise Unproven(f"{module.path} uses the name lru_cache for something else")
    return "lru_cache", True


def _import_place(module: Module) -> tuple[int, int]:
    """After which line an import goes, and how many free lines after it: behind the plain imports, else before
    the others, else behind what a file begins with."""
    imports = [
        node
        for node in module.tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != "__future__"
    ]
    plain = [node for node in imports if isinstance(node, ast.Import)]
    if plain:
        return plain[-1].end_lineno or plain[-1].lineno, 0
    if imports:
        return imports[0].lineno - 1, 0
    for node in module.tree.body:
        opening = isinstance(node, ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        )
        if not opening:
            lines = [node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]
            return min(lines) - 1, 2 if isinstance(node, ast.FunctionDef | ast.ClassDef) else 1
    return 0, 1


def _needed(diagnosis: Diagnosis) -> float:
    """The part of an answer's time that has to go so that half of the excess does."""
    band, now = diagnosis.target.bands.get("latency"), diagnosis.observed.get("latency", 0.0)
    if band is None or now <= band.high:
        return 0.0
    return (now - band.high) / 2 / now


def _program(bench: Bench, repo: Repo) -> Sources:
    def read(path: str) -> str:
        try:
            return repo.read(bench.base, path).decode()
        except RepoError as error:
            raise ValueError(str(error)) from error

    return Sources.of(repo.entries(bench.base), read)


def _candidates(profile: Profile, program: Sources, bench: Bench) -> Iterator[Candidate]:
    for seen in profile.functions:
        saves = seen.repeat_s / profile.cpu_s if profile.cpu_s > 0 else 0.0
        if seen.plain < seen.calls or not seen.repeats or saves < 0.01:
            continue
        module = program.at(seen.file)
        if module is None or refused_path(bench.manifest, seen.file) is not None:
            continue
        found = _definition(module, seen)
        try:
            if found is None:
                raise Unproven("no plain function of a module or class stands there")
            prove(program, module, found, numeric=NUMBERS.issuperset(seen.arguments))
            _cache_name(module)
        except Unproven as why:
            log.info("latency: %s (%s:%d) is not cached: %s", seen.name, seen.file, seen.line, why)
            continue
        yield Candidate(module, found, seen, min(saves, 1.0))


def _definition(module: Module, seen: Profiled) -> ast.FunctionDef | None:
    """The function that the profile names: of the module, or a static method; each defined once."""
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef) and _stands_at(node, seen) and not node.decorator_list:
            return node if module.binding(node.name) is node else None
        if isinstance(node, ast.ClassDef):
            inside = [n for n in node.body if isinstance(n, ast.FunctionDef) and _stands_at(n, seen)]
            if inside and [ast.unparse(d) for d in inside[0].decorator_list] == ["staticmethod"]:
                return inside[0]
    return None


def _stands_at(node: ast.FunctionDef, seen: Profiled) -> bool:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return node.name == seen.name and seen.line in (first, node.lineno)


def _add_up(first: Candidate, second: Candidate) -> float:
    """What two save together: one that may call the other counts once."""
    names = [{n.id for n in ast.walk(c.node) if isinstance(n, ast.Name)} for c in (first, second)]
    attributes = [{n.attr for n in ast.walk(c.node) if isinstance(n, ast.Attribute)} for c in (first, second)]
    nested = second.node.name in names[0] | attributes[0] or first.node.name in names[1] | attributes[1]
    return max(first.saves, second.saves) if nested else first.saves + second.saves
