"""Cases for the memory strategy: something grows with every answer, and a bound would do no harm.

Requests are drawn from a wide range here, since what is remembered of them must go on growing.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent as indented

from tests.faults.corpus import PROBE, Case, run


def dedent(text: str) -> str:
    """A file's text, to be taken apart and put together before a case is made of it."""
    return indented(text).lstrip("\n")


WIDE = PROBE.replace("draw.randrange(1000)", "draw.randrange(10**9)")
"""The corpus' probe, asking for what it has hardly asked for before."""

ASYNC = (
    WIDE.replace("import hashlib", "import asyncio\nimport hashlib")
    .replace(
        "outputs.append(service.answer(request))",
        "outputs.append(loop.run_until_complete(service.answer(request)))",
    )
    .replace("    for line in sys.stdin:", "    loop = asyncio.new_event_loop()\n    for line in sys.stdin:")
)

ASYNC_TESTS = """
    import asyncio
    import unittest

    from app import service


    class Test(unittest.TestCase):
        def test_it_answers_the_same_request_alike(self):
            self.assertEqual(asyncio.run(service.answer(7)), asyncio.run(service.answer(7)))
"""

SETTLE, MORE = 2000, 2000
"""Requests after which a bound is reached, and those over which nothing may grow any more."""


def grows(tree: Path, answer: str = "service.answer(request)", setup: str = "") -> float:
    """Bytes by which a service's memory grows with a request, as the allocator counts them."""
    said = run(
        tree,
        f"""
        import asyncio, gc, tracemalloc
        from app import service
        {setup}
        def ask(first, count):
            for request in range(first, first + count):
                {answer}
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
        tracemalloc.start()
        before = ask(10**6, {SETTLE})
        print((ask(10**6 + {SETTLE}, {MORE}) - before) / {MORE})
        """,
    )
    return float(said)


def steady(tree: Path) -> bool:
    """Whether it no longer grows, and still gives what it gave."""
    return grows(tree) < 20 and run(tree, SAME) == "True"


def steady_async(tree: Path) -> bool:
    return (
        grows(tree, "loop.run_until_complete(service.answer(request))", "loop = asyncio.new_event_loop()")
        < 20
    )


SAME = """
    from app import service
    first = [service.answer(request) for request in range(500)]
    print(first == [service.answer(request) for request in range(500)] and len(set(first)) > 400)
"""

PAGE = dedent("""
    import hashlib


    def page(request):
        # A page of 40 kB that depends on the request alone.
        return hashlib.sha256(str(request).encode()).hexdigest() * 640


    def answer(request):
        return hashlib.md5(page(request).encode()).hexdigest()
""")

NESTED = {
    "app/text/__init__.py": "",
    "app/text/memo.py": dedent("""
        # One place for how results are remembered.
        from functools import lru_cache as remember
    """),
    "app/text/render.py": dedent("""
        import hashlib

        from app.text import memo

        WIDTH = 600


        @memo.remember(maxsize=64, typed=True)
        def rendered(request, title="page"):
            words = [hashlib.blake2b(f"{title} {request} {n}".encode()).hexdigest() for n in range(8)]
            return " ".join(words) * (WIDTH // 16)
    """),
    "app/service.py": dedent("""
        from app.text.render import rendered


        def answer(request):
            text = rendered(request)
            return f"{len(text)} {text[:24]}"
    """),
}

MODULE_DICT = dedent("""
    import hashlib

    _seen = {}


    def digest(request):
        return hashlib.sha512(b"%d" % request).hexdigest() * 300


    def lookup(request):
        found = digest(request)
        return found


    def answer(request):
        return lookup(request)[:40]
""")

MODULE_DICT_FAULT = MODULE_DICT.replace(
    """    found = digest(request)
    return found
""",
    """    found = _seen.get(request)
    if found is None:
        # Digests take a while, and requests may come again.
        found = digest(request)
        _seen[request] = found
    return found
""",
)

