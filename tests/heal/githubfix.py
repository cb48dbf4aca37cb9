"""A clone, its GitHub, and a change to make there: what the tests of that forge share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from qigheal.healing.forge.github import GitHubForge
from qigheal.healing.forge.github_api import Api
from qigheal.host import Hosting, Manifest
from qigheal.records import Change
from qigheal.repo import Repo
from tests.heal.fake_github import REPOSITORY, TOKEN, FakeGitHub, serving
from tests.heal.gitfix import Place
from tests.heal.test_forge import DIFF, FILES, begun

__all__ = ["DIFF", "FILES", "TOKEN", "Killed", "Reaper", "Scene", "begun", "staged"]


class Scene:
    """A host, its GitHub, and the forge between them; waits are written down and not waited for."""

    def __init__(self, place: Place, github: FakeGitHub) -> None:
        self.place = place
        self.github = github
        self.waits: list[float] = []

    def api(self, api: str = "") -> Api:
        hosting = Hosting(kind="github", repository=REPOSITORY, api=api or self.github.api)
        return Api(hosting, sleep=self.waits.append, clock=lambda: 1_700_000_000.0)

    def forge(self) -> GitHubForge:
        repo = Repo(self.place.path)
        return GitHubForge(
            repo, self.api(), Manifest.at(repo, self.place.base), lambda _: "Φ 0.2 is outside its band."
        )

    def begun(self, diff: str = DIFF) -> Change:
        return begun(self.place, diff)

    def opened(self) -> Change:
        return self.forge().open(self.begun())

    def approved(self) -> Change:
        change = self.opened()
        self.github.review(1, "ada", "APPROVED")
        change = self.forge().refresh(change)
        assert (change.state, change.reviewer) == ("approved", "ada")
        return change

    def merging(self) -> Change:
        return replace(self.approved(), state="merging", merged_at=1_700_000_100.5, ledger_head="ab" * 32)

    def merged(self) -> Change:
        change = self.forge().merge(self.merging())
        assert change.state == "merged", change.reason
        return change

    def reverting(self) -> Change:
        return replace(self.merged(), state="reverting", reverted_at=1_700_000_200.5, reason="Φ fell.")

    def whole(self) -> None:
        """git itself finds nothing wrong with what the server was sent."""
        assert self.github.git("fsck", "--strict", "--no-dangling") == ""

    def calls(self, method: str) -> list[str]:
        return [path for verb, path in self.github.log if verb == method]


def staged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """For a fixture: a scene whose server answers while the test runs."""
    place = Place(folder / "host", FILES)
    for github in serving(folder / "remote", place.path):
        monkeypatch.setenv("QIGHEAL_GITHUB_TOKEN", TOKEN)
        monkeypatch.setenv("QIGHEAL_GITHUB_API", github.api)
        yield Scene(place, github)


class Killed(BaseException):
    """The end of the process, as far as anything in it could tell."""


class Reaper:
    """Ends the process at one of its writing requests, before it is sent or after it was answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.at: tuple[int, str] | None = None
        send = httpx.Client.request

        def request(client: httpx.Client, method: str, url: Any, **more: Any) -> httpx.Response:
            if method == "GET":
                return send(client, method, url, **more)
            self.count += 1
            if self.at == (self.count, "before"):
                raise Killed
            answer = send(client, method, url, **more)
            if self.at == (self.count, "after"):
                raise Killed
            return answer

        monkeypatch.setattr(httpx.Client, "request", request)
