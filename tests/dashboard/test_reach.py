"""Who can use the pages: by keyboard, by screen reader, on a phone; and how soon."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from os import environ
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.conftest import READ, Opener, Served, serving
from tests.dashboard.scenes import Scene

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect: Any = playwright.expect
expect.set_options(timeout=30_000)

PACKAGE = "axe-core@4.10.3"
CACHE = (
    Path(environ["XDG_CACHE_HOME"]) / "qigheal-axe"
    if environ.get("XDG_CACHE_HOME")
    else Path(__file__).resolve().parents[2] / ".cache" / "axe"
)
SOURCE = CACHE / "node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, installed once."""
    if not SOURCE.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed")
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [
            npm,
            "install",
            "--prefix",
            str(CACHE),
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            PACKAGE,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=75, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm did not install axe-core within 75 s")
        if done.returncode:
            pytest.skip(f"npm cannot install axe-core here: {done.stderr.strip().splitlines()[-1:]}")
    return SOURCE.read_text()


def faults(page: Any, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"], "axe looked at nothing"
    return [
        f"{fault['id']} ({fault['impact']}): {[node['html'][:200] for node in fault['nodes']]}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical", "moderate")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["dashboard", "widget"])
def test_axe_finds_no_fault(sick: Served, opener: Opener, axe: str, name: str, scheme: str) -> None:
    page = opener(sick, name, color_scheme=scheme, reduced_motion="reduce").page
    expect(page.locator("#value-phi")).to_have_text(re.compile("0[.]"))
    if name == "dashboard":
        expect(page.locator("#trend-rows tr")).to_have_count(6)
        page.locator("#waiting summary").first.click()
        expect(page.locator("#waiting .diff")).to_be_visible()
        for box in ("#table-box", "#basin-table-box"):
            page.locator(f"{box} > summary").click()
        page.locator("#charts").scroll_into_view_if_needed()
        expect(page.locator("#plot-memory path.js-line")).to_have_count(1)
    assert faults(page, axe) == []


def test_axe_finds_no_fault_in_the_dialog(sick: Served, opener: Opener, axe: str) -> None:
    page = opener(sick, tokens={}, refusals=(401,)).page
    expect(page.locator("#token-read")).to_be_focused()
    assert faults(page, axe) == []


def test_axe_sees_a_fault(sick: Served, opener: Opener, axe: str) -> None:
    page = opener(sick).page
    expect(page.locator("#trend-rows tr")).to_have_count(6)
    page.evaluate("document.getElementById('moment').previousElementSibling.remove()")
    assert [fault for fault in faults(page, axe) if fault.startswith("label")]


FOCUSED = """() => {
  const at = document.activeElement;
  const style = getComputedStyle(at);
  if (at === document.body) return ["", true];
  const name = at.id || at.getAttribute("aria-label") || at.textContent.trim().slice(0, 20);
  return [name, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
}"""


def test_every_control_is_reached_in_order(sick: Served, opener: Opener) -> None:
    page = opener(sick).page
    expect(page.locator("#trend-rows tr")).to_have_count(6)
    expect(page.locator("#waiting")).to_be_visible()
    walked = []
    for _ in range(30):
        page.keyboard.press("Tab")
        name, visible = page.evaluate(FOCUSED)
        assert visible, f"the focus on {name!r} cannot be seen"
        if not name:  # past the last one
            break
        walked.append(name)
    expected = ["Skip to content", "heal", "forget", "open", "size", "moment", "The figures as a tab"]
    positions = [next(i for i, name in enumerate(walked) if name.startswith(each)) for each in expected]
    assert positions == sorted(positions), walked
    page.reload()
    expect(page.locator("#trend-rows tr")).to_have_count(6)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_what_is_typed_survives_what_is_heard(sick: Served, opener: Opener) -> None:
    page = opener(sick).page
    page.locator("#waiting summary").first.press("Enter")
    page.locator("#waiting").get_by_label("Reason").fill("half a sen")
    expect(page.locator("#link-state")).to_have_text("Live")
    told = sick.scene.record(1, sick.scene.gain, "c0de" * 10, "toy")
    expect(page.locator("#value-phi")).to_have_text(f"{told.phi[-1]:.3f}")
    page.keyboard.type("tence")
    expect(page.locator("#waiting").get_by_label("Reason")).to_have_value("half a sentence")


@pytest.mark.parametrize("name", ["dashboard", "widget"])
def test_a_phone_scrolls_one_way(sick: Served, opener: Opener, name: str) -> None:
    page = opener(sick, name, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True).page
    expect(page.locator("#value-phi")).to_have_text(re.compile("0[.]"))
    if name == "dashboard":
        page.locator("#waiting summary").first.tap()
        expect(page.locator("#waiting .diff")).to_be_visible()
        page.locator("#plot-phi").scroll_into_view_if_needed()
        expect(page.locator("#plot-phi path.js-line")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = page.evaluate(
        "[...document.querySelectorAll('button')].filter(b => b.offsetHeight && b.offsetHeight < 40).length"
    )
    assert small == 0


BARE = """async () => {
  const rows = await (await fetch("snapshots?limit=1000", {headers: {Authorization: "Bearer TOKEN"}})).json();
  const script = document.createElement("script");
  script.src = "assets/plotly.min.js";
  await new Promise((done, failed) => { script.onload = done; script.onerror = failed; document.head.append(script); });
  const place = document.body.appendChild(document.createElement("div"));
  await Plotly.newPlot(place, [{x: rows.snapshots.map((s) => s.timestamp), y: rows.snapshots.map((s) => s.phi)}]);
}"""


FETCHED = """performance.getEntriesByType("resource").filter((entry) => entry.name.includes("plotly"))
  .reduce((sum, entry) => sum + entry.transferSize, 0)"""


def test_ten_thousand_snapshots_load_soon(tmp_path: Path, opener: Opener) -> None:
    """Beside a bare page that draws one chart of as many points by the same library and does nothing else."""
    scene = Scene(tmp_path, 10_000, sick=180)
    with serving(scene) as served:
        first = opener(served).page  # the server has read and compressed its files by then
        start = time.perf_counter()
        bare = opener(served, "health", refusals=(404, 503)).page  # 404: the browser asks for an icon
        bare.evaluate(BARE.replace("TOKEN", READ))
        expect(bare.locator("path.js-line")).to_have_count(1)
        peer = time.perf_counter() - start
        start = time.perf_counter()
        page = opener(served).page
        expect(page.locator("#value-phi")).to_have_text(f"{scene.newest.phi[-1]:.3f}")
        values = time.perf_counter() - start
        expect(page.locator("#plot-phi path.js-line")).to_have_count(1)
        charts = time.perf_counter() - start
        expect(page.locator("#history-said")).to_contain_text("1,000 snapshots shown")
        later = page.context.new_page()
        later.goto(served.url + "dashboard")
        expect(later.locator("#plot-phi path.js-line")).to_have_count(1)
        assert later.evaluate(FETCHED) == 0, "the chart library came over the network a second time"
        for each in (first, bare, page):  # else they would complain that the server is gone
            each.context.close()
    print(f"\nfirst values {values:.2f} s, charts {charts:.2f} s, a bare page with one chart {peer:.2f} s")
    assert values < 3 * peer
    assert charts < 3 * peer
