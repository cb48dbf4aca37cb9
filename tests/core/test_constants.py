"""Constants: each has its standing, stands in one place, and is nowhere passed off as more than it is."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest

from qigcore import constants
from qigcore.constants import STANDINGS, TABLE, Constant, Standing, running_coupling
from qigcore.recorder import Recorder
from qigcore.rows import DIM
from qigheal.settings import HealSettings, MonitorSettings

ROOT = Path(__file__).resolve().parents[2]
HERE = "qigcore/constants.py"


# --- the table --------------------------------------------------------------------------------------


def test_the_table_is_complete() -> None:
    standing = {name: (each.value, each.uncertainty, each.standing) for name, each in TABLE.items()}
    assert standing == {
        "PHI_MIN": (0.65, None, "convention"),
        "BASIN_DRIFT_MAX": (2.0, None, "convention"),
        "FITNESS_THRESHOLD": (0.6, None, "convention"),
        "LINEAR_BELOW": (0.3, None, "convention"),
        "BREAKDOWN_FROM": (0.8, None, "convention"),
        "BASIN_DIM": (64, None, "convention"),
        "KAPPA_STAR": (64.21, None, "preliminary"),
        "KAPPA_7": (53.08, 4.26, "preliminary"),
        "BETA_3_TO_4": (0.44, None, "preliminary"),
        "BETA_FROM_4": (0.0, None, "preliminary"),
        "E8_RANK_SQUARED": (64.0, None, "hypothesis"),
    }
    assert all(each.unit and each.source and len(each.note) > 20 for each in TABLE.values())


def test_no_figure_is_called_validated() -> None:
    """Nothing in the source document shows any of them more than once from open data."""
    assert set(STANDINGS) == set(get_args(Standing))
    assert "validated" not in {each.standing for each in TABLE.values()}
    assert "no entry has this standing" in STANDINGS["validated"]


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TABLE["PHI_MIN"] = TABLE["KAPPA_STAR"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        TABLE["PHI_MIN"].standing = "validated"  # type: ignore[misc]
    encoded = msgspec.json.encode(dict(TABLE))
    assert msgspec.json.decode(encoded, type=dict[str, Constant]) == TABLE


def test_the_names_for_use_are_those_of_the_table() -> None:
    used = {name: getattr(constants, name) for name in TABLE if hasattr(constants, name)}
    assert used == {name: TABLE[name].value for name in used}
    assert {"PHI_MIN", "BASIN_DRIFT_MAX", "FITNESS_THRESHOLD", "KAPPA_STAR"} <= set(used)
    assert all(type(used[name]) is float for name in used if name != "BASIN_DIM")
    # What is not for use has no name of its own: nothing can rest on it by accident.
    assert not {"KAPPA_7", "E8_RANK_SQUARED", "BETA_3_TO_4", "BETA_FROM_4"} & set(used)


def test_the_defaults_are_those_of_the_table() -> None:
    monitor, recorder = MonitorSettings(), Recorder()
    assert (monitor.phi_min, monitor.basin_drift_max) == (constants.PHI_MIN, constants.BASIN_DRIFT_MAX)
    assert HealSettings().fitness_threshold == constants.FITNESS_THRESHOLD
    bounds = (constants.LINEAR_BELOW, constants.BREAKDOWN_FROM, constants.BASIN_DIM)
    assert (monitor.linear_below, monitor.breakdown_from, monitor.dim) == bounds
    assert (recorder.linear_below, recorder.breakdown_from, recorder.dim) == bounds
    assert DIM == constants.BASIN_DIM


# --- the running coupling ---------------------------------------------------------------------------


def test_running_coupling() -> None:
    assert running_coupling(3) == 0.44
    assert [running_coupling(scale) for scale in (4, 5, 64, 10**30, np.uint8(9))] == [0.0] * 5
    assert running_coupling(np.int64(3)) == 0.44


@pytest.mark.parametrize(
    "scale",
    [
        2,
        np.int64(2),
        0,
        -1,
        3.0,
        3.5,
        True,
        np.True_,
        "3",
        None,
        Fraction(3),
        float("nan"),
        np.float64(3),
        3 + 0j,
    ],
)
def test_nothing_was_measured_below_three_nor_between(scale: object) -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        running_coupling(scale)  # type: ignore[arg-type]


# --- one place for each figure ----------------------------------------------------------------------

DISTINCTIVE = {0.65, 64.21, 53.08, 4.26, 0.44}
"""Figures that mean nothing else wherever they stand; the others are looked for by name."""

NAMED = re.compile(
    r"phi_min|basin_drift_max|drift_max|drift_ceiling|fitness_threshold|linear_below|breakdown_from|kappa_star",
    re.I,
)


def python_files() -> list[Path]:
    found = [path for top in ("qigcore", "python/qigheal") for path in (ROOT / top).rglob("*.py")]
    return [path for path in found if "digits-host" not in path.parts and path != ROOT / HERE]


def written_twice(source: str) -> Iterator[str]:
    """Literals in Python code that repeat a figure of the table."""

    def number(node: ast.AST | None) -> bool:
        return isinstance(node, ast.Constant) and type(node.value) in (int, float)

    for node in ast.walk(ast.parse(source)):
        if number(node) and node.value in DISTINCTIVE:  # type: ignore[attr-defined]
            yield f"line {node.lineno}: {node.value}"  # type: ignore[attr-defined]
        pairs: list[tuple[str, ast.AST | None]] = []
        if isinstance(node, ast.Assign):
            pairs = [(ast.unparse(target), node.value) for target in node.targets]
        elif isinstance(node, ast.AnnAssign):
            pairs = [(ast.unparse(node.target), node.value)]
        elif isinstance(node, ast.keyword):
            pairs = [(node.arg or "", node.value)]
        elif isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            pairs = [
                (each.arg, default)
                for each, default in zip(positional[::-1], node.defaults[::-1], strict=False)
            ]
            pairs += [
                (each.arg, default) for each, default in zip(node.kwonlyargs, node.kw_defaults, strict=True)
            ]
        yield from (
            f"{name} = {ast.unparse(value)}"
            for name, value in pairs
            if value and number(value) and NAMED.search(name)
        )


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_figure_is_written_twice(path: Path) -> None:
    assert list(written_twice(path.read_text())) == []


@pytest.mark.parametrize("path", sorted((ROOT / "ext").glob("*.p*")), ids=lambda path: path.name)
def test_no_figure_is_written_twice_in_compiled_code(path: Path) -> None:
    code = re.sub(r'""".*?"""|#[^\n]*', "", path.read_text(), flags=re.S)
    assert not set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", code)) & {
        f"{figure:g}" for figure in DISTINCTIVE
    }
    assert not re.findall(rf"(?:{NAMED.pattern})\w*\s*=\s*[\d.]", code, flags=re.I)


@pytest.mark.parametrize(
    "repeated",
    [
        "x = 64.21",
        "def f(*, phi_min=0.7): ...",
        "f(drift_ceiling=2.0)",
        "fitness_threshold: float = 0.6",
        "MIN = [0.65]",
    ],
)
def test_a_figure_written_twice_is_found(repeated: str) -> None:
    assert list(written_twice(repeated))


# --- nothing is passed off as more than it is -------------------------------------------------------

NEAR = 220
"""Characters before and after a claim within which its standing must be said."""

CLAIMS = {
    r"\bE_?8(?!\d)\w*|E₈": r"hypothesis",
    r"κ₇|kappa_?7\b|53\.08 ?±": r"preliminary",
    r"fixed[- ]point": r"hypothesis",
    r"running[_ ]coupling|\bβ\b": r"preliminary",
    r"\bvalidated\b": r"no entry has this standing|hypothesis|preliminary",
    r"conscious\w*|sentien\w*": r"no claim",
}


def told() -> list[Path]:
    """All that a user reads: documents, and the sources with their comments, docstrings and messages."""
    found = [path for path in ROOT.glob("*.md") if path.is_file()]
    for top in ("docs", "deploy", "benchmarks", "ext", "qigcore", "python"):
        for suffix in ("md", "py", "pyi", "pyx", "pxi", "pxd", "h", "toml", "html", "json", "yml", "yaml"):
            found += (ROOT / top).rglob(f"*.{suffix}")
    return found


def text_of(path: Path) -> str:
    """Of Python what people read of it: a name such as FixedPoint claims nothing, a sentence does."""
    text = path.read_text()
    if path.suffix != ".py":
        return text
    return " ".join(
        token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type in (tokenize.STRING, tokenize.COMMENT, tokenize.NUMBER, tokenize.NAME)
    )


HOSTS_OWN = "get_consciousness_metrics"
"""A method that chain hosts bring along: their name for it, and none of our claims."""


def overstated(text: str) -> Iterator[str]:
    text = text.replace(HOSTS_OWN, "")
    for claim, standing in CLAIMS.items():
        for found in re.finditer(claim, text, flags=re.I):
            around = text[max(0, found.start() - NEAR) : found.end() + NEAR]
            if not re.search(standing, around, flags=re.I):
                yield f"{found[0]!r} without its standing, {standing}: ...{around}..."


def test_no_hypothesis_is_presented_as_validated() -> None:
    files = told()
    assert {ROOT / "README.md", ROOT / "docs/constants.md", ROOT / HERE} <= set(files)
    assert {
        str(path.relative_to(ROOT)): found for path in files if (found := list(overstated(text_of(path))))
    } == {}


@pytest.mark.parametrize(
    "claim",
    [
        "κ* = 64.21 is the fixed point of the theory",
        "64 components, because of E8",
        "the E8_LINK holds",
        "κ₇ = 53.08 confirms it",
        "a validated constant",
        "measures the consciousness of a service",
        "β = 0.44 was measured",
        "get_consciousness_metrics() tells whether it is conscious",
    ],
)
def test_an_overstated_claim_is_found(claim: str) -> None:
    assert list(overstated(claim))


def test_the_document_is_the_table() -> None:
    text = (ROOT / "docs/constants.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    assert rows == [
        [
            f"`{name}`",
            f"{each.value:g}" + (f" ± {each.uncertainty:g}" if each.uncertainty is not None else ""),
            each.unit,
            each.source,
            each.standing,
            each.note,
        ]
        for name, each in TABLE.items()
    ]
    for standing, meaning in STANDINGS.items():
        assert f"| {standing} | {meaning} |" in text
