"""Cases for the latency strategy: a commit made the service compute the same again and again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.faults.corpus import MANIFEST, PROBE, Case, run


def cheap_when_asked_again(call: str, file: str, most: int) -> Callable[[Path], bool]:
    """A check that 100 requests of 5 kinds run at most so many lines of a file: no clock is asked."""

    def check(tree: Path) -> bool:
        script = f"""
        import asyncio, os, sys

        from app import service

        lines = 0

        def count(frame, event, value):
            global lines
            lines += event == "line" and frame.f_code.co_filename.endswith({file!r})
            return count

        def ask(times):
            for request in range(times):
                request %= 5
                {call}

        ask(5)
        sys.settrace(count)
        ask(100)
        sys.settrace(None)
        print(lines)
        """
        return int(run(tree, script)) <= most

    return check


WEIGH = '''"""Answers requests."""


def weigh(kind: int, depth: int) -> float:
    """The weight of a kind of request: a long sum."""
    total = 0.0
    for i in range(depth):
        total += ((kind + 1) * i % 97) / (i + 1)
    return total


def answer(request):
    return weigh(request % 5, 300) + request
'''

FIBONACCI = '''"""Answers requests, by a recursion."""

from functools import lru_cache


@lru_cache(maxsize=256, typed=True)
def ways(steps: int) -> int:
    # In how many ways so many steps can be climbed, by one or two.
    if steps < 2:
        return 1
    return ways(steps - 1) + ways(steps - 2)


async def answer_soon(request):
    return ways(16 + request % 5)


def answer(request):
    import asyncio

    return asyncio.run(answer_soon(request))
'''

RULES = '''"""The rules of the house."""

import math

SCALE = 3.5
NAMES = ("red", "green", "blue", "grey", "white")


class Rules:
    """Rules that need no state."""

    @staticmethod
    def score(name: str, rounds: int = 20) -> float:
        total = 0.0
        for i in range(1, rounds):
            total += math.sin(i * len(name)) * SCALE  # a wave for each letter
        return round(total, 6)
'''

BY_RULES = '''"""Answers requests by the rules."""

from app.core.rules import NAMES, Rules


def answer(request):
    return Rules.score(NAMES[request % len(NAMES)])
'''

HELPER = '''"""Text work, which other modules share."""


def folded(text: str) -> str:
    return text.casefold().replace("ß", "ss")


def distance(a: str, b: str) -> int:
    """How many letters differ at least: the edit distance."""
    a, b = folded(a), folded(b)
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
'''

NEAREST = '''"""Answers requests with the nearest word."""

from app.text.compare import distance

WORDS = ("apple", "pear", "plum")


def answer(request):
    asked = ("applesauce", "peer", "plumber", "pearl", "apply")[request % 5]
    return min(WORDS, key=lambda word: distance(asked, word)), asked
'''

TWO = '''"""Answers requests, by two long computations."""


def left(kind: int) -> int:
    total = kind
    for i in range(LENGTH):
        total = (total * 31 + i) % 1000003
    return total


def right(kind: int) -> int:
    total = kind + 1
    for i in range(LENGTH):
        total = (total * 17 + i) % 1000003
    return total


def answer(request):
    return left(request % 5) ^ right(request % 7), request
'''


def two(length: int) -> str:
    return TWO.replace("LENGTH", f"{length:_}")


INNOCENT = tuple({f"app/part{i}.py": f'"""Part {i}."""\n\nVALUE = {i}\n'} for i in range(15))

# The slowness of these lies in a file that no patch may touch, so that no commit can be taken back.
HIDDEN = MANIFEST.replace('protect = ["app/probe.py"]', 'protect = ["app/probe.py", "data/**"]')
READING = """
from pathlib import Path

def rounds():
    return int(Path("data/rounds.txt").read_text())
