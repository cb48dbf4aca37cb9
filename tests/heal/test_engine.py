"""The whole chain on the toy host: what it does, and what it refuses to do. What kills do to it is in test_killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from msgspec.structs import replace

from qigheal.errors import EngineError, MissingExtra, PatchError, RepoError
from qigheal.healing import judge, measuring, phases
from qigheal.healing.engine import SelfHealingEngine
from qigheal.healing.ledger import Ledger
from qigheal.healing.proofs import Kept
from qigheal.healing.strategies.foreign import GROUP
from qigheal.records import Change
from qigheal.sandbox import Sandbox
from qigheal.settings import HealSettings
from tests.heal.ordinary_user import USER, run_as_ordinary_user
from tests.heal.toyhost import CONFIG, ToyHost, git

# The toy answers in microseconds, so its time is all noise; how time is judged is tested with the judge.
QUICK = HealSettings(
    search_evaluations=12,
    search_batches=2,
    round_pairs=5,
    max_pairs=80,
    latency_margin=1.0,
    memory_margin=0.5,
)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyHost:
    host = ToyHost(tmp_path)
    monkeypatch.setenv("TOY_DEPLOYS", str(host.deploys))
    return host


def engine(toy: ToyHost, *, phase: int = 3, auto_apply: bool = False) -> SelfHealingEngine:
    made = SelfHealingEngine(
        host=toy.path, store=toy.store, settings=QUICK, auto_apply=auto_apply, clock=lambda: toy.clock
    )
    if phases.current(made.ledger) != phase:
        phases.override(made.ledger, phase, actor="test", reason="a test", at=toy.clock)
    return made


def sick(toy: ToyHost, gain: float = 6.0) -> str:
    toy.learn()
    commit = toy.break_it(gain)
    toy.live(gain, 60, commit)
    return commit


def opened(toy: ToyHost) -> tuple[SelfHealingEngine, Change]:
    healer = engine(toy)
    result = healer.check_and_heal()
    assert [c.state for c in result.changes] == ["open"], (result.message, result.verdicts)
    return healer, result.changes[0]


def waiting(toy: ToyHost) -> tuple[SelfHealingEngine, Change]:
    """A healer that finds the change which an earlier one opened."""
    healer = engine(toy)
    (change,) = healer.ledger.changes().values()
    assert change.state == "open", change
    return healer, change


def harmful(toy: ToyHost, healer: SelfHealingEngine, gain: float = 9.0) -> str:
    base = healer.repo.head()
    return healer.repo.diff(
        base, healer.repo.edit(base, {"config/app.toml": CONFIG.format(gain=gain).encode()})
    )


def deploys(toy: ToyHost) -> list[str]:
    return toy.deploys.read_text().splitlines() if toy.deploys.exists() else []


def test_from_fault_to_confirmed_repair(toy: ToyHost) -> None:
    sick(toy)
    healer, change = opened(toy)
    assert toy.gain() == 6.0, "an open change has touched the target branch"
    assert change.verdict is not None
    assert change.verdict.fitness is not None
    assert change.verdict.fitness.low > QUICK.fitness_threshold

    change = healer.review(change.id, approve=True, reviewer="Ada")
    assert change.state == "watching"
    assert 0.7 < toy.gain() < 1.4
    assert deploys(toy) == [f"{change.id} {change.merge_commit}"]
    assert "Reviewed-by: Ada" in git(toy.path, "log", "-1", "--format=%B")
    assert healer.bring_along()[0].state == "watching", "judged without a snapshot of the merged code"

    toy.live(toy.gain(), 40, change.merge_commit)
    assert [c.state for c in healer.bring_along()] == ["confirmed"]
    assert not healer.check_and_heal().triggered
    assert healer.ledger.verify() == ()


def test_healthy_host_gets_no_patch(toy: ToyHost) -> None:
    toy.learn()
    toy.live(1.0, 100, toy.healthy)
    result = engine(toy).check_and_heal()
    assert not result.triggered
    assert result.patches == ()
    assert git(toy.path, "branch", "--list", "qigheal/*") == ""


@pytest.mark.parametrize("package", ["numba", "libcst"])
def test_without_what_a_trial_needs_nothing_is_measured(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("qigheal.healing.bench.Bench.probe", lambda *_: pytest.fail("a probe was started"))
    toy.learn()
    toy.live(1.0, 100, toy.healthy)
    assert not engine(toy).check_and_heal().triggered, "a service that is well needs none of it"
    toy.live(6.0, 60, toy.break_it(6.0))
    healer = engine(toy)
    for healthy in (None, toy.healthy):
        with pytest.raises(MissingExtra, match=rf"needs '{package}'; .*pip install 'qigheal\[heal\]'"):
            healer.check_and_heal(healthy=healthy)
    assert healer.ledger.entries("asked") == ()


def test_phase_one_only_watches_and_two_only_measures(toy: ToyHost) -> None:
    sick(toy)
    watching = engine(toy, phase=1).check_and_heal()
    assert watching.triggered
    assert watching.patches == ()
    measured = engine(toy, phase=2).check_and_heal()
    assert [v.accepted for v in measured.verdicts] == [True]
    assert measured.changes == ()
    assert git(toy.path, "branch", "--list", "qigheal/*") == ""


@pytest.mark.parametrize("auto_apply", [False, True])
def test_what_needs_a_person_is_opened_and_merged_by_none(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch, auto_apply: bool
) -> None:
    monkeypatch.setattr(judge, "reserved", lambda trial: ("a raise is taken away",))
    sick(toy)
    healer = engine(toy, phase=4, auto_apply=auto_apply)
    result = healer.check_and_heal()
    assert [c.state for c in result.changes] == ["open"]
    assert result.message == "a change is open; only a person may merge its kind: a raise is taken away"
    [change] = result.changes
    assert change.patch.tier == result.patches[-1].tier == "review"
    [(measured, verdict, _)] = healer.ledger.verdicts()
    assert measured.tier == "review"
    assert verdict.needs_person == ("a raise is taken away",)
    monkeypatch.undo()
    assert healer.check_and_heal().changes[-1].state == "open", "another pass merged it"
    assert toy.gain() == 6.0
    assert healer.review(change.id, approve=True, reviewer="Ada").state == "watching"


def test_without_its_proof_nothing_merges_by_itself(toy: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "keep", lambda *_: Kept())  # as of a proof that is too large
    sick(toy)
    result = engine(toy, phase=4).check_and_heal()
    assert [change.state for change in result.changes] == ["open"]
    assert result.verdicts[-1].needs_person == (measuring.UNKEPT,)
    assert toy.gain() == 6.0


def test_apply_is_logged_and_merges(toy: ToyHost) -> None:
    sick(toy)
    healer = engine(toy, phase=1, auto_apply=True)
    result = healer.check_and_heal()
    assert [c.state for c in result.changes] == ["watching"], result.message
    assert len(healer.ledger.entries(kind="override", subject=result.changes[0].id)) == 1
    assert 0.7 < toy.gain() < 1.4


def test_harmful_override_is_taken_back(toy: ToyHost) -> None:
    toy.learn()
    toy.live(1.0, 60, toy.healthy)
    healer = engine(toy)
    change = healer.put_through(harmful(toy, healer), actor="Ada", reason="a drill")
    assert toy.gain() == 9.0
    toy.live(9.0, 40, change.merge_commit)
    (change,) = healer.bring_along()
    assert change.state == "rolled_back"
    assert toy.gain() == 1.0
    assert git(toy.path, "diff", "--stat", toy.healthy, "HEAD") == ""
    assert [row.split()[0] for row in deploys(toy)] == [change.id, f"{change.id}-rollback"]
    assert healer.ledger.quarantined(change.patch.fingerprint)


def test_a_person_built_on_it_so_it_is_only_reported(toy: ToyHost) -> None:
    toy.learn()
    toy.live(1.0, 60, toy.healthy)
    healer = engine(toy)
    change = healer.put_through(harmful(toy, healer), actor="Ada", reason="a drill")
    (toy.path / "notes.txt").write_text("mine\n")
    theirs = toy.commit("A person's work")
    toy.live(9.0, 40, change.merge_commit)
    (change,) = healer.bring_along()
    assert change.state == "contested"
    assert git(toy.path, "rev-parse", "main") == theirs


def test_override_needs_a_reason_and_keeps_to_the_manifest(toy: ToyHost) -> None:
    toy.learn()
    healer = engine(toy)
    with pytest.raises(EngineError, match="reason"):
        healer.put_through(harmful(toy, healer), actor="Ada", reason=" ")
    base = healer.repo.head()
    tree = healer.repo.edit(base, {"qigheal.toml": b"# nothing\n"})
    with pytest.raises(PatchError, match=r"qigheal\.toml"):
        healer.put_through(healer.repo.diff(base, tree), actor="Ada", reason="a drill")


def test_uncommitted_work_stays_byte_for_byte(asked: ToyHost) -> None:
    healer, change = waiting(asked)
    config = asked.path / "config/app.toml"
    config.write_text(config.read_text() + "# unfinished\n")
    before = {
        p: (p.read_bytes(), p.stat().st_mtime_ns)
        for p in asked.path.rglob("*")
        if p.is_file() and ".git" not in p.parts
    }
    tip = git(asked.path, "rev-parse", "main")
    change = healer.review(change.id, approve=True, reviewer="Ada")
    assert change.state == "approved"
    assert "config/app.toml" in change.reason
    assert git(asked.path, "rev-parse", "main") == tip
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before} == before

    git(asked.path, "checkout", "-q", "--", ".")
    (change,) = healer.bring_along()
    assert change.state == "watching"


def test_an_ignored_file_in_the_way_stops_the_merge(toy: ToyHost) -> None:
    toy.learn()
    (toy.path / ".gitignore").write_text("app/local.py\n")
    toy.commit("Ignore local settings")
    healer = engine(toy)
    base = healer.repo.head()
    diff = healer.repo.diff(base, healer.repo.edit(base, {"app/local.py": b"theirs = 1\n"}))
    (toy.path / "app/local.py").write_text("mine = 1\n")
    change = healer.put_through(diff, actor="Ada", reason="a drill")
    assert change.state == "approved"
    assert "app/local.py" in change.reason
    assert (toy.path / "app/local.py").read_text() == "mine = 1\n"


def test_rejected_is_not_proposed_again(asked: ToyHost) -> None:
    healer, change = waiting(asked)
    assert healer.review(change.id, approve=False, reviewer="Ada").state == "rejected"
    asked.clock += 7200
    again = healer.check_and_heal()
    assert again.triggered
    assert again.changes == ()
    assert again.patches == ()


def test_healthy_commit_stands_in_for_a_history(toy: ToyHost) -> None:
    toy.store.mkdir()
    toy.break_it(6.0)
    result = engine(toy).check_and_heal(healthy=toy.healthy)
    assert result.diagnosis is not None
    assert result.diagnosis.healthy_code_hash == toy.healthy
    assert [c.state for c in result.changes] == ["open"], result.message


def test_nothing_to_judge_by_is_said(toy: ToyHost) -> None:
    toy.store.mkdir()
    with pytest.raises(EngineError, match="--healthy"):
        engine(toy).check_and_heal()


def test_only_one_healer_acts(toy: ToyHost) -> None:
    sick(toy)
    first, second = engine(toy), engine(toy)
    with first.repo.lock("heal"), pytest.raises(RepoError, match="heal"):
        second.check_and_heal()
    assert not second.ledger.entries(kind="patch")


ONE_OF_TWO = """
import sys
from pathlib import Path
from tests.heal.test_engine import engine
from tests.heal.toyhost import ToyHost

