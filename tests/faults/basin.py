"""Cases for the basin strategy: declared levers are at values at which the basin lies away from its baseline."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from tests.faults.attending import ATTENDING
from tests.faults.corpus import MANIFEST, Case, Files, run

# Figures of health that these faults leave alone; what moves is the basin.
PROBE = ATTENDING["app/probe.py"].replace(
    '"phi": min(1.0, max(0.0, phi)),\n            "kappa_eff": kappa,',
    '"phi": 0.75 + draw.gauss(0, 0.008),\n            "kappa_eff": 64 + draw.gauss(0, 1),',
)
PROBE = PROBE.replace("REQUESTS = 24", "REQUESTS = 60").replace("draw.gauss(0, 0.3)", "draw.gauss(0, 1)")
assert "0.75 + draw" in PROBE
assert "(0, 1) for x" in PROBE

HOST: Files = {**ATTENDING, "app/probe.py": PROBE}


def lever(key: str, low: float, high: float, file: str = "config/app.toml") -> str:
    return f"""
[[levers]]
name = {key!r}
strategy = "basin"
file = "{file}"
key = {key!r}
min = {low}
max = {high}
"""


HOT = '''
    """Attends to groups that are not remembered equally well."""

    import tomllib
    from pathlib import Path

    from app import memory

    SETTINGS = tomllib.loads(Path("config/app.toml").read_text())
    STRENGTH = [3.0 * (group == 2) + 1.5 * (group == 7) for group in memory.GROUPS]


    def attention(query):
        far = memory.distances(query)
        heat = SETTINGS["attention"]["heat"]
        return memory.softmax([strength / heat - d / 4 for d, strength in zip(far, STRENGTH)])
'''

TWO = '''
    """Groups have a bias each, of which two are settings."""

    import tomllib
    from pathlib import Path

    from app import memory

    BIAS = tomllib.loads(Path("config/app.toml").read_text())["bias"]


    def bias(group):
        return BIAS["first"] * (group in (2, 3)) + BIAS["second"] * (group in (3, 4))


    def attention(query):
        far = memory.distances(query)
        return memory.softmax([bias(group) - d / 4 for d, group in zip(far, memory.GROUPS)])
'''

HOPS = '''
    """Some groups count for more, by a factor that is applied as often as the settings say."""

    import tomllib
    from pathlib import Path

    from app import memory

    ROUTING = tomllib.loads(Path("config/app.toml").read_text())["routing"]


    class Routing:
        def __init__(self, hops):
            self.hops = hops

        def route(self, weights):
            favoured = [w * (1.2**self.hops if g < 4 else 1.0) for w, g in zip(weights, memory.GROUPS)]
            whole = sum(favoured)
            return [weight / whole for weight in favoured]


    ROUTE = Routing(ROUTING["hops"]).route


    def attention(query):
        return ROUTE(memory.softmax([-d / 4 for d in memory.distances(query)]))
'''

# What the service attends to besides moves with a table that it is sent; the anchor is what it should be.
ANCHORED = '''
    """Attention is pulled towards a stored anchor, as strongly as the settings say."""

    import json
    import tomllib
    from pathlib import Path

    from app import memory

    STRENGTH = tomllib.loads(Path("config/anchor.toml").read_text())["anchor"]["strength"]
    ANCHOR = json.loads(Path("data/anchor.json").read_text())
    PULL = json.loads(Path("data/table.json").read_text())


    def attention(query):
        far = memory.distances(query)
        now = memory.softmax([PULL[group] - d / 4 for d, group in zip(far, memory.GROUPS)])
        anchor = [ANCHOR[group] / 5 for group in memory.GROUPS]
        return [(1 - STRENGTH) * a + STRENGTH * b for a, b in zip(now, anchor)]
'''

ANCHOR = [0.083, 0.084, 0.083, 0.084, 0.083, 0.083, 0.083, 0.084, 0.083, 0.083, 0.084, 0.083]

NESTED = """
    from app.core.heat import attend as attention
