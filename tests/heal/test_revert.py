"""The bad commit is found and taken back: real commits, and a bench whose answers are a formula of them.

Each commit of the line switches on a file of its own, so that what the probe sees of a tree is the set of
switches that are on in it.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qigheal.errors import ProbeError
from qigheal.healing.strategies.reverting.bisection import bisect
from qigheal.healing.strategies.reverting.revert import STARTS, Revert
from qigheal.host import Manifest
from qigheal.records import Answer, BandOf, Diagnosis, HealingPatch, Target
from qigheal.repo import Repo
from qigheal.settings import HealSettings
from tests.heal.gitfix import Place

COMMITS = 16
MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
protect = ["app/probe.py"]
[patch]
allow = ["app/**/*.py"]
"""
BANDS = {
    "phi": BandOf(mean=0.75, sd=0.01, low=0.72, high=0.78),
    "kappa": BandOf(mean=64.0, sd=1.0, low=61.0, high=67.0),
    "basin_drift": BandOf(mean=0.1, sd=0.02, low=0.0, high=0.2),
    "latency": BandOf(mean=5.0, sd=0.5, low=2.0, high=8.0),
    "errors": BandOf(mean=0.01, sd=0.01, low=0.0, high=0.04),
    "memory": BandOf(mean=0.0, sd=0.01, low=-0.3, high=0.3),
}
On = frozenset[int]
Respond = Callable[[On, int, int], dict[str, Any]]
"""From the switches that are on, the batch, and how many answers the probe gave before: fields of an answer."""