toy = ToyHost.__new__(ToyHost)
folder = Path(sys.argv[1])
toy.path, toy.store, toy.deploys = folder / "host", folder / "store", folder / "deploys"
toy.clock = float(sys.argv[2])
print(engine(toy).check_and_heal().message)
"""


def test_two_healers_at_once(toy: ToyHost) -> None:
    """Two processes start a pass at the same moment: one opens a change, the other steps back."""
    sick(toy)
    engine(toy)
    argv = [sys.executable, "-c", ONE_OF_TWO, str(toy.path.parent), str(toy.clock)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [process.communicate() for process in running]
    codes = sorted(process.returncode for process in running)
    assert codes in ([0, 1], [0, 0]), ended
    changes = Ledger(toy.store / "ledger.db").changes()
    assert len(changes) == 1
    assert len(git(toy.path, "branch", "--list", "qigheal/*").split()) == 1


def test_partial_isolation_asks_no_foreign_strategy_and_merges_nothing_alone(
    toy: ToyHost, partly: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = EntryPoint("quantise", "tests.heal.test_askable:Quantise", GROUP)
    monkeypatch.setattr("qigheal.healing.strategies.foreign.entry_points", lambda **_: EntryPoints([foreign]))
    sick(toy)
    said: list[str] = []
    healer = engine(toy, phase=4)
    healer.settings = replace(QUICK, sandbox="partial")
    healer.on_step = lambda _, sentence: said.append(sentence)
    (change,) = healer.check_and_heal().changes
    assert "quantise: not asked, as the sandbox is only partial" in said
    assert change.verdict is not None
    assert (change.state, change.verdict.sandbox_level) == ("open", partly.level)
    assert toy.gain() == 6.0


AS_A_USER = """
import os, sys
from pathlib import Path
from tests.heal.test_engine import engine, sick
from tests.heal.toyhost import ToyHost

