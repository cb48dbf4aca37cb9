"""Cases for the revert strategy: a commit did it, and no lever or smaller repair reaches what it changed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.faults.attending import ATTENDING
from tests.faults.corpus import MANIFEST, Case, run
from tests.faults.reverting_hosts import (
    ASYNC,
    ASYNC_AFTER,
    FEATURE,
    FLAT,
    HASTY,
    KEEPS,
    KEPT,
    LOOKUP,
    MISPARSE,
    NESTED,
    PARSING,
    READS_FORBIDDEN,
    REFUSES,
    SCAN,
    SCORED,
    SCORED_AFTER,
    SCORING,
    SCORING_AFTER,
    SERVICE,
    SETTLES,
    SILENT,
    STRETCHES,
    TAKES,
    constants,
    headline,
    innocent,
)


def attended(tree: Path) -> float:
    """The number of points attended to."""
    return float(
        run(
            tree,
            """
            import math, random
            from app import memory, service

            draw = random.Random(4)
            count = 0.0
            for key in memory.KEYS * 5:
                weights = service.attention([x + draw.gauss(0, 0.3) for x in key])
                count += math.exp(-sum(w * math.log(w) for w in weights if w > 0)) / 300
            print(count)
            """,
        )
    )


def attends_again(tree: Path, count: float) -> bool:
    return abs(attended(tree) / count - 1) <= 0.02


def attends_again_and_describes(tree: Path) -> bool:
    """Healed, and what the innocent commits did to the same file is still there."""
    said = run(tree, "from app import service; print(service.describe())")
    return attends_again(tree, 3.573) and said == "innocent 15: 60 points"


def looks_up(tree: Path) -> bool:
    """By counting the steps of an answer, not by a clock."""
    steps = run(
        tree,
        """
        import sys
        from app import service

        service.answer(1)
        count = 0

        def traced(frame, event, argument):
            global count
            count += event == "line"
            return traced

        sys.settrace(traced)
        service.answer(500)
        sys.settrace(None)
        print(count)
        """,
    )
    return int(steps) < 1500


def forgets(tree: Path) -> bool:
    grown = run(
        tree,
        """
        import tracemalloc
        from app import service

        for request in range(100):
            service.answer(request)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for request in range(1000):
            service.answer(request)
        print(tracemalloc.get_traced_memory()[0] - before, service.answered())
        """,
    )
    size, answered = map(int, grown.split())
    return size < 200_000 and answered == 1100


def parses(tree: Path) -> bool:
    """As many fail as always did, and the others are answered rightly."""
    said = run(
        tree,
        """
        import json
        from app import service

        found = []
        for request in range(1000):
            try:
                found.append(service.answer(request) == request * 3)
            except ValueError:
                found.append(None)
        print(json.dumps([found.count(None), found.count(False)]))
        """,
    )
    return said == "[50, 0]"


def parses_and_gains(tree: Path) -> bool:
    return (
        parses(tree) and run(tree, "from app import service; print(0.9 <= service.gain() <= 1.1)") == "True"
    )


LEVER = """
[[levers]]
name = "gain"
strategy = "attention"
file = "config/app.toml"
key = "gain"
min = 0.1
max = 10.0
"""

CASES = (
    Case(
        name="revert-among-innocents",
        strategy="revert",
        why="a function changed among 15 innocent commits, some of them to the same file",
        healthy={**ATTENDING, "app/service.py": SERVICE},
        before=tuple({"app/service.py": headline(SERVICE, number)} for number in range(1, 11)),
        fault={"app/service.py": headline(FLAT, 10)},
        after=tuple({"app/service.py": headline(FLAT, number)} for number in range(11, 16)),
        healed=attends_again_and_describes,
    ),
    Case(
        name="revert-two-files",
        strategy="revert",
        why="a change of two files that only make sense together",
        healthy={**ATTENDING, "app/service.py": SCORED, "app/scoring.py": SCORING},
        before=innocent(2),
        fault={"app/service.py": SCORED_AFTER, "app/scoring.py": SCORING_AFTER},
        after=innocent(3, 2),
        healed=partial(attends_again, count=1.984),
    ),
    Case(
        name="revert-merge",
        strategy="revert",
        why="the change came by a merge of two commits, neither of which works by itself",
        healthy={**ATTENDING, "app/service.py": SCORED, "app/scoring.py": SCORING},
        before=innocent(3),
        fault={"app/service.py": SCORED_AFTER, "app/scoring.py": SCORING_AFTER},
        after=innocent(4, 3),
        merged=True,
        healed=partial(attends_again, count=1.984),
    ),
    Case(
        name="revert-async",
        strategy="revert",
        why="a host that gathers from coroutines",
        healthy={**ATTENDING, "app/service.py": ASYNC},
        before=innocent(1),
        fault={"app/service.py": ASYNC_AFTER},
        after=innocent(2, 1),
        healed=partial(attends_again, count=2.159),
    ),
    Case(
        name="revert-nested-constant",
        strategy="revert",
        why="a constant in a module deep below, which no lever covers",
        healthy={
            **ATTENDING,
            "app/service.py": NESTED,
            "app/core/__init__.py": "",
            "app/core/limits/__init__.py": "",
            "app/core/limits/constants.py": constants(1.2),
        },
        before=innocent(6),
        fault={"app/core/limits/constants.py": constants(12.0)},
        healed=partial(attends_again, count=4.896),
    ),
    Case(
        name="revert-latency",
        strategy="revert",
        why="a lookup became a scan, in a function that reads tables which others fill",
        healthy={"app/service.py": LOOKUP},
        before=innocent(3),
        fault={"app/service.py": SCAN},
        after=innocent(4, 3),
        healed=looks_up,
    ),
    Case(
        name="revert-memory",
        strategy="revert",
        why="a count became a list that is read: it may not simply be cut",
        healthy={"app/service.py": KEPT, "tests/test_service.py": "import unittest\n"},
        before=innocent(2),
        fault={"app/service.py": KEEPS},
        after=innocent(3, 2),
        healed=forgets,
    ),
    Case(
        name="revert-errors",
        strategy="revert",
        why="requests that were answered fail since a commit; some failed always, and still do",
        healthy=PARSING,
        before=innocent(5),
        fault={"app/service.py": MISPARSE},
        after=innocent(4, 5),
        healed=parses,
    ),
    Case(
        name="revert-two-faults",
        strategy="revert",
        why="two guilty commits, one for Φ and κ and one for errors, with innocent ones around",
        healthy=PARSING,
        before=(*innocent(2), {"config/app.toml": "gain = 0.5\n"}, *innocent(2, 2)),
        fault={"app/service.py": MISPARSE},
        after=innocent(2, 4),
        passes=2,
        healed=parses_and_gains,
    ),
    Case(
        name="revert-lever-and-commit",
        strategy="attention",
        why="a lever that is off, and a commit that has nothing to do with it: one fault a pass",
        healthy={**PARSING, "qigheal.toml": MANIFEST + LEVER},
        before=({"config/app.toml": "gain = 0.5\n"}, *innocent(3)),
        fault={"app/service.py": MISPARSE},
        after=innocent(1, 3),
        passes=2,
        healed=parses_and_gains,
    ),
    Case(
        name="revert-forbidden",
        strategy="",
        why="what the commit changed lies in pyproject.toml, which no patch may touch",
        healthy={
            "app/service.py": READS_FORBIDDEN,
            "pyproject.toml": "[tool.service]\ngain = 1.0\n",
        },
        before=innocent(2),
        fault={"pyproject.toml": "[tool.service]\ngain = 0.5\n"},
        after=innocent(2, 2),
    ),
    Case(
        name="revert-built-upon",
        strategy="",
        why="later commits changed the same lines: taking the first one back would undo them",
        healthy={**ATTENDING, "app/service.py": SERVICE},
        before=innocent(1),
        fault={"app/service.py": FLAT},
        after=({"app/service.py": FLAT.replace("/ 2 for d in far", "/ 2.01 for d in far")}, *innocent(1, 1)),
    ),
    Case(
        name="revert-too-large",
        strategy="",
        why="the guilty commit rewrote more lines than a patch may touch",
        healthy={**ATTENDING, "app/service.py": SERVICE},
        fault={"app/service.py": FLAT + "\n" + "\n".join(f"    ROW_{n} = {n}" for n in range(100)) + "\n"},
        after=innocent(2),
    ),
    Case(
        name="revert-faster-and-wrong",
        strategy="revert",
        why="the guilty commit made answers faster, and the code that answers rightly is the slower one",
        healthy={**ATTENDING, "app/service.py": SETTLES},
        before=innocent(1),
        fault={"app/service.py": HASTY},
        after=innocent(1, 1),
        healed=partial(attends_again, count=3.173),
    ),
    Case(
        name="revert-validation",
        strategy="",
        person=True,
        why="requests fail since a commit that refuses them: rightly, for all that anybody can tell",
        healthy={"app/service.py": TAKES, "tests/test_service.py": "import unittest\n"},
        before=innocent(1),
        fault={"app/service.py": REFUSES},
        after=innocent(1, 1),
    ),
    Case(
        name="revert-feature-unseen",
        strategy="",
        person=True,
        why="a commit answers otherwise and more slowly, and the probe does not say what is answered",
        healthy={"app/service.py": LOOKUP, "app/probe.py": SILENT},
        before=innocent(1),
        fault={"app/service.py": FEATURE},
        after=innocent(1, 1),
    ),
    Case(
        name="revert-meant",
        strategy="",
        person=True,
        why="a commit makes guessing dearer, and every answer slower, as it was meant to",
        healthy={"app/service.py": STRETCHES, "config/app.toml": "rounds = 40\n"},
        before=innocent(2),
        fault={"config/app.toml": "rounds = 900\n"},
        after=innocent(2, 2),
    ),
    Case(
        name="revert-innocent-host",
        strategy="",
        why="sixteen commits that change how it is written and nothing that it does",
        healthy={**ATTENDING, "app/service.py": SERVICE},
        before=tuple({"app/service.py": headline(SERVICE, number)} for number in range(1, 17)),
    ),
)
