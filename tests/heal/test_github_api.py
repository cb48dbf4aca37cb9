"""The client of GitHub's API: patient, bounded, and silent about its token."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

from qigheal.errors import Blocked, MissingExtra, RepoError
from qigheal.healing.forge import forge_of
from qigheal.healing.forge.github import GitHubForge
from qigheal.healing.forge.github_answers import Pull, Ref, Review, Thing
from qigheal.healing.forge.github_api import PAGES, Refused
from qigheal.healing.forge.local import LocalForge
from qigheal.host import Hosting, Manifest
from qigheal.repo import Repo
from tests.heal.fake_github import REPOSITORY, FakeGitHub, serving
from tests.heal.gitfix import Place
from tests.heal.githubfix import FILES, TOKEN, Scene

MAIN = "/git/ref/heads%2Fmain"
NOW = 1_700_000_000


@pytest.fixture
def host(tmp_path: Path) -> Place:
    return Place(tmp_path / "host", FILES)


@pytest.fixture
def github(tmp_path: Path, host: Place) -> Iterator[FakeGitHub]:
    yield from serving(tmp_path / "remote", host.path)


@pytest.fixture
def scene(host: Place, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("QIGHEAL_GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("QIGHEAL_GITHUB_API", github.api)
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    monkeypatch.delenv("GITHUB_API_URL", raising=False)
    return Scene(host, github)


def answered(scene: Scene) -> bool:
    return scene.api().call("GET", MAIN, Ref).object.sha == scene.place.base


# --- waiting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again_and_again_but_not_for_ever(scene: Scene, status: int) -> None:
    scene.github.answers = [(status, {}, {"message": "Server Error"})] * 3
    assert answered(scene)
    assert scene.waits == [1.0, 2.0, 4.0]
    scene.github.answers = [(status, {}, {"message": "Server Error"})] * 4
    with pytest.raises(RepoError, match=f"{status} Server Error; it is asked again in a later pass"):
        answered(scene)
    assert scene.github.answers == []


@pytest.mark.parametrize(
    ("status", "headers", "message", "waits"),
    [
        (429, {"retry-after": "7"}, "slow down", [7.0]),
        (403, {"retry-after": "7"}, "You have exceeded a secondary rate limit", [7.0]),
        (403, {}, "You have exceeded a secondary rate limit", [60.0]),
        (429, {}, "slow down", [60.0]),
        (503, {"retry-after": "3"}, "back soon", [3.0]),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW + 20)}, "API rate limit exceeded", [21.0]),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW - 9)}, "API rate limit exceeded", [1.0]),
    ],
)  # fmt: skip
def test_rate_limits_are_kept(
    scene: Scene, status: int, headers: dict[str, str], message: str, waits: list[float]
) -> None:
    scene.github.answers = [(status, headers, {"message": message})]
    assert answered(scene)
    assert scene.waits == waits


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "61"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW + 3000)},
    ],
)
def test_a_wait_that_is_too_long_is_left_to_a_later_pass(scene: Scene, headers: dict[str, str]) -> None:
    scene.github.answers = [(403, headers, {"message": "API rate limit exceeded"})]
    with pytest.raises(Blocked, match="asks to wait for longer than 60 s"):
        answered(scene)
    assert scene.waits == []


def test_many_short_waits_are_as_bounded(scene: Scene) -> None:
    scene.github.answers = [(429, {"retry-after": "25"}, {"message": "slow down"})] * 3
    with pytest.raises(Blocked):
        answered(scene)
    assert scene.waits == [25.0, 25.0]


def test_a_refusal_is_not_repeated(scene: Scene) -> None:
    scene.github.answers = [(403, {"x-ratelimit-remaining": "41"}, {"message": "Resource not accessible"})]
    with pytest.raises(Refused, match="403 Resource not accessible; see to what the token may do") as caught:
        answered(scene)
    assert (caught.value.status, scene.waits) == (403, [])


def test_what_would_happen_twice_is_not_repeated_without_an_answer(scene: Scene) -> None:
    scene.github.answers = [(502, {}, {"message": "Bad gateway"})] * 2
    with pytest.raises(RepoError, match="Bad gateway"):
        scene.api().call("POST", "/issues/1/comments", Thing, body={"body": "x"}, once=True)
    assert len(scene.github.answers) == 1
    scene.github.answers = [(429, {"retry-after": "2"}, {}), (200, {}, {"sha": "ab"})]
    scene.api().call("POST", "/issues/1/comments", Thing, body={"body": "x"}, once=True)
    assert scene.waits == [2.0]


def test_a_line_that_breaks_is_mended(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    send, broken = httpx.Client.request, [httpx.ConnectError("refused"), httpx.ReadTimeout("late")]

    def request(client: httpx.Client, method: str, url: str, **more: object) -> httpx.Response:
        if broken:
            raise broken.pop()
        return send(client, method, url, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(httpx.Client, "request", request)
    assert answered(scene)
    assert scene.waits == [1.0, 2.0]


def test_lost_answers_to_writes_end_in_one_branch_request_and_merge(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writing request is carried out, and its first answer lost on the way."""
    send, seen = httpx.Client.request, set()

    def request(client: httpx.Client, method: str, url: str, **more: object) -> httpx.Response:
        answer = send(client, method, url, **more)  # type: ignore[arg-type]
        if method != "GET" and (method, url) not in seen:
            seen.add((method, url))
            raise httpx.ReadError("connection reset")
        return answer

    monkeypatch.setattr(httpx.Client, "request", request)
    reverted = scene.forge().revert(scene.reverting())
    assert reverted.state == "reverted"
    assert (len(scene.github.pulls), scene.github.merges) == (1, 1)
    assert scene.github.store.refs() == {"main": reverted.revert_commit, reverted.branch: reverted.head}


