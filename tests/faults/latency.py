"""Cases for the latency strategy: answers take many times as long as they did.

Whether a host is healed says the number of lines that it runs for some requests, not a clock: a cache and
a revert both bring it down.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.corpus import Case, Files, run

LINES = """
    import json
    import sys

    from app import service

    lines = 0


    def trace(frame, event, arg):
        global lines
        if "/app/" not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        return trace


    requests = [37 * i % {period} for i in range({count})]
    sys.settrace(trace)
    answers = [service.answer(request) for request in requests]
    sys.settrace(None)
    print(json.dumps([lines, answers]))
"""


@dataclass(frozen=True)
class Quick:
    """Whether a host answers requests as `expected` within `most` lines of its own code.

    There are `count` of them, all different until `period` are through.
    """

    most: int
    expected: Callable[[int], object]
    period: int = 1000
    count: int = 80

    def __call__(self, tree: Path) -> bool:
        lines, answers = json.loads(run(tree, LINES.format(period=self.period, count=self.count)))
        requests = [37 * i % self.period for i in range(self.count)]
        wanted = json.loads(json.dumps([self.expected(request) for request in requests]))
        return bool(lines <= self.most and answers == wanted)


# A formula in a module of its own

TARIFF = """
    \"\"\"What a parcel costs.\"\"\"


    def surcharge(zone):
        \"\"\"Of a zone, in cents.\"\"\"
        total = 0
        for step in range({steps}):
            # Each step of the way adds a little.
            total += (zone * step) % 7
        return total % 500
"""
PARCELS = """
    from app.tariff import surcharge


    def answer(request):
        return request + surcharge(request % 23)
"""


def parcel(request: int) -> int:
    return request + sum(request % 23 * step % 7 for step in range(42)) % 500


# An asynchronous handler

SIGNED = """
    import asyncio

    from app import signing

    LOOP = asyncio.new_event_loop()


    async def handle(request):
        await asyncio.sleep(0)
        return signing.sign(f"tenant-{request % 17}") + str(request)


    def answer(request):
        return LOOP.run_until_complete(handle(request))
"""
SIGNING = """
    from __future__ import annotations

    import hashlib

    ROUNDS = 4


    def sign(tenant: str) -> str:
        digest = tenant.encode()
        for _ in range(ROUNDS):
            digest = hashlib.sha256(digest).digest()
        return digest.hex()[:12]
"""


def signed(request: int) -> str:
    import hashlib

    digest = f"tenant-{request % 17}".encode()
    for _ in range(4):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()[:12] + str(request)


SIGNING_SLOW = """
    from __future__ import annotations

    import hashlib

    ROUNDS = 4


    def spread(digest: bytes) -> int:
        total = 0
        for position in range(2000):
            total = (total * 31 + digest[position % len(digest)]) % 65521
        return total


    def sign(tenant: str) -> str:
        digest = tenant.encode()
        for _ in range(ROUNDS):
            if spread(digest) < 0:
                raise ValueError(tenant)
            digest = hashlib.sha256(digest).digest()
        return digest.hex()[:12]
"""

# A static method

GRID = """
    class Grid:
        \"\"\"Cells and what it costs to cross them.\"\"\"

        width = 12

        def __init__(self, offset):
            self.offset = offset

        @staticmethod
        def cost(start, end):
            {body}

        def path(self, request):
            start = (request + self.offset) % 9
            return self.cost(start, request % 4)


    GRID = Grid(3)


    def answer(request):
        return [request, GRID.path(request)]
"""
GRID_QUICK = "return (start + 1) * (end + 2) * 8000 % 9973"
GRID_SLOW = """best = 0
            for _ in range(8000):
                best = (best + (start + 1) * (end + 2)) % 9973
            return best"""


def crossed(request: int) -> list[int]:
    return [request, ((request + 3) % 9 + 1) * (request % 4 + 2) * 8000 % 9973]


# A nested package, the helper in another file

ROUTES = """
    from app.geo.routes import length


    def answer(request):
        return round(request + length("ABCDEFGHIJ"[request % 10], "KLM"[request % 3]), 6)
