"""The documentation as a site: it builds without a warning, its links lead somewhere, all comes from itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.docpages import DOCS, ROOT, pages, prose

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
"""What a browser fetches by itself, and by which attribute."""


class Page(HTMLParser):
    """Links, anchors and fetched resources of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str] = []
        self.styles: list[str] = []
        self._style = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if (name := LOADED.get(tag)) in given:
            self.loaded.append(given[str(name)])
        self._style = tag == "style"
        self.styles.append(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._style:
            self.styles.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical", reason="zensical builds the site; it comes with the extra test")
    folder = tmp_path_factory.mktemp("docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(DOCS, folder / "docs")
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", built.stdout + built.stderr)
    assert built.returncode == 0, re.findall(r"Warning: (.*)\n.*?\[ (.*?) \]", said) or said
    assert "No issues found" in said
    return folder / "build" / "site"


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Page]:
    found = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    assert len(found) >= len(list(DOCS.rglob("*.md")))
    return found


def test_every_link_leads_somewhere(site: Path, parsed: dict[Path, Page]) -> None:
    broken = []
    for path, page in parsed.items():
        if path.name == "404.html":
            continue  # its links begin at the root of a server
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists() or (url.fragment and unquote(url.fragment) not in anchors(parsed, target)):
                broken.append(f"{path.name}: {link}")
    assert not broken, broken


def anchors(parsed: dict[Path, Page], target: Path) -> set[str]:
    return parsed[target].anchors if target in parsed else set()


def test_every_picture_script_and_style_is_there(parsed: dict[Path, Page]) -> None:
    missing = [
        f"{path.name}: {address}"
        for path, page in parsed.items()
        for address in page.loaded
        if path.name != "404.html" and not urlsplit(address).scheme
        if not (path.parent / unquote(urlsplit(address).path)).exists()
    ]
    assert not missing, missing


def test_nothing_is_fetched_from_elsewhere(site: Path, parsed: dict[Path, Page]) -> None:
    for path, page in parsed.items():
        for address in page.loaded:
            assert not urlsplit(address).netloc, f"{path.name} fetches {address}"
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", "".join(page.styles)), path.name
    for sheet in site.rglob("*.css"):
        text = sheet.read_text()
        assert not re.search(r"(url\(\s*['\"]?|@import\s+['\"])(https?:)?//", text), sheet.name


def test_the_pages_can_be_searched(site: Path) -> None:
    text = (site / "search.json").read_text()
    assert "geodesic" in text or "Fisher" in text


def test_every_page_is_in_the_navigation() -> None:
    import yaml

    named = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(named) == len(set(named))
    assert set(named) == {page.removeprefix("docs/") for page in pages() if page != "README.md"}


def leaves(node: Any) -> Any:
    if isinstance(node, str):
        yield node
    else:
        for each in node.values() if isinstance(node, dict) else node:
            yield from leaves(each)


def test_links_of_the_readme_lead_somewhere() -> None:
    """GitHub shows it, and no builder reads it."""
    from markdown_it import MarkdownIt

    for token in MarkdownIt("commonmark").parse(prose("README.md")):
        for child in token.children or ():
            address = child.attrGet("href") or child.attrGet("src")
            if address and not urlsplit(str(address)).scheme:
                path, _, fragment = str(address).partition("#")
                assert (ROOT / path).exists(), address
                if fragment:
                    assert fragment in slugs(ROOT / path), address


def slugs(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_no_page_speaks_of_this_machine() -> None:
    for page in pages():
        for line in prose(page).splitlines():
            assert not re.search(r"(^|[\s`'\"(])/(work|tmp/tasks|root)/", line), f"{page}: {line}"
