"""The lines that repeat a call, executed: how often, after which waits, and what is raised in the end."""

from __future__ import annotations

import asyncio
import difflib
import importlib
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from qigheal.errors import PatchError
from qigheal.healing.strategies.repeating.callsites import Source, call_sites, callees
from qigheal.healing.strategies.repeating.definitions import Definitions
from qigheal.healing.strategies.repeating.repeats import Form, Repeat, rewritten
from qigheal.healing.swallowing import silencers, swallowers

TRANSIENT = ("ConnectionError", "TimeoutError")
STORE = """
    class Gone(Exception):
        pass

    failures = []
    calls = []

    def fetch(key, *rest, timeout=5.0, call=None):
        calls.append((key, rest, timeout, call))
        if failures:
            raise failures.pop(0)
        return [key]

    async def load(key):
        return fetch(key)

    class Client:
        def read(self, key):
            return fetch(key)

        def twice(self, key):
            return self.read(key) + self.read(key)
"""


class Place:
    """A folder with packages, a store among them whose failures a test decides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put("pkg/__init__.py", "")
        self.put("pkg/store.py", STORE)

    def put(self, path: str, text: str) -> str:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"))
        return file.read_text()

    def repeated(
        self,
        text: str,
        *,
        path: str = "pkg/service.py",
        form: Form = "plain",
        errors: tuple[str, ...] = TRANSIENT,
        attempts: int = 3,
        timeouts: dict[int, float] | None = None,
    ) -> str:
        """The file `text` with every call in it repeated that can be."""
        self.put(path, text)
        definitions = Definitions(self.folder)
        names = ("pkg.store:fetch", "pkg.store:load", "pkg.store:Client.read")
        source = Source(path, (self.folder / path).read_bytes())
        sites = call_sites(source, callees(names, definitions), definitions, TRANSIENT, range(1, 100))
        chosen = [site for site in sites if not site.refused]
        made = rewritten(source, chosen, Repeat(errors, attempts, 0.25), form, timeouts or {})
        (self.folder / path).write_bytes(made)
        return made.decode()

    def load(self, module: str = "pkg.service") -> tuple[Any, ModuleType]:
        return importlib.import_module(module), importlib.import_module("pkg.store")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield Place(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pkg"]:
        del sys.modules[name]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits asked for; none is waited."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(time, "sleep", asked.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return asked


SERVICE = """
    '''What the service does.'''

    from __future__ import annotations

    # The standard library.
    import re

    from pkg import store

    LIMIT = 3  # rows


    def answer(key):
        # The row, as text.
        row = store.fetch(key)  # from afar
        return str(row)
"""


ASYNC_SERVICE = """
    from pkg import store

    class Service:
        async def answer(self, key):
            return str(await store.load(key))
