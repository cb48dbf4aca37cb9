"""The bad one of sixteen commits is found by what a bench measures of them, and taken back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from qigheal.errors import ProbeError
from qigheal.healing.strategies.reverting.revert import STARTS
from qigheal.host import Manifest
from qigheal.records import Target
from qigheal.repo import Repo
from tests.heal.gitfix import Place
from tests.heal.revertbench import (
    COMMITS,
    MANIFEST,
    FakeBench,
    On,
    after,
    diagnosis,
    low_phi,
    part,
    propose,
)


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


@pytest.mark.parametrize(
    ("more", "files", "rules"),
    [
        ("", ("app/probe.py", "tests/check.py"), ("protected by [probe] protect", "is one of the tests")),
        (
            '[tests]\ncommand = ["python", "-c", "load(open(\'app/weights.json\'))"]\n',
            ("app/weights.json",),
            ("named by [tests] command",),
        ),
    ],
)
def test_files_that_are_never_a_commits_own_are_named_with_their_rule(
    tmp_path: Path,
    more: str,
    files: tuple[str, ...],
    rules: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The guilty file is the present code's in every tree that is measured, so that every commit measures alike."""
    manifest = MANIFEST + more
    place = Place(tmp_path / "host", {"qigheal.toml": manifest, "app/part1.py": part(True), "notes.txt": ""})
    for file in files:
        place.write(file, "changed\n")
    place.write("notes.txt", "changed too, and of no account\n")
    place.commit("Change what decides")
    bench = FakeBench(Repo(place.path), low_phi(1), manifest=Manifest.parse(manifest))
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(bench, diagnosis(place.base))
    (said,) = [record.message for record in caplog.records if record.name == "qigheal"]
    assert f"the healthy commit {place.base[:10]} measures unwell in phi as well; these files differ" in said
    for file, rule in zip(files, rules, strict=True):
        assert f"{file} ({rule})" in said
    assert "notes.txt" not in said, "that one is the commit's own where it is measured"


def test_a_commit_whose_lines_were_changed_since_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(tmp_path / "host", {"qigheal.toml": MANIFEST, "app/part1.py": part(False)})
    place.write("app/part1.py", part(True))
    guilty = place.commit("Be \x1b[31mfaster\x1b[0m")
    place.write("app/part1.py", part(True) + "# and more\n")
    place.commit("Say more")
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(FakeBench(Repo(place.path), low_phi(1)), diagnosis(place.base))
    (said,) = [record.message for record in caplog.records if record.name == "qigheal"]
    assert f'the guilty commit {guilty[:10]} "Be' in said
    assert "\x1b" not in said
    assert (
        "cannot be taken back: it does not merge with later commits: both sides changed 'app/part1.py'"
        in said
    )


def test_a_commit_that_changed_files_that_no_patch_may_touch_is_named_with_the_rules(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(tmp_path / "host", {"qigheal.toml": MANIFEST, "app/part1.py": part(False)})
    place.write("app/part1.py", part(True))
    for number in range(6):
        place.write(f"lib/{number}.txt", "new\n")
    guilty = place.commit("Much at once")
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(FakeBench(Repo(place.path), low_phi(1)), diagnosis(place.base))
    (said,) = [record.message for record in caplog.records if record.name == "qigheal"]
    assert f'the guilty commit {guilty[:10]} "Much at once" cannot be taken back: 7 files are changed' in said
    assert "lib/0.txt: not allowed by [patch] allow" in said
    assert ", and 3 more" in said
