"""Which calls are taken for calls of a declared function, and which of those may not be repeated."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from qigheal.healing.strategies.repeating.callsites import (
    CallSite,
    Source,
    call_sites,
    callees,
    timeout_default,
)
from qigheal.healing.strategies.repeating.definitions import Definitions
from qigheal.healing.strategies.repeating.dependencies import packages

FILES = {
    "digits/__init__.py": "from digits.store import fetch as get\n",
    "digits/store.py": """
        import functools
        import tenacity
        from contextlib import contextmanager

        def fetch(key, timeout=2.5):
            return key

        async def load(key, *, timeout=3):
            return key

        def rows(key):
            yield key

        @tenacity.retry
        def patient(key):
            return key

        @functools.wraps(fetch)
        def dressed(key):
            return key

        class Client:
            def read(self, key, timeout=1):
                return key

            @staticmethod
            def plain(key):
                return key

        client = Client()
        """,
    "digits/deep/__init__.py": "",
    "digits/deep/io/__init__.py": "from ...store import fetch, Client\n",
}
DECLARED = (
    "digits.store:fetch",
    "digits.store:load",
    "digits.store:rows",
    "digits.store:patient",
    "digits.store:Client.read",
    "digits.store:Client.plain",
    "digits.service:Own.read",
    "requests:get",
    "aiohttp:request",
)
TRANSIENT = ("ConnectionError", "TimeoutError")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


def found(folder: Path, text: str, path: str = "digits/service.py") -> list[CallSite]:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(textwrap.dedent(text))
    definitions = Definitions(folder)
    source = Source(path, (folder / path).read_bytes())
    return call_sites(source, callees(DECLARED, definitions), definitions, TRANSIENT, range(1, 100))


def in_function(statement: str, start: str = "def") -> str:
    body = textwrap.indent(textwrap.dedent(statement).strip(), "    ")
    return f"import digits\nfrom digits import store\nfrom digits.store import fetch, load\n{start} f(k):\n{body}\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from digits.store import fetch\ndef f(k):\n    return fetch(k)", "digits.store:fetch"),
        ("from digits.store import fetch as g\ndef f(k):\n    return g(k)", "digits.store:fetch"),
        ("from digits import store\ndef f(k):\n    return store.fetch(k)", "digits.store:fetch"),
        ("import digits.store as s\ndef f(k):\n    return s.fetch(k)", "digits.store:fetch"),
        ("import digits.store\ndef f(k):\n    return digits.store.fetch(k)", "digits.store:fetch"),
        ("from . import store\ndef f(k):\n    return store.fetch(k)", "digits.store:fetch"),
        ("from .store import fetch\ndef f(k):\n    return fetch(k)", "digits.store:fetch"),
        ("from digits import get\ndef f(k):\n    return get(k)", "digits.store:fetch"),
        ("import digits.deep.io as io\ndef f(k):\n    return io.fetch(k)", "digits.store:fetch"),
        ("def f(k):\n    from digits.store import fetch\n    return fetch(k)", "digits.store:fetch"),
        ("from digits.store import load\nasync def f(k):\n    return await load(k)", "digits.store:load"),
        ("from digits.store import client\ndef f(k):\n    return client.read(k)", "digits.store:Client.read"),
        ("from digits.store import Client\ndef f(k):\n    return Client().read(k)", "digits.store:Client.read"),
        (in_function("c = store.Client()\nreturn c.read(k)"), "digits.store:Client.read"),
        ("from digits.deep.io import Client\ndef f(k):\n    return Client.plain(k)", "digits.store:Client.plain"),
        (
            "class Own:\n    def read(self, k):\n        return k\n    def all(me, k):\n        return me.read(k)",
            "digits.service:Own.read",
        ),
        ("import requests as r\ndef f(k: str):\n    return r.get(k)", "requests:get"),
        ("import aiohttp\nasync def f(k: str):\n    return await aiohttp.request(k)", "aiohttp:request"),
    ],
)  # fmt: skip
def test_calls_of_declared_functions(folder: Path, text: str, name: str) -> None:
    sites = found(folder, text)
    assert [(site.callee.name, site.refused) for site in sites] == [(name, "")]


@pytest.mark.parametrize(
    "text",
    [
        "from digits.other import fetch\ndef f(k):\n    return fetch(k)",
        "from digits.store import dressed\ndef f(k):\n    return dressed(k)",
        "def fetch(k):\n    return k\ndef f(k):\n    return fetch(k)",
        in_function("fetch = len\nreturn fetch(k)"),
        in_function("store = k\nreturn store.fetch(k)"),
        in_function("def fetch(k):\n    return k\nreturn fetch(k)"),
        in_function("return [fetch for fetch in k][0](k)"),
        in_function("return k.fetch(k)"),
        in_function("return getattr(store, 'fetch')(k)"),
        in_function("return store.fetch.cached(k)"),
        "from digits.store import fetch\ndef f(fetch):\n    return fetch(1)",
        "try:\n    from digits.fast import fetch\nexcept ImportError:\n    from digits.store import fetch\n"
        "def f(k):\n    return fetch(k)",
        "from digits.store import fetch\nfetch = len\ndef f(k):\n    return fetch(k)",
        "from digits.store import Client\ndef f(k, c: Client):\n    return c.read(k)",
        "from digits.store import Client\ndef f(k):\n    c = Client()\n    c = k\n    return c.read(k)",
        "class Own:\n    def read(self, k):\n        return k\n    def all(self, k):\n        self = k\n"
        "        return self.read(k)",
        "class Own:\n    def read(self, k):\n        return k\n    def all(self, k):\n        self.read = k\n"
        "        return self.read(k)",
        "class Own:\n    def read(self, k):\n        return k\n    @staticmethod\n    def all(self):\n"
        "        return self.read(1)",
        "class Own:\n    def read(self, k):\n        return k\n    def all(self, k):\n        return self.read(k)\n"
        "class Heir(Own):\n    def read(self, k):\n        return -k",
        "def g():\n    class Own:\n        def read(self, k):\n            return k\n        def all(self, k):\n"
        "            return self.read(k)",
    ],
)
def test_calls_of_something_else(folder: Path, text: str) -> None:
    assert found(folder, text) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (in_function("return [fetch(x) for x in k]"), "in a comprehension"),
        (in_function("return sum(fetch(x) for x in k)"), "in a comprehension"),
        (in_function("return {x: fetch(x) for x in k}"), "in a comprehension"),
        (in_function("return lambda: fetch(k)"), "in a lambda"),
        (in_function("def g(x=fetch(1)):\n    return x"), "a default"),
        (in_function("@fetch(k)\ndef g():\n    pass"), "decorator"),
        (in_function("x: fetch(k) = 3"), "annotation"),
        (in_function("with fetch(k) as x:\n    pass"), "head of a statement"),
        (in_function("for x in fetch(k):\n    pass"), "head of a statement"),
        (in_function("while fetch(k):\n    pass"), "head of a statement"),
        (in_function("if fetch(k):\n    pass"), "head of a statement"),
        (in_function("assert fetch(k)"), "one of another kind"),
        (in_function("raise fetch(k)"), "one of another kind"),
        (in_function("if k: return fetch(k)"), "head of a statement"),
        ("from digits.store import fetch\nX = fetch(1)", "outside of every function"),
        ("from digits.store import fetch\nclass C:\n    x = fetch(1)", "outside of every function"),
        ("from digits.store import rows\ndef f(k):\n    return list(rows(k))", "makes a generator"),
        ("from digits.store import patient\ndef f(k):\n    return patient(k)", "called is repeated already"),
        (in_function("return load(k)"), "awaited elsewhere"),
        (in_function("return fetch(k)", "async def"), "hold up everything else"),
        (in_function("return await fetch(k)", "async def"), "a plain result is awaited"),
        ("import aiohttp\nasync def f(k):\n    return aiohttp.request(k)", "hold up everything else"),
        (in_function("return fetch(x for x in k)"), "only once"),
        (in_function("return fetch([iter(k)])"), "only once"),
        (in_function("return fetch(open(k))"), "only once"),
        (in_function("""
            for attempt in range(3):
                try:
                    return fetch(k)
                except ConnectionError:
                    pass
            """), "in a loop"),
        (in_function("""
            while True:
                try:
                    return fetch(k)
                except OSError:
                    continue
            """), "in a loop"),
        (in_function("""
            for key in k:
                for attempt in range(3):
                    try:
                        x = fetch(key)
                        break
                    except Exception:
                        pass
            """), "in a loop"),
        ("import backoff\nfrom digits.store import fetch\n@backoff.on_exception(backoff.expo, OSError)\n"
         "def f(k):\n    return fetch(k)", "stands in is repeated already"),
        ("from tenacity import retry as again\nfrom digits.store import fetch\n@again\n"
         "def f(k):\n    return fetch(k)", "stands in is repeated already"),
        ("from digits.tools import with_retry\nfrom digits.store import fetch\n@with_retry\n"
         "def f(k):\n    return fetch(k)", "stands in is repeated already"),
    ],
)  # fmt: skip
def test_calls_that_may_not_be_repeated_where_they_stand(folder: Path, text: str, why: str) -> None:
    [site] = found(folder, text)
    assert why in site.refused


@pytest.mark.parametrize(
    "statement",
    [
        """
        for key in k:
            try:
                x = fetch(key)
            except ConnectionError:
                x = None
        """,
        """
        while k:
            try:
                x = fetch(k)
            except ValueError:
                k = None
        """,
        """
        try:
            return fetch(k)
        except Exception:
            return None
        """,
        "x = y = fetch(k) + 1",
        "x: int = fetch(k)",
        "k += fetch(k)",
        "yield fetch(k)",
        "return (x := fetch(k))",
        "k[fetch(1)] = 2",
        "if k:\n    return fetch(k)",
    ],
)
def test_handlers_around_and_other_loops_do_not_matter(folder: Path, statement: str) -> None:
    sites = found(folder, in_function(statement))
    assert [site.refused for site in sites] == [""]


def test_packages_below_src(tmp_path: Path) -> None:
    (tmp_path / "src/digits").mkdir(parents=True)
    (tmp_path / "src/digits/__init__.py").write_text("")
    (tmp_path / "src/digits/store.py").write_text("def fetch(k):\n    return k\n")
    sites = found(
        tmp_path, "from .store import fetch\ndef f(k):\n    return fetch(k)", "src/digits/service.py"
    )
    assert [site.callee.name for site in sites] == ["digits.store:fetch"]


def test_files_that_are_not_python_are_passed_over(folder: Path) -> None:
    (folder / "digits/broken.py").write_text("def (:\n")
    (folder / "digits/bytes.py").write_bytes(b"\xff\xfe\x00")
    assert found(folder, in_function("return store.fetch(k)"))
    assert Definitions(folder).function("digits.broken.fetch") is None
    assert Definitions(folder).function("digits.bytes.fetch") is None
    assert Definitions(folder).function("digits.nowhere") is None


def test_imports_that_go_in_circles_end(folder: Path) -> None:
    (folder / "digits/a.py").write_text("from digits.b import x\n")
    (folder / "digits/b.py").write_text("from digits.a import x\n")
    assert Definitions(folder).function("digits.a.x") is None


@pytest.mark.parametrize(
    ("call", "default"),
    [
        ("fetch(k)", 2.5),
        ("fetch(key=k)", 2.5),
        ("fetch(k, 3)", None),
        ("fetch(k, timeout=3)", None),
        ("fetch(*k)", None),
        ("fetch(**k)", None),
        ("store.Client().read(k)", 1.0),
        ("store.Client().read(k, 2)", None),
        ("store.Client.plain(k)", None),
    ],
)
def test_the_default_of_a_time_limit_that_the_call_does_not_set(
    folder: Path, call: str, default: float | None
) -> None:
    [site] = found(folder, in_function(f"return {call}"))
    assert timeout_default(site.callee, site.node) == default


def test_a_time_limit_by_keyword_only(folder: Path) -> None:
    [site] = found(folder, in_function("return await load(k)", "async def"))
    assert timeout_default(site.callee, site.node) == 3.0


def test_packages_are_those_that_the_code_imports_and_the_project_declares(folder: Path) -> None:
    (folder / "tests").mkdir()
    (folder / "tests/test_it.py").write_text("import stamina\n")
    (folder / "digits/mail.py").write_text("def f():\n    from backoff import expo\n")
    (folder / "requirements-web.txt").write_text(
        "# Retrying[all]\nHttpx[http2]>=0.2 ; python_version > '3'\n-r x\n"
    )
    (folder / "pyproject.toml").write_text('[project]\ndependencies = ["Aiohttp ~= 3.0"]\n')
    known = packages(folder, Definitions(folder))
    assert {"backoff", "httpx", "aiohttp", "tenacity"} <= known
    assert not known & {"stamina", "retrying"}
    (folder / "pyproject.toml").write_text("[tool.poetry.dependencies]\nAnyio = '*'\n")
    assert "anyio" in packages(folder, Definitions(folder))
    (folder / "pyproject.toml").write_text("not TOML [")
    assert "httpx" in packages(folder, Definitions(folder))