"""

NESTED_MODEL = '''
    """The model proper, in a package below."""

    import tomllib
    from pathlib import Path

    from app import memory

    MODEL = tomllib.loads(Path("config/models/live.toml").read_text())["model"]


    def attend(query):
        far = memory.distances(query)
        tilt = MODEL["tilt"]["value"]
        return memory.softmax([tilt * (group - 5.5) - d / 4 for d, group in zip(far, memory.GROUPS)])
'''


def nested_config(tilt: float) -> str:
    return f"[model]\nname = 'live'  # not 'trial'\n\n  [model.tilt]   # of the groups\n  value = {tilt}\n"


def hot(heat: float) -> str:
    return f"[attention]\nheat = {heat}\n"


def two(first: float, second: float) -> str:
    return f"[bias]\nfirst = {first}\nsecond = {second}\n"


def anchored(strength: float) -> str:
    return f"[anchor]\nstrength = {strength}  # 0: none; 1: nothing else\n"


def table(*pull: float) -> str:
    return json.dumps([*pull, *[0.0] * (12 - len(pull))]) + "\n"


def value(tree: Path, file: str, *keys: str) -> float:
    found: Any = tomllib.loads((tree / file).read_text())
    for key in keys:
        found = found[key]
    return float(found)


def heat_is_back(tree: Path) -> bool:
    return 0.8 <= value(tree, "config/app.toml", "attention", "heat") <= 1.25


def hops_are_back(tree: Path) -> bool:
    return value(tree, "config/app.toml", "routing", "hops") in (2, 3, 4)


def tilt_is_back(tree: Path) -> bool:
    kept = "# of the groups" in (tree / "config/models/live.toml").read_text()
    return kept and abs(value(tree, "config/models/live.toml", "model", "tilt", "value") - 0.1) <= 0.05


def mass(tree: Path) -> list[float]:
    """How much each group is attended to by all remembered points, and how much that varies between them."""
    measured = run(
        tree,
        """
        import json, random, statistics
        from app import memory, service

        draw = random.Random(4)
        rows = [service.attention([x + draw.gauss(0, 0.3) for x in key]) for key in memory.KEYS * 3]
        groups = [[sum(w for w, g in zip(row, memory.GROUPS) if g == group) for row in rows] for group in range(12)]
        print(json.dumps([statistics.fmean(g) for g in groups] + [statistics.fmean(map(statistics.stdev, groups))]))
        """,
    )
    found: list[float] = json.loads(measured)
    return found


def two_are_back(tree: Path) -> bool:
    """Each bias as it was: neither makes up for the other."""
    first, second = (value(tree, "config/app.toml", "bias", key) for key in ("first", "second"))
    return abs(first - 1.0) <= 0.4 and abs(second + 0.5) <= 0.4


def anchored_and_alive(tree: Path) -> bool:
    """The groups are attended to alike again, and requests still differ."""
    *groups, spread = mass(tree)
    return max(abs(g - 1 / 12) for g in groups) < 0.06 and spread > 0.003  # 0.063 without anchor


def innocent(count: int) -> tuple[Files, ...]:
    return tuple({f"app/note{number}.py": f"NOTE = {number}\n"} for number in range(count))


CASES = (
    Case(
        name="basin-too-hot",
        strategy="basin",
        why="one lever too hot, which flattens what should stand out, among 15 innocent commits",
        healthy={
            **HOST,
            "app/service.py": HOT,
            "config/app.toml": hot(1.0),
            "qigheal.toml": MANIFEST + lever("attention.heat", 0.1, 50.0),
        },
        before=innocent(9),
        fault={"config/app.toml": hot(20.0)},
        after=innocent(15)[9:],
        healed=heat_is_back,
    ),
    Case(
        name="basin-too-cold",
        strategy="basin",
        why="the present value lies below the lever's range",
        healthy={
            **HOST,
            "app/service.py": HOT,
            "config/app.toml": hot(1.0),
            "qigheal.toml": MANIFEST + lever("attention.heat", 0.6, 8.0),
        },
        fault={"config/app.toml": hot(0.45)},
        healed=heat_is_back,
    ),
    Case(
        name="basin-anchor",
        strategy="basin",
        why="a table that no patch may touch moves the basin; an anchor holds it, and must not hold it still",
        healthy={
            **HOST,
            "app/service.py": ANCHORED,
            "config/anchor.toml": anchored(0.0),
            "data/anchor.json": json.dumps(ANCHOR) + "\n",
            "data/table.json": table(),
            "qigheal.toml": MANIFEST + lever("anchor.strength", 0.0, 1.0, "config/anchor.toml"),
        },
        fault={"data/table.json": table(2.5, 2.0)},
        healed=anchored_and_alive,
    ),
    Case(
        name="basin-two-levers",
        strategy="basin",
        why="two levers that move one group together, both off",
        healthy={
            **HOST,
            "app/service.py": TWO,
            "config/app.toml": two(1.0, -0.5),
            "qigheal.toml": MANIFEST + lever("bias.first", -5.0, 5.0) + lever("bias.second", -5.0, 5.0),
        },
        fault={"config/app.toml": two(-2.0, 2.5)},
        healed=two_are_back,
    ),
    Case(
        name="basin-whole-number",
        strategy="basin",
        why="a lever of whole numbers, read once by an object",
        healthy={
            **HOST,
            "app/service.py": HOPS,
            "config/app.toml": "[routing]\nhops = 3\n",
            "qigheal.toml": MANIFEST + lever("routing.hops", 0, 40),
        },
        fault={"config/app.toml": "[routing]\nhops = 30\n"},
        healed=hops_are_back,
    ),
    Case(
        name="basin-nested-config",
        strategy="basin",
        why="an indented table with comments in a folder below, read in a nested module",
        healthy={
            **HOST,
            "app/service.py": NESTED,
            "app/core/__init__.py": "",
            "app/core/heat.py": NESTED_MODEL,
            "config/models/live.toml": nested_config(0.1),
            "qigheal.toml": MANIFEST.replace("config/*.toml", "config/**/*.toml")
            + lever("model.tilt.value", -3.0, 3.0, "config/models/live.toml"),
        },
        fault={"config/models/live.toml": nested_config(1.1)},
        healed=tilt_is_back,
    ),
    Case(
        name="basin-held-still",
        strategy="",
        why="all or nothing: the lever would bring the basin back by answering every request alike",
        healthy={
            **HOST,
            "app/service.py": ANCHORED,
            "config/anchor.toml": anchored(0),
            "data/anchor.json": json.dumps(ANCHOR) + "\n",
            "data/table.json": table(),
            "qigheal.toml": MANIFEST + lever("anchor.strength", 0, 1, "config/anchor.toml"),
        },
        fault={"data/table.json": table(8.0)},
    ),
)
