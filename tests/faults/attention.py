"""Cases for the attention strategy: declared levers are at values at which Φ or κ leaves its band."""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path

from tests.faults.attending import ATTENDING
from tests.faults.corpus import MANIFEST, Case, Files, run

SERVICE = """
    import tomllib
    from pathlib import Path

    SETTINGS = tomllib.loads(Path("config/app.toml").read_text())


    def gain():
        return SETTINGS["attention"]["gain"]


    def answer(request):
        return request * 7 % 1000
"""


def lever(key: str, low: float, high: float, file: str = "config/app.toml") -> str:
    return f"""
[[levers]]
name = {key!r}
strategy = "attention"
file = "{file}"
key = {key!r}
min = {low}
max = {high}
"""


def config(gain: float) -> str:
    return f"# How strongly the service attends.\n[attention]\ngain = {gain}  # healthy: 1.0\n"


def gain_is_back(tree: Path) -> bool:
    gain = tomllib.loads((tree / "config/app.toml").read_text())["attention"]["gain"]
    return 0.9 <= gain <= 1.1


ONE_LEVER: Files = {
    "app/service.py": SERVICE,
    "config/app.toml": config(1.0),
    "qigheal.toml": MANIFEST + lever("attention.gain", 0.1, 10.0),
}

HEADS = '''
    """Attends by temperature, a share of which goes to everything alike."""

    import tomllib
    from pathlib import Path

    from app import memory

    SETTINGS = tomllib.loads(Path("config/app.toml").read_text())["attention"]


    def attention(query):
        focus = memory.softmax([-d / SETTINGS["temperature"] for d in memory.distances(query)])
        alike = SETTINGS["alike"] / len(focus)
        return [(1 - SETTINGS["alike"]) * weight + alike for weight in focus]
'''

THREE = '''
    """Two heads of their own temperatures, and how much each has to say."""

    import tomllib
    from pathlib import Path

    from app import memory

    HEADS = tomllib.loads(Path("config/app.toml").read_text())["heads"]


    def attention(query):
        far = memory.distances(query)
        narrow = memory.softmax([-d / HEADS["narrow"] for d in far])
        wide = memory.softmax([-d / HEADS["wide"] for d in far])
        return [(1 - HEADS["share"]) * a + HEADS["share"] * b for a, b in zip(narrow, wide)]
'''

NEIGHBOURS = '''
    """Attends to the nearest points alone."""

    import tomllib
    from pathlib import Path

    from app import memory


    class Reader:
        def __init__(self, file):
            self.settings = tomllib.loads(Path(file).read_text())

        @property
        def count(self):
            return self.settings["neighbours"]

        def attend(self, query):
            far = memory.distances(query)
            nearest = sorted(range(len(far)), key=far.__getitem__)[: self.count]
            weights = [0.0] * len(far)
            for place, weight in zip(nearest, memory.softmax([-far[i] / 4 for i in nearest])):
                weights[place] = weight
            return weights


    READER = Reader("config/app.toml")


    def attention(query):
        return READER.attend(query)
'''

NESTED = '''
    """Routes in a package of its own; its settings lie deep in a file of many."""

    from app.routing.model import attend


    def attention(query):
        return attend(query)
'''

NESTED_MODEL = """
    import tomllib
    from pathlib import Path

    from app import memory

    TABLE = tomllib.loads(Path("config/deploy/service.toml").read_text())
    PROFILE = TABLE["service"]["routing"]["eu.west"]


    def attend(query):
        return memory.softmax([-d / PROFILE["attention"]["temperature"] for d in memory.distances(query)])
"""


def nested_config(temperature: float) -> str:
    return (
        "# One file for all regions.\n"
        'title = "service"   # shown nowhere\n\n'
        "[service.routing]\n"
        'default = "eu.west"\n\n'
        '[service.routing."eu.west"]   # the region that is measured\n'
        f"attention = {{ temperature = {temperature}, heads = 1 }}  # in units of a squared distance\n\n"
        '[service.routing."us.east"]\n'
        "attention = { temperature = 9.0, heads = 2 }\n"
    )


def attends_as_at(tree: Path, count: float, certainty: float) -> bool:
    """Whether as many points are attended to as in health, and the label is as certain."""
    measured = run(
        tree,
        """
        import math, random
        from app import memory, service

        def entropy(weights):
            return -sum(w * math.log(w) for w in weights if w > 0)

        draw = random.Random(4)
        counts = certainties = 0.0
        for key in memory.KEYS * 5:
            weights = service.attention([x + draw.gauss(0, 0.3) for x in key])
            labels = [sum(w for w, l in zip(weights, memory.LABELS) if l == label) for label in range(10)]
            counts += math.exp(entropy(weights)) / 300
            certainties += (1 - entropy(labels) / math.log(10)) / 300
        print(counts, certainties)
        """,
    )
    now, certain = map(float, measured.split())
    return abs(now / count - 1) <= 0.2 and abs(certain - certainty) <= 0.06


def few_neighbours(tree: Path) -> bool:
    return tomllib.loads((tree / "config/app.toml").read_text())["neighbours"] in (4, 5, 6)


def nested_is_back(tree: Path) -> bool:
    """The region that is measured attends as before; comments and the other region are as they were."""
    text = (tree / "config/deploy/service.toml").read_text()
    kept = (
        "# in units of a squared distance" in text and "attention = { temperature = 9.0, heads = 2 }" in text
    )
    return kept and attends_as_at(tree, 4.90, 0.536)


