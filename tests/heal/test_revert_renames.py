"""A commit is taken back in a file that was renamed since, where the file is certainly the one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from msgspec.structs import replace

from qigheal.errors import PatchError
from qigheal.repo import Repo
from tests.heal.gitfix import Place
from tests.heal.revertbench import MANIFEST, FakeBench, On, diagnosis, low_phi, part, propose

OLD, NEW = "app/part1.py", "app/inner/part1.py"
BODY = "".join(f"LINE_{number} = {number}\n" for number in range(20))
MORE = "".join(f"OTHER_{number} = {number}\n" for number in range(8))


class Line:
    """A healthy commit, one that switches a file on, and one that renames the file."""

    def __init__(self, folder: Path, manifest: str = MANIFEST) -> None:
        files = {OLD: part(False) + BODY, "app/other.py": "x = 1\n", "qigheal.toml": manifest}
        self.place = Place(folder / "host", files)
        self.healthy = self.place.base
        self.place.write(OLD, part(True) + BODY)
        self.guilty = self.place.commit("Switch it on")

    def renamed(self, **files: str) -> str:
        self.place.git("rm", "-q", OLD)
        for path, text in (
            {NEW: part(True) + BODY} | {key.replace("__", "/"): v for key, v in files.items()}
        ).items():
            self.place.write(path, text)
        return self.place.commit("Rename it")

    def merged(self) -> tuple[Repo, str]:
        repo = Repo(self.place.path)
        return repo, repo.merge(self.guilty, repo.head(), self.healthy)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_the_change_is_taken_back_where_the_file_is_now(line: Line) -> None:
    line.renamed()
    repo, tree = line.merged()
    assert repo.read(tree, NEW).decode() == part(False) + BODY
    assert OLD not in repo.entries(tree)
    assert [change.new_path for change in repo.changes(repo.head(), tree)] == [NEW]


def test_what_was_changed_with_the_name_and_after_it_stays(line: Line) -> None:
    line.renamed(**{"app__inner__part1.py": part(True) + BODY + "MORE = 1\n"})
    line.place.write(NEW, part(True) + BODY.replace("LINE_9 = 9", "LINE_9 = 99") + "MORE = 1\n")
    line.place.commit("Change it")
    repo, tree = line.merged()
    assert repo.read(tree, NEW).decode() == part(False) + BODY.replace("= 9\n", "= 99\n", 1) + "MORE = 1\n"


def test_a_name_that_git_calls_odd_is_followed(line: Line) -> None:
    line.place.git("mv", OLD, "app/part one ä\t1.py")
    line.place.commit("Rename it")
    repo, tree = line.merged()
    assert repo.read(tree, "app/part one ä\t1.py").decode() == part(False) + BODY


def test_other_settings_of_the_repository_change_nothing(line: Line) -> None:
    line.renamed(**{"app__inner__part1.py": part(True) + BODY + "MORE = 1\n"})
    line.place.git("config", "diff.renames", "false")
    line.place.git("config", "diff.renameLimit", "1")
    repo, tree = line.merged()
    assert repo.read(tree, NEW).decode() == part(False) + BODY + "MORE = 1\n"


@pytest.mark.parametrize(
    "files",
    [
        {"app__inner__part1.py": "ON = True  # on purpose\n" + BODY},
        {"app__inner__part1.py": part(True) + MORE},
        {"app__twin.py": part(True) + BODY},
        {"app__twin.py": part(True) + BODY.replace("LINE_3", "LINE_THREE")},
        {"app__inner__part1.py": "", "app__README.md": "It is gone.\n"},
    ],
    ids=["the same lines changed", "too little is left", "two such files", "two alike", "it is gone"],
)
def test_what_may_be_another_file_is_left_alone(line: Line, files: dict[str, str]) -> None:
    line.renamed(**files)
    with pytest.raises(PatchError, match=r"part1\.py"):
        line.merged()


def test_a_file_that_had_the_new_name_before_is_another(line: Line, tmp_path: Path) -> None:
    """Theirs has a file of the new name, which was taken away by the commit that is to be taken back."""
    place = Place(tmp_path / "other", {OLD: part(False) + BODY, NEW: MORE})
    healthy = place.base
    place.git("rm", "-q", NEW)
    place.write(OLD, part(True) + BODY)
    guilty = place.commit("Switch it on")
    place.git("rm", "-q", OLD)
    place.write(NEW, part(True) + BODY)
    place.commit("Rename it")
    repo = Repo(place.path)
    with pytest.raises(PatchError, match=r"inner/part1\.py"):
        repo.merge(guilty, repo.head(), healthy)


def test_a_renamed_file_that_became_executable_is_left_alone(line: Line) -> None:
    line.renamed()
    line.place.path.joinpath(NEW).chmod(0o755)
    line.place.commit("Make it run")
    with pytest.raises(PatchError, match=r"part1\.py"):
        line.merged()


LAST = "app/last/part1.py"


class Moved:
    """A commit that brought a file under a new name, with another change; one behind it may rename the file again."""

    def __init__(self, folder: Path, old: str | None) -> None:
        begun = {"app/other.py": "x = 1\n", "qigheal.toml": MANIFEST}
        self.place = Place(folder / "host", begun | ({old: part(False) + BODY} if old else {}))
        self.healthy = self.place.base
        if old:
            self.place.git("rm", "-q", old)
        self.place.write(NEW, part(True) + BODY)
        self.place.write("app/other.py", "x = 2\n")
        self.guilty = self.place.commit("Bring it")

    def later(self, files: dict[str, str]) -> str:
        self.place.git("rm", "-q", NEW)
        for path, text in files.items():
            self.place.write(path, text)
        return self.place.commit("Take it from there")

    def merged(self) -> tuple[Repo, str]:
        repo = Repo(self.place.path)
        return repo, repo.merge(self.guilty, repo.head(), self.healthy)


@pytest.mark.parametrize("old", [OLD, None], ids=["renamed before", "new"])
@pytest.mark.parametrize(
    "files",
    [
        {LAST: part(True) + BODY},
        {LAST: part(True) + BODY.replace("LINE_9 = 9", "LINE_9 = 99")},
        {LAST: part(True) + BODY, "app/twin.py": part(True) + BODY},
        {LAST: part(True) + BODY, OLD: MORE},
    ],
    ids=["as it was", "changed", "two such files", "another has the old name"],
)
def test_a_file_that_lives_on_under_another_name_is_not_left_behind(
    tmp_path: Path, old: str | None, files: dict[str, str]
) -> None:
    """What broke: the file of before came back beside the faulty one, or the rest alone was taken back."""
    moved = Moved(tmp_path, old)
    moved.later(files)
    with pytest.raises(PatchError, match=r"inner/part1\.py' was later renamed to '.*app/last/part1\.py'"):
        moved.merged()


def test_both_kinds_of_conflict_are_named(tmp_path: Path) -> None:
    moved = Moved(tmp_path, OLD)
    moved.later({LAST: part(True) + BODY, "app/other.py": "x = 3\n"})
    with pytest.raises(
        PatchError, match=r"both sides changed 'app/other\.py'; 'app/inner.* later renamed to"
    ):
        moved.merged()


@pytest.mark.parametrize("old", [OLD, None], ids=["renamed before", "new"])
@pytest.mark.parametrize("files", [{}, {LAST: MORE}], ids=["gone", "gone, and another came"])
def test_a_file_that_is_gone_on_both_sides_stays_gone(
    tmp_path: Path, old: str | None, files: dict[str, str]
) -> None:
    moved = Moved(tmp_path, old)
    moved.later(files)
    repo, tree = moved.merged()
    kept = {"app/other.py", "qigheal.toml", *files} | ({old} if old else set())
    assert set(repo.entries(tree)) == kept
    assert repo.read(tree, "app/other.py") == b"x = 1\n"


def test_a_file_that_was_taken_back_by_hand_before_is_no_conflict(tmp_path: Path) -> None:
    moved = Moved(tmp_path, OLD)
    moved.later({OLD: part(False) + BODY})
    repo, tree = moved.merged()
    assert set(repo.entries(tree)) == {OLD, "app/other.py", "qigheal.toml"}
    assert repo.read(tree, OLD).decode() == part(False) + BODY
    assert repo.read(tree, "app/other.py") == b"x = 1\n"


def test_a_file_that_has_its_first_name_and_another_text_is_a_conflict(tmp_path: Path) -> None:
    moved = Moved(tmp_path, OLD)
    moved.later({OLD: part(True) + BODY})
    with pytest.raises(PatchError, match=r"both sides changed 'app/part1\.py'$"):
        moved.merged()


def test_a_file_that_stayed_where_it_is_is_taken_back(tmp_path: Path) -> None:
    moved = Moved(tmp_path, OLD)
    moved.place.write("app/more.py", part(True) + BODY)
    moved.place.commit("A copy of it")
    repo, tree = moved.merged()
    assert set(repo.entries(tree)) == {OLD, "app/more.py", "app/other.py", "qigheal.toml"}


class Anywhere(FakeBench):
    """Its one switch is the file, under whatever name."""

    def on(self, tree: str) -> On:
        texts = [self.repo.read(tree, path) for path in self.repo.entries(tree)]
        return frozenset({1} if any(text.startswith(b"ON = True\nLINE_0") for text in texts) else ())


def test_the_strategy_takes_it_back(line: Line) -> None:
    line.renamed()
    bench = Anywhere(Repo(line.place.path), low_phi(1))
    [patch] = propose(bench, diagnosis(line.healthy))
    assert patch.files == (NEW,)
    tree = bench.repo.apply(bench.base, patch.diff)
    assert bench.repo.read(tree, NEW).decode() == part(False) + BODY
    assert line.guilty[:10] in patch.rationale


@pytest.mark.parametrize(
    ("left", "tier"), [((), "review"), ((NEW,), "review"), ((OLD,), "safe"), ((OLD, NEW), "safe")]
)
def test_both_names_must_be_left_to_the_healer(line: Line, left: tuple[str, ...], tier: str) -> None:
    """Of the new one the trial asks: it is the one that the patch touches."""
    line.renamed()
    bench = Anywhere(Repo(line.place.path), low_phi(1))
    bench.manifest = replace(bench.manifest, patch=replace(bench.manifest.patch, unattended_reverts=left))
    [patch] = propose(bench, diagnosis(line.healthy))
    assert patch.tier == tier


@pytest.mark.parametrize(("new", "said"), [("data/part1.py", "not allowed"), ("app/probe.py", "protected")])
def test_a_new_name_that_no_patch_may_touch_ends_it(
    line: Line, new: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    line.place.git("rm", "-q", OLD)
    line.place.write(new, part(True) + BODY)
    line.place.commit("Rename it")
    with caplog.at_level(logging.INFO, "qigheal"):
        assert not propose(Anywhere(Repo(line.place.path), low_phi(1)), diagnosis(line.healthy))
    assert said in caplog.text
