"""The dashboard's files: shells without data under a strict policy, assets that are sent once."""

from __future__ import annotations

import gzip
import re
from typing import Any

import pytest

from qigheal.api import Access
from tests.web.conftest import Make
from tests.web.serving import HEAL, Web
from tests.web.test_access import host_check

FILES = {
    "dashboard.html": (b"<!doctype html><title>dashboard</title>", "text/html; charset=utf-8"),
    "widget.html": (b"<!doctype html><title>widget</title>", "text/html; charset=utf-8"),
    "charts.js": (b"draw();\n" * 1000, "text/javascript"),
    "dot.png": (b"\x89PNG" * 1000, "image/png"),
}


@pytest.fixture
def paged(serve: Make) -> Web:
    return serve(asset=FILES.__getitem__)


@pytest.mark.parametrize("page", ["dashboard", "widget"])
def test_shells_are_open_once_anybody_may_read(serve: Make, page: str) -> None:
    answer = serve(asset=FILES.__getitem__)(page, token=None)
    assert (answer.status, answer.body) == (200, FILES[f"{page}.html"][0])
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert (
        serve(asset=FILES.__getitem__, access=Access(environ={}, heal=HEAL))(page, token=None).status == 200
    )
    closed = serve(asset=FILES.__getitem__, access=Access(environ={}))(page, token=None)
    assert (closed.status, closed.json["error"]) == (403, "disabled")


def test_a_hosts_own_check_opens_them_too(serve: Make, framework: Any) -> None:
    web = serve(host_check(framework), asset=FILES.__getitem__, access=Access(environ={}))
    assert web("dashboard", token=None).status == 200
    assert web("openapi.json", token=None).status == 200


def test_the_policy_lets_in_nothing_foreign(serve: Make) -> None:
    web = serve(asset=FILES.__getitem__, widget_ancestors="https://status.example.org")
    policies = {}
    for page in ("dashboard", "widget"):
        headers = web(page).headers
        policy = dict(
            part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";")
        )
        policies[page] = policy
        assert policy["default-src"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert policies["dashboard"]["frame-ancestors"] == "'none'"
    assert policies["widget"]["frame-ancestors"] == "https://status.example.org"


def test_assets_are_sent_once(paged: Web) -> None:
    first = paged("assets/charts.js", token=None, headers={"Accept-Encoding": "identity"})
    assert (first.status, first.body) == (200, FILES["charts.js"][0])
    again = paged("assets/charts.js", headers={"If-None-Match": first.headers["etag"], "Accept-Encoding": ""})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert paged("assets/charts.js", headers={"If-None-Match": '"another"'}).status == 200


def test_what_a_shell_loads_ahead_has_its_digest_in_its_address_and_is_kept_for_good(serve: Make) -> None:
    shell = (
        b'<link rel="preload" as="script" href="assets/charts.js"><link rel="preload" href="assets/none.js">'
    )
    web = serve(asset=(FILES | {"dashboard.html": (shell, "text/html")}).__getitem__)
    address = re.findall(rb'href="(assets/[^"]+)"', web("dashboard").body)
    assert address[1] == b"assets/none.js", "what is not installed is asked for all the same"
    named = address[0].decode()
    assert "immutable" in web(named).headers["cache-control"]
    assert web(named).body == web("assets/charts.js").body
    for other in ("assets/charts.js", "assets/charts.js?v=0", named.replace("charts.js", "dot.png")):
        assert web(other).headers["cache-control"] == "no-cache", other


def test_text_is_compressed_for_who_takes_it(paged: Web) -> None:
    plain = paged("assets/charts.js", headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in plain.headers
    packed = paged("assets/charts.js", headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != plain.headers["etag"]
    body = packed.body if packed.body[:2] != b"\x1f\x8b" else gzip.decompress(packed.body)
    assert body == FILES["charts.js"][0]
    assert "content-encoding" not in paged("assets/dot.png", headers={"Accept-Encoding": "gzip"}).headers


@pytest.mark.parametrize("name", ["nothing.js", "..%2f..%2fetc%2fpasswd", "%2e%2e", "a/b", "charts.js%00"])
def test_other_files_are_not_there(paged: Web, name: str) -> None:
    assert paged(f"assets/{name}").status == 404


def test_without_the_dashboard_its_pages_are_not_there(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "qigheal.dashboard", None)
    assert web("dashboard").status == 404
    assert web("assets/charts.js").status == 404
