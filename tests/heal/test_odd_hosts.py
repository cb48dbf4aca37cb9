"""Repositories of odd shapes: the life of a change comes out right in them, or is refused with a reason.

In each of them lie programs that git would start for its user; none of them runs.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from qigcore.history import History
from qigheal.errors import RepoError
from qigheal.healing.drill import drill
from qigheal.healing.engine import SelfHealingEngine
from qigheal.healing.forge.local import LocalForge
from qigheal.healing.ledger import Ledger
from qigheal.host import Manifest
from qigheal.records import Change, HealingPatch
from qigheal.repo import Repo
from tests.heal.gitfix import Place, plant
from tests.heal.test_engine import deploys, engine, harmful
from tests.heal.test_forge import FILES, VERDICT
from tests.heal.toyhost import ToyHost

CONFIG = "config/app.toml"
LOCAL = ("-c", "protocol.file.allow=always")
QUIET = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false")


class Host(NamedTuple):
    """A repository of some shape: `place` is its own, `at` where the healer is pointed to."""

    place: Place
    at: Path


class Lived(NamedTuple):
    merged: Change
    tree: str  # of the target, after the merge
    reverted: Change | None


Shape = Callable[[Place, Path], Path | None]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "host", FILES)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def shaped(place: Place, shape: Shape, marker: Path) -> Host:
    """Give a repository its shape, and then the traps, which would show in the shaping too."""
    at = shape(place, place.path.parent) or place.path
    plant(place, marker)
    if at != place.path and not at.is_relative_to(place.path) and (at / ".git").is_dir():
        stands_in = Place.__new__(Place)
        stands_in.path, stands_in.uid, stands_in.base = at, None, place.base
        plant(stands_in, marker)
    marker.unlink(missing_ok=True)
    return Host(place, at)


def opened(host: Host, target: str = "main", content: bytes | None = None) -> Change:
    repo = Repo(host.at)
    base = repo.resolve(f"refs/heads/{target}")
    new = content or repo.read(base, CONFIG).replace(b"5.0", b"0.85")
    patch = HealingPatch(
        strategy="attention",
        tier="safe",
        base=base,
        diff=repo.diff(base, repo.edit(base, {CONFIG: new})),
        rationale="Lower the temperature.",
        heals=("phi",),
    )
    change = Change(
        id=patch.fingerprint,
        state="opening",
        patch=patch,
        verdict=VERDICT,
        branch=f"qigheal/attention-{patch.fingerprint}",
        target=target,
        opened_at=1_700_000_000.0,
        merged_at=1_700_000_100.0,
        reverted_at=1_700_000_200.0,
        ledger_head="ab" * 32,
    )
    return LocalForge(repo, Manifest.at(repo, base)).open(change)


def live(host: Host, change: Change) -> Lived:
    """From the open change to its revert, as far as it goes; the answers before and after must agree."""
    repo = Repo(host.at)
    forge = LocalForge(repo)
    obstacle = forge.obstacle(change)
    forge.rehearse_revert(change)
    merged = forge.merge(replace(change, state="merging"))
    assert bool(obstacle) == (merged.state == "merging"), (obstacle, merged.reason)
    if merged.state != "merged":
        assert repo.ref(change.target) == change.patch.base
        return Lived(merged, "", None)
    assert repo.ref(change.target) == merged.merge_commit
    tree = repo.read(merged.merge_commit, CONFIG).decode()
    reverted = forge.revert(replace(merged, state="reverting"))
    assert reverted.state == "reverted", reverted.reason
    assert repo.changes(change.patch.base, reverted.revert_commit) == ()
    return Lived(merged, tree, reverted)


def as_it_is(place: Place, folder: Path) -> None:
    pass


def linked_worktree(place: Place, folder: Path) -> Path:
    place.git("checkout", "-q", "-b", "elsewhere")
    place.git("worktree", "add", "-q", str(folder / "linked"), "main")
    return folder / "linked"


def seen_from_a_linked_worktree(place: Place, folder: Path) -> Path:
    place.git("worktree", "add", "-q", str(folder / "linked"), "-b", "elsewhere")
    return folder / "linked"


def submodule(place: Place, folder: Path) -> None:
    inner = Place(folder / "inner", {"inner.py": "inner = 1\n"})
    place.git(*LOCAL, "submodule", "add", "-q", str(inner.path), "config/inner")
    place.base = place.commit("a submodule")


def dirty_submodule(place: Place, folder: Path) -> None:
    submodule(place, folder)
    place.write("config/inner/inner.py", "a person's = 1\n")
    place.write("config/inner/draft.py", "draft = 1\n")
    # Whoever asks the submodule for its state, or enters it, starts this.
    trap = place.write(".git/modules/config/inner/trap", f"#!/bin/sh\ntouch {folder / 'marker'}\n")
    trap.chmod(0o755)
    place.git("config", "core.fsmonitor", str(trap), at=place.path / "config/inner")


def submodule_not_initialised(place: Place, folder: Path) -> Path:
    submodule(place, folder)
    place.git("clone", "-q", str(place.path), str(folder / "clone"))
    return folder / "clone"


def submodule_absorbed(place: Place, folder: Path) -> None:
    submodule(place, folder)
    place.git("submodule", "deinit", "-q", "-f", "config/inner")


def shallow(place: Place, folder: Path) -> Path:
    place.write("later.txt", "later\n")
    place.base = place.commit("later")
    place.git("clone", "-q", "--depth", "1", f"file://{place.path}", str(folder / "clone"))
    return folder / "clone"


def partial(place: Place, folder: Path) -> Path:
    place.write("later.txt", "later\n")
    place.base = place.commit("later")
    place.git("config", "uploadpack.allowFilter", "true")
    place.git("clone", "-q", "--filter=blob:none", f"file://{place.path}", str(folder / "clone"))
    place.git("config", "remote.origin.url", f"ext::touch {folder / 'marker'}", at=folder / "clone")
    return folder / "clone"


def alternates(place: Place, folder: Path) -> Path:
    place.git("clone", "-q", "--shared", str(place.path), str(folder / "clone"))
    return folder / "clone"


def bare(place: Place, folder: Path) -> Path:
    place.git("clone", "-q", "--bare", str(place.path), str(folder / "bare"))
    return folder / "bare"


def separate_git_dir(place: Place, folder: Path) -> Path:
    place.git(
        "clone", "-q", "--separate-git-dir", str(folder / "apart"), str(place.path), str(folder / "clone")
    )
    return folder / "clone"


def sha256(place: Place, folder: Path) -> Path:
    at = folder / "long"
    at.mkdir()
    place.git("init", "-q", "-b", "main", "--object-format=sha256", at=at)
    for path, text in FILES.items():
        place.write(path, text, at=at)
    place.git("add", ".", at=at)
    place.git("commit", "-q", "-m", "begin", at=at)
    return at


def packed(place: Place, folder: Path) -> None:
    place.git("pack-refs", "--all")
    place.git("gc", "-q", "--prune=now")


def replaced(place: Place, folder: Path) -> None:
    """What the user sees of the base is something else than what it is."""
    place.write("other.txt", "other\n")
    other = place.commit("other")
    place.git("reset", "-q", "--hard", place.base)
    place.git(
        "replace",
        place.git("rev-parse", f"{place.base}:{CONFIG}"),
        place.git("rev-parse", f"{other}:other.txt"),
    )
    place.git("update-index", "-q", "--really-refresh", check=False)


def grafted(place: Place, folder: Path) -> None:
    stranger = place.git("commit-tree", "HEAD^{tree}", "-m", "no parent of it")
    place.write(".git/info/grafts", f"{place.base} {stranger}\n")


def sparse(place: Place, folder: Path) -> None:
    place.git("sparse-checkout", "set", "--cone", "config")


def line_ends(place: Place, folder: Path) -> None:
    place.write(".gitattributes", "*.toml text eol=crlf\n*.py text\n")
    place.git("config", "core.autocrlf", "input")
    place.base = place.commit("line ends")
    (place.path / CONFIG).unlink()
    place.git("checkout", "-q", "--", CONFIG)
    assert b"\r\n" in (place.path / CONFIG).read_bytes()


def autocrlf(place: Place, folder: Path) -> None:
    place.git("config", "core.autocrlf", "true")
    (place.path / CONFIG).unlink()
    place.git("checkout", "-q", "--", CONFIG)


def ident_and_archives(place: Place, folder: Path) -> None:
    place.write(CONFIG, "# $Id$ $Format:%H$\ntemperature = 5.0\n")
    place.write(".gitattributes", "*.toml ident export-subst\nconfig/ export-ignore\n")
    place.base = place.commit("keywords")
    (place.path / CONFIG).unlink()
    place.git("checkout", "-q", "--", CONFIG)
    assert b"$Id: " in (place.path / CONFIG).read_bytes()


def another_encoding(place: Place, folder: Path) -> None:
    place.write(".gitattributes", "*.toml working-tree-encoding=UTF-16\n")
    for path in (CONFIG, "qigheal.toml"):
        place.write(path, FILES[path].encode("utf-16"))
    place.base = place.commit("an encoding")
    (place.path / CONFIG).unlink()
    place.git("checkout", "-q", "--", CONFIG)
    assert (place.path / CONFIG).read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff")


def no_file_modes(place: Place, folder: Path) -> None:
    place.git("config", "core.fileMode", "false")
    (place.path / CONFIG).chmod(0o755)


def filtered_next_to_it(place: Place, folder: Path) -> None:
    place.write("table.dat", "1\n")
    place.write("picture.bin", "1\n")
    place.base = place.commit("data")


COMES_OUT: dict[str, Shape] = {
    shape.__name__.replace("_", " "): shape
    for shape in (
        as_it_is, linked_worktree, seen_from_a_linked_worktree, submodule, dirty_submodule,
        submodule_not_initialised, submodule_absorbed, shallow, partial, alternates, bare, separate_git_dir, sha256,
        packed, grafted, replaced, sparse, line_ends, autocrlf, ident_and_archives, another_encoding, no_file_modes,
        filtered_next_to_it,
    )
}  # fmt: skip


def untouched(folder: Path) -> dict[Path, bytes]:
    """What a person has there: every file but that which the change is about."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts and not str(path).endswith(CONFIG)
    }


