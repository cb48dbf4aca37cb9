"""Branches, merges and reverts: done once, however often they are begun."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import json
from msgspec.structs import replace

from qigcore.fitness import Fitness
from qigheal.errors import PatchError, RepoError
from qigheal.healing.forge import Forge
from qigheal.healing.forge.local import LocalForge
from qigheal.host import Manifest
from qigheal.records import Change, HealingPatch, Verdict
from qigheal.repo import Repo
from tests.heal.gitfix import Place, picture, plant
from tests.heal.ordinary_user import run_as_ordinary_user

MANIFEST = """
[probe]
command = ["python", "-m", "app.probe"]
[patch]
allow = ["app/*.py", "config/*.toml"]
"""
FILES = {
    "app/model.py": "def f(x):\n    return x + 1\n",
    "app/probe.py": "print(1)\n",
    "config/app.toml": "temperature = 5.0\n",
    "qigheal.toml": MANIFEST,
}
DIFF = """\
diff --git a/config/app.toml b/config/app.toml
--- a/config/app.toml
+++ b/config/app.toml
@@ -1 +1 @@
-temperature = 5.0
+temperature = 0.85
"""
VERDICT = Verdict(
    decision="improved",
    accepted=True,
    fitness=Fitness(point=0.91, low=0.88, high=0.94, components={}),
    guards=(),
    vetoes=(),
    pairs=40,
    sandbox_level="namespaces",
    reason="Φ returned to its band.",
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "host", FILES)


def forge_of(place: Place) -> LocalForge:
    repo = Repo(place.path)
    return LocalForge(repo, Manifest.at(repo, place.base))


def begun(place: Place, diff: str = DIFF) -> Change:
    patch = HealingPatch(
        strategy="attention",
        tier="safe",
        base=place.base,
        diff=diff,
        rationale="Lower the temperature from 5 to 0.85, the middle of the healthy band.\nReviewed-by: nobody",
        heals=("phi", "kappa"),
    )
    return Change(
        id=patch.fingerprint,
        state="opening",
        patch=patch,
        verdict=VERDICT,
        branch=f"qigheal/attention-{patch.fingerprint}",
        target="main",
        opened_at=1_700_000_000.25,
    )


def approved(change: Change) -> Change:
    return replace(
        change, state="merging", merged_at=1_700_000_100.5, ledger_head="ab" * 32, reviewer="Ada\nX: y"
    )


def merged(place: Place) -> Change:
    done = forge_of(place).merge(approved(forge_of(place).open(begun(place))))
    assert done.state == "merged", done.reason
    return done


def trailers(place: Place, commit: str) -> str:
    return place.git("log", "-1", "--format=%(trailers:only,unfold)", commit)


def test_the_whole_way_there_and_back(place: Place) -> None:
    forge: Forge = forge_of(place)
    opened = forge.open(begun(place))
    assert (opened.state, opened.reason) == ("open", "")
    assert place.git("rev-parse", opened.branch) == opened.head
    assert place.git("rev-parse", f"{opened.head}^") == place.base
    assert place.head() == place.base
    assert trailers(place, opened.head) == f"Qigheal-Change: {opened.id}"
    body = place.git("log", "-1", "--format=%B", opened.head)
    assert "Fitness 0.910, 95 % bounds 0.880 and 0.940, 40 pairs" in body
    assert max(map(len, body.splitlines())) <= 72

    forge.rehearse_revert(opened)
    done = forge.merge(approved(opened))
    assert (done.state, done.reason, done.merge_parent) == ("merged", "", place.base)
    assert place.head() == done.merge_commit
    assert place.git("log", "-1", "--format=%P", "main").split() == [place.base, opened.head]
    assert place.git("rev-parse", "main^{tree}") == place.git("rev-parse", f"{opened.head}^{{tree}}")
    assert trailers(place, "main").splitlines() == [
        f"Qigheal-Change: {opened.id}",
        f"Qigheal-Ledger: {'ab' * 32}",
        "Reviewed-by: Ada X: y",
    ]
    assert (place.path / "config/app.toml").read_text() == "temperature = 0.85\n"
    assert place.status() == ""

    back = forge.revert(replace(done, state="reverting", reverted_at=1_700_000_200.0, reason="Φ fell to 0.4"))
    assert back.state == "reverted"
    assert place.head() == back.revert_commit
    assert place.git("rev-parse", "main^{tree}") == place.git("rev-parse", f"{place.base}^{{tree}}")
    assert place.git("rev-parse", "main^") == done.merge_commit
    assert "Φ fell to 0.4" in place.git("log", "-1", "--format=%B")
    assert trailers(place, "main") == f"Qigheal-Change: {opened.id}"
    assert (place.path / "config/app.toml").read_text() == "temperature = 5.0\n"
    assert place.status() == ""


def test_every_step_may_be_done_again(place: Place) -> None:
    start = begun(place)
    opened = forge_of(place).open(start)
    assert forge_of(place).open(start) == opened
    wanted = approved(opened)
    first = forge_of(place).merge(wanted)
    assert forge_of(place).merge(wanted) == first
    place.write("notes.txt", "x\n")
    later = place.commit("a person goes on")
    assert forge_of(place).merge(wanted) == first
    assert place.head() == later
    place.git("reset", "-q", "--hard", first.merge_commit)
    unwanted = replace(first, state="reverting", reverted_at=1_700_000_200.0)
    back = forge_of(place).revert(unwanted)
    assert forge_of(place).revert(unwanted) == back
    later = place.commit("again")
    assert forge_of(place).revert(unwanted) == back
    assert forge_of(place).merge(wanted) == first  # its commit is in the target, whatever came after
    assert place.head() == later


def test_the_branch_is_the_lock_between_healers(place: Place) -> None:
    mine, other = begun(place), replace(begun(place), opened_at=1_700_000_007.0)
    forge_of(place).open(mine)
    with pytest.raises(RepoError, match=r"exists with other contents .* another healer or a person owns it"):
        forge_of(place).open(other)


def test_losing_the_race_for_the_branch(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Repo.create_ref

    def overtaken(self: Repo, name: str, sha: str) -> None:
        original(self, name, place.base)
        original(self, name, sha)

    monkeypatch.setattr(Repo, "create_ref", overtaken)
    with pytest.raises(RepoError, match="other contents"):
        forge_of(place).open(begun(place))


def new_file(path: str) -> str:
    return f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"


PROBE = DIFF.replace("config/app.toml", "app/probe.py").replace("temperature = 5.0", "print(1)")


@pytest.mark.parametrize(
    ("diff", "reason"),
    [
        (DIFF.replace("temperature = 5.0", "temperature = 6.0"), "does not apply"),
        (PROBE, r"app/probe\.py: named by \[probe\] command"),
        (new_file("app/conftest.py"), r"app/conftest\.py: decides how"),
        (new_file("script.sh"), r"script\.sh: not allowed"),
    ],
)
def test_what_may_not_be_touched_gets_no_branch(place: Place, diff: str, reason: str) -> None:
    change = begun(place, diff)
    with pytest.raises(PatchError, match=reason):
        forge_of(place).open(change)
    assert place.git("branch", "--list", "qigheal/*") == ""


def test_only_branches_of_its_own(place: Place) -> None:
    with pytest.raises(RepoError, match="name of a change's branch"):
        forge_of(place).open(replace(begun(place), branch="main"))


def test_a_target_that_moved_must_be_measured_again(place: Place) -> None:
    wanted = approved(forge_of(place).open(begun(place)))
    place.write("other.txt", "x\n")
    tip = place.commit("a person's")
    done = forge_of(place).merge(wanted)
    assert done == replace(wanted, reason=done.reason)
    assert "it must be measured again" in done.reason
    assert place.head() == tip
    place.git("branch", "-m", "main", "renamed")
    assert forge_of(place).merge(wanted).reason == "target branch main is gone"


def test_a_branch_that_somebody_changed_is_not_merged(place: Place) -> None:
    wanted = approved(forge_of(place).open(begun(place)))
    place.git("update-ref", f"refs/heads/{wanted.branch}", place.base)
    reason = forge_of(place).merge(wanted).reason
    assert reason == forge_of(place).obstacle(wanted)
    assert "no longer what was measured" in reason
    assert f"(qigheal review {wanted.id} --reject)" in reason
    assert place.head() == place.base
    remedy = reason.partition("(git ")[2].partition(")")[0]
    place.git(*remedy.split())
    assert forge_of(place).merge(wanted).state == "merged"


def test_a_branch_that_is_gone_is_made_again(place: Place) -> None:
    wanted = approved(forge_of(place).open(begun(place)))
    place.git("branch", "-D", wanted.branch)
    assert forge_of(place).obstacle(wanted) == ""
    assert forge_of(place).merge(wanted).state == "merged"
    assert place.git("rev-parse", wanted.branch) == wanted.head


def test_a_branch_that_is_gone_with_its_commit_is_said_to_be(place: Place) -> None:
    wanted = approved(forge_of(place).open(begun(place)))
    place.git("branch", "-D", wanted.branch)
    place.git("reflog", "expire", "--expire=now", "--all")
    place.git("gc", "-q", "--prune=now")
    said = forge_of(place).obstacle(wanted)
    assert "gone with its commit" in said
    assert f"qigheal review {wanted.id} --reject" in said


def test_no_merge_into_uncommitted_work(place: Place) -> None:
    wanted = approved(forge_of(place).open(begun(place)))
    place.write("app/model.py", "work in progress\n")
    before = picture(place.path)
    done = forge_of(place).merge(wanted)
    assert (done.state, done.merge_commit) == ("merging", "")
    assert "uncommitted changes (app/model.py)" in done.reason
    assert picture(place.path) == before
    assert place.head() == place.base
    place.git("checkout", "-q", "--", ".")
    assert forge_of(place).merge(wanted).state == "merged"


def test_no_merge_over_an_ignored_file(place: Place) -> None:
    wanted = approved(forge_of(place).open(begun(place, new_file("app/new.py"))))
    place.write(".git/info/exclude", "new.py\n")
    place.write("app/new.py", "mine\n")
    assert "in the way (app/new.py)" in forge_of(place).merge(wanted).reason
    assert (place.path / "app/new.py").read_text() == "mine\n"


def test_never_a_revert_under_the_commits_of_others(place: Place) -> None:
    unwanted = replace(merged(place), state="reverting", reverted_at=1_700_000_200.0)
    place.write("other.txt", "x\n")
    tip = place.commit("a person's")
    done = forge_of(place).revert(unwanted)
    assert done.state == "reverting"
    assert "other commits lie on top" in done.reason
    assert place.head() == tip


def test_a_merge_that_a_person_took_out_is_not_said_to_lie_under_others(place: Place) -> None:
    unwanted = replace(merged(place), state="reverting", reverted_at=1_700_000_200.0)
    place.git("reset", "-q", "--hard", place.base)
    done = forge_of(place).revert(unwanted)
    assert (done.state, done.revert_commit) == ("contested", "")
    assert "no longer in main" in done.reason
    assert place.head() == place.base


def test_no_revert_over_uncommitted_work(place: Place) -> None:
    unwanted = replace(merged(place), state="reverting", reverted_at=1_700_000_200.0)
    place.write("config/app.toml", "temperature = 0.9\n")
    done = forge_of(place).revert(unwanted)
    assert (done.state, done.revert_commit) == ("reverting", "")
    assert "uncommitted changes" in done.reason
    assert (place.path / "config/app.toml").read_text() == "temperature = 0.9\n"


def test_dates_must_have_been_recorded(place: Place) -> None:
    opened = forge_of(place).open(begun(place))
    with pytest.raises(RepoError, match="Unix seconds"):
        forge_of(place).merge(opened)
    with pytest.raises(RepoError, match="Unix seconds"):
        forge_of(place).revert(merged(place))


def test_a_rehearsal_moves_nothing_and_can_fail(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = forge_of(place).open(begun(place))
    refs, before = place.git("for-each-ref"), picture(place.path)
    forge_of(place).rehearse_revert(opened)
    assert (place.git("for-each-ref"), picture(place.path)) == (refs, before)
    monkeypatch.setattr(Repo, "apply", lambda self, base, diff: self.resolve("main~0") and base)
    with pytest.raises(RepoError, match=r"would not restore config/app\.toml"):
        forge_of(place).rehearse_revert(opened)


def test_operators_and_long_words(place: Place) -> None:
    start = replace(begun(place), verdict=None)
    loud = replace(start.patch, rationale="x" * 300 + "\x1b[31m \x00red", heals=())
    opened = forge_of(place).open(replace(start, patch=loud, id=loud.fingerprint))
    body = place.git("log", "-1", "--format=%B", opened.head)
    assert "without a trial" in body
    assert "\x1b" not in body
    assert len(body.splitlines()[0]) <= 72


def test_nothing_planted_runs(place: Place, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    plant(place, marker)
    done = merged(place)
    back = forge_of(place).revert(replace(done, reverted_at=1_700_000_200.0))
    assert back.state == "reverted"
    assert not marker.exists()


KILLED = """\
import os, signal, sys
from pathlib import Path
import msgspec
from qigheal.healing.forge.local import LocalForge
from qigheal.host import Manifest
from qigheal.records import Change
from qigheal.repo import Repo