"""


def slow_by_data(body: str) -> dict[str, str]:
    return {
        "app/sizes.py": READING,
        "app/service.py": '"""Answers requests."""\n\nfrom app.sizes import rounds\n' + body,
        "data/rounds.txt": "300\n",
        "qigheal.toml": HIDDEN,
    }


CASES = (
    Case(
        name="latency-longer-sum",
        strategy="latency",
        why="one annotated function of a module, asked for five results all the time",
        healthy={"app/service.py": WEIGH},
        fault={"app/service.py": WEIGH.replace("300)", "9_000)")},
        healed=cheap_when_asked_again("service.answer(request)", "service.py", 3_000),
    ),
    Case(
        name="latency-cache-removed-async",
        strategy="latency",
        why="a recursion lost its cache; the handler is a coroutine",
        healthy={"app/service.py": FIBONACCI},
        fault={
            "app/service.py": FIBONACCI.replace("@lru_cache(maxsize=256, typed=True)\n", "").replace(
                "from functools import lru_cache\n\n\n", "\n"
            )
        },
        healed=cheap_when_asked_again("service.answer(request)", "service.py", 3_000),
    ),
    Case(
        name="latency-static-method",
        strategy="latency",
        why="a static method in a nested module whose default grew; names and constants from the same file",
        healthy={"app/core/__init__.py": "", "app/core/rules.py": RULES, "app/service.py": BY_RULES},
        fault={"app/core/rules.py": RULES.replace("rounds: int = 20", "rounds: int = 6_000")},
        healed=cheap_when_asked_again("service.answer(request)", "rules.py", 3_000),
    ),
    Case(
        name="latency-helper-in-another-file",
        strategy="latency",
        why="a table of its own in a function that another file imports, and a helper that it calls",
        healthy={"app/text/__init__.py": "", "app/text/compare.py": HELPER, "app/service.py": NEAREST},
        fault={
            "app/service.py": NEAREST.replace(
                'WORDS = ("apple", "pear", "plum")',
                "WORDS = tuple(f'{a}{b}{a}' for a in ('apple', 'pear', 'plum', 'fig') for b in 'abcdefg')",
            )
        },
        healed=cheap_when_asked_again("service.answer(request)", "compare.py", 3_000),
    ),
    Case(
        name="latency-two-hot-functions",
        strategy="latency",
        why="two functions share the time, so that one cache alone heals half of it",
        healthy={"app/service.py": two(300)},
        fault={"app/service.py": two(12_000)},
        healed=cheap_when_asked_again("service.answer(request)", "service.py", 40_000),
        passes=2,
    ),
    Case(
        name="latency-among-innocent-commits",
        strategy="latency",
        why="the bad commit lies among fifteen others, and could be taken back as well",
        healthy={"app/service.py": WEIGH},
        before=INNOCENT[:9],
        fault={"app/service.py": WEIGH.replace("300)", "8_000)")},
        after=INNOCENT[9:],
        healed=cheap_when_asked_again("service.answer(request)", "service.py", 3_000),
    ),
    Case(
        name="no-patch-hot-function-reads-the-clock",
        strategy="",
        why="what is hot asks what time it is",
        healthy=slow_by_data(
            """
import time


def work(kind: int, length: int) -> int:
    total, now = kind, time.monotonic() > 0
    for i in range(length):
        total = (total * 31 + i + now) % 1000003
    return total


def answer(request):
    return work(request % 5, rounds())
"""
        ),
        fault={"data/rounds.txt": "9000\n"},
    ),
    Case(
        name="no-patch-hot-function-reads-a-variable",
        strategy="",
        why="what is hot reads a table that another function fills",
        healthy=slow_by_data(
            """
RATES = {}


def work(kind: int, length: int) -> int:
    total = kind
    for i in range(length):
        total = (total * 31 + RATES.get(kind, i)) % 1000003
    return total


def answer(request):
    RATES[request % 5] = request
    return work(request % 5, rounds())
"""
        ),
        fault={"data/rounds.txt": "6000\n"},
    ),
    Case(
        name="no-patch-nothing-is-asked-twice",
        strategy="",
        why="a pure hot function that never sees the same argument again",
        healthy=slow_by_data(
            """
asked = 0


def work(number: int, length: int) -> int:
    total = number
    for i in range(length):
        total = (total * 31 + i) % 1000003
    return total


def answer(request):
    global asked
    asked += 1
    return work(request * 1_000_000 + asked, rounds()) * 0 + request
"""
        ),
        fault={"data/rounds.txt": "8000\n"},
    ),
    Case(
        name="no-patch-a-list-that-callers-change",
        strategy="",
        why="a pure hot function whose result is changed by its caller",
        healthy=slow_by_data(
            """
def work(kind: int, length: int) -> list[int]:
    found = [kind]
    for i in range(length):
        found[0] = (found[0] * 31 + i) % 1000003
    return found


def answer(request):
    found = work(request % 5, rounds())
    found.append(request)
    return sum(found)
"""
        ),
        fault={"data/rounds.txt": "8000\n"},
    ),
    Case(
        name="no-patch-healthy-but-noisy",
        strategy="",
        why="answers take now 1 ms and now 8, as they always did",
        healthy={
            "app/service.py": '''"""Answers requests, some of which are long."""


def work(kind: int, length: int) -> int:
    total = kind
    for i in range(length):
        total = (total * 31 + i) % 1000003
    return total


def answer(request):
    return work(request % 5, 40 * (request % 17) ** 2 // 4)
''',
            "app/probe.py": PROBE.replace("draw.gauss(0, 0.008)", "draw.gauss(0, 0.03)"),
        },
        after=INNOCENT[:3],
    ),
)