METHOD = {
    "app/scoring.py": dedent("""
        import math


        class Scorer:
            \"\"\"Scores requests by their neighbours.\"\"\"

            def __init__(self, width: int = 800):
                self.width = width

            def _row(self, request, power):
                return tuple(math.sin(request * n) ** power for n in range(self.width))

            def row(self, request, power):
                return self._row(request, power)

            def score(self, request):
                return sum(self.row(request, 2)) / self.width
    """),
    "app/service.py": dedent("""
        from app.scoring import Scorer

        SCORER = Scorer()


        def answer(request):
            return round(SCORER.score(request), 9)
    """),
}

METHOD_FAULT = (
    METHOD["app/scoring.py"]
    .replace(
        """        self.width = width
""",
        """        self.width = width
        self._rows = {}
""",
    )
    .replace(
        """        return self._row(request, power)
""",
        """        key = (request, power)
        try:
            return self._rows[key]
        except KeyError:
            made = self._rows[key] = self._row(request, power)
            return made
""",
    )
)

TRAIL = dedent("""
    import hashlib


    class Service:
        def __init__(self):
            self.answered = 0

        def answer(self, request):
            text = hashlib.sha256(str(request).encode()).hexdigest() * 500
            self.answered += 1
            return text[:32]


    SERVICE = Service()


    def answer(request):
        return SERVICE.answer(request)
""")

TRAIL_FAULT = TRAIL.replace(
    "        self.answered = 0\n",
    "        self.answered = 0\n        self.trail: list[str] = []  # for looking into trouble\n",
).replace("        self.answered += 1\n", "        self.answered += 1\n        self.trail.append(text)\n")

HANDLER = {
    "app/handlers.py": dedent("""
        import asyncio
        import zlib


        async def load(request):
            await asyncio.sleep(0)
            return b"".join(zlib.crc32(b"%d %d" % (request, n)).to_bytes(4, "big") for n in range(400)) * 25


        async def handle(request):
            return await load(request)
    """),
    "app/service.py": dedent("""
        from app import handlers


        async def answer(request):
            body = await handlers.handle(request)
            return body[:16].hex()
    """),
    "app/probe.py": ASYNC,
    "tests/test_service.py": ASYNC_TESTS,
}

HANDLER_FAULT = HANDLER["app/handlers.py"].replace(
    """async def handle(request):
    return await load(request)
""",
    """BODIES = dict()


async def handle(request):
    if (body := BODIES.get(request)) is not None:
        return body
    body = await load(request)
    BODIES[request] = body
    return body
""",
)

INNOCENT = tuple(
    {f"app/part{number}.py": f"VALUE = {number}\n\n\ndef value():\n    return VALUE\n"} for number in range(6)
)

AFTER_A_BATCH = "        print(json.dumps(answer), flush=True)\n"


def each_batch(statement: str) -> str:
    """The probe, doing something of its own after each batch."""
    return WIDE.replace(AFTER_A_BATCH, f"        {statement}\n{AFTER_A_BATCH}")


MALLOC = (
    each_batch("hold(800_000)")
    .replace(
        "REQUESTS = 20\n",
        dedent("""
    REQUESTS = 20
    LIBC = ctypes.CDLL(None)
    LIBC.malloc.restype = ctypes.c_void_p


    def hold(size):
        LIBC.memset(ctypes.c_void_p(LIBC.malloc(size)), 1, size)
    """),
    )
    .replace("import hashlib", "import ctypes\nimport hashlib")
)

READ_LIST = dedent("""
    import hashlib

    HISTORY = []


    def answer(request):
        text = hashlib.sha256(str(request).encode()).hexdigest()
        HISTORY.append(text * 500)
        return text


    def recent(count=10):
        return HISTORY[-count:]


    def forget():
        del HISTORY[:-10]
""")

TICKETS = dedent("""
    import hashlib
    import itertools
    from functools import cache

    COUNTER = itertools.count()


    @cache
    def ticket(request):
        # The first time a request is seen gives it its number, for good.
        return f"{next(COUNTER)} " + hashlib.sha256(str(request).encode()).hexdigest() * 600


    def answer(request):
        return ticket(request)[-32:]
""")