"""


def test_the_diff_is_the_helper_and_the_call(place: Place) -> None:
    before = place.put("pkg/service.py", SERVICE).splitlines()
    after = place.repeated(SERVICE).splitlines()
    gone = [line for line in difflib.ndiff(before, after) if line.startswith("- ")]
    assert gone == ["-     row = store.fetch(key)  # from afar"]
    assert "    row = _repeated(store.fetch, key)  # from afar" in after
    assert len(after) - len(before) == 12  # an import, eight lines of the helper, and space around it
    assert after.index("import time") == after.index("import re") + 1
    assert after[after.index("LIMIT = 3  # rows") - 2 : after.index("LIMIT = 3  # rows")] == ["", ""]


@pytest.mark.parametrize(
    ("start", "after"),
    [
        ("", "import time\n\n"),
        ("import os\n", "import os\nimport time\n\n"),
        ("import os\n\nimport pkg\n", "import os\nimport time\n\nimport pkg\n"),
        ("from re import sub\n\n", "import time\nfrom re import sub\n\n"),
        ('"""Text."""\n', '"""Text."""\nimport time\n\n'),
        ("from __future__ import annotations\n", "from __future__ import annotations\n\nimport time\n\n"),
    ],
)
def test_an_import_goes_where_it_belongs(place: Place, start: str, after: str) -> None:
    rest = "from pkg import store\n"
    text = place.repeated(f"{start}{rest}\ndef answer(key):\n    return store.fetch(key)\n")
    assert text.startswith(f"{after}{rest}\n\ndef _repeated(")


@pytest.mark.parametrize("failed", [0, 1, 2])
def test_it_is_called_until_it_returns(place: Place, waits: list[float], failed: int) -> None:
    place.repeated(SERVICE)
    service, store = place.load()
    store.failures.extend([ConnectionResetError("a"), TimeoutError("b")][:failed])
    assert service.answer(7) == "[7]"
    assert len(store.calls) == failed + 1
    assert waits == [0.25, 0.5][:failed]


def test_the_last_error_is_raised_as_it_came(place: Place, waits: list[float]) -> None:
    place.repeated(SERVICE)
    service, store = place.load()
    last = ConnectionRefusedError("the third")
    store.failures.extend([ConnectionError("the first"), TimeoutError("the second"), last])
    with pytest.raises(ConnectionRefusedError) as caught:
        service.answer(7)
    assert caught.value is last
    assert last.__context__ is None
    assert last.__cause__ is None
    names = [frame.name for frame in traceback.extract_tb(last.__traceback__)]
    assert names[-3:] == ["answer", "_repeated", "fetch"]
    assert len(store.calls) == 3
    assert waits == [0.25, 0.5]


@pytest.mark.parametrize("error", [ValueError("no key"), KeyError(1), OSError("full"), KeyboardInterrupt()])
def test_a_permanent_error_is_raised_at_once(place: Place, waits: list[float], error: BaseException) -> None:
    place.repeated(SERVICE)
    service, store = place.load()
    store.failures.append(error)
    with pytest.raises(type(error)) as caught:
        service.answer(7)
    assert caught.value is error
    assert len(store.calls) == 1
    assert waits == []


def test_a_permanent_error_after_one_that_passes(place: Place, waits: list[float]) -> None:
    place.repeated(SERVICE)
    service, store = place.load()
    store.failures.extend([ConnectionError(), ValueError("no key")])
    with pytest.raises(ValueError, match="no key"):
        service.answer(7)
    assert len(store.calls) == 2


def test_coroutines_wait_without_holding_up_the_loop(place: Place, waits: list[float]) -> None:
    text = place.repeated("""
        from pkg.store import load as fetched

        async def answer(key):
            row = await fetched(key)
            return row
    """)
    assert "await _repeated_async(fetched, key)" in text
    assert "import time" not in text
    service, store = place.load()
    store.failures.extend([ConnectionError(), TimeoutError()])
    assert asyncio.run(service.answer(7)) == [7]
    assert waits == [0.25, 0.5]
    store.failures.extend([ConnectionError(str(i)) for i in range(3)])
    with pytest.raises(ConnectionError, match="2"):
        asyncio.run(service.answer(7))


def test_what_it_is_called_with_is_worked_out_once(place: Place, waits: list[float]) -> None:
    place.repeated("""
        from pkg import store

        done = []

        def note(what) -> "int | str":
            done.append(what)
            return what

        def answer(key):
            return note("after") and store.fetch(note(key), *[note(2)], call=note(3)), note("last")
    """)
    service, store = place.load()
    store.failures.append(ConnectionError())
    assert service.answer(1) == ([1], "last")
    assert service.done == ["after", 1, 2, 3, "last"]
    assert store.calls == [(1, (2,), 5.0, 3)] * 2


def test_methods_and_calls_within_calls(place: Place, waits: list[float]) -> None:
    text = place.repeated(STORE, path="pkg/store.py")
    assert "return _repeated(self.read, key) + _repeated(self.read, key)" in text
    _, store = place.load("pkg.store")
    store.failures.extend([ConnectionError(), ConnectionError()])
    assert store.Client().twice(1) == [1, 1]
    nested = place.repeated("""
        from pkg.store import fetch

        def answer(key):
            return fetch(fetch(key))
    """)
    assert "return _repeated(fetch, _repeated(fetch, key))" in nested
    service, _ = place.load()
    store.calls.clear()
    store.failures.append(ConnectionError())
    assert service.answer(1) == [[1]]
    assert len(store.calls) == 3


def test_a_time_limit_is_one_more_argument(place: Place, waits: list[float]) -> None:
    text = place.repeated(
        """
        from pkg.store import fetch

        def answer(key):
            return fetch(
                key,
                1,
            )
        """,
        timeouts={0: 0.03},
    )
    assert "_repeated(\n        fetch,\n        key,\n        1,\n        timeout=0.03,\n    )" in text
    service, store = place.load()
    assert service.answer(7) == [7]
    assert store.calls == [(7, (1,), 0.03, None)]


def test_names_that_are_taken_are_left_to_what_has_them(place: Place, waits: list[float]) -> None:
    text = place.repeated("""
        from time import time
        from pkg.store import fetch

        def _repeated(text):
            return text * 2

        def answer(key, time_=time):
            time = 3
            return _repeated(str(fetch(key)))
    """)
    assert "import time as _time\n" in text
    service, store = place.load()
    store.failures.append(ConnectionError())
    assert service.answer(7) == "[7][7]"
    assert waits == [0.25]


def test_an_import_that_is_there_is_used(place: Place, waits: list[float]) -> None:
    text = place.repeated("""
        import time as clock
        from pkg.store import Gone as Lost
        from pkg.store import fetch

        def answer(key):
            return fetch(key)
    """, errors=("pkg.store.Gone",))  # fmt: skip
    assert text.count("import") == 3
    assert "except Lost:" in text
    service, store = place.load()
    store.failures.append(store.Gone())
    assert service.answer(7) == [7]
    assert waits == [0.25]


def test_an_error_of_the_hosts_own_is_imported(place: Place, waits: list[float]) -> None:
    text = place.repeated(SERVICE, errors=("ConnectionError", "pkg.store.Gone"))
    assert "\nfrom pkg.store import Gone\n" in text
    service, store = place.load()
    store.failures.append(store.Gone())
    assert service.answer(7) == "[7]"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("from pkg.store import *", "star import"),
        ("class ConnectionError(Exception): pass", "ConnectionError means something else"),
        ("from pkg.store import Gone as TimeoutError", "TimeoutError means something else"),
    ],
)
def test_names_that_may_mean_something_else_forbid_it(place: Place, line: str, what: str) -> None:
    text = f"from pkg import store\n{line}\n\ndef answer(key):\n    return store.fetch(key)\n"
    with pytest.raises(PatchError, match=what):
        place.repeated(text)


def test_without_imports_and_with_tabs(place: Place, waits: list[float]) -> None:
    text = place.repeated(STORE.replace("    ", "\t"), path="pkg/store.py")
    assert text.startswith("import time\n\n\ndef _repeated(")
    assert "\n\tfor pause in" in text
    assert "    " not in text
    _, store = place.load("pkg.store")
    store.failures.append(ConnectionError())
    assert store.Client().twice(1) == [1, 1]


@pytest.mark.parametrize("form", ["tenacity", "stamina", "backoff"])
def test_with_a_library(place: Place, waits: list[float], form: Form) -> None:
    pytest.importorskip(form, reason="only used where a host has it")
    place.repeated("""
        from pkg import store

        def answer(key):
            return store.fetch(key)

        async def later(key):
            return await store.load(key)
    """, form=form)  # fmt: skip
    service, store = place.load()
    for ask in (service.answer, lambda key: asyncio.run(service.later(key))):
        del store.calls[:], waits[:]
        store.failures.extend([ConnectionError(), TimeoutError()])
        assert ask(7) == [7]
        assert len(store.calls) == 3
        assert waits[0] <= 0.25
        store.failures.append(ValueError("no key"))
        with pytest.raises(ValueError, match="no key"):
            ask(7)
        assert len(store.calls) == 4
        last = ConnectionResetError("third")
        store.failures.extend([ConnectionError(), ConnectionError(), last])
        with pytest.raises(ConnectionResetError) as caught:
            ask(7)
        assert caught.value is last
        assert len(store.calls) == 7


@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize("text", [SERVICE, ASYNC_SERVICE])
def test_what_is_written_hides_no_error(place: Place, form: Form, text: str) -> None:
    before = textwrap.dedent(text)
    after = place.repeated(text, form=form)
    assert "_repeated" in after
    assert swallowers(before, after) == []
    assert silencers(before, after) == []