# --- what comes back --------------------------------------------------------------------------------


def test_pages_are_read_to_the_end(scene: Scene) -> None:
    scene.opened()
    scene.github.page = 3
    for _ in range(7):
        scene.github.review(1, "ada", "COMMENTED")
    pages = list(scene.api().pages("/pulls/1/reviews", tuple[Review, ...]))
    assert [len(page) for page in pages] == [3, 3, 1]


def test_a_list_without_an_end_is_given_up(scene: Scene) -> None:
    scene.github.answers = [(200, {"Link": f'<{scene.github.api}/x>; rel="next"'}, [])] * (PAGES + 1)
    with pytest.raises(RepoError, match=f"at most {PAGES} pages"):
        list(scene.api().pages("/pulls", tuple[Pull, ...]))


@pytest.mark.parametrize("content", [[], {}, {"object": {"sha": 5}}, "text"])
def test_answers_of_another_form_are_refused(scene: Scene, content: object) -> None:
    scene.github.answers = [(200, {}, content)]
    with pytest.raises(RepoError, match="expected its answer, got something else"):
        answered(scene)


def test_an_answer_that_is_no_json_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    page = httpx.Response(200, content=b"<html>\xff", request=httpx.Request("GET", scene.github.api))
    monkeypatch.setattr(httpx.Client, "request", lambda *_, **__: page)
    with pytest.raises(RepoError, match=r"is \[forge\] api the address"):
        answered(scene)


@pytest.mark.parametrize(
    "elsewhere", ["http://127.0.0.2/steal", "https://127.0.0.1/steal", "//evil.example/x"]
)
@pytest.mark.parametrize("way", ["redirect", "page"])
def test_the_token_goes_to_no_other_host(scene: Scene, elsewhere: str, way: str) -> None:
    api = scene.api()
    if way == "redirect":
        scene.github.answers = [(301, {"location": elsewhere}, {})]
    else:
        scene.github.answers = [(200, {"Link": f'<{elsewhere}>; rel="next"'}, [])]
    with pytest.raises(RepoError, match="the token is not sent there"):
        list(api.pages("/pulls", tuple[Pull, ...]))


def test_a_renamed_repository_is_found_at_the_same_host(scene: Scene) -> None:
    scene.github.answers = [(301, {"location": f"/repos/{REPOSITORY}{MAIN}"}, {})]
    assert answered(scene)


def test_a_circle_of_redirects_ends(scene: Scene) -> None:
    scene.github.answers = [(307, {"location": f"/repos/{REPOSITORY}{MAIN}"}, {})] * 6
    with pytest.raises(RepoError, match="redirects in a row"):
        answered(scene)