name, call = sys.argv[3], int(sys.argv[4])
original, calls = getattr(Repo, name), []

def killing(self, *arguments):
    calls.append(1)
    if call == len(calls):
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(self, *arguments)
    if call == -len(calls):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(Repo, name, killing)
repo = Repo(sys.argv[1])
change = msgspec.json.decode(sys.stdin.buffer.read(), type=Change)
getattr(LocalForge(repo, Manifest.at(repo, change.patch.base)), sys.argv[2])(change)
"""


def killed_in(place: Place, action: str, change: Change, method: str, call: int) -> None:
    """Let another process do `action` and be killed before call n of a method of Repo, after it if negative."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(place.path), action, method, str(call)],
        input=json.encode(change),
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("call", [1, -1])
def test_killed_while_opening(place: Place, call: int) -> None:
    start = begun(place)
    killed_in(place, "open", start, "create_ref", call)
    opened = forge_of(place).open(start)
    assert opened.state == "open"
    assert place.git("rev-parse", opened.branch) == opened.head


@pytest.mark.parametrize(("method", "call"), [("commit", -1), ("advance", 1), ("advance", -1)])
def test_killed_while_merging_and_reverting(place: Place, method: str, call: int) -> None:
    wanted = approved(forge_of(place).open(begun(place)))
    killed_in(place, "merge", wanted, method, call)
    done = forge_of(place).merge(wanted)
    assert done.state == "merged"
    assert place.head() == done.merge_commit
    assert int(place.git("rev-list", "--count", "main")) == 3
    unwanted = replace(done, state="reverting", reverted_at=1_700_000_200.0)
    killed_in(place, "revert", unwanted, method, call)
    back = forge_of(place).revert(unwanted)
    assert back.state == "reverted"
    assert place.head() == back.revert_commit
    assert int(place.git("rev-list", "--count", "main")) == 4
    assert place.status() == ""
    assert place.locks() == []