"""
LENGTH = """
    \"\"\"Lengths of routes between named places.\"\"\"
    import math

    from . import places as _places

    STEPS = {steps}


    def length(start: str, end: str) -> float:
        (a, b), (c, d) = _places.place(start), _places.place(end)
        total = 0.0
        for step in range(1, STEPS + 1):
            total = max(total, math.hypot(a - c, b - d) * min(step, STEPS) / STEPS)
        return total
"""
PLACES = """
    NAMES = "ABCDEFGHIJKLM"
    ROWS = (1.0, 2.5, 4.0, 8.5)


    def place(name: str) -> tuple[float, float]:
        number = NAMES.index(name)
        return float(number), ROWS[number % len(ROWS)]
"""


def route(request: int) -> float:
    import math

    names, rows = "ABCDEFGHIJKLM", (1.0, 2.5, 4.0, 8.5)
    a, b = (names.index(name) for name in ("ABCDEFGHIJ"[request % 10], "KLM"[request % 3]))
    return round(request + math.hypot(a - b, rows[a % 4] - rows[b % 4]), 6)


# Two functions, each half of it

SHOP = """
    from app.shop.stock import weight
    from app.shop.tax import rate


    def answer(request):
        return weight(request % 11) * 1000 + rate("home" if request % 2 else "abroad", request % 6)
"""
STOCK = """
    def weight(kind):
        grams = 0
        for layer in range({layers}):
            grams += (kind * layer) % 5
        return grams % 100
"""
TAX = """
    def rate(country, group):
        found = [0]
        for year in range({years}):
            found[0] += (len(country) * group + year) % 9
        return found[0] % 36
"""


def shop(request: int) -> int:
    grams = sum(request % 11 * layer % 5 for layer in range(20)) % 100
    factor = len("home" if request % 2 else "abroad") * (request % 6)
    return grams * 1000 + sum((factor + year) % 9 for year in range(18)) % 36


# Recursion

STAIRS = """
    def ways(stairs):
        {body}


    def answer(request):
        return ways(request % 22)
"""
STAIRS_QUICK = """before, here = 0, 1
        for _ in range(stairs):
            before, here = here, before + here
        return here"""
STAIRS_NAIVE = """if stairs < 2:
            return 1
        return ways(stairs - 1) + ways(stairs - 2)"""


def ways(request: int) -> int:
    before, here = 0, 1
    for _ in range(request % 22):
        before, here = here, before + here
    return here


# Many arguments

CODES = """
    import re

    from app.codes import check

    DIGITS = re.compile("[0-9]+")


    def answer(request):
        number = DIGITS.sub("", f"order {request}") + str(request % 160)
        return list(check(number))
"""
CHECK = """
    \"\"\"Check digits, by counting letters and turning a wheel.\"\"\"

    WEIGHTS = (3, 1, 7, 9)


    def check(code: str) -> tuple[int, str]:
        seen: dict[str, int] = {{}}
        for letter in code:
            seen[letter] = seen.get(letter, 0) + 1
        ordered = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
        wheel = [len(code)] * {turns}
        for turn, _ in enumerate(wheel[1:], 1):
            wheel[turn] = (wheel[turn - 1] + WEIGHTS[turn % len(WEIGHTS)]) % 10
        return wheel[-1], "".join(letter for letter, _ in ordered)
"""


def checked(request: int) -> list[object]:
    code = f"order {request % 160}"
    ordered = sorted({letter: code.count(letter) for letter in code}.items(), key=lambda i: (-i[1], i[0]))
    return [(len(code) + 1 + 7 + 9 + 3 * (1 + 3 + 7 + 9)) % 10, "".join(letter for letter, _ in ordered)]


# A cache that is taken away

WORDS = """
    {imports}

    LETTERS = frozenset("aeiou")


    {decorator}
    def score(word, bonus=2):
        points = 0
        for turn in range(1200):
            for letter in word:
                points += bonus if letter in LETTERS else 1
            points %= 10_007
        return points


    def answer(request):
        return {{"request": request, "score": score("tree leaf root bark twig".split()[request % 5], request % 4)}}