# --- the token --------------------------------------------------------------------------------------


def test_no_token_no_request(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIGHEAL_GITHUB_TOKEN", "  ")
    with pytest.raises(RepoError, match="expected a token in the environment's QIGHEAL_GITHUB_TOKEN"):
        scene.api()
    assert scene.github.log == []


def test_the_common_token_goes_to_github_and_to_the_server_that_the_environment_names(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QIGHEAL_GITHUB_TOKEN")
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    with pytest.raises(RepoError, match="QIGHEAL_GITHUB_TOKEN, found none"):
        scene.api()
    scene.api("https://api.github.com")
    monkeypatch.delenv("QIGHEAL_GITHUB_API")
    monkeypatch.setenv("GITHUB_API_URL", scene.github.api)
    assert answered(scene)


@pytest.mark.parametrize(
    "named", ["", "https://ghe.example/api/v3", "http://127.0.0.1", "https://api.github.com"]
)
def test_no_token_goes_to_an_address_that_a_commit_alone_names(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("QIGHEAL_GITHUB_API", named)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    for token in (TOKEN, ""):
        monkeypatch.setenv("QIGHEAL_GITHUB_TOKEN", token)
        with pytest.raises(RepoError, match=f"set QIGHEAL_GITHUB_API={scene.github.api}"):
            scene.api()
    assert scene.github.log == []


def test_the_operators_word_opens_an_address_to_the_token(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QIGHEAL_GITHUB_API", f"{scene.github.api}/")
    assert answered(scene)
    monkeypatch.delenv("QIGHEAL_GITHUB_API")
    scene.api("https://api.github.com")
    monkeypatch.setenv("GITHUB_API_URL", scene.github.api)
    assert answered(scene)


@pytest.mark.parametrize("token", ["two words", "caf\u00e9", "a\r\nX-Other: b"])
def test_a_token_that_is_none_is_not_shown(scene: Scene, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("QIGHEAL_GITHUB_TOKEN", token)
    with pytest.raises(RepoError, match="one word") as caught:
        scene.api()
    assert token not in str(caught.value)


def test_the_token_is_in_no_message_log_or_repr(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api = scene.api()
    shown = [repr(api), str(api), repr(api._client), repr(api._client.headers)]
    echo = {"message": f"Bad {TOKEN}", "errors": [{"message": TOKEN}, TOKEN]}
    for answers in (
        [(401, {}, echo)],
        [(500, {}, echo)] * 4,
        [(403, {"retry-after": "999"}, echo)],
        [(200, {}, {"object": TOKEN})],
        [(301, {"location": "https://elsewhere.example/"}, {})],
    ):
        scene.github.answers = list(answers)
        with pytest.raises(RepoError) as caught:
            api.call("GET", MAIN, Ref)
        shown += traceback.format_exception(caught.value)
        context = caught.value.__context__ or caught.value.__cause__
        assert not isinstance(context, httpx.HTTPError), "it would keep the request and its header"
    assert "[token]" in "".join(shown)
    assert TOKEN not in "".join(shown) + caplog.text


def test_words_of_the_server_come_as_one_short_line(scene: Scene) -> None:
    scene.github.answers = [(422, {}, {"message": "a\nb\x1b[31m\u202e" + "x" * 5000})]
    with pytest.raises(Refused) as caught:
        answered(scene)
    assert caught.value.said.isprintable()
    assert len(caught.value.said) <= 300


# --- the choice -------------------------------------------------------------------------------------


def test_the_manifest_of_a_commit_chooses_the_forge(scene: Scene) -> None:
    repo = Repo(scene.place.path)
    manifest = Manifest.at(repo, scene.place.base)
    assert isinstance(forge_of(repo, manifest, lambda _: ""), LocalForge)
    hosting = Hosting(kind="github", repository=REPOSITORY, api=scene.github.api)
    chosen = forge_of(repo, replace(manifest, forge=hosting), lambda _: "")
    assert isinstance(chosen, GitHubForge)
    assert chosen.tip("main") == scene.place.base


def test_without_httpx_the_extra_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtra, match=r"qigheal\[github\]"):
        scene.api()