ORDINARY = """\
import os, subprocess, sys
from pathlib import Path
import msgspec
from msgspec.structs import replace
from qigheal.healing.forge.local import LocalForge
from qigheal.host import Manifest
from qigheal.records import Change
from qigheal.repo import Repo

assert os.geteuid() != 0
host = Path(sys.argv[1]) / "host"
host.mkdir()
change = msgspec.json.decode(sys.argv[2], type=Change)
files = msgspec.json.decode(sys.argv[3], type=dict[str, str])
for path, text in files.items():
    (host / path).parent.mkdir(exist_ok=True)
    (host / path).write_text(text)
env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
for who in ("AUTHOR", "COMMITTER"):
    env |= {f"GIT_{who}_NAME": "u", f"GIT_{who}_EMAIL": "u@localhost"}
for line in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "x"]):
    subprocess.run(["git", *line], cwd=host, env=env, check=True)
repo = Repo(host)
base = repo.head()
patch = replace(change.patch, base=base)
forge = LocalForge(repo, Manifest.at(repo, base))
with repo.lock("heal"):
    opened = forge.open(replace(change, patch=patch))
    forge.rehearse_revert(opened)
    merged = forge.merge(replace(opened, merged_at=1e9))
    assert merged.state == "merged", merged.reason
    assert repo.dirty(host) == ()
    back = forge.revert(replace(merged, reverted_at=1e9))
    assert back.state == "reverted", back.reason
print(repo.head() == back.revert_commit, (host / "config/app.toml").read_text().strip())
"""


def test_as_an_ordinary_user(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "user"
    said = run_as_ordinary_user(
        ORDINARY, folder, str(folder), json.encode(begun(place)).decode(), json.encode(FILES).decode()
    )
    assert said == "True temperature = 5.0\n"
