"""The pages' files: complete, small, and without a way from data to markup."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from qigheal import dashboard
from qigheal.errors import MissingExtra, QighealError

OWN = [name for name in dashboard.names() if name != dashboard.CHARTS]


@pytest.mark.parametrize(
    ("name", "media"),
    [("dashboard.html", "text/html"), ("dashboard.css", "text/css"), ("widget.js", "text/javascript")],
)
def test_files_have_their_media_type(name: str, media: str) -> None:
    content, said = dashboard.asset(name)
    assert content
    assert said == f"{media}; charset=utf-8"


@pytest.mark.parametrize(
    "name", ["", "nothing.js", "__init__.py", "../errors.py", "../../qigheal/errors.py", "."]
)
def test_nothing_else_is_sent(name: str) -> None:
    with pytest.raises(dashboard.NoSuchAsset, match=r"expected one of the pages' files, got"):
        dashboard.asset(name)
    assert issubclass(dashboard.NoSuchAsset, QighealError)
    assert issubclass(dashboard.NoSuchAsset, KeyError)


def test_charts_are_found_without_importing_their_package() -> None:
    pytest.importorskip("plotly")
    code = (
        "import sys; from qigheal import dashboard; content, media = dashboard.asset('plotly.min.js'); "
        "assert b'plotly.js' in content[:200] and len(content) > 1e6, media; assert 'plotly' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_dashboard_loads_its_modules_beside_one_another() -> None:
    """Each imported module that the shell does not name is found only once what imports it is here."""
    shell = dashboard.asset("dashboard.html")[0].decode()
    ahead = set(re.findall(r'(?:modulepreload" href|module" src)="assets/([^"]+)"', shell))
    needed, known = ["dashboard.js"], {"dashboard.js"}
    while needed:
        text = dashboard.asset(needed.pop())[0].decode()
        found = set(re.findall(r'from "\./([^"]+)"', text)) - known
        known |= found
        needed.extend(found)
    assert ahead == known
    assert re.findall(r'preload" as="script" href="assets/([^"]+)"', shell) == [dashboard.CHARTS]


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r"^the dashboard's charts needs 'plotly'.*qigheal\[dashboard\]"
    ) as found:
        dashboard.asset(dashboard.CHARTS)
    assert isinstance(found.value, KeyError), "the routes answer 404 for a KeyError"


@pytest.mark.parametrize("name", OWN)
def test_text_stays_text(name: str) -> None:
    text = dashboard.asset(name)[0].decode()
    sinks = (
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|srcdoc|localStorage|cookie"
    )
    assert not re.findall(sinks, text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), (
        "the pages load nothing from elsewhere"
    )
    assert len(text.splitlines()) <= 500


@pytest.mark.parametrize("name", ["dashboard.html", "widget.html"])
def test_shells_hold_no_script_style_or_absolute_path(name: str) -> None:
    text = dashboard.asset(name)[0].decode()
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", text)
    named = re.findall(r'(?:href|src)="([^"#]*)"', text)
    assert named
    assert not [path for path in named if path.startswith("/") or "//" in path]
    files = {path.removeprefix("assets/") for path in named if path.startswith("assets/")}
    assert files <= set(dashboard.names())


@pytest.mark.parametrize("name", [name for name in OWN if name.endswith(".js")])
def test_modules_import_what_is_there(name: str) -> None:
    text = dashboard.asset(name)[0].decode()
    for names, module in re.findall(r'import \{([^}]*)\} from "\./([^"]+)"', text):
        exported = dashboard.asset(module)[0].decode()
        for each in (part.split(" as ")[0].strip() for part in names.split(",")):
            assert re.search(
                rf"export (async )?(function\*?|const|class|let) {re.escape(each)}\b", exported
            ), each
