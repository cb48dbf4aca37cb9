"""Cases for the errors strategy: calls fail with errors that pass, and a second attempt would succeed.

What fails is decided by the request and by how often it was asked for, never by chance, so that the same
code fails alike wherever it runs. Files that hold what is flaky are protected: only its callers can be mended.
"""

from __future__ import annotations

import textwrap
from functools import partial
from pathlib import Path

from tests.faults.corpus import MANIFEST, Case, Files, run


def manifest(idempotent: str, *protect: str, allow: str = "app/**/*.py") -> str:
    shut = ", ".join(f'"{path}"' for path in ("app/probe.py", *protect))
    text = MANIFEST.replace('protect = ["app/probe.py"]', f"protect = [{shut}]")
    text = text.replace('allow = ["app/**/*.py", "config/*.toml"]', f'allow = ["{allow}"]')
    assert shut in text
    assert allow in text
    return text + f'\n[sites]\nidempotent = [{idempotent}]\ntransient = ["ConnectionError", "TimeoutError"]\n'


def flaky(fails: str, error: str = "ConnectionResetError", kind: str = "def") -> str:
    """A store that takes a moment; `fails` says when it does, of `key` and `asked`, the attempts with it so far."""
    pause = "await asyncio.sleep(0.0002)" if kind != "def" else "time.sleep(0.0002)"
    text = f'''
        """Rows by key, from a store on the other side of a network."""

        import asyncio
        import collections
        import time

        asked = collections.Counter()


        {kind} fetch(key):
            """The row of a key; reading it changes nothing."""
            if key < 0:
                asked[key] += 1
                raise ValueError(f"{{key}} is no key")
            {pause}
            asked[key] += 1
            if {fails}:
                raise {error}(f"no answer for {{key}}")
            return key * 7 % 1000
        '''
    return textwrap.dedent(text)


NEVER = "False"
FIRST_OF_TEN = "key % 10 == 3 and asked[key] % 2 == 1"


def works(tree: Path, store: str) -> bool:
    """No request fails, every row is the right one, and a bad request fails at once and is not repeated."""
    found = run(
        tree,
        f"""
        from app import service
        import {store} as store
        failed = wrong = 0
        for key in range(400):
            try:
                wrong += service.answer(key) != key * 7 % 1000
            except (ConnectionError, TimeoutError):
                failed += 1
        try:
            service.answer(-1)
        except ValueError:
            print(failed, wrong, store.asked[-1])
        """,
    )
    return found == "0 0 1"


SYNC = """
    '''Answers requests from the store.'''

    from app.store import fetch


    def answer(request):
        # A row is a number; the caller turns it into text.
        row = fetch(request)
        return row
"""

SYNC_WITH_RETRY = """
    '''Answers requests from the store.'''

    from app.store import fetch


    def answer(request):
        for _ in range(2):
            try:
                return fetch(request)
            except ConnectionError:
                pass
        return fetch(request)
"""

HANDLER = """
    import asyncio

    from app.{module} import fetch

    LOOP = asyncio.new_event_loop()


    async def handle(request):
        try:
            return await fetch(request)  # one row
        except KeyError:
            return None


    def answer(request):
        return LOOP.run_until_complete(handle(request))
"""

CLIENT = """
    from app.{module} import fetch as over_the_wire


    class Client:
        '''Reads rows, and remembers how many.'''

        def __init__(self):
            self.rows = 0

        def read(self, key):
            '''The row of a key; reading it changes nothing.'''
            return over_the_wire(key)

        def load(self, key):
            row = int(self.read(key))
            self.rows += 1
            return row
"""

CLIENT_SERVICE = """
    from app.client import Client

    CLIENT = Client()


    def answer(request):
        return CLIENT.load(request)
"""

ROUTES = """
    import app.core.io.blobs as blobs
    from app.api.v1 import texts


    def route(request):
        if request is None:
            return texts.EMPTY
        return blobs.fetch(request)
"""

ROUTED = """
    from app.api.v1.routes import route


    def answer(request):
        return route(request)
"""

