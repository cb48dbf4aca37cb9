"""Imports obey the floors: downward only, and the stages of healing never know one another."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A module's floor, or its package's; the longest matching name counts.
FLOORS = {
    "qigcore": 2,
    "qigcore.errors": 1,
    "qigcore.constants": 1,
    "qigcore.rows": 1,
    "qigcore._jit": 1,
    "qigcore.geometry": 1,
    "qigcore.jsontext": 1,
    "qigcore.forks": 1,
    "qigcore.regular": 1,
    "qigheal": 4,
    "qigheal.errors": 3,
    "qigheal.records": 3,
    "qigheal.settings": 3,
    "qigheal.monitor": 5,
    "qigheal.backtest": 5,
    "qigheal.healing": 6,
    "qigheal.healing.bench": 5,
    "qigheal.healing.hostcode": 4,
    "qigheal.healing.inspection": 4,
    "qigheal.healing.swallowing": 4,
    "qigheal.healing.passage": 7,
    "qigheal.healing.stored": 7,
    "qigheal.healing.measuring": 7,
    "qigheal.healing.evaluating": 7,
    "qigheal.healing.audit": 7,
    "qigheal.healing.drill": 7,
    "qigheal.healing.reviewing": 7,
    "qigheal.healing.engine": 7,
    "qigheal.standing": 5,
    "qigheal.api": 8,
    "qigheal.alerts": 8,
    "qigheal.roi": 8,
    "qigheal.dashboard": 8,
    "qigheal.integrations": 9,
    "qigheal.cli": 10,
    "qigheal.__main__": 11,
    "qigheal.demo": 9,
}
STAGES = (
    "diagnosis", "strategies", "trial", "judge", "forge", "deploying", "watch", "ledger", "phases", "probed"
)  # fmt: skip


def floor(module: str) -> int:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in FLOORS:
            return FLOORS[name]
    raise AssertionError(f"{module} stands on no floor")


def stage(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["qigheal", "healing"] and len(parts) > 2 and parts[2] in STAGES else None


def sources() -> dict[str, Path]:
    found = {}
    for top, base in (("qigcore", ROOT), ("python/qigheal", ROOT / "python")):
        for path in (ROOT / top).rglob("*.py"):
            if "digits-host" in path.parts:
                continue  # the demo's host is a program of its own
            dotted = ".".join(path.relative_to(base).with_suffix("").parts)
            found[dotted.removesuffix(".__init__")] = path
    return found


MODULES = sources()


def imports(path: Path) -> set[str]:
    """Modules imported at run time; what stands under TYPE_CHECKING is for the reader only."""
    tree = ast.parse(path.read_text())
    only_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide the floor"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name in MODULES}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downward(module: str) -> None:
    package = module if module in ("qigheal", "qigcore") else module.rpartition(".")[0]
    for name in imports(MODULES[module]) - {module, "qigheal", "qigcore"}:
        if module == "qigheal":
            continue  # the face of the package names the public classes; it does so lazily
        same_room = f"{name}.".startswith(f"{package}.") and floor(name) == floor(module)
        assert floor(name) < floor(module) or same_room, f"{module} imports {name}, which is not below it"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if stage(m)))
def test_stages_do_not_know_one_another(module: str) -> None:
    others = {name for name in imports(MODULES[module]) if stage(name) not in (None, stage(module))}
    assert not others, f"{module} imports other stages: {sorted(others)}"


def test_core_knows_no_service() -> None:
    for module, path in MODULES.items():
        if module.startswith("qigcore"):
            text = path.read_text()
            assert "import qigheal" not in text
            assert "from qigheal" not in text


def test_numba_only_behind_the_jit_room() -> None:
    for module, path in MODULES.items():
        if module != "qigcore._jit":
            names = {
                alias.name if isinstance(node, ast.Import) else node.module or ""
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, (ast.Import, ast.ImportFrom))
                for alias in node.names
            }
            assert not any(name.split(".")[0] == "numba" for name in names), module


def test_rooms_stay_small() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES.values()}
    lengths |= {path: len(path.read_text().splitlines()) for path in (ROOT / "ext").glob("*.p*")}
    assert max(lengths.values()) <= 500, max(lengths, key=lambda path: lengths[path])
