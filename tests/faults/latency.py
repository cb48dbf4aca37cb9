"""Cases for the latency strategy: a commit made the service compute the same again and again."""

from __future__ import annotations

from pathlib import Path

from tests.faults.corpus import Case, run

SLOW = "range(4_000)"  # of a toy's work: about 0.2 ms


def computed(tree: Path, module: str, name: str, call: str, *, asks: int = 40, distinct: int = 4) -> bool:
    """Whether asking `asks` times for `distinct` different results computes few of them: by counting the
    lines that run in the file, and not by a clock."""
    script = f"""
    import importlib, sys

    module = importlib.import_module({module!r})
    file = module.__file__
    lines = 0

    def count(frame, event, value):
        global lines
        lines += event == "line" and frame.f_code.co_filename == file
        return count

    def cost(asks):
        global lines
        lines = 0
        sys.settrace(count)
        for i in range(asks):
            request = i % {distinct}
            {call}
        sys.settrace(None)
        return lines

    cost({distinct})
    first = cost({distinct})
    print(cost({asks}) < {asks} * 60)
    """
    return run(tree, script) == "True"


def service(body: str) -> str:
    return f'"""Answers requests."""\n\n{body}'


WEIGH = '''
def weigh(kind: int, depth: int) -> float:
    """The weight of a kind of request: a long sum."""
    total = 0.0
    for i in range(depth):
        total += ((kind + 1) * i % 97) / (i + 1)
    return total


def answer(request):
    return weigh(request % 5, 300) + request
'''

CASES = (
    Case(
        name="latency-a-longer-sum",
        strategy="latency",
        why="one annotated function of a module, asked for five results all the time",
        healthy={"app/service.py": service(WEIGH)},
        fault={"app/service.py": service(WEIGH.replace("300)", "9_000)"))},
        healed=lambda tree: computed(tree, "app.service", "weigh", "module.answer(request)"),
    ),
)