SESSIONS = dedent("""
    import hashlib

    SESSIONS = {}


    class Session:
        def __init__(self, user):
            self.user = user
            self.asked = 0
            self.page = hashlib.sha256(str(user).encode()).hexdigest() * 600


    def session(user):
        found = SESSIONS.get(user)
        if found is None:
            found = Session(user)
            SESSIONS[user] = found
        return found


    def answer(request):
        mine = session(request)
        mine.asked += 1
        return mine.page[:32]
""")


def decorated(line: str, imports: str) -> str:
    """The pages, with a cache on them."""
    return PAGE.replace("import hashlib\n", imports).replace("def page(", f"{line}\ndef page(")


CASES = (
    Case(
        name="memory-cache-decorator",
        strategy="memory",
        why="@cache on a function whose arguments hardly ever come again",
        healthy={"app/service.py": PAGE, "app/probe.py": WIDE},
        fault={"app/service.py": decorated("@cache", "import hashlib\nfrom functools import cache\n")},
        healed=steady,
    ),
    Case(
        name="memory-lru-cache-through-an-alias",
        strategy="memory",
        why="lru_cache without a bound, renamed in another module of a nested package; typed stays",
        healthy={**NESTED, "app/probe.py": WIDE},
        fault={"app/text/render.py": NESTED["app/text/render.py"].replace("maxsize=64", "maxsize=None")},
        healed=steady,
    ),
    Case(
        name="memory-dict-of-a-module",
        strategy="memory",
        why="a dict that remembers by get, test for None, store",
        healthy={"app/service.py": MODULE_DICT, "app/probe.py": WIDE},
        fault={"app/service.py": MODULE_DICT_FAULT},
        healed=steady,
    ),
    Case(
        name="memory-dict-of-an-object",
        strategy="memory",
        why="a dict attribute with a tuple as key, by KeyError, that a method of the same class fills",
        healthy={**METHOD, "app/probe.py": WIDE},
        fault={"app/scoring.py": METHOD_FAULT},
        healed=steady,
    ),
    Case(
        name="memory-list-that-nothing-reads",
        strategy="memory",
        why="an attribute that only ever takes up what was answered; for a person to merge",
        healthy={"app/service.py": TRAIL, "app/probe.py": WIDE},
        fault={"app/service.py": TRAIL_FAULT},
        healed=steady,
    ),
    Case(
        name="memory-async-handler",
        strategy="memory",
        why="a coroutine that remembers bodies, with a walrus and an early return",
        healthy=HANDLER,
        fault={"app/handlers.py": HANDLER_FAULT},
        healed=steady_async,
    ),
    Case(
        name="memory-cache-among-innocent-commits",
        strategy="memory",
        why="the cache came with one of several commits, and later ones lie on top",
        healthy={"app/service.py": PAGE, "app/probe.py": WIDE},
        before=INNOCENT[:3],
        fault={
            "app/service.py": decorated("@functools.lru_cache(None)", "import functools\nimport hashlib\n")
        },
        after=INNOCENT[3:],
        healed=steady,
    ),
    Case(
        name="memory-leak-outside-the-repository",
        strategy="",
        why="malloc by a protected file: no line of the host holds it, and no patch may end it",
        healthy={"app/service.py": PAGE, "app/probe.py": WIDE},
        fault={"app/probe.py": MALLOC},
    ),
    Case(
        name="memory-list-whose-contents-are-read",
        strategy="",
        why="a history that is read back, which a protected file no longer trims",
        healthy={"app/service.py": READ_LIST, "app/probe.py": each_batch("service.forget()")},
        fault={"app/probe.py": each_batch("service.recent()")},
    ),
    Case(
        name="memory-cache-of-what-is-not-repeatable",
        strategy="",
        why="a cache that hands out numbers: a lost entry would get another one",
        healthy={"app/service.py": TICKETS, "app/probe.py": each_batch("service.ticket.cache_clear()")},
        fault={"app/probe.py": WIDE},
    ),
    Case(
        name="memory-dict-of-sessions",
        strategy="",
        why="objects that change while they are remembered: a lost one would begin anew",
        healthy={"app/service.py": SESSIONS, "app/probe.py": each_batch("service.SESSIONS.clear()")},
        fault={"app/probe.py": WIDE},
    ),
)
