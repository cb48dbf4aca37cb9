"""The tables of the documentation that follow from the code: settings, and the documents of the HTTP interface.

`python -m tests.doctables` writes them anew, between `<!-- table: NAME -->` and `<!-- end -->`; a test holds
the pages to them. Only tables stand here; what explains them is written by hand.
"""

from __future__ import annotations

import inspect
import io
import json
import re
import tokenize
import typing
from pathlib import Path
from typing import Any

import msgspec

from qigheal.api import records
from qigheal.records import Severity
from qigheal.settings import HealSettings, MonitorSettings
from tests.docpages import DOCS

MARKED = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end -->)", re.S)
PAGES = (DOCS / "settings.md", DOCS / "http.md")
DOCUMENTS = (
    "Error", "Glance", "Health", "Snapshot", "Snapshots", "TimeToLimit", "TrendOf", "Trends", "Range", "State",
    "Job", "Triggered", "Judgement", "PatchSummary", "Patches", "PatchDetail", "ReviewRequest", "GateLine", "Phase",
)  # fmt: skip
"""The records of `qigheal.api.records` in the order of the page."""

ALIASES: dict[str, Any] = {"Status": records.Status, "JobState": records.JobState, "Severity": Severity}


def settings(kind: type[msgspec.Struct]) -> str:
    """Name, default and meaning of each field; the meaning is the docstring's."""
    meanings = explained(kind)
    lines = ["| setting | default | what it does |", "|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        lines.append(f"| `{field.name}` | `{field.default!r}` | {meanings[field.name]} |")
    return "\n".join(lines)


def explained(kind: type) -> dict[str, str]:
    """From a docstring's lines `name, name: meaning`, with lines that go on indented further."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.getdoc(kind).splitlines()[1:]:  # type: ignore[union-attr]
        if match := re.match(r"([a-z][\w, ]*): (.*)", line):
            names = match[1].split(", ")
            for name in names:
                found[name] = match[2]
        elif line.startswith("    "):
            for name in names:
                found[name] += " " + line.strip()
    return {name: meaning.replace("|", "\\|") for name, meaning in found.items()}


def document(name: str) -> str:
    """The fields of one record, with what the comment beside each says."""
    kind: type[msgspec.Struct] = getattr(records, name)
    lines = ["| field | type | default | note |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        owner = next(
            each for each in reversed(kind.__mro__) if field.name in vars(each).get("__annotations__", {})
        )
        written, comment = declared(owner)[field.name]
        default = "" if field.required else f"`{plain(field.default)}`"
        lines.append(f"| `{field.name}` | {written} | {default} | {comment} |")
    return "\n".join(lines)


def declared(kind: type) -> dict[str, tuple[str, str]]:
    """The type as it is written, in JSON's words, and the comment at the end of the line, by field."""
    source = inspect.getsource(kind)
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for number, line in enumerate(source.splitlines(), 1):
        if match := re.match(r"    (\w+): (.*?)(?: = [^=]*?)?(?:\s{2,}#.*)?$", line):
            found[match[1]] = (in_json(match[2]), comments.get(number, "").replace("|", "\\|"))
    return found


def in_json(written: str) -> str:
    """A Python annotation in the words of JSON."""
    text = re.sub(r"Annotated\[(\w+), .*\]", r"\1", written)
    if text in ALIASES:
        return ", ".join(json.dumps(each) for each in typing.get_args(ALIASES[text]))
    for python, words in (
        (r"tuple\[(.*), \.\.\.\]", r"list of \1"),
        (r"dict\[str, (.*)\]", r"object of \1"),
        (r"Literal\[(.*)\]", r"\1"),
        (r"\bfloat\b", "number"),
        (r"\bint\b", "whole number"),
        (r"\bstr\b", "text"),
        (r"\bbool\b", "true or false"),
        (r"\bNone\b", "null"),
        (r"\bAny\b", "any"),
        (r"object of number", "object of numbers"),
        (r"list of text", "list of texts"),
        (r"list of number", "list of numbers"),
    ):
        text = re.sub(python, words, text)
    return text.replace(" | ", " or ").replace("|", "\\|")


def plain(default: Any) -> str:
    if type(default) is int:  # 0 and 1 are keys like False and True
        return repr(default)
    return {None: "null", True: "true", False: "false", "": '""', (): "[]"}.get(default, repr(default))


def table(name: str) -> str:
    if name == "MonitorSettings":
        return settings(MonitorSettings)
    if name == "HealSettings":
        return settings(HealSettings)
    return document(name)


def rewritten(text: str) -> str:
    """The page with all its tables as they should be."""
    return MARKED.sub(lambda found: f"{found[1]}\n{table(found[2])}\n\n{found[3]}", text)


def main(pages: tuple[Path, ...] = PAGES) -> None:
    for page in pages:
        page.write_text(rewritten(page.read_text()))


if __name__ == "__main__":
    main()