@dataclass
class FakeBench:
    """Probes that answer by the switches of the tree that they run on."""

    repo: Repo
    respond: Respond
    broken: On = frozenset()  # switches whose own commit cannot be probed
    base: str = ""
    manifest: Manifest = field(default_factory=lambda: Manifest.parse(MANIFEST))
    asked: list[tuple[str | None, list[tuple[int, int]]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base = self.base or self.repo.head()

    def search_requests(self, count: int, start: int = 0) -> list[tuple[int, int]]:
        return [(i, 11) for i in range(start, start + count)]

    @contextmanager
    def probe(self, name: str | None = None) -> Iterator[SimpleNamespace]:
        tree = name or self.base
        on = self.on(self.repo.apply(self.base, tree) if "\n" in tree else tree)
        if on and max(on) in self.broken and name is not None and "\n" not in name:
            raise ProbeError("it does not start")
        requests: list[tuple[int, int]] = []
        self.asked.append((name, requests))

        def ask(batch: int, seed: int) -> Answer:
            fields = {
                "phi": 0.75,
                "kappa_eff": 64.0,
                "basin": (0.5, 0.3, 0.2),
                "error_rate": 0.01,
                "avg_latency_ms": 1.0,
                "wall_ms": 5.0,
                "cpu_ms": 5.0,
                "rss_mb": 50.0,
            }
            fields |= self.respond(on, batch, len(requests))
            requests.append((batch, seed))
            return Answer(batch=batch, **fields)  # type: ignore[arg-type]

        yield SimpleNamespace(ask=ask)

    def on(self, tree: str) -> On:
        found = set()
        for path, entry in self.repo.entries(tree).items():
            if path.startswith("app/part"):
                if entry.sha not in BLOBS:
                    BLOBS[entry.sha] = self.repo.read(tree, path).startswith(b"ON = True")
                if BLOBS[entry.sha]:
                    found.add(int(path.removeprefix("app/part").removesuffix(".py")))
        return frozenset(found)


BLOBS: dict[str, bool] = {}
"""Whether a file of this content is on: starting git for each of sixteen takes longer than the rest."""


def part(on: bool) -> str:
    return f"ON = {on}\n"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, list[str]]:
    """A repository of sixteen commits after the healthy one; commit n switches part n on."""
    files = {f"app/part{number}.py": part(False) for number in range(1, COMMITS + 1)}
    place = Place(tmp_path_factory.mktemp("line") / "host", {**files, "qigheal.toml": MANIFEST})
    commits = [place.base]
    for number in range(1, COMMITS + 1):
        place.write(f"app/part{number}.py", part(True))
        commits.append(place.commit(f"Switch part {number} on"))
    return place, commits


def diagnosis(healthy: str, *metrics: str, **changed: Any) -> Diagnosis:
    fields: dict[str, Any] = {
        "metrics": metrics or ("phi",),
        "findings": (),
        "severity": "critical",
        "target": Target(
            geometry="simplex",
            basin=tuple(math.sqrt(p) for p in (0.5, 0.3, 0.2)),
            drift_limit=0.2,
            bands=BANDS,
        ),
        "observed": {},
        "code_hash": "c0ffee",
        "healthy_code_hash": healthy,
        "since": None,
        "snapshots": 50,
    }
    return Diagnosis(**(fields | changed))


def propose(bench: FakeBench, found: Diagnosis) -> list[HealingPatch]:
    return list(Revert(HealSettings()).propose(found, bench, bench.repo))  # type: ignore[arg-type]


def low_phi(guilty: int) -> Respond:
    def respond(on: On, batch: int, count: int) -> dict[str, Any]:
        noise = random.Random(f"{batch}").gauss(0, 0.008)
        return {"phi": (0.4 if guilty in on else 0.75) + noise}

    return respond


def after(bench: FakeBench, patch: HealingPatch) -> On:
    """The switches that are on with the patch."""
    return bench.on(bench.repo.apply(bench.base, patch.diff))


# The bisection by itself


@pytest.mark.parametrize("end", range(1, 17))
def test_bisection_finds_every_position(end: int) -> None:
    for guilty in range(1, end + 1):
        asked: list[int] = []

        def changed(position: int, guilty: int = guilty, asked: list[int] = asked) -> bool:
            asked.append(position)
            return position >= guilty

        assert bisect(end, changed) == (guilty, ())
        assert len(asked) <= math.ceil(math.log2(end))
        assert all(0 < position < end for position in asked)


def test_bisection_passes_over_what_cannot_be_measured() -> None:
    draw = random.Random(5)
    found = 0
    for _ in range(300):
        end = draw.randint(2, 16)
        guilty = draw.randint(1, end)
        broken = {position for position in range(1, end) if draw.random() < 0.3}
        result = bisect(end, lambda p, g=guilty, b=broken: None if p in b else p >= g)
        certain = guilty not in broken and guilty - 1 not in broken
        assert result.guilty == (guilty if certain else None)
        assert set(result.skipped) <= broken
        found += certain
    assert 100 < found < 300


# The strategy


@pytest.mark.parametrize("guilty", range(1, COMMITS + 1))
def test_finds_the_commit_wherever_it_lies(line: tuple[Place, list[str]], guilty: int) -> None:
    place, commits = line
    bench = FakeBench(Repo(place.path), low_phi(guilty))
    [patch] = propose(bench, diagnosis(commits[0]))
    assert after(bench, patch) == set(range(1, COMMITS + 1)) - {guilty}
    assert (patch.strategy, patch.tier, patch.base, patch.heals) == ("revert", "safe", commits[-1], ("phi",))
    assert patch.parameters["commits"] == COMMITS
    measured = {name for name, _ in bench.asked}
    assert len(measured) == patch.parameters["probes"] <= 2 + 4 + 1
    assert len(bench.asked) == len(measured) + 2 * STARTS - 1
    assert patch.searched == sum(len(requests) for _, requests in bench.asked)
    assert f'{commits[guilty][:10]} "Switch part {guilty} on"' in patch.rationale
    assert "Φ 0.4" in patch.rationale
    assert "and 0.7" in patch.rationale


def test_every_commit_answers_the_same_and_the_reverse_fresh_requests(line: tuple[Place, list[str]]) -> None:
    place, commits = line
    bench = FakeBench(Repo(place.path), low_phi(3))
    assert propose(bench, diagnosis(commits[0]))
    measured, confirming = bench.asked[: -2 * STARTS], bench.asked[-2 * STARTS :]
    assert all(requests == measured[0][1] for _, requests in measured)
    seen = set(measured[0][1])
    for one, other in zip(confirming[::2], confirming[1::2], strict=True):
        assert one[1] == other[1]
        assert {one[0] is None, other[0] is None} == {True, False}
        assert not seen & set(one[1])
        seen |= set(one[1])


def test_a_process_that_was_healthy_by_luck_proves_nothing(line: tuple[Place, list[str]]) -> None:
    """Without part 5 it is well in the first start alone."""
    place, commits = line
    starts: list[int] = []

    def respond(on: On, batch: int, count: int) -> dict[str, Any]:
        whole = len(on) == COMMITS - 1
        if whole and count == 0:
            starts.append(batch)
        return {"phi": 0.4 if 5 in on or (whole and len(starts) > 1) else 0.75}

    assert not propose(FakeBench(Repo(place.path), respond), diagnosis(commits[0]))
    assert len(starts) == 2


def test_the_same_input_gives_the_same_patch(line: tuple[Place, list[str]]) -> None:
    place, commits = line
    first, second = (
        propose(FakeBench(Repo(place.path), low_phi(9)), diagnosis(commits[0])) for _ in range(2)
    )
    assert first == second


def test_commits_that_cannot_be_probed_are_passed_over_and_named(line: tuple[Place, list[str]]) -> None:
    place, commits = line
    bench = FakeBench(Repo(place.path), low_phi(11), broken=frozenset({7, 8, 9}))
    [patch] = propose(bench, diagnosis(commits[0]))
    assert after(bench, patch) == set(range(1, COMMITS + 1)) - {11}
    assert commits[8][:10] in patch.rationale


@pytest.mark.parametrize("broken", [{6}, {5}, {4, 5, 6, 7}])
def test_nothing_is_taken_back_on_a_guess(
    line: tuple[Place, list[str]], broken: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    place, commits = line
    bench = FakeBench(Repo(place.path), low_phi(6), broken=frozenset(broken))
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(bench, diagnosis(commits[0]))
    assert "one of them may be the guilty one" in caplog.text
    assert commits[max(broken & {5, 6})][:10] in caplog.text


def test_of_two_faults_it_takes_back_the_one_of_the_worst_metric(line: tuple[Place, list[str]]) -> None:
    place, commits = line

    def respond(on: On, batch: int, count: int) -> dict[str, Any]:
        return {"phi": 0.4 if 4 in on else 0.75, "error_rate": 0.5 if 12 in on else 0.01}

    for worst, other, guilty in (("errors", "phi", 12), ("phi", "errors", 4)):
        bench = FakeBench(Repo(place.path), respond)
        [patch] = propose(bench, diagnosis(commits[0], worst, other))
        assert after(bench, patch) == set(range(1, COMMITS + 1)) - {guilty}
        assert patch.heals == (worst,)


def test_a_commit_that_did_several_things_is_said_to_heal_them_all(line: tuple[Place, list[str]]) -> None:
    place, commits = line

    def respond(on: On, batch: int, count: int) -> dict[str, Any]:
        bad = 5 in on
        return {"kappa_eff": 90.0 if bad else 64.0, "basin": (0.1, 0.1, 0.8) if bad else (0.5, 0.3, 0.2)}

    [patch] = propose(
        FakeBench(Repo(place.path), respond), diagnosis(commits[0], "kappa", "basin_drift", "phi")
    )
    assert patch.heals == ("kappa", "basin_drift")
    assert "drift 1." in patch.rationale


def test_of_two_faults_in_one_metric_the_larger_is_found(line: tuple[Place, list[str]]) -> None:
    place, commits = line

    def respond(on: On, batch: int, count: int) -> dict[str, Any]:
        return {"phi": 0.75 - 0.1 * (2 in on) - 0.4 * (10 in on)}

    bench = FakeBench(Repo(place.path), respond)
    [patch] = propose(bench, diagnosis(commits[0]))
    assert 10 not in after(bench, patch)


def test_no_patch_where_the_commit_alone_does_not_explain_it(
    line: tuple[Place, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """Either of two commits is enough to make it ill: one taken back heals nothing."""
    place, commits = line

    def respond(on: On, batch: int, count: int) -> dict[str, Any]:
        return {"phi": 0.4 if on & {3, 8} else 0.75}

    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(FakeBench(Repo(place.path), respond), diagnosis(commits[0]))
    assert "alone does not heal phi" in caplog.text


def test_latency_is_compared_side_by_side(line: tuple[Place, list[str]]) -> None:
    """The machine grows slower all the while, by more than the fault; both of a pair feel it alike."""
    place, commits = line
    answered = 0

    def respond(on: On, batch: int, count: int) -> dict[str, Any]:
        nonlocal answered
        answered += 1
        return {"wall_ms": (3.0 if 13 in on else 1.0) * 1.004**answered, "waited_ms": 0.0}

    bench = FakeBench(Repo(place.path), respond)
    [patch] = propose(bench, diagnosis(commits[0], "latency", observed={"latency": 15.0}))
    assert after(bench, patch) == set(range(1, COMMITS + 1)) - {13}
    assert "latency 15 and 5 ms" in patch.rationale


def test_latency_that_the_probe_does_not_show_is_not_bisected(line: tuple[Place, list[str]]) -> None:
    place, commits = line
    bench = FakeBench(Repo(place.path), lambda on, batch, count: {"wall_ms": 5.0})
    assert not propose(bench, diagnosis(commits[0], "latency", observed={"latency": 30.0}))


def test_memory_growth_is_measured_once_caches_have_filled(line: tuple[Place, list[str]]) -> None:
    place, commits = line

    def respond(on: On, batch: int, count: int) -> dict[str, Any]:
        return {"rss_mb": 50.0 + min(count, 20) * 2.0 + (0.5 * count if 2 in on else 0.0)}

    bench = FakeBench(Repo(place.path), respond)
    [patch] = propose(bench, diagnosis(commits[0], "memory", observed={"memory": 1.0}))
    assert after(bench, patch) == set(range(1, COMMITS + 1)) - {2}
    assert patch.batches_needed == 20
    assert "memory growth 1 and 0 MB" in patch.rationale


def test_stops_when_the_present_code_measures_healthy(line: tuple[Place, list[str]]) -> None:
    place, commits = line
    bench = FakeBench(Repo(place.path), lambda on, batch, count: {})
    assert not propose(bench, diagnosis(commits[0], "phi", "errors", "basin_drift"))
    assert [name for name, _ in bench.asked] == [None]


def test_stops_when_the_healthy_commit_measures_unwell(
    line: tuple[Place, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    place, commits = line
    bench = FakeBench(Repo(place.path), lambda on, batch, count: {"phi": 0.4})
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(bench, diagnosis(commits[0]))
    assert [name for name, _ in bench.asked] == [None, commits[0]]
    assert "measures unwell in phi as well" in caplog.text


@pytest.mark.parametrize("end", ["present", "healthy"])
def test_an_end_that_cannot_be_probed_ends_it(line: tuple[Place, list[str]], end: str) -> None:
    place, commits = line

    def respond(on: On, batch: int, count: int) -> dict[str, Any]:
        if bool(on) == (end == "present"):
            raise ProbeError("no answer")
        return {"phi": 0.4}

    assert not propose(FakeBench(Repo(place.path), respond), diagnosis(commits[0]))


def test_metrics_without_a_learned_band_are_left_alone(line: tuple[Place, list[str]]) -> None:
    place, commits = line
    bench = FakeBench(Repo(place.path), low_phi(3))
    target = Target(geometry="simplex", basin=(1.0, 0.0, 0.0), drift_limit=0.2, bands={})
    assert not propose(bench, diagnosis(commits[0], "phi", target=target))
    assert not bench.asked


@pytest.mark.parametrize(
    "healthy",
    ["", "unknown", "main", "HEAD~3", "--all", "../../etc", "deadbeef" * 5, "deadbee", "C0FFEE00", "x" * 40],
)
def test_a_hash_that_names_no_commit_here_starts_nothing(line: tuple[Place, list[str]], healthy: str) -> None:
    place, _ = line
    bench = FakeBench(Repo(place.path), low_phi(3))
    assert not propose(bench, diagnosis(healthy))
    assert not bench.asked


def test_a_hash_may_be_abbreviated_and_lie_anywhere_on_the_line(line: tuple[Place, list[str]]) -> None:
    place, commits = line
    bench = FakeBench(Repo(place.path), low_phi(12))
    [patch] = propose(bench, diagnosis(commits[8][:9]))
    assert after(bench, patch) == set(range(1, COMMITS + 1)) - {12}
    assert patch.parameters["commits"] == 8


def test_a_branch_with_the_name_of_a_hash_is_not_taken_for_it(line: tuple[Place, list[str]]) -> None:
    place, commits = line
    place.git("branch", "abcdef1234", commits[2])
    bench = FakeBench(Repo(place.path), low_phi(12))
    assert not propose(bench, diagnosis("abcdef1234"))
    assert not bench.asked


def test_the_present_code_or_a_later_one_leaves_nothing_to_take_back(line: tuple[Place, list[str]]) -> None:
    place, commits = line
    for healthy, base in ((commits[-1], commits[-1]), (commits[9], commits[4])):
        bench = FakeBench(Repo(place.path), low_phi(3), base=base)
        assert not propose(bench, diagnosis(healthy))
        assert not bench.asked


# Repositories of their own


def host(folder: Path, **files: str) -> Place:
    parts = {f"app/part{number}.py": part(False) for number in range(1, COMMITS + 1)}
    return Place(folder / "host", {**parts, "qigheal.toml": MANIFEST, **files})


def switch(place: Place, *numbers: int, message: str = "A change") -> str:
    for number in numbers:
        place.write(f"app/part{number}.py", part(True))
    return place.commit(message)


def test_a_later_change_of_the_same_lines_forbids_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = host(tmp_path)
    switch(place, 1)
    place.write("app/part1.py", "ON = True  # on purpose\n")
    place.commit("Say why")
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(FakeBench(Repo(place.path), low_phi(1)), diagnosis(place.base))
    assert "app/part1.py" in caplog.text


def test_later_changes_elsewhere_in_the_file_are_kept(tmp_path: Path) -> None:
    place = host(tmp_path)
    body = "".join(f"LINE_{number} = {number}\n" for number in range(6))
    place.write("app/part1.py", part(False) + body)
    healthy = place.commit("A longer file")
    place.write("app/part1.py", part(True) + body)
    place.commit("Switch it on")
    place.write("app/part1.py", part(True) + body.replace("LINE_2 = 2", "LINE_2 = 22"))
    place.commit("Another line")
    bench = FakeBench(Repo(place.path), low_phi(1))
    [patch] = propose(bench, diagnosis(healthy))
    tree = bench.repo.apply(bench.base, patch.diff)
    assert bench.repo.read(tree, "app/part1.py").decode() == part(False) + body.replace("= 2\n", "= 22\n", 1)


def test_a_merge_is_taken_back_against_its_first_parent(tmp_path: Path) -> None:
    place = host(tmp_path)
    place.git("switch", "-q", "-c", "side")
    switch(place, 2, message="Half of it")
    switch(place, 3, message="The other half")
    place.git("switch", "-q", "main")
    switch(place, 7, message="Meanwhile")
    place.git("merge", "-q", "--no-ff", "-m", "Merge side", "side")
    switch(place, 8, message="Later")
    bench = FakeBench(Repo(place.path), low_phi(3))
    [patch] = propose(bench, diagnosis(place.base))
    assert after(bench, patch) == {7, 8}
    assert '"Merge side"' in patch.rationale
    assert patch.parameters["commits"] == 3


def test_a_healthy_commit_on_a_merged_branch_is_a_beginning_too(tmp_path: Path) -> None:
    place = host(tmp_path)
    place.git("switch", "-q", "-c", "side")
    healthy = switch(place, 2)
    place.git("switch", "-q", "main")
    switch(place, 7)
    place.git("merge", "-q", "--no-ff", "-m", "Merge side", "side")
    switch(place, 8)
    bench = FakeBench(Repo(place.path), low_phi(8))
    [patch] = propose(bench, diagnosis(healthy))
    assert after(bench, patch) == {2, 7}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("data/table.txt", "not allowed"),
        ("app/probe.py", "protected"),
        ("pyproject.toml", "decides how"),
    ],
)
def test_a_commit_that_touched_a_forbidden_file_is_not_taken_back(
    tmp_path: Path, path: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = host(tmp_path)
    place.write(path, "changed\n")
    switch(place, 1)
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(FakeBench(Repo(place.path), low_phi(1)), diagnosis(place.base))
    assert said in caplog.text


def test_a_commit_too_large_for_a_patch_is_not_taken_back(tmp_path: Path) -> None:
    place = host(tmp_path)
    place.write("app/more.py", "LINE = 1\n" * 100)
    switch(place, 1)
    assert not propose(FakeBench(Repo(place.path), low_phi(1)), diagnosis(place.base))


def test_the_healers_own_commits_are_left_to_the_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = host(tmp_path)
    switch(place, 1, message="Merge qigheal/attention-1\n\nTurns it.\n\nQigheal-Change: 0123456789abcdef")
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(FakeBench(Repo(place.path), low_phi(1)), diagnosis(place.base))
    assert "the healer's own" in caplog.text


def test_a_subject_is_data_in_one_printable_line(tmp_path: Path) -> None:
    place = host(tmp_path)
    switch(place, 1, message="\x1b[31mred\t" + "long " * 40 + "\n\nSays Qigheal-Change: nothing\nof the kind")
    [patch] = propose(FakeBench(Repo(place.path), low_phi(1)), diagnosis(place.base))
    assert patch.rationale.isprintable()
    assert "[31mred long" in patch.rationale
    assert len(patch.rationale) < 400
