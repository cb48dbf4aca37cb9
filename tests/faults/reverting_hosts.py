"""What the hosts of the revert strategy's cases run, before and after the commit that did it."""

from __future__ import annotations

from tests.faults.corpus import PROBE, Files

SERVICE = '''
    """Attends to what is remembered."""

    from app import memory

    HEADLINE = "first"


    def scores(query):
        """The nearer, the higher."""
        far = memory.distances(query)
        return [-d for d in far]


    def attention(query):
        """The weight of every remembered point."""
        found = scores(query)
        return memory.softmax(found)


    def describe():
        """For the log."""
        return f"{HEADLINE}: {len(memory.KEYS)} points"
'''
FLAT = SERVICE.replace("return [-d for d in far]", "return [-(d ** 0.5) / 2 for d in far]")
assert FLAT != SERVICE


def headline(text: str, number: int) -> str:
    return text.replace('"first"', f'"innocent {number}"')


def innocent(count: int, start: int = 0) -> tuple[Files, ...]:
    return tuple({f"app/note{number}.py": f"NOTE = {number}\n"} for number in range(start, start + count))


SCORING = '''
    """How a distance becomes a score."""


    def scored(distance, scale):
        return -distance * scale
'''
SCORING_AFTER = '''
    """How a distance becomes a score; scales are given as their inverse."""


    def scored(distance, width):
        return -distance / width / width
'''
SCORED = """
    from app import memory
    from app.scoring import scored

    SCALE = 1.5


    def attention(query):
        return memory.softmax([scored(d, scale=SCALE) for d in memory.distances(query)])
"""
SCORED_AFTER = """
    from app import memory
    from app.scoring import scored

    WIDTH = 3.5


    def attention(query):
        return memory.softmax([scored(d, width=WIDTH) for d in memory.distances(query)])
"""

ASYNC = '''
    """Asks its shards at once, and joins what they say."""

    import asyncio

    from app import memory

    LOOP = asyncio.new_event_loop()


    class Shard:
        def __init__(self, part, parts):
            self.places = range(part, len(memory.KEYS), parts)

        async def scores(self, far):
            await asyncio.sleep(0)
            return {place: -1.4 * far[place] for place in self.places}


    SHARDS = [Shard(part, 3) for part in range(3)]


    async def attend(query):
        far = memory.distances(query)
        found = {}
        for part in await asyncio.gather(*(shard.scores(far) for shard in SHARDS)):
            found.update(part)
        return memory.softmax([found[place] for place in sorted(found)])


    def attention(query):
        return LOOP.run_until_complete(attend(query))
'''
ASYNC_AFTER = ASYNC.replace("found.update(part)", "found.update({k: v / 9 for k, v in part.items()})")
assert ASYNC_AFTER != ASYNC

NESTED = """
    from app import memory
    from app.core.limits import constants


    def attention(query):
        return memory.softmax([-d / constants.TEMPERATURE for d in memory.distances(query)])
"""


def constants(temperature: float) -> str:
    return f"# Chosen by hand.\nHEADS = 1\nTEMPERATURE = {temperature}\nLABELS = 10\n"


LOOKUP = '''
    """Prices by name; the table is filled while the service runs."""

    TABLE = {}
    ROWS = [(f"name {number:05d}", number * 7 % 1000) for number in range(20_000)]


    def fill():
        if not TABLE:
            TABLE.update(ROWS)


    def price(name):
        fill()
        return TABLE[name]


    def answer(request):
        return [price(f"name {(request * 31 + step) % 20_000:05d}") for step in range(120)][-1]
'''
SCAN = LOOKUP.replace(
    """        fill()
        return TABLE[name]""",
    """        for known, value in ROWS[: 200 + len(name)]:
            if known == name:
                return value
        fill()
        return TABLE[name]""",
)
assert SCAN != LOOKUP

# What is answered is another price, more slowly: a feature, for all that a probe without digests shows.
FEATURE = SCAN.replace("return value\n", "return value + 1\n").replace(
    "return TABLE[name]", "return TABLE[name] + 1"
)
assert FEATURE.count("+ 1") == 2
SILENT = "\n".join(line for line in PROBE.splitlines() if "output_digest" not in line) + "\n"
assert "output_digest" not in SILENT

TAKES = '''
    """Takes amounts."""


    class Refused(ValueError):
        pass


    def answer(request):
        amount = request - 300
        return round(amount * 0.029, 2)
'''
REFUSES = TAKES.replace(
    "amount = request - 300\n",
    """amount = request - 300
        if amount <= 0:
            raise Refused(amount)
""",
)
assert REFUSES != TAKES

SETTLES = """
    '''Attends, and goes over the weights until they are settled.'''

    from app import memory

    ROUNDS = 8


    def attention(query):
        weights = memory.softmax([-d / 4 for d in memory.distances(query)])
        for _ in range(ROUNDS):
            weights = [weight**1.2 for weight in weights]
            whole = sum(weights)
            weights = [weight / whole for weight in weights]
        return weights
"""
HASTY = SETTLES.replace("ROUNDS = 8", "ROUNDS = 4")

KEPT = '''
    """Answers, and counts what was answered."""

    COUNTS = {"answers": 0}


    def note(text):
        COUNTS["answers"] += 1


    def answer(request):
        text = f"{request:06d}" * 400
        note(text)
        return f"{text[:6]} of {len(text)}"


    def answered():
        return COUNTS["answers"]
'''
KEEPS = '''
    """Answers, and remembers what was answered."""

    ANSWERS = []


    def note(text):
        ANSWERS.append([text + str(len(ANSWERS)), list(text)])


    def answer(request):
        text = f"{request:06d}" * 400
        note(text)
        return f"{text[:6]} of {len(text)}"


    def answered():
        return len(ANSWERS)


    def last():
        return ANSWERS[-1][0]
'''

PARSE = '''
    """Parses what it is sent; one request of twenty is beyond it."""

    import tomllib
    from pathlib import Path

    SETTINGS = tomllib.loads(Path("config/app.toml").read_text())


    def gain():
        return SETTINGS["gain"]


    def text_of(request):
        return "?" if request % 20 == 7 else f"{request}"


    def answer(request):
        return int(text_of(request)) * 3
'''
MISPARSE = PARSE.replace('f"{request}"', 'f"{request}" if request % 3 else f"{request}.0"')
assert MISPARSE != PARSE
PARSING: Files = {
    "app/service.py": PARSE,
    "config/app.toml": "gain = 1.0\n",
    "tests/test_service.py": "import unittest\n",
}

READS_FORBIDDEN = """
    import tomllib
    from pathlib import Path

    SETTINGS = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["service"]


    def gain():
        return SETTINGS["gain"]


    def answer(request):
        return request * 7 % 1000
"""

STRETCHES = '''
    """Compares passwords by digests that are to cost whoever guesses."""

    import hashlib
    import tomllib
    from pathlib import Path

    ROUNDS = tomllib.loads(Path("config/app.toml").read_text())["rounds"]


    def stretched(password):
        digest = password.encode()
        for _ in range(ROUNDS):
            digest = hashlib.sha256(digest).digest()
        return digest


    def answer(request):
        return stretched(f"word {request % 9}") == stretched(f"word {request % 7}")
'''