toy = ToyHost(Path(sys.argv[1]))
os.environ["TOY_DEPLOYS"] = str(toy.deploys)
sick(toy)
healer = engine(toy)
(change,) = healer.check_and_heal().changes
assert change.state == "open", change
assert change.verdict.sandbox_level == "namespaces"
change = healer.review(change.id, approve=True, reviewer="Ada")
assert change.state == "watching", change
print(os.getuid(), toy.gain())
"""


def test_an_ordinary_user_heals_their_own_host(tmp_path: Path) -> None:
    uid, gain = run_as_ordinary_user(AS_A_USER, tmp_path / "theirs", str(tmp_path / "theirs")).split()
    assert int(uid) != 0
    assert 0.7 < float(gain) < 1.4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can work in another user's repository")
def test_root_leaves_nothing_of_its_own_in_a_users_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="theirs-") as name:  # pytest keeps its own folders to root
        folder = Path(name)
        folder.chmod(0o755)
        toy = ToyHost(folder)
        monkeypatch.setenv("TOY_DEPLOYS", str(toy.deploys))
        assert_healed_without_a_trace(toy)


def assert_healed_without_a_trace(toy: ToyHost) -> None:
    sick(toy)
    for path in [toy.path, *toy.path.rglob("*")]:
        os.chown(path, USER, USER, follow_symlinks=False)
    toy.deploys.touch()
    os.chown(toy.deploys, USER, USER)
    healer, change = opened(toy)
    change = healer.review(change.id, approve=True, reviewer="Ada")
    assert change.state == "watching", change.reason
    assert {path.lstat().st_uid for path in toy.path.rglob("*")} == {USER}
    assert deploys(toy) == [f"{change.id} {change.merge_commit}"]