@pytest.mark.parametrize("shape", COMES_OUT)
def test_the_life_of_a_change_comes_out_right(place: Place, tmp_path: Path, marker: Path, shape: str) -> None:
    host = shaped(place, COMES_OUT[shape], marker)
    before = untouched(host.at) if shape != "bare" else {}
    file = place.path / CONFIG if "seen from" in shape else host.at / CONFIG
    content = file.read_bytes() if shape != "bare" else b""
    lived = live(host, opened(host))
    assert not marker.exists(), "a program that lies in the repository was started"
    assert lived.merged.state == "merged", lived.merged.reason
    assert "temperature = 0.85" in lived.tree
    if shape != "bare":
        assert untouched(host.at) == before
        assert file.read_bytes() == content
        seen = file.parent.parent
        (place.path / ".git/info/attributes").unlink()  # else the user's own git starts the filters
        status = place.git(
            *QUIET, "--no-optional-locks", "status", "--porcelain", "--ignore-submodules=dirty", at=seen
        )
        assert [line for line in status.splitlines() if not line.startswith("??")] == []
    if shape != "grafted":
        place.git("fsck", "--no-dangling", at=host.at)
    assert not [p for p in host.at.rglob("*.lock") if p.name != "qigheal-heal.lock"]


def moved_submodule(place: Place, folder: Path) -> None:
    submodule(place, folder)
    place.git("commit", "-q", "--allow-empty", "-m", "further", at=place.path / "config/inner")


