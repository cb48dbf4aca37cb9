"""The code blocks of the documentation: where they stand, what language they are in, what is done with them.

Markdown is read by markdown-it. A fence names its language; an indented block has none, and is told by its
first words. A comment `<!-- run -->` before a block of commands has them run and not only checked. No test
and no knowledge of a command stands here.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

RUN = "<!-- run -->"
FENCES = {
    "python": "python",
    "sh": "commands",
    "bash": "commands",
    "shell": "commands",
    "console": "commands",
    "toml": "toml",
    "json": "json",
    "yaml": "yaml",
    "yml": "yaml",
    "ini": "unit",
    "dockerfile": "container",
    "http": "http",
    "promql": "promql",
    "text": "text",
    "sql": "text",
}
PROGRAMS = frozenset(
    {
        "apt-get",
        "cp",
        "curl",
        "docker",
        "export",
        "git",
        "gunicorn",
        "install",
        "jq",
        "ls",
        "make",
        "mkdir",
        "mv",
    }
    | {"pip", "podman", "prometheus", "promtool", "python", "qigheal", "rsync", "sha256sum", "sudo"}
    | {"systemctl", "tar", "useradd", "uvicorn", "zensical", "zstd", "journalctl", "cat"}
)
"""What a line of commands may begin with, so that a misspelt one is no text."""


@dataclass(frozen=True)
class Block:
    """One code block; `line` counts from 1 and is its first line of code."""

    page: str
    line: int
    kind: str
    text: str
    run: bool = False

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page, relative to the root: the README, and all below docs/."""
    return ["README.md", *sorted(str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md"))]


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """The code blocks of a page, in order."""
    from markdown_it import MarkdownIt

    found = []
    before = ""
    for token in MarkdownIt("commonmark").parse((ROOT / page).read_text()):
        if token.type in ("fence", "code_block"):
            first = (token.map or [0])[0] + 1 + (token.type == "fence")
            kind = indented(token.content) if token.type == "code_block" else fenced(token.info)
            found.append(Block(page, first, kind, token.content, before == RUN))
        before = token.content.strip() if token.type == "html_block" else ""
    return tuple(found)


def every(kind: str) -> list[Block]:
    """All blocks of one kind in all pages."""
    return [block for page in pages() for block in blocks(page) if block.kind == kind]


def fenced(info: str) -> str:
    """What a fence's language means here; "unknown" for one that no test knows."""
    return FENCES.get(info.strip(), "unknown")


def indented(text: str) -> str:
    """What an indented block is: commands, Python, or a drawing."""
    if any(line.split()[:1] and line.split()[0] in PROGRAMS for line in text.splitlines()):
        return "commands"
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return "text"
    means = (ast.Import, ast.ImportFrom, ast.With, ast.For, ast.FunctionDef)
    calls = any(isinstance(node, ast.Call) for node in ast.walk(tree))
    return "python" if calls or any(isinstance(node, means) for node in tree.body) else "text"


def lines(block: Block) -> list[tuple[int, str]]:
    """The commands of a block with their line numbers, continuations joined, prompts taken off."""
    found: list[tuple[int, str]] = []
    joined, start = "", 0
    prompted = any(line.startswith("$ ") for line in block.text.splitlines())
    for offset, line in enumerate(block.text.splitlines()):
        if prompted and not joined and not line.startswith("$ "):
            continue  # what a command printed
        start = start if joined else block.line + offset
        if found and line.startswith(" " * 8) and not joined:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")  # a synopsis goes on
            continue
        joined = f"{joined} {line.removeprefix('$ ').strip()}".strip()
        if joined.endswith("\\"):
            joined = joined[:-1].rstrip()
            continue
        if joined and not joined.startswith("#"):
            found.append((start, joined))
        joined = ""
    return found


def prose(page: str) -> str:
    """The text of a page with its code."""
    return (ROOT / page).read_text()


def as_job(page: str) -> str:
    """What of a page is to be run, in order, as JSON for `tests/docrun.py`."""
    steps: list[dict[str, Any]] = []
    for block in blocks(page):
        if block.kind == "python":
            steps.append({"line": block.line, "python": block.text})
        elif block.kind == "commands" and block.run:
            steps.append({"line": block.line, "commands": [text for _, text in lines(block)]})
    return json.dumps({"page": str(ROOT / page), "steps": steps})