"""


def words(request: int) -> dict[str, int]:
    word, bonus, points = ["tree", "leaf", "root", "bark", "twig"][request % 5], request % 4, 0
    for _ in range(1200):
        points = (points + sum(bonus if letter in "aeiou" else 1 for letter in word)) % 10_007
    return {"request": request, "score": points}


def innocent(number: int) -> Files:
    return {f"app/notes{number % 4}.py": f'"""Notes, page {number}."""\n\nPAGE = {number}\n'}


CASES = (
    Case(
        name="latency-formula",
        strategy="latency",
        why="a pure function of a small number, called for each request",
        healthy={"app/service.py": PARCELS, "app/tariff.py": TARIFF.format(steps=42)},
        fault={"app/tariff.py": TARIFF.format(steps=42 + 14_000)},
        healed=Quick(900_000, parcel),
    ),
    Case(
        name="latency-async-handler",
        strategy="latency",
        why="an asynchronous handler calls a pure function of a text",
        healthy={"app/service.py": SIGNED, "app/signing.py": SIGNING},
        fault={"app/signing.py": SIGNING_SLOW},
        healed=Quick(500_000, signed),
    ),
    Case(
        name="latency-static-method",
        strategy="latency",
        why="a static method of two small numbers, called through an object",
        healthy={"app/service.py": GRID.format(body=GRID_QUICK)},
        fault={"app/service.py": GRID.format(body=GRID_SLOW)},
        healed=Quick(900_000, crossed),
    ),
    Case(
        name="latency-nested-package",
        strategy="latency",
        why="a function of a nested package whose helper stands in another file, with other commits on top",
        healthy={
            "app/service.py": ROUTES,
            "app/geo/__init__.py": "",
            "app/geo/routes.py": LENGTH.format(steps=1),
            "app/geo/places.py": PLACES,
        },
        fault={"app/geo/routes.py": LENGTH.format(steps=3000)},
        after=(innocent(1), innocent(2)),
        healed=Quick(250_000, route),
    ),
    Case(
        name="latency-two-functions",
        strategy="latency",
        why="two functions in two files are each half of it: one alone does not heal",
        healthy={
            "app/service.py": SHOP,
            "app/shop/__init__.py": "",
            "app/shop/stock.py": STOCK.format(layers=20),
            "app/shop/tax.py": TAX.format(years=18),
        },
        fault={
            "app/shop/stock.py": STOCK.format(layers=20 + 9000),
            "app/shop/tax.py": TAX.format(years=18 + 5400),
        },
        healed=Quick(900_000, shop),
        passes=2,
    ),
    Case(
        name="latency-recursion",
        strategy="latency",
        why="a loop became a recursion that computes everything again and again",
        healthy={"app/service.py": STAIRS.format(body=STAIRS_QUICK)},
        fault={"app/service.py": STAIRS.format(body=STAIRS_NAIVE)},
        healed=Quick(20_000, ways),
    ),
    Case(
        name="latency-many-arguments",
        strategy="latency",
        why="a hundred and sixty texts, so that a cache takes a while to fill",
        healthy={"app/service.py": CODES, "app/codes.py": CHECK.format(turns=16)},
        fault={"app/codes.py": CHECK.format(turns=16 + 4000)},
        healed=Quick(600_000, checked, period=40, count=400),
    ),
    Case(
        name="latency-cache-removed",
        strategy="latency",
        why="somebody took a cache away, and nothing else changed",
        healthy={
            "app/service.py": WORDS.format(
                imports="from functools import lru_cache", decorator="@lru_cache(maxsize=64)"
            )
        },
        fault={"app/service.py": WORDS.format(imports="", decorator="")},
        healed=Quick(500_000, words),
    ),
    Case(
        name="latency-among-fifteen",
        strategy="latency",
        why="the fault is one of sixteen commits; the others are innocent",
        healthy={"app/service.py": PARCELS, "app/tariff.py": TARIFF.format(steps=42)},
        before=tuple(innocent(number) for number in range(8)),
        fault={"app/tariff.py": TARIFF.format(steps=42 + 14_000)},
        after=tuple(innocent(number) for number in range(8, 15)),
        healed=Quick(900_000, parcel),
    ),
)