def outside_the_sparse_cone(place: Place, folder: Path) -> None:
    place.git("sparse-checkout", "set", "--cone", "app")


def dirty_linked_worktree(place: Place, folder: Path) -> Path:
    at = linked_worktree(place, folder)
    place.write("app/model.py", "a person's\n", at=at)
    return place.path


def filtered(place: Place, folder: Path) -> None:
    place.write(".gitattributes", "*.toml filter=piped\n")
    place.base = place.commit("a filter")


def locked_linked_worktree(place: Place, folder: Path) -> Path:
    at = linked_worktree(place, folder)
    place.git("worktree", "lock", str(at))
    at.rename(folder / "unplugged")
    return place.path


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (moved_submodule, r"uncommitted changes \(config/inner\)"),
        (outside_the_sparse_cone, "skip-worktree"),
        (dirty_linked_worktree, r"linked has uncommitted changes \(app/model.py\)"),
        (filtered, "filter 'piped', which is not run"),
        (locked_linked_worktree, "linked, which cannot be reached"),
    ],
)
def test_it_is_refused_with_a_reason(place: Place, marker: Path, shape: Shape, reason: str) -> None:
    host = shaped(place, shape, marker)
    before = untouched(place.path.parent)
    change = opened(host)
    lived = live(host, change)
    assert not marker.exists()
    assert lived.merged.state == "merging", "it was merged"
    assert "\n" not in lived.merged.reason
    assert re.search(reason, lived.merged.reason), lived.merged.reason
    assert untouched(place.path.parent) == before


def test_the_traps_are_set(place: Place, marker: Path) -> None:
    """The other way round: what the user's own git starts in such a repository."""
    started = set()
    for what in (
        ("status",),
        ("commit", "--allow-empty", "-m", "x"),
        ("diff", "HEAD"),
        ("checkout", "-b", "other"),
    ):
        host = shaped(Place(place.path.parent / f"h{len(started)}{what[0]}", FILES), as_it_is, marker)
        host.place.write("app/model.py", "changed = 1\n")
        host.place.git(*what, check=False)
        started |= {what[0]} if marker.exists() else set()
    assert started == {"status", "commit", "diff", "checkout"}


