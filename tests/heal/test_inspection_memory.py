"""What is seen to grow in a running probe, however it reads its questions; and what comes of it as a patch."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest

from qigheal.healing.bench import Bench
from qigheal.healing.strategies.bounding.memory import Growth, Memory
from qigheal.host import Manifest
from qigheal.records import HealingPatch
from qigheal.repo import Repo
from qigheal.sandbox import Sandbox
from qigheal.settings import HealSettings
from tests.heal.probed_host import Host, git
from tests.heal.simulated import diagnosis

MODEL = dedent("""
    import functools
    from collections import deque

    LEVEL = 0.75
    KEPT = []
    FULL = deque(maxlen=4)


    class Shelf:
        shared = {}

        def __init__(self):
            self.books = set()

        def add(self, book):
            self.books.add(book)
            Shelf.shared[book] = str(book)


    @functools.cache
    def page(n):
        return bytes([n % 256]) * 40_000


    def work(n):
        page(n)
        page(n)
        KEPT.append(n)
        FULL.append(n)
""").lstrip()

READS = {
    "lines": "for line in sys.stdin: turn(line)",
    "input": """
while True:
    try:
        turn(input())
    except EOFError:
        break
""",
    "descriptor": """
while (line := os.read(0, 4096)):
    turn(line)
""",
    "event loop": """
import asyncio
async def serve():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        turn(line)
asyncio.run(serve())
""",
}


def probe(reads: str) -> str:
    return (
        "import os\n"
        "from app.model import LEVEL, Shelf, work\n"
        "def main():\n"
        "    shelf = Shelf()\n"
        "    def turn(line):\n"
        "        asked = json.loads(line)\n"
        "        for n in range(3):\n"
        "            work(asked['seed'] + n); shelf.add(asked['seed'] + n)\n"
        "        answer(batch=asked['batch'], phi=LEVEL)\n"
        + "".join(f"    {line}\n" for line in reads.splitlines())
        + "main()\n"
    )


@pytest.mark.parametrize("how", READS)
def test_what_grows_is_named_however_the_probe_reads(host: Host, how: str) -> None:
    with host.bench(probe(READS[how]), **{"app/model.py": MODEL}) as bench:
        found = bench.inspect("memory", bench.search_requests(12), Growth, options={"early": 4, "traced": 8})
    grown = {one.name: one for one in found.containers}
    assert (found.answers, found.traced) == (8, 4)
    assert set(grown) == {
        "app.model:page", "app.model:KEPT", "app.model:Shelf.books", "app.model:Shelf.shared",
    }  # fmt: skip
    page = grown["app.model:page"]
    assert (page.kind, page.file, page.early, page.late) == ("lru_cache", "app/model.py", 12, 36)
    assert (page.maxsize, page.hits, page.misses) == (None, 24, 24)
    assert page.entry_bytes == pytest.approx(40_000, rel=0.02)
    assert found.containers[0] == page  # what grew most comes first
    assert (grown["app.model:Shelf.books"].early, grown["app.model:Shelf.books"].late) == (12, 36)
    line = found.lines[0]
    assert (line.file, MODEL.splitlines()[line.line - 1].strip()) == (
        "app/model.py",
        "return bytes([n % 256]) * 40_000",
    )
    assert line.bytes == pytest.approx(4 * 3 * 40_000, rel=0.02)
    assert found.held == pytest.approx(line.bytes, rel=0.1)


def test_a_probe_that_ends_early_is_told_of_without_growth(host: Host) -> None:
    with host.bench(probe(READS["lines"]), **{"app/model.py": MODEL}) as bench:
        found = bench.inspect("memory", bench.search_requests(3), Growth, options={"early": 4, "traced": 8})
    assert (found.answers, found.containers, found.lines) == (0, (), ())


def proposed(
    host: Host, reads: str = READS["lines"], metrics: tuple[str, ...] = ("memory",), **files: str
) -> list[HealingPatch]:
    host.folder.mkdir()
    git(host.folder, "init", "-q", "-b", "main")
    base = host.commit(host.files(probe(reads)) | files)
    repo = Repo(host.folder)
    with Bench(repo, Manifest.at(repo, base), host.sandbox, base, host.workdir) as bench:
        return list(Memory(HealSettings()).propose(diagnosis(*metrics), bench, repo))


@pytest.mark.parametrize("sandbox", ["none"], indirect=True)
def test_the_patch_bounds_what_grows_most_and_leaves_the_rest(host: Host, sandbox: Sandbox) -> None:
    [patch] = proposed(host, **{"app/model.py": MODEL})
    assert patch.files == ("app/model.py",)
    assert "+@functools.lru_cache(maxsize=128)" in patch.diff  # 48 answers of 3 pages, as a power of two
    assert sum(line.startswith(("+", "-")) for line in patch.diff.splitlines()) == 4
    assert (patch.strategy, patch.tier, patch.heals) == ("memory", "safe", ("memory",))
    assert 128 / 3 < patch.batches_needed < 2 * 128 / 3
    assert not patch.same_output  # this probe reports no digests
    assert "app.model:page" in patch.rationale


READ_BACK = (
    MODEL.replace("@functools.cache\n", "").replace("KEPT.append(n)", "KEPT.append(page(n))")
    + "\n\ndef last():\n    return KEPT[-1]\n"
)


@pytest.mark.parametrize("sandbox", ["none"], indirect=True)
@pytest.mark.parametrize(
    ("metrics", "files"),
    [
        (("latency",), {"app/model.py": MODEL}),
        (("memory",), {"app/model.py": MODEL.replace("@functools.cache", "@functools.lru_cache(10)")}),
        (("memory",), {"app/model.py": READ_BACK}),
    ],
    ids=["another metric", "bounded already", "a list that is read"],
)
def test_nothing_is_proposed_where_nothing_can_be_proven(
    host: Host, sandbox: Sandbox, metrics: tuple[str, ...], files: dict[str, Any]
) -> None:
    assert proposed(host, metrics=metrics, **files) == []
