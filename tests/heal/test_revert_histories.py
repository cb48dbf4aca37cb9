"""What may not be taken back, or only in part: merges, later changes, forbidden files, the healer's own commits."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from qigheal.repo import Repo
from tests.heal.gitfix import Place
from tests.heal.revertbench import COMMITS, MANIFEST, FakeBench, after, diagnosis, low_phi, part, propose


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