def test_a_shallow_clone_does_not_guess_at_ancestors(place: Place, tmp_path: Path) -> None:
    first = place.base
    for name in ("second", "third"):
        place.write("later.txt", name)
        place.commit(name)
    tip = place.head()
    at = shallow(place, tmp_path)
    place.git("fetch", "-q", "--depth", "1", f"file://{place.path}", first, at=at)
    repo = Repo(at)
    assert repo.is_ancestor(repo.head(), repo.head())
    with pytest.raises(RepoError, match=r"shallow clone.*--unshallow"):
        repo.is_ancestor(first, repo.head())
    with pytest.raises(RepoError, match="shallow clone"):
        repo.commits(first, repo.head())
    above = repo.commit(repo.head(), (repo.head(),), "above\n", 1e9)
    assert repo.is_ancestor(repo.head(), above)
    assert not repo.is_ancestor(above, repo.head()), "known: it is the other way round"
    assert repo.commits(repo.head(), above) == (above,)
    assert not repo.has(tip)


def test_what_a_partial_clone_lacks_is_not_fetched(place: Place, tmp_path: Path, marker: Path) -> None:
    first = place.base
    place.write(CONFIG, "temperature = 4.0\n")
    place.commit("another")
    host = shaped(place, partial, marker)
    with pytest.raises(RepoError, match=r"partial clone lacks it"):
        Repo(host.at).read(first, CONFIG)
    assert not marker.exists()


def test_a_remote_helper_is_no_program_for_an_old_git(
    place: Place, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A git before 2.45 does not know that it shall fetch nothing; then it may speak no protocol."""
    first = place.base
    place.write(CONFIG, "temperature = 4.0\n")
    place.commit("another")
    host = shaped(place, partial, marker)
    real = subprocess.Popen

    def older(*arguments: object, env: dict[str, str], **options: object) -> object:
        env.pop("GIT_NO_LAZY_FETCH")
        return real(*arguments, env=env, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", older)
    with pytest.raises(RepoError):
        Repo(host.at).read(first, CONFIG)
    monkeypatch.undo()
    assert not marker.exists()


def test_replaced_objects_are_seen_as_they_are(place: Place, tmp_path: Path) -> None:
    replaced(place, tmp_path)
    assert place.git("cat-file", "blob", f"{place.base}:{CONFIG}") == "other"
    assert Repo(place.path).read(place.base, CONFIG) == FILES[CONFIG].encode()


def test_grafts_make_no_ancestors(place: Place, tmp_path: Path) -> None:
    grafted(place, tmp_path)
    stranger = (place.path / ".git/info/grafts").read_text().split()[1]
    place.git("merge-base", "--is-ancestor", stranger, place.base)  # so the user is told
    assert not Repo(place.path).is_ancestor(stranger, place.base)


@pytest.mark.parametrize("shape", [bare, shallow, alternates, linked_worktree, dirty_submodule])
def test_a_healer_merges_watches_and_takes_back_there(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, shape: Shape
) -> None:
    toy = ToyHost(tmp_path)
    toy.learn(60)
    toy.live(1.0, 60, toy.healthy)
    monkeypatch.setenv("TOY_DEPLOYS", str(toy.deploys))
    place = Place.__new__(Place)
    place.path, place.uid, place.base = toy.path, None, toy.healthy
    host = shaped(place, shape, marker)
    place.base = place.head()
    toy.path = host.at
    healer = engine(toy)
    change = healer.put_through(harmful(toy, healer), actor="Ada", reason="a test")
    assert not marker.exists()
    assert change.state == "watching", change.reason
    toy.live(9.0, 40, change.merge_commit)
    (change,) = healer.bring_along()
    assert change.state == "rolled_back", change.reason
    assert not marker.exists()
    assert Repo(host.at).changes(place.base, "refs/heads/main") == ()
    if shape is bare:  # there are no files of the host's to run
        assert deploys(toy) == []
        assert "the deploy command ended with" in change.reason
    else:
        assert [line.split()[0] for line in deploys(toy)] == [change.id, f"{change.id}-rollback"]
    assert drill(Repo(host.at), healer.ledger, clock=lambda: toy.clock, on_step=lambda stage, said: None).ok
    assert not marker.exists()


def test_a_change_that_a_shallow_clone_does_not_hold_is_left_alone(place: Place, tmp_path: Path) -> None:
    old = opened(Host(place, place.path))
    at = shallow(place, tmp_path)
    store = tmp_path / "store"
    store.mkdir()
    Ledger(store / "ledger.db").record_change(replace(old, state="approved"), 1.0)
    with History(store) as history:
        history.flush()
    healer = SelfHealingEngine(host=at, store=store)
    (seen,) = healer.bring_along()
    assert seen.state == "approved"
    assert "is not in" in seen.reason
    assert "git fetch --unshallow" in seen.reason
    assert Repo(at).ref(old.branch) is None
