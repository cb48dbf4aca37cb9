"""The manifest's choice of a forge: said once, checked whole, and no token sent where it could be read."""

from __future__ import annotations

import pytest

from qigheal.errors import ManifestError
from qigheal.host import Hosting, Manifest

SMALL = '[probe]\ncommand = ["python", "-m", "app.probe"]\n'


def parsed(forge: str) -> Hosting:
    return Manifest.parse(f"{SMALL}\n[forge]\n{forge}\n").forge


def test_without_the_table_changes_stay_here() -> None:
    assert Manifest.parse(SMALL).forge == Hosting(kind="local")
    assert parsed("") == Hosting(kind="local")
    assert parsed('kind = "local"') == Hosting(kind="local")


@pytest.mark.parametrize("repository", ["octo/host", "o/h", "a-b/c.d_e", "Team_corp/.github", "1/2"])
def test_github(repository: str) -> None:
    found = parsed(f'kind = "github"\nrepository = "{repository}"')
    assert found == Hosting(kind="github", repository=repository, api="https://api.github.com")


@pytest.mark.parametrize(
    ("api", "kept"),
    [
        ("https://ghe.example/api/v3", "https://ghe.example/api/v3"),
        ("https://ghe.example:8443/api/v3/", "https://ghe.example:8443/api/v3"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost", "http://localhost"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_servers(api: str, kept: str) -> None:
    assert parsed(f'kind = "github"\nrepository = "octo/host"\napi = "{api}"').api == kept


@pytest.mark.parametrize(
    "api",
    [
        "http://ghe.example/api/v3",
        "http://127.0.0.1.evil.example",
        "http://localhost@evil.example",
        "https://user:word@ghe.example",
        "https://ghe.example?x=1",
        "https://ghe.example#x",
        "https://ghe.example/a/../b",
        "https://ghe.example:port",
        "https://",
        "ftp://ghe.example",
        "ghe.example",
        "https:/ghe.example",
        "https://ghe example",
        "https://ghe.example\\\\@evil.example",
        "https://[::1",
    ],
)
def test_addresses_that_no_token_is_sent_to(api: str) -> None:
    with pytest.raises(ManifestError, match=r"\[forge\] api: expected an https address") as caught:
        parsed(f'kind = "github"\nrepository = "octo/host"\napi = "{api}"')
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        ('kind = "gitlab"', '"local" or "github"'),
        ("kind = 1", "a string"),
        ('kind = "github"', "repository: expected a string"),
        ('kind = "github"\nrepository = "host"', '"owner/name"'),
        ('kind = "github"\nrepository = "octo/host/x"', '"owner/name"'),
        ('kind = "github"\nrepository = "octo/.."', '"owner/name"'),
        ('kind = "github"\nrepository = "../host"', '"owner/name"'),
        ('kind = "github"\nrepository = "octo/ho st"', '"owner/name"'),
        ('kind = "github"\nrepository = "octo/host?x"', '"owner/name"'),
        ('kind = "github"\nrepository = "octo/host"\ntoken = "x"', "unknown key"),
        ('kind = "github"\nrepository = "octo/host"\nAPI = "x"', "did you mean|remove it"),
        ('repository = "octo/host"', 'add kind = "github"'),
        ('kind = "local"\napi = "https://api.github.com"', "nothing for the local forge"),
    ],
)
def test_mistakes(forge: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        parsed(forge)
