"""What the documentation says exists, exists; what exists and a user may set, is documented."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from functools import cache
from pathlib import Path

import msgspec
import pytest

import qigheal.cli
from qigheal.api import records
from qigheal.cli import ending
from qigheal.host import Deploy, Hosting, HostTests, Lever, Manifest, PatchLimits, Probe, Sites
from qigheal.settings import BRAKES, HealSettings, MonitorSettings
from tests import doctables
from tests.docpages import DOCS, ROOT, pages, prose

NAME = re.compile(r"\bQIGHEAL_[A-Z][A-Z_]*\b")
OURS = re.compile(r"`((?:qigheal|qigcore)(?:\.\w+)+)(?:\(.*?\))?`")
NO_MODULES = {"qigheal.toml", "qigheal.strategies"}
"""A file, and a group of entry points."""

EXIT = re.compile(r"^\| (\d+(?:, \d+)*) \|", re.M)
FOR_TESTS = {"QIGHEAL_EXHAUSTIVE", "QIGHEAL_FUZZ", "QIGHEAL_TEST", "QIGHEAL_TEST_MARK"}
"""Variables that only tests read."""


@cache
def source(*tops: str) -> str:
    found = []
    for top in tops:
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix in (".py", ".pyx", ".pxd", ".h", ".js", ".html") and path.is_file():
                found.append(path.read_text())
    return "\n".join(found)


def code() -> str:
    return source("python", "qigcore", "ext")


@pytest.mark.parametrize("page", doctables.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text()
    assert doctables.rewritten(text) == text, f"{page.name} is behind the code: python -m tests.doctables"


def test_every_document_has_its_table() -> None:
    kinds = {
        name
        for name, value in vars(records).items()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == records.__name__
    }
    assert kinds == set(doctables.DOCUMENTS)
    marked = set(re.findall(r"<!-- table: (\w+) -->", (DOCS / "http.md").read_text()))
    assert marked == kinds


@pytest.mark.parametrize("kind", [MonitorSettings, HealSettings])
def test_every_setting_is_explained(kind: type[msgspec.Struct]) -> None:
    assert set(doctables.explained(kind)) == set(kind.__struct_fields__)


def test_environment_variables_are_those_of_the_code() -> None:
    known = set(NAME.findall(code()))
    documented = {name for page in pages() for name in NAME.findall(prose(page))}
    assert documented - FOR_TESTS <= known, sorted(documented - FOR_TESTS - known)
    listed = set(NAME.findall((DOCS / "settings.md").read_text()))
    assert known - FOR_TESTS <= listed, f"docs/settings.md leaves out {sorted(known - FOR_TESTS - listed)}"


def test_exit_codes_are_those_of_the_code() -> None:
    section = (DOCS / "settings.md").read_text().partition("## Exit codes")[2]
    listed = {int(code) for row in EXIT.findall(section) for code in row.split(", ")}
    known = {value for name, value in vars(qigheal.cli).items() if name.isupper() and isinstance(value, int)}
    known |= {ending.OF_SIGNAL + number for number in ending.SIGNALS}
    assert listed == known


def test_extras_are_those_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    section = (DOCS / "settings.md").read_text().partition("## Extras")[2].partition("\n## ")[0]
    listed = {
        name.strip(" `") for row in re.findall(r"^\| (`[^|]*) \|", section, re.M) for name in row.split(",")
    }
    assert listed == set(extras)


def test_extras_that_errors_name_are_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set()
    texts = [path.read_text() for path in (ROOT / "python").rglob("*.py")]
    for text in texts:
        for node in ast.walk(ast.parse(text)) if "MissingExtra(" in text else ():
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).endswith("MissingExtra")
                and len(node.args) > 1
            ):
                extra = node.args[1]
                if isinstance(extra, ast.Constant) and isinstance(extra.value, str):
                    named.add(extra.value)
    assert "heal" in named
    assert named <= set(extras), f"pip would not know {sorted(named - set(extras))}"


def test_names_of_ours_can_be_imported() -> None:
    for page in pages():
        for dotted in OURS.findall(prose(page)):
            assert dotted in NO_MODULES or reachable(dotted), f"{page}: there is no {dotted}"


def reachable(dotted: str) -> bool:
    if (ROOT / "python" / Path(*dotted.split("."))).exists() or (ROOT / Path(*dotted.split("."))).exists():
        return True
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def test_messages_that_are_quoted_are_printed() -> None:
    """In docs/troubleshooting.md, messages stand in quotes, `…` for what differs."""
    joined = re.sub(r'"\s*\n\s*f?"', "", code())  # a text that goes on in the next line
    joined = re.sub(r"\{[^{}\n]*\}", "…", joined)
    quoted = re.findall(r"^> (.*)$", (DOCS / "troubleshooting.md").read_text(), re.M)
    messages = [message for line in quoted for message in re.findall(r"`([^`]+)`", line)]
    assert len(messages) > 30
    for message in messages:
        for part in message.split("…"):
            words = part.strip(" :;,()")
            assert len(words) < 4 or words in joined, f"nobody prints {words!r} (of {message!r})"


def test_alerts_find_their_page() -> None:
    """Rules of Prometheus link to these; their names are a promise."""
    text = (DOCS / "troubleshooting.md").read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    anchors |= set(re.findall(r'<a id="([\w-]+)"></a>', text))
    promised = {
        "phi-low",
        "drift-over-limit",
        "healing-failing",
        "breaker-open",
        "monitor-silent",
        "snapshots-lost",
    }
    assert promised <= anchors
    linked = set(re.findall(r"troubleshooting(?:\.md|\.html)?#([\w-]+)", source_of_rules()))
    assert linked <= anchors, sorted(linked - anchors)


def source_of_rules() -> str:
    return "".join(path.read_text() for path in sorted((ROOT / "deploy").rglob("*")) if path.is_file())


def test_every_key_of_the_manifest_is_explained() -> None:
    tables = {"probe": Probe, "tests": HostTests, "patch": PatchLimits, "levers": Lever, "sites": Sites}
    tables |= {"deploy": Deploy, "forge": Hosting}
    assert set(Manifest.__struct_fields__) == {*tables, "healer"}
    known = {f"{table}.{key}" for table, kind in tables.items() for key in kind.__struct_fields__}
    tables["healer"] = HealSettings
    known |= {f"healer.{key}" for key in BRAKES}
    listed = set(re.findall(rf"`((?:{'|'.join(tables)})\.\w+)`", (DOCS / "manifest.md").read_text()))
    assert listed == known


def test_every_route_has_its_row() -> None:
    from qigheal.api.routes import ROUTES

    assert set(rows_of_routes()) == {f"{route.method} {route.path.strip('/')}" for route in ROUTES}


def test_every_answer_of_a_route_is_told() -> None:
    from qigheal.api import PREFIX
    from qigheal.api.description import document

    section = (DOCS / "http.md").read_text().partition("Every answer from 400 on")[2].partition("\n## ")[0]
    errors = {
        code for row in re.findall(r"^\| (\d{3}(?:, \d{3})*) \|", section, re.M) for code in row.split(", ")
    }
    rows = rows_of_routes()
    for path, methods in document(PREFIX)["paths"].items():
        for method, operation in methods.items():
            if method not in ("get", "post"):
                continue
            name = f"{method.upper()} {path.removeprefix(PREFIX).strip('/')}"
            codes = set(operation["responses"]) - {"304"}
            told = set(re.findall(r"\b([2-5]\d\d)\b", rows[name]))
            assert codes <= told | errors, (
                f"{name}: docs/http.md does not tell of {sorted(codes - told - errors)}"
            )
            assert told <= codes, f"{name}: docs/http.md tells of {sorted(told - codes)}, which never comes"


def rows_of_routes() -> dict[str, str]:
    """The rows of the table of routes by `METHOD path`, a row with several once for each."""
    section = (DOCS / "http.md").read_text().partition("## Routes")[2].partition("\n## ")[0]
    found = {}
    for row in (line for line in section.splitlines() if line.startswith("| ")):
        first, _, rest = row.removeprefix("| ").partition(" | ")
        for name in re.findall(r"`((?:GET|POST) [^`]+)`", first):
            found[name] = rest
    return found
