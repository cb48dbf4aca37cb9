"""Both pages in a real browser: what they show, that it follows the service, and that text stays text."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.dashboard.conftest import HOSTILE, Opener, Served, serving
from tests.dashboard.scenes import Scene

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect: Any = playwright.expect
expect.set_options(timeout=30_000)


def test_the_figures_and_what_moved(sick: Served, opener: Opener) -> None:
    page = opener(sick).page
    newest = sick.scene.newest
    expect(page.locator("#status")).to_have_text(re.compile("Critical"))
    expect(page.locator("#value-phi")).to_have_text(f"{newest.phi[-1]:.3f}")
    expect(page.locator("#value-latency")).to_have_text(f"{newest.avg_latency_ms[-1]:.1f}")
    expect(page.locator("#findings li").first).to_contain_text("degraded")
    expect(page.locator(".tile.critical")).to_have_count(2)
    expect(page.locator("#basin-moved li")).to_have_count(5)
    expect(page.locator("#basin-moved li").first).to_contain_text("Component 12: ")
    expect(page.locator("#basin-bars g")).to_have_count(64)
    expect(page.locator("#trend-rows tr")).to_have_count(6)
    expect(page.locator("#phase-title")).to_have_text("Phase 3")
    expect(page.locator("#gate-rows tr").first).to_contain_text("changes applied")
    page.locator("#charts").scroll_into_view_if_needed()
    expect(page.locator("#plot-phi path.js-line")).to_have_count(1)
    expect(page.locator("#plot-phi")).to_have_attribute(
        "aria-label", re.compile("1,000 snapshots from .* last 0")
    )
    expect(page.locator("#legend-phi")).to_contain_text("band 0.7")


def test_a_hostile_name_is_text(sick: Served, opener: Opener) -> None:
    page = opener(sick).page
    expect(page.locator("#source")).to_contain_text(f"module {HOSTILE}")
    assert page.locator("img[src=x]").count() == 0


def test_what_is_recorded_appears(sick: Served, opener: Opener) -> None:
    opened = [opener(sick, name).page for name in ("dashboard", "widget")]
    expect(opened[0].locator("#link-state")).to_have_text("Live")
    for page in opened:
        expect(page.locator("#value-phi")).to_have_text(f"{sick.scene.newest.phi[-1]:.3f}")
    told = sick.scene.record(1, 1.3, "c0de" * 10, HOSTILE)
    for page in opened:
        expect(page.locator("#value-phi")).to_have_text(f"{told.phi[-1]:.3f}")
        expect(page.locator("#value-basin_drift")).not_to_have_text("–")


def test_a_lost_connection_is_said_and_found_again(
    tmp_path: Any, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path, 700)
    with serving(scene) as served:
        page = opener(served, refusals=("ERR_FAILED", 503)).page  # type: ignore[arg-type]
        expect(page.locator("#link-state")).to_have_text("Live")
        expect(page.locator("#stale")).to_be_hidden()
        data = re.compile(r"/(stream|health|state|trends|phase|patches|snapshots)(\?|$)")
        page.route(data, lambda route: route.abort())
        served.api.stream.close()
        expect(page.locator("#stale")).to_contain_text("connection to the service is lost")
        expect(page.locator("#link-state")).to_have_text("No connection")
        told = scene.record(1, 1.1, scene.toy.healthy)
        page.unroute(data)
        page.evaluate("dispatchEvent(new Event('online'))")
        expect(page.locator("#value-phi")).to_have_text(f"{told.phi[-1]:.3f}")
        expect(page.locator("#stale")).to_be_hidden()
        monkeypatch.setattr(served.api.stream, "_closed", False)
        expect(page.locator("#link-state")).to_have_text("Live")


def test_the_past_by_keyboard(sick: Served, opener: Opener) -> None:
    page = opener(sick).page
    expect(page.locator("#trend-rows tr")).to_have_count(6)
    slider = page.locator("#moment")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#now-title")).to_contain_text("At ")
    expect(slider).not_to_have_attribute("aria-valuetext", "now")
    expect(page.locator("#value-phi")).to_have_text(f"{sick.scene.oldest.phi[0]:.3f}")
    expect(page.locator("#basin-summary")).to_contain_text("at that moment, within its band")
    expect(page.locator(".tile.critical")).to_have_count(0)
    page.keyboard.press("End")
    expect(page.locator("#now-title")).to_have_text("Now")
    expect(slider).to_have_attribute("aria-valuetext", "now")
    page.locator("#size").select_option("250")
    expect(page.locator("#history-said")).to_contain_text("250 snapshots shown")
    page.locator("#size").select_option("5000")
    expect(page.locator("#history-said")).to_contain_text(re.compile(r"1,50\d snapshots shown"))


def test_a_service_that_still_learns(tmp_path: Any, opener: Opener) -> None:
    scene = Scene(tmp_path, 620)
    (scene.toy.store / "baseline.json").unlink()
    with serving(scene) as served:
        page = opener(served, refusals=(409,)).page
        expect(page.locator("#value-phi")).to_have_text(f"{scene.newest.phi[-1]:.3f}")
        expect(page.locator("#basin-summary")).to_contain_text("nothing to compare yet")
        expect(page.locator("#waiting")).to_be_hidden()
        expect(page.locator("#patches-none")).to_contain_text("No other patch")


def test_without_the_chart_library_the_figures_stand(sick: Served, opener: Opener) -> None:
    def refuse(page: Any) -> None:
        page.route("**/plotly.min.js*", lambda route: route.fulfill(status=404, body="{}"))

    page = opener(sick, refusals=(404,), before=refuse).page
    expect(page.locator("#charts-missing")).to_contain_text("pip install 'qigheal[dashboard]'")
    expect(page.locator("#value-phi")).to_have_text(f"{sick.scene.newest.phi[-1]:.3f}")
    page.locator("#table-box summary").click()
    expect(page.locator("#table-rows tr")).to_have_count(50)


def test_the_widget(sick: Served, opener: Opener) -> None:
    page = opener(sick, "widget", viewport={"width": 320, "height": 300}).page
    expect(page.locator("#status")).to_contain_text("Critical")
    expect(page.locator("#value-phi")).to_have_text(f"{sick.scene.newest.phi[-1]:.3f}")
    expect(page.locator("#spark-phi svg")).to_have_attribute("aria-label", re.compile("200 snapshots"))
    expect(page.locator("#heal")).to_be_enabled()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
