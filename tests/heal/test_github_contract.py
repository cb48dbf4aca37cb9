"""Every request that the forge makes, and every answer that it reads, held against GitHub's own description.

The requests are those of whole lives of changes on the fake; a server made from the description then
answers each again with the description's own examples, and refuses what it does not allow. So what the
fake lets pass and the real one would not comes out here.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from os import environ
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from msgspec.structs import replace

from qigheal.errors import RepoError
from qigheal.healing.forge.github_api import Api, Refused
from qigheal.host import Hosting
from tests.heal.fake_github import REPOSITORY, TOKEN, FakeGitHub, serving
from tests.heal.gitfix import Place
from tests.heal.githubfix import FILES, Scene

# The server takes a processor and half a gigabyte while it starts, which would disturb tests beside it.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

PACKAGES = ("@octokit/openapi@23.0.2", "@stoplight/prism-cli@5.14.2")
DESCRIPTION = "node_modules/@octokit/openapi/generated/api.github.com.json"
SERVER = "node_modules/@stoplight/prism-cli/dist/index.js"
CACHE = (
    Path(environ["XDG_CACHE_HOME"]) / "qigheal-contract"
    if environ.get("XDG_CACHE_HOME")
    else Path(__file__).resolve().parents[2] / ".cache" / "contract"
)
INSTALL_S = 75.0
START_S = 40.0


class Asked(NamedTuple):
    """One call of the client; `pages` where it asked for a list."""

    method: str
    path: str
    kind: Any
    body: Any
    params: Mapping[str, str | int] | None
    pages: bool

    @property
    def endpoint(self) -> str:
        fits = [e for e in ENDPOINTS if re.fullmatch(e.replace("*", "[^/]+"), f"{self.method} {self.path}")]
        return fits[0] if len(fits) == 1 else f"{self.method} {self.path} is not listed"


ENDPOINTS = {
    "GET /git/ref/*", "POST /git/refs", "PATCH /git/refs/*", "POST /git/blobs", "POST /git/trees",
    "POST /git/commits", "GET /git/commits/*", "GET /commits/*", "GET /commits/*/status",
    "GET /commits/*/check-runs", "GET /compare/*", "GET /branches/*", "GET /rules/branches/*",
    "GET /collaborators/*/permission",
    "GET /pulls", "POST /pulls", "GET /pulls/*", "PATCH /pulls/*", "GET /pulls/*/reviews", "PUT /pulls/*/merge",
    "POST /issues/*/labels", "DELETE /issues/*/labels/*", "POST /issues/*/comments",
}  # fmt: skip


@pytest.fixture(scope="module")
def installed() -> Path:
    """The folder with the description and the server, filled once."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not installed")
    if (CACHE / DESCRIPTION).is_file() and (CACHE / SERVER).is_file():
        return CACHE
    shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir(parents=True)
    command = [
        npm,
        "install",
        "--prefix",
        str(CACHE),
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        *PACKAGES,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install the server within {INSTALL_S:g} s")
    if done.returncode:
        pytest.skip(f"npm cannot install the server here: {done.stderr.strip().splitlines()[-1:]}")
    kept = CACHE / DESCRIPTION
    for other in kept.parent.glob("*.json"):  # of other products, and hundreds of megabytes
        if other != kept:
            other.unlink()
    return CACHE


def mended(description: bytes) -> bytes:
    """The description, with those of its examples put right that break its own schemas.

    The server checks its answers as strictly as the requests, and would answer with an error instead.
    """
    whole = msgspec.json.decode(description)
    examples = whole["components"]["examples"]
    examples["repository-collaborator-permission-response-if-user-has-admin-permissions"]["value"]["user"][
        "role_name"
    ] = "admin"
    for name, example in examples.items():
        if name.startswith("pull-request"):
            for pull in example["value"] if isinstance(example["value"], list) else [example["value"]]:
                if "requested_teams" in pull:
                    pull["requested_teams"] = []
    return msgspec.json.encode(whole)


@pytest.fixture(scope="module")
def described(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of the server made from the description, and the file with what it says."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("contract")
    said, description = folder / "log", folder / "api.json"
    description.write_bytes(mended((installed / DESCRIPTION).read_bytes()))
    command = [
        "node",
        SERVER,
        "mock",
        "--errors",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        str(description),
    ]
    with said.open("wb") as out:
        server = subprocess.Popen(command, cwd=installed, stdout=out, stderr=subprocess.STDOUT)
    try:
        late = time.monotonic() + START_S
        while "is listening" not in said.read_text(errors="replace"):
            assert server.poll() is None, said.read_text(errors="replace")[-2000:]
            if time.monotonic() > late:
                pytest.skip(f"the server did not start within {START_S:g} s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(0.1)
        yield f"http://127.0.0.1:{port}", said
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    """What the forge asks for in whole lives of changes, each kind of request once."""
    folder = tmp_path_factory.mktemp("lives")
    found: dict[str, Asked] = {}

    def note(one: Asked) -> None:
        found.setdefault(one.endpoint, one)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QIGHEAL_GITHUB_TOKEN", TOKEN)
        call, pages = Api.call, Api.pages

        def noted_call(self: Api, method: str, path: str, kind: Any, **more: Any) -> Any:
            note(Asked(method, path, kind, more.get("body"), more.get("params"), pages=False))
            return call(self, method, path, kind, **more)

        def noted_pages(self: Api, path: str, kind: Any, params: Any = None) -> Any:
            note(Asked("GET", path, kind, None, params, pages=True))
            return pages(self, path, kind, params)

        patch.setattr(Api, "call", noted_call)
        patch.setattr(Api, "pages", noted_pages)
        place = Place(folder / "host", FILES)
        for github in serving(folder / "remote", place.path):
            patch.setenv("QIGHEAL_GITHUB_API", github.api)
            lives(Scene(place, github), github)
    return list(found.values())


def lives(scene: Scene, github: FakeGitHub) -> None:
    scene.forge().close(replace(scene.opened(), state="superseded", reason="main moved"))
    scene.forge().open(scene.begun())
    change = replace(scene.approved(), state="merging", merged_at=1_700_000_100.0, ledger_head="ab" * 32)
    assert scene.forge().obstacle(change) == ""
    merged = scene.forge().merge(change)
    github.protected.add("main")
    back = replace(merged, state="reverting", reverted_at=1_700_000_200.0, reason="worse")
    assert "protected" in scene.forge().revert(back).reason
    above = github.push("main", {"notes.txt": "mine\n"})
    assert scene.forge().is_ancestor(merged.merge_commit, above)
    with pytest.raises(RepoError):
        scene.forge().resolve("0123abc")
    assert scene.forge().refresh(replace(change, state="open")).state == "merged"


def test_the_lives_ask_for_everything_that_the_forge_can(asked: list[Asked]) -> None:
    assert {one.endpoint for one in asked} == ENDPOINTS


def test_every_request_is_allowed_and_every_answer_is_read(
    asked: list[Asked], described: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, said = described
    monkeypatch.setenv("QIGHEAL_GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("QIGHEAL_GITHUB_API", address)
    api = Api(Hosting(kind="github", repository=REPOSITORY, api=address), sleep=lambda _: None)
    wrong: list[str] = []
    for one in asked:
        try:
            if one.pages:
                next(api.pages(one.path, one.kind, one.params))
            else:
                api.call(one.method, one.path, one.kind, body=one.body, params=one.params)
        except RepoError as error:
            wrong.append(f"{one.endpoint}: {error}")
    assert wrong == []
    told = re.sub(r"\x1b\[[0-9;]*m", "", said.read_text(errors="replace"))
    assert [line for line in told.splitlines() if "Violation" in line] == []


def test_the_server_does_refuse_what_the_description_does_not_allow(
    described: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QIGHEAL_GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("QIGHEAL_GITHUB_API", described[0])
    api = Api(Hosting(kind="github", repository=REPOSITORY, api=described[0]), sleep=lambda _: None)
    with pytest.raises(Refused):
        api.call("POST", "/git/refs", dict[str, Any], body={"sha": 5})
    with httpx.Client() as client:
        assert client.get(f"{described[0]}/repos/{REPOSITORY}/none").status_code == 404
