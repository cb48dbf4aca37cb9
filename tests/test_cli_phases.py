"""The phase commands, and a person's word on a patch that was only measured; run within this process."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
import typer

from qigheal.cli import ENVIRONMENT
from qigheal.cli.app import app
from qigheal.errors import QighealError
from qigheal.healing import phases
from qigheal.healing.ledger import Ledger
from qigheal.records import HealingPatch
from tests.heal.gitfix import Place
from tests.heal.test_phases import a_change, a_diagnosis, a_patch, a_verdict, judged
from tests.heal.toyhost import ToyHost, git


def qigheal(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv, said, code = [*map(str, arguments)], io.StringIO(), 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(said):
        try:
            code = typer.main.get_command(app)(argv, standalone_mode=False)
        except QighealError as error:
            return subprocess.CompletedProcess(argv, ENVIRONMENT, said.getvalue(), str(error))
    return subprocess.CompletedProcess(argv, code, said.getvalue(), "")


@pytest.fixture
def toy(tmp_path: Path) -> ToyHost:
    host = ToyHost(tmp_path)
    host.clock = time.time()  # so that it is no service of long ago
    host.live(1.0, 60, host.healthy)
    return host


def measured(toy: ToyHost, count: int = 1) -> list[HealingPatch]:
    ledger = Ledger(toy.store / "ledger.db")
    for number in range(count):
        judged(ledger, number, a_verdict())
    return [patch for patch, _, _ in ledger.verdicts()]


def test_status_names_what_the_next_gate_needs_and_what_to_do(toy: ToyHost, tmp_path: Path) -> None:
    said = qigheal("phase", "status", "--store", toy.store, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("phase 1, monitor")
    assert "snapshots: let the service record on" in said.stdout
    assert "2→3" not in said.stdout
    assert "2→3" in qigheal("phase", "status", "--all", "--store", toy.store, cwd=tmp_path).stdout
    found = json.loads(qigheal("phase", "status", "--json", "--store", toy.store, cwd=tmp_path).stdout)
    assert (found["phase"], found["gate"], found["move"], found["demotion"]) == (1, "1→2", None, "")
    assert {line["gate"] for line in found["criteria"]} == {"1→2", "2→3", "3→4", "stay in 4"}
    missing = {line["name"]: line for line in found["missing"]}
    assert set(missing) == {"snapshots", "baseline learned"}
    assert missing["snapshots"]["found"] == "60"
    assert missing["snapshots"]["advice"]


def test_a_service_of_long_ago_is_not_present(tmp_path: Path) -> None:
    gone = ToyHost(tmp_path)
    gone.live(1.0, 60, gone.healthy)
    found = json.loads(qigheal("phase", "status", "--json", "--store", gone.store, cwd=tmp_path).stdout)
    (line,) = [each for each in found["missing"] if "present" in each["name"]]
    assert line["found"].startswith("0 %, none for ")
    assert line["found"].endswith(" weeks")
    shut = qigheal("phase", "advance", "--store", gone.store, cwd=tmp_path)
    assert (shut.returncode, "expected snapshots present" in shut.stderr) == (69, True)


def test_status_says_how_the_phase_was_entered(toy: ToyHost, tmp_path: Path) -> None:
    store = ("--store", toy.store)
    entered = qigheal(
        "phase", "override", "4", "--reason", "a [bold]test[/bold]", "--json", *store, cwd=tmp_path
    )
    move = json.loads(entered.stdout)["move"]
    assert (move["how"], move["before"], move["to"], move["reason"]) == (
        "override",
        1,
        4,
        "a [bold]test[/bold]",
    )
    said = qigheal("phase", "status", *store, cwd=tmp_path).stdout
    assert "by override: a [bold]test[/bold]" in said
    assert "--hours-per-repair" in said
    hours = qigheal("phase", "status", "--hours-per-repair", "3", "--json", *store, cwd=tmp_path)
    (line,) = [c for c in json.loads(hours.stdout)["criteria"] if c["name"] == "hours saved reported"]
    assert (line["found"], line["met"]) == ("0.0 h", True)

    phases.demote(Ledger(toy.store / "ledger.db"), "2 changes were taken back", 1_700_000_000.0)
    said = qigheal("phase", "status", *store, cwd=tmp_path).stdout
    assert said.startswith("phase 3")
    assert "went back from phase 4 by itself: 2 changes were taken back" in said


def test_the_host_says_which_strategies_apply_and_advance_goes_on(toy: ToyHost, tmp_path: Path) -> None:
    store = ("--store", toy.store)
    qigheal("phase", "override", "2", "--reason", "a test", *store, cwd=tmp_path)
    for patch in measured(toy, 10)[:3]:
        word = qigheal("review", patch.fingerprint, "--approve", *store, cwd=tmp_path)
        assert word.returncode == 0, word.stderr
    Ledger(toy.store / "ledger.db").append("diagnosis", "", a_diagnosis("phi", "latency"), 1.0)
    (line,) = [
        c
        for c in json.loads(
            qigheal("phase", "status", "--host", toy.path, "--json", *store, cwd=tmp_path).stdout
        )["criteria"]
        if "strategies that apply" in c["name"]
    ]
    assert "attention" in line["needed"]
    assert line["found"] == "attention"
    shut = qigheal("phase", "advance", *store, "--json", cwd=tmp_path)
    assert shut.returncode == 69
    assert "strategies that apply" in shut.stderr
    if not line["met"]:  # there are others, which this store's ledger knows nothing of
        ledger = Ledger(toy.store / "ledger.db")
        for number, name in enumerate(line["needed"].split(", "), 100):
            judged(ledger, number, a_verdict(), name)
    passed = qigheal("phase", "advance", "--host", toy.path, *store, "--json", cwd=tmp_path)
    assert passed.returncode == 0, passed.stderr
    assert json.loads(passed.stdout)["move"]["how"] == "advance"
    assert json.loads(passed.stdout)["phase"] == 3


def test_a_persons_word_on_a_measured_patch(toy: ToyHost, tmp_path: Path) -> None:
    store = ("--store", toy.store)
    first, second = measured(toy, 2)
    word = qigheal(
        "review", first.fingerprint[:8], "--reject", "--reviewer", "Ada", "--reason", "no", "--json", *store,
        cwd=tmp_path,
    )  # fmt: skip
    assert word.returncode == 0, word.stderr
    assert json.loads(word.stdout) == {
        "patch": first.fingerprint,
        "review": {"approved": False, "reviewer": "Ada", "reason": "no"},
    }
    ledger = Ledger(toy.store / "ledger.db")
    assert (phases.figures(ledger).reviewed, phases.figures(ledger).approved) == (1, 0)
    assert ledger.quarantined(first), "what a person rejected is not proposed again"
    assert not ledger.quarantined(second)
    assert ledger.changes() == {}
    said = qigheal("review", first.fingerprint, "--approve", *store, cwd=tmp_path).stdout
    assert f"patch {first.fingerprint} is approved by" in said
    assert (phases.figures(ledger).reviewed, phases.figures(ledger).approved) == (1, 1)
    assert not ledger.quarantined(first), "the last word counts"
    unknown = qigheal("review", "ffff", "--approve", "--host", toy.path, *store, cwd=tmp_path)
    assert unknown.returncode == 69
    both = qigheal("review", "", "--approve", "--host", toy.path, *store, cwd=tmp_path)
    assert both.returncode == 69


def test_an_ambiguous_beginning_is_refused(toy: ToyHost, tmp_path: Path) -> None:
    ledger, seen = Ledger(toy.store / "ledger.db"), {}
    for number in range(40):  # among so many, two begin alike
        patch = a_patch(number)
        judged(ledger, number, a_verdict())
        if other := seen.setdefault(patch.fingerprint[0], patch.fingerprint) != patch.fingerprint:
            break
    assert other
    said = qigheal("review", patch.fingerprint[0], "--approve", "--store", toy.store, cwd=tmp_path)
    assert said.returncode == 69
    assert "names 2 patches" in said.stderr
    assert ledger.entries("review") == ()


def test_a_drill_of_the_rollback(toy: ToyHost, tmp_path: Path) -> None:
    store = ("--store", toy.store)
    (toy.path / "app/model.py").write_text("unfinished\n")
    before = git(toy.path, "for-each-ref") + git(toy.path, "status", "--porcelain")
    said = qigheal("phase", "drill", "--host", toy.path, *store, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "the rollback works" in said.stdout
    assert git(toy.path, "for-each-ref") + git(toy.path, "status", "--porcelain") == before
    again = json.loads(qigheal("phase", "drill", "--host", toy.path, "--json", *store, cwd=tmp_path).stdout)
    assert again["ok"] is True
    other = Place(tmp_path / "other", {"a.py": "", "qigheal.toml": (toy.path / "qigheal.toml").read_text()})
    for host, said, met in (
        (("--host", toy.path), "2", True),
        (("--host", other.path), "0", False),
        ((), "2 drilled, on a repository that is not named", False),
    ):
        status = qigheal("phase", "status", *host, "--json", *store, cwd=tmp_path)
        assert status.returncode == 0, status.stderr
        (line,) = [c for c in json.loads(status.stdout)["criteria"] if "drills included" in c["name"]]
        assert (line["found"], line["met"]) == (said, met)
        assert met != ("--host HOST" in line["advice"])

    held = toy.path / f".git/refs/heads/qigheal/drill-3-{again['branch'].rpartition('-')[2]}.lock"
    held.parent.mkdir(parents=True, exist_ok=True)
    held.touch()
    failed = qigheal("phase", "drill", "--host", toy.path, "--json", *store, cwd=tmp_path)
    assert failed.returncode == 1
    assert "lock" in json.loads(failed.stdout)["reason"]
    nowhere = qigheal("phase", "drill", "--host", tmp_path / "nowhere", *store, cwd=tmp_path)
    assert nowhere.returncode == 69


def test_no_gate_opens_on_the_word_of_a_forged_row(toy: ToyHost, tmp_path: Path) -> None:
    measured(toy)
    with contextlib.closing(sqlite3.connect(toy.store / "ledger.db")) as forger, forger:
        forger.execute("DROP TRIGGER entry_kept")
        forger.execute("UPDATE entry SET data = replace(data, '0.75', '0.65')")
    for command in (("status",), ("drill", "--host", toy.path)):
        said = qigheal("phase", *command, "--store", toy.store, cwd=tmp_path)
        assert said.returncode == 69
        assert "chain is broken" in said.stderr


def test_a_change_that_only_a_person_can_settle_is_seen(toy: ToyHost, tmp_path: Path) -> None:
    ledger = Ledger(toy.store / "ledger.db")
    why = "Φ 0.3 is outside its healthy band since abc; other commits lie on top: not taken back"
    ledger.record_change(a_change(1, "contested", reason=why), 1.0)
    said = qigheal("patches", "--store", toy.store, cwd=tmp_path)
    assert said.returncode == 0
    assert "contested" in said.stdout
    assert "other commits lie on top" in " ".join(said.stdout.split())