def heads(temperature: float, alike: float) -> str:
    return f"[attention]\ntemperature = {temperature}\nalike = {alike}  # of 1\n"


def three(narrow: float, wide: float, share: float) -> str:
    return f"[heads]\nnarrow = {narrow}\nwide = {wide}\nshare = {share}\n"


TWO_LEVERS: Files = {
    **ATTENDING,
    "app/service.py": HEADS,
    "config/app.toml": heads(1.0, 0.2),
    "qigheal.toml": MANIFEST
    + lever("attention.temperature", 0.05, 20.0)
    + lever("attention.alike", 0.0, 1.0),
}

# Which requests there are lies in a file that no patch may touch.
SCALED = """
    import json
    import tomllib
    from pathlib import Path

    SETTINGS = tomllib.loads(Path("config/app.toml").read_text())
    LOAD = json.loads(Path("recorded/load.json").read_text())["load"]


    def gain():
        return SETTINGS["attention"]["gain"] * LOAD


    def answer(request):
        return request * 7 % 1000
"""

# Every start of it is of another mind: a setting may look healthy once, for as long as its process lives.
NOISE_PROBE = """
    import json
    import random
    import sys

    from app import service

    service.gain()
    mind = random.Random()
    level = mind.random()
    for line in sys.stdin:
        asked = json.loads(line)
        answer = {
            "batch": asked["batch"],
            "phi": min(1.0, max(0.0, mind.gauss(level, 0.02))),
            "kappa_eff": mind.gauss(128 * level, 2),
            "basin_coords": [mind.random() for _ in range(16)],
        }
        print(json.dumps(answer), flush=True)
"""

CASES = (
    Case(
        name="attention-one-lever",
        strategy="attention",
        why="one lever too low, found again among its range",
        healthy=ONE_LEVER,
        fault={"config/app.toml": config(0.4)},
        healed=gain_is_back,
    ),
    Case(
        name="attention-two-levers",
        strategy="attention",
        why="two levers that act on the same figures in different ways, both off",
        healthy=TWO_LEVERS,
        fault={"config/app.toml": heads(5.0, 0.6)},
        healed=partial(attends_as_at, count=8.64, certainty=0.397),
    ),
    Case(
        name="attention-three-levers",
        strategy="attention",
        why="three levers, one of which hides behind another",
        healthy={
            **ATTENDING,
            "app/service.py": THREE,
            "config/app.toml": three(0.4, 4.0, 0.3),
            "qigheal.toml": MANIFEST
            + lever("heads.narrow", 0.05, 10.0)
            + lever("heads.wide", 0.5, 50.0)
            + lever("heads.share", 0.0, 1.0),
        },
        fault={"config/app.toml": three(3.0, 30.0, 0.8)},
        healed=partial(attends_as_at, count=4.95, certainty=0.514),
    ),
    Case(
        name="attention-whole-number",
        strategy="attention",
        why="a lever of whole numbers, read by a method",
        healthy={
            **ATTENDING,
            "app/service.py": NEIGHBOURS,
            "config/app.toml": "neighbours = 5\n",
            "qigheal.toml": MANIFEST + lever("neighbours", 1, 60),
        },
        fault={"config/app.toml": "neighbours = 40\n"},
        healed=few_neighbours,
    ),
    Case(
        name="attention-outside-its-range",
        strategy="attention",
        why="the present value lies outside the lever's range: a legal start",
        healthy=ONE_LEVER,
        fault={"config/app.toml": config(0.03)},
        healed=gain_is_back,
    ),
    Case(
        name="attention-nested-key",
        strategy="attention",
        why="a quoted key deep in a file with comments and inline tables, read in a nested module",
        healthy={
            **ATTENDING,
            "app/service.py": NESTED,
            "app/routing/__init__.py": "",
            "app/routing/model.py": NESTED_MODEL,
            "config/deploy/service.toml": nested_config(1.2),
            "qigheal.toml": MANIFEST.replace("config/*.toml", "config/**/*.toml")
            + lever(
                'service.routing."eu.west".attention.temperature', 0.05, 20.0, "config/deploy/service.toml"
            ),
        },
        fault={"config/deploy/service.toml": nested_config(6.0)},
        healed=nested_is_back,
    ),
    Case(
        name="attention-at-its-bound",
        strategy="",
        why="the value that would heal lies outside the lever's range, and what changed is recorded load",
        healthy={
            "app/service.py": SCALED,
            "config/app.toml": config(1.0),
            "recorded/load.json": '{"load": 1.0}\n',
            "qigheal.toml": MANIFEST.replace('["app/probe.py"]', '["app/probe.py", "recorded/**"]')
            + lever("attention.gain", 0.8, 3.0),
        },
        fault={"recorded/load.json": '{"load": 5.0}\n'},
    ),
    Case(
        name="attention-pure-noise",
        strategy="",
        why="a probe that says anything: no lever is at fault, however the numbers fall",
        healthy={**ONE_LEVER, "app/probe.py": NOISE_PROBE},
        fault={"config/app.toml": config(0.4)},
    ),
    Case(
        name="attention-healthy-and-noisy",
        strategy="",
        why="Φ and κ vary widely, as they did when the service was healthy",
        healthy={**TWO_LEVERS, "app/probe.py": ATTENDING["app/probe.py"].replace("= 24", "= 3")},
        before=({"README": "It attends.\n"},),
    ),
)
