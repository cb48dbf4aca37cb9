"""Tokens, healing and reviews by clicks; the jobs are real processes, the ledger and the repository too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from qigheal.healing.ledger import Ledger
from tests.dashboard.conftest import HEAL, READ, REVIEW, Opener, Served, serving
from tests.dashboard.scenes import Scene
from tests.heal.toyhost import git

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect: Any = playwright.expect
expect.set_options(timeout=30_000)


def test_a_change_is_approved(tmp_path: Path, opener: Opener) -> None:
    scene = Scene(tmp_path, 700, sick=60)
    patch = scene.opened_at_once()
    with serving(scene) as served:
        page = opener(served, refusals=(401,)).page
        expect(page.locator("#waiting-title")).to_have_text("1 change waits for your review")
        page.locator("#waiting summary").first.click()
        waiting = page.locator("#waiting")
        expect(waiting.locator(".verdict")).to_contain_text("Improved")
        expect(waiting.locator("tbody tr").filter(has_text="κ")).to_contain_text("149.8")
        expect(waiting.locator("tbody .tag.good").first).to_have_text("pass")
        expect(waiting.locator(".diff .add")).to_contain_text("+gain = 1.0")
        waiting.get_by_label("Your name").fill("Ada")
        waiting.get_by_label("Reason").fill("the figures hold")
        waiting.get_by_role("button", name="Approve").click()
        page.locator("#token-review").fill(REVIEW)
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("#announce")).to_contain_text("watching")
        expect(page.locator("#waiting")).to_be_hidden()
        expect(page.locator("#patch-list summary")).to_contain_text("watching")
    change = Ledger(scene.toy.store / "ledger.db").changes()[patch.fingerprint]
    assert (change.state, change.reviewer) == ("watching", "Ada")
    assert scene.toy.gain() == 1.0
    assert "Reviewed-by: Ada" in git(scene.toy.path, "log", "-1", "--format=%B")


def test_a_measured_patch_is_rejected(tmp_path: Path, opener: Opener) -> None:
    scene = Scene(tmp_path, 700, sick=60)
    patch = scene.opened_at_once(phase=2)
    with serving(scene) as served:
        page = opener(served, tokens={"read": READ, "review": REVIEW}).page
        page.locator("#waiting summary").first.click()
        expect(page.locator("#waiting form")).to_contain_text("Nothing is merged")
        page.locator("#waiting").get_by_role("button", name="Reject").click()
        assert page.evaluate("document.activeElement.labels[0].textContent") == "Your name"
        page.keyboard.type("Grace")
        page.keyboard.press("Tab")
        page.keyboard.type("not this way")
        page.locator("#waiting").get_by_role("button", name="Reject").press("Enter")
        expect(page.locator("#announce")).to_contain_text("the patch is rejected")
        expect(page.locator("#waiting")).to_be_hidden()
    (review,) = Ledger(scene.toy.store / "ledger.db").entries("review")
    assert review.subject == patch.fingerprint
    assert scene.toy.gain() == scene.gain


def test_a_change_that_has_become_another_is_not_decided(sick: Served, opener: Opener) -> None:
    stale = 0

    def earlier(route: Any) -> None:
        """The first answer is of a time when the change was another."""
        nonlocal stale
        answer = route.fetch()
        body = answer.json()
        if stale == 0:
            body["fingerprint"] = "0" * 32
        stale += 1
        route.fulfill(response=answer, body=json.dumps(body))

    page = opener(
        sick,
        tokens={"read": READ, "review": REVIEW},
        refusals=(409,),
        before=lambda page: page.route(re.compile(r"/patches/[0-9a-f]+$"), earlier),
    ).page
    page.locator("#waiting summary").first.click()
    page.locator("#waiting").get_by_label("Your name").fill("Ada")
    page.locator("#waiting").get_by_role("button", name="Approve").click()
    expect(page.locator("#waiting [role=alert]")).to_contain_text("has become another since you opened it")
    expect(page.locator("#waiting").get_by_label("Your name")).to_have_value("Ada")
    assert stale == 2, "the change was not looked at again"
    assert sick.scene.toy.gain() == sick.scene.gain


def test_a_token_is_asked_for_kept_and_asked_again(sick: Served, opener: Opener) -> None:
    sent: list[dict[str, str]] = []
    addresses: list[str] = []

    def listen(page: Any) -> None:
        page.on("request", lambda request: (sent.append(request.headers), addresses.append(request.url)))

    page = opener(sick, tokens={}, refusals=(401, 403), before=listen).page
    expect(page.locator("#status")).to_contain_text("Critical")  # which is open to all
    for wrong in ("no-such-token", "with spaces and é"):
        expect(page.locator("#token-read")).to_be_focused()
        expect(page.locator("#value-phi")).to_have_count(0)
        page.keyboard.type(wrong)
        page.keyboard.press("Enter")
        if wrong == "no-such-token":
            expect(page.locator("dialog [role=alert]")).to_contain_text("was refused")
    expect(page.locator("#access-why")).to_contain_text("Read token needed")
    page.get_by_role("button", name="Enter the read token").click()
    page.locator("#token-read").fill(READ)
    page.keyboard.press("Enter")
    expect(page.locator("#value-phi")).to_have_text(re.compile("0[.]"))
    page.reload()
    expect(page.locator("#value-phi")).to_have_text(re.compile("0[.]"))
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    assert any(headers.get("authorization") == f"Bearer {READ}" for headers in sent)
    assert not [url for url in addresses if "token" in url]
    page.get_by_role("button", name="Forget tokens").click()
    expect(page.locator("#token-read")).to_be_focused()


def test_healing_asks_for_its_own_token(tmp_path: Path, opener: Opener) -> None:
    with serving(Scene(tmp_path, 700)) as served:
        page = opener(served, refusals=(401, 403)).page
        expect(page.locator("#link-state")).to_have_text("Live")
        page.get_by_role("button", name="Heal now").click()
        page.locator("#token-heal").fill(READ)  # which gives another right
        page.keyboard.press("Enter")
        expect(page.locator("dialog [role=alert]")).to_contain_text("was refused")
        page.locator("#token-heal").fill(HEAL)
        page.keyboard.press("Enter")
        expect(page.locator("#heal-outcome")).to_have_text("healthy: nothing to heal")
        expect(page.locator("#heal")).to_be_enabled()


def test_the_state_of_a_healing_pass_is_shown(sick: Served, opener: Opener) -> None:
    """The pass itself is canned: what it does is tested where it is made."""
    asked = 0

    def begin(route: Any) -> None:
        route.fulfill(status=202, json={"triggered": True, "message": "Φ is low", "job": job("running")})

    def look(route: Any) -> None:
        nonlocal asked
        asked += 1
        route.fulfill(json=job("running" if asked < 3 else "failed", "no manifest"))

    def job(state: str, message: str = "") -> dict[str, Any]:
        return {"id": "abc", "kind": "heal", "state": state, "started_at": 1.0, "message": message}

    def canned(page: Any) -> None:
        page.route("**/heal", begin)
        page.route("**/jobs/abc", look)

    page = opener(sick, "widget", tokens={"read": READ, "heal": HEAL}, before=canned).page
    expect(page.locator("#value-phi")).to_have_text(re.compile("0[.]"))
    page.get_by_role("button", name="Heal now").click()
    expect(page.locator("#heal-outcome")).to_have_text("Φ is low")
    expect(page.locator("#heal")).to_be_disabled()
    expect(page.locator("#heal-outcome")).to_have_text("The healing pass failed: no manifest")
    expect(page.locator("#heal")).to_be_enabled()