NESTED: Files = {
    "app/api/__init__.py": "",
    "app/api/v1/__init__.py": "",
    "app/api/v1/texts.py": "EMPTY = 'nothing was asked for'\n",
    "app/api/v1/routes.py": ROUTES,
    "app/core/__init__.py": "",
    "app/core/io/__init__.py": "",
    "app/service.py": ROUTED,
}

PRICES = """
    from app import store


    def price(key):
        '''What a key costs, in cents.'''
        return store.fetch(key)
"""

STOCK = """
    from app.store import fetch as row_of


    def stock(key):
        return row_of(key)
"""

TWO_FILES = """
    from app import prices, stock


    def answer(request):
        return prices.price(request) if request % 4 < 2 else stock.stock(request)
"""

HANGING = '''
    """Rows by key, over connections of which some are dead."""

    import collections
    import time

    asked = collections.Counter()


    def fetch(key, timeout=0.05):
        """The row of a key; waits for it `timeout` seconds at most."""
        asked[key] += 1
        if key < 0:
            raise ValueError(f"{key} is no key")
        if key % 10 == 3 and asked[key] % 2 == 1:
            time.sleep(timeout)
            raise TimeoutError(f"no answer within {timeout} s")
        time.sleep(0.0003)
        return key * 7 % 1000
'''

STEADY = HANGING.replace("key % 10 == 3 and asked[key] % 2 == 1", "False")

BACKOFF = '''
    """Calls again what fails, later and later: the part of the library of this name that is used here."""

    import functools
    import time


    def expo(base=2, factor=1):
        n = 0
        while True:
            yield factor * base**n
            n += 1


    def on_exception(wait_gen, exception, *, max_tries=None, jitter=None, logger=None, **wait_gen_kwargs):
        def decorate(target):
            @functools.wraps(target)
            def again(*args, **kwargs):
                waits = wait_gen(**wait_gen_kwargs)
                for tries in range(1, max_tries):
                    try:
                        return target(*args, **kwargs)
                    except exception:
                        time.sleep(next(waits))
                return target(*args, **kwargs)

            return again

        return decorate
'''

MAILER = """
    import backoff


    @backoff.on_exception(backoff.expo, OSError, max_tries=4)
    def send(text):
        return len(text)
"""

CHARGE = """
    from app import store


    def answer(request):
        return store.fetch(request)


    def row(request):
        return store.look(request)
"""

LOOK = "\n\ndef look(key):\n    return key\n"


def innocent(number: int) -> Files:
    return {f"app/notes{number}.py": f"'''Notes, part {number}.'''\n\nNUMBER = {number}\n"}


STORE = '"app.store:fetch"'

