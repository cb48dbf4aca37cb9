"""Slow or unsteady hosts for which the latency strategy has no honest patch.

How long they take stands in a file that no patch may touch, and the cache that would make them fast would
be wrong, or would not help.
"""

from __future__ import annotations

from tests.faults.corpus import Case

DATA_SLOW, DATA_QUICK = "12000\n", "40\n"

TURNS = """
    from pathlib import Path

    TURNS = int(Path("data/turns.txt").read_text())
"""
"""How often the hot function goes round; it is given that, so that nothing but what the case is about
speaks against a cache."""

CLOCK = """
    import time

    from app.turns import TURNS

    OPENED = time.time()


    def price(kind, turns):
        total = 0
        for turn in range(turns):
            total = (total + kind * turn) % 97
        return total + int(time.time() - OPENED > 10_000)


    def answer(request):
        return price(request % 9, TURNS)
"""
ENVIRONMENT = """
    import os

    from app.turns import TURNS


    def greeting(name: str, turns: int) -> str:
        for turn in range(turns):
            name = name[1:] + name[0]
        return name if os.environ.get("GREETING") is None else os.environ["GREETING"]


    def answer(request):
        return greeting("abcdefgh"[request % 8 :] + "xyz", TURNS)
"""
MUTABLE = """
    from app.turns import TURNS

    SETTINGS = {"raised": 0}


    def price(kind, turns):
        total = 0
        for turn in range(turns):
            total = (total + kind * turn) % 97
        return total + SETTINGS["raised"]


    def raise_prices(by):
        SETTINGS["raised"] += by


    def answer(request):
        if request == 1001:
            raise_prices(5)
        return price(request % 9, TURNS)
"""
PATCHED = """
    from app import prices
    from app.turns import TURNS


    def holiday():
        prices.RATE = 4


    def answer(request):
        if request == 1001:
            holiday()
        return prices.price(request % 9, TURNS)
"""
PRICES = """
    RATE = 3


    def price(kind: int, turns: int) -> int:
        total = 0
        for turn in range(turns):
            total = (total + kind * turn) % 97
        return total * RATE
"""
FILE = """
    from pathlib import Path

    from app.turns import TURNS


    def price(kind, turns):
        total = 0
        for turn in range(turns):
            total = (total + kind * turn) % 97
        return total + Path("data/turns.txt").stat().st_nlink


    def answer(request):
        return price(request % 9, TURNS)
"""
NEVER_AGAIN = """
    from itertools import count

    from app.turns import TURNS

    NUMBERS = count()


    def stamp(request, number, turns):
        total = 0
        for turn in range(turns):
            total = (total + request * turn) % 97
        return total


    def answer(request):
        return stamp(request, next(NUMBERS), TURNS)
"""
SHARED_LIST = """
    from app.turns import TURNS


    def shelves(kind, turns):
        found = [kind, kind + 1, kind + 2]
        for turn in range(turns):
            found[turn % 3] = (found[turn % 3] + turn) % 97
        return found


    def answer(request):
        found = shelves(request % 9, TURNS)
        if request == 1001:
            found.append(request)
        return sum(found)
"""
STRETCHED = """
    from app.turns import TURNS


    def stretched(password, turns):
        total = len(password)
        for turn in range(turns):
            total = (total * 31 + turn) % 65521
        return total


    def answer(request):
        return stretched(f"word {request % 9}", TURNS)
"""
NOISY = """
    import random
    import time

    DRAW = random.Random(11)


    def answer(request):
        time.sleep(DRAW.random() / 4000)
        return request * 3
"""


def slow_data(name: str, why: str, service: str, **others: str) -> Case:
    return Case(
        name=f"latency-none-{name}",
        strategy="",
        why=why,
        healthy={
            "app/service.py": service,
            "app/turns.py": TURNS,
            **{f"app/{module}.py": text for module, text in others.items()},
            "data/turns.txt": DATA_QUICK,
        },
        fault={"data/turns.txt": DATA_SLOW},
    )


CASES = (
    slow_data("clock", "the hot function reads the clock, which shows after some hours only", CLOCK),
    slow_data("environment", "the hot function reads the environment", ENVIRONMENT),
    slow_data("mutable-global", "the hot function reads settings that a rare request changes", MUTABLE),
    slow_data(
        "replaced", "a rare request replaces a constant that the hot function reads", PATCHED, prices=PRICES
    ),
    slow_data("file", "the hot function reads a file", FILE),
    slow_data("never-again", "the hot function is never given the same arguments twice", NEVER_AGAIN),
    slow_data("shared-list", "the hot function returns a list that a caller changes", SHARED_LIST),
    slow_data(
        "secret", "the hot function is slow on purpose, and a cache would keep passwords in clear", STRETCHED
    ),
    Case(
        name="latency-none-noisy",
        strategy="",
        why="a healthy service whose times vary by nature",
        healthy={"app/service.py": NOISY},
    ),
)