CASES = (
    Case(
        name="errors-retry-removed",
        strategy="errors",
        why="a plain function that used to repeat its call, and no longer does",
        healthy={
            "app/store.py": flaky(FIRST_OF_TEN),
            "app/service.py": SYNC_WITH_RETRY,
            "qigheal.toml": manifest(STORE, "app/store.py"),
        },
        fault={"app/service.py": SYNC},
        healed=partial(works, store="app.store"),
    ),
    Case(
        name="errors-async-handler",
        strategy="errors",
        why="a coroutine that moved to a flaky store in a file of its own, which is protected",
        healthy={
            "app/local.py": flaky(NEVER, kind="async def"),
            "app/service.py": HANDLER.format(module="local"),
            "qigheal.toml": manifest('"app.remote:fetch", "app.local:fetch"', "app/remote.py"),
        },
        fault={
            "app/remote.py": flaky(FIRST_OF_TEN, kind="async def"),
            "app/service.py": HANDLER.format(module="remote"),
        },
        healed=partial(works, store="app.remote"),
    ),
    Case(
        name="errors-method-on-self",
        strategy="errors",
        why="a method that its own class calls; the flaky part below it is protected",
        healthy={
            "app/near.py": flaky(NEVER),
            "app/client.py": CLIENT.format(module="near"),
            "app/service.py": CLIENT_SERVICE,
            "qigheal.toml": manifest('"app.client:Client.read"', "app/far.py"),
        },
        fault={
            "app/far.py": flaky(FIRST_OF_TEN, "TimeoutError"),
            "app/client.py": CLIENT.format(module="far"),
        },
        healed=partial(works, store="app.far"),
    ),
    Case(
        name="errors-nested-alias",
        strategy="errors",
        why="modules three folders deep, called through an alias",
        healthy={
            **NESTED,
            "app/core/io/blobs.py": flaky(NEVER),
            "qigheal.toml": manifest('"app.core.io.blobs:fetch"', "app/core/**"),
        },
        fault={"app/core/io/blobs.py": flaky(FIRST_OF_TEN, "ConnectionRefusedError")},
        healed=partial(works, store="app.core.io.blobs"),
    ),
    Case(
        name="errors-two-files",
        strategy="errors",
        why="two calls in two files, imported in two ways, fail alike",
        healthy={
            "app/store.py": flaky(NEVER),
            "app/prices.py": PRICES,
            "app/stock.py": STOCK,
            "app/service.py": TWO_FILES,
            "qigheal.toml": manifest(STORE, "app/store.py"),
        },
        fault={"app/store.py": flaky(FIRST_OF_TEN)},
        healed=partial(works, store="app.store"),
    ),
    Case(
        name="errors-among-fifteen-commits",
        strategy="errors",
        why="the fault lies among 15 innocent commits",
        healthy={
            "app/store.py": flaky(NEVER),
            "app/service.py": SYNC,
            "qigheal.toml": manifest(STORE, "app/store.py"),
        },
        before=tuple(innocent(i) for i in range(8)),
        fault={"app/store.py": flaky("key % 20 == 3 and asked[key] % 3 != 0")},
        after=tuple(innocent(i) for i in range(8, 15)),
        healed=partial(works, store="app.store"),
    ),
    Case(
        name="errors-hanging-call",
        strategy="errors",
        why="a call that hangs for as long as its default allows, and takes a time limit",
        healthy={
            "app/store.py": STEADY,
            "app/service.py": SYNC,
            "qigheal.toml": manifest(STORE, "app/store.py"),
        },
        fault={"app/store.py": HANGING},
        healed=partial(works, store="app.store"),
    ),
    Case(
        name="errors-library-at-hand",
        strategy="errors",
        why="the host has a library for repeating calls, and uses it elsewhere",
        healthy={
            "backoff/__init__.py": BACKOFF,
            "app/mailer.py": MAILER,
            "app/store.py": flaky(NEVER),
            "app/service.py": SYNC,
            "qigheal.toml": manifest(STORE, "app/store.py"),
        },
        fault={"app/store.py": flaky(FIRST_OF_TEN)},
        healed=partial(works, store="app.store"),
    ),
    Case(
        name="errors-not-to-be-repeated",
        strategy="",
        why="the call that fails is not declared: repeating it might charge twice",
        healthy={
            "app/store.py": flaky(NEVER) + LOOK,
            "app/service.py": CHARGE,
            "qigheal.toml": manifest('"app.store:look"', "app/store.py"),
        },
        fault={"app/store.py": flaky(FIRST_OF_TEN) + LOOK},
    ),
    Case(
        name="errors-permanent",
        strategy="",
        why="bad requests are refused with an error that no repeat would mend",
        healthy={
            "app/store.py": flaky(NEVER),
            "app/service.py": SYNC,
            "qigheal.toml": manifest(STORE, "app/store.py"),
        },
        fault={"app/store.py": flaky("key % 10 == 3", "ValueError")},
    ),
    Case(
        name="errors-repeat-does-not-help",
        strategy="",
        why="an error that looks as if it passed, for keys whose store is gone",
        healthy={
            "app/store.py": flaky(NEVER),
            "app/service.py": SYNC,
            "qigheal.toml": manifest(STORE, "app/store.py"),
        },
        fault={"app/store.py": flaky("key % 10 == 3")},
    ),
    Case(
        name="errors-in-a-forbidden-file",
        strategy="",
        why="the call stands in a file that no patch may change",
        healthy={
            "app/store.py": flaky(NEVER),
            "app/service.py": SYNC,
            "qigheal.toml": manifest(STORE, "app/store.py", allow="app/pages/*.py"),
        },
        fault={"app/store.py": flaky(FIRST_OF_TEN)},
    ),
)
