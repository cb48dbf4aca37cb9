"""The audit trail: each verdict has its proof, which judges to the same again; every tampering is named."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest
import zstandard
from msgspec.structs import replace

from qigheal.errors import EngineError, LedgerError
from qigheal.healing import audit, proofs
from qigheal.healing.ledger import GENESIS, Ledger, digest_of
from qigheal.records import Change
from qigheal.repo import Repo
from qigheal.settings import HealSettings
from tests.heal.simulated import World, diagnosis, judged
from tests.heal.test_engine import engine, harmful, sick, waiting
from tests.heal.toyhost import ToyHost, git


@pytest.fixture(scope="module")
def told(opened_once: ToyHost, tmp_path_factory: pytest.TempPathFactory) -> ToyHost:
    """A host with a story: a patch that was opened, approved and merged, and a diff that was evaluated."""
    host = opened_once.copied(tmp_path_factory.mktemp("told"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TOY_DEPLOYS", str(host.deploys))
        healer, change = waiting(host)
        healer.review(change.id, approve=True, reviewer="Ada")
        healer.evaluate(harmful(host, healer))
    return host


@pytest.fixture
def toy(told: ToyHost, tmp_path: Path) -> ToyHost:
    """The same, to tamper with."""
    return told.copied(tmp_path)


def found(toy: ToyHost, *, host: bool = True) -> tuple[str, ...]:
    ledger = Ledger(toy.store / "ledger.db", read_only=True)
    return audit.verify(ledger, toy.store, Repo(toy.path) if host else None).problems


def bundles(toy: ToyHost) -> list[Path]:
    return sorted((toy.store / proofs.FOLDER).iterdir())


def rewritten(toy: ToyHost, old: str, new: str, *, anew: bool) -> None:
    """Alter rows of the ledger; with `anew` the chain after them is computed again, and guards are put back."""
    with contextlib.closing(sqlite3.connect(toy.store / "ledger.db")) as forger, forger:
        guards = forger.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in guards:
            forger.execute(f"DROP TRIGGER {name}")
        forger.execute("UPDATE entry SET data = replace(data, ?, ?)", (old, new))
        previous = GENESIS
        for entry in Ledger(toy.store / "ledger.db", read_only=True).entries() if anew else ():
            data = entry.data.replace(old, new)
            made = replace(entry, data=data, previous=previous)
            previous = digest_of(made)
            forger.execute(
                "UPDATE entry SET previous = ?, digest = ? WHERE seq = ?",
                (made.previous, previous, entry.seq),
            )
        for _, statement in guards:
            forger.execute(statement)


# What is kept


def test_all_holds_together_and_is_counted(told: ToyHost) -> None:
    ledger = Ledger(told.store / "ledger.db", read_only=True)
    assert audit.verify(ledger, told.store, Repo(told.path)) == audit.Audit(
        problems=(), entries=len(ledger.entries()), proofs=len(bundles(told)), merges=1
    )
    assert len(bundles(told)) == 2


def test_a_bundle_is_judged_again_to_the_same_verdict_without_the_host(told: ToyHost, tmp_path: Path) -> None:
    shutil.copytree(told.store, tmp_path / "alone")
    ledger = Ledger(tmp_path / "alone/ledger.db", read_only=True)
    kinds = {}
    for each in audit.standing(ledger):
        proof = audit.proof_of(tmp_path / "alone", each)
        again = audit.replay(proof)
        assert again.same
        assert again.verdict == each.verdict
        assert proof.trial.patch.base == each.patch.base
        assert proof.versions["numpy"].count(".") == 2
        kinds[each.kind] = again.verdict.decision
    assert kinds == {"verdict": "improved", "evaluation": "worse"}


def test_another_verdict_is_told_by_its_figures(told: ToyHost) -> None:
    each = audit.standing(Ledger(told.store / "ledger.db", read_only=True))[0]
    proof = audit.proof_of(told.store, each)
    stricter = replace(proof, settings=replace(proof.settings, fitness_threshold=0.99))
    again = audit.replay(stricter)
    assert not again.same
    assert "decision was 'improved' and is 'equivalent'" in again.differences
    assert not any(difference.startswith("guards") for difference in again.differences)


def proof_with(evidence: dict[str, object], seed: int = 1) -> proofs.Proof:
    verdict, trial = judged(World(), World(), seed, settings=HealSettings(max_pairs=80))
    patch = replace(trial.patch, evidence=evidence)
    return proofs.Proof(
        trial=replace(trial, patch=patch),
        verdict=verdict,
        diagnosis=diagnosis("phi"),
        settings=HealSettings(max_pairs=80, seed=seed),
        versions=proofs.versions(),
        at=1.7e9,
    )


def test_evidence_is_kept_with_the_proof_within_bounds(tmp_path: Path) -> None:
    profile = {"hot": [["app.model:figures", 0.93]]}
    kept = proofs.keep(tmp_path / "proofs", proof_with(profile))
    assert proofs.read(tmp_path / "proofs", kept).trial.patch.evidence == profile
    for unusable in ({"text": "x" * 1_000_001}, {"object": object()}):
        again = proofs.keep(tmp_path / "proofs", proof_with(unusable))
        assert list(proofs.read(tmp_path / "proofs", again).trial.patch.evidence) == ["left_out"]
        assert again.bundle != kept.bundle
    assert (tmp_path / "proofs").stat().st_mode & 0o077 == 0


def test_a_trial_too_large_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "MOST_BYTES", 1000)
    assert proofs.keep(tmp_path / "proofs", proof_with({})) == proofs.Kept()
    assert not (tmp_path / "proofs").exists()


def test_without_room_for_the_proof_no_verdict_is_written(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    sick(toy)
    (toy.store / proofs.FOLDER).write_text("in the way")
    healer = engine(toy, phase=2)
    with pytest.raises(LedgerError, match="the proof of a verdict cannot be written"):
        healer.check_and_heal()
    assert healer.ledger.verdicts() == []


def test_old_proofs_go_but_none_of_a_change_that_was_opened(toy: ToyHost) -> None:
    ledger = Ledger(toy.store / "ledger.db")
    merged = next(iter(ledger.changes()))
    going = [path.name for path in bundles(toy) if not path.name.startswith(merged)]
    assert audit.retain(toy.store, ledger, toy.clock, most=1) == ()
    assert audit.retain(toy.store, ledger, toy.clock, most=0) == tuple(going)
    assert [path.name[:16] for path in bundles(toy)] == [merged]
    assert found(toy) == ()
    assert audit.retain(toy.store, ledger, toy.clock, most=0) == ()


def test_what_a_killed_healer_left_goes_after_a_day(toy: ToyHost) -> None:
    ledger = Ledger(toy.store / "ledger.db")
    kept = proofs.keep(toy.store / proofs.FOLDER, proof_with({}))
    left = toy.store / proofs.FOLDER / kept.bundle
    assert found(toy) == ()
    audit.retain(toy.store, ledger, toy.clock, most=2)
    assert left.exists()
    os.utime(left, (1.0, 1.0))
    audit.retain(toy.store, ledger, toy.clock, most=2)
    assert not left.exists()
    assert len(bundles(toy)) == 2


# Tampering


def test_an_altered_bundle_is_named(toy: ToyHost) -> None:
    path = bundles(toy)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert found(toy) == (f"bundle {path.name} was altered: its digest is not the one in the ledger",)


def test_a_missing_bundle_is_named(toy: ToyHost) -> None:
    path = bundles(toy)[1]
    path.unlink()
    (problem,) = found(toy)
    assert problem.startswith(f"bundle {path.name}: expected it in")


def test_the_proof_of_an_opened_change_may_not_be_declared_old(toy: ToyHost) -> None:
    ledger = Ledger(toy.store / "ledger.db")
    each = next(one for one in audit.standing(ledger) if one.kind == "verdict")
    ledger.append(
        audit.REMOVED, each.patch.fingerprint, audit.Removed(bundle=each.bundle, digest=each.digest), 1.0
    )
    (toy.store / proofs.FOLDER / each.bundle).unlink()
    (problem,) = found(toy)
    assert "never is" in problem


def test_an_altered_row_is_named(toy: ToyHost) -> None:
    rewritten(toy, '"decision":"improved"', '"decision":"worse"', anew=False)
    problems = found(toy)
    assert any("was altered: its digest is another's" in problem for problem in problems)
    assert any("is the proof of another verdict" in problem for problem in problems)


def test_a_chain_written_anew_does_not_fit_the_merges(toy: ToyHost) -> None:
    rewritten(toy, '"reviewer":"Ada"', '"reviewer":"Eve"', anew=True)
    assert Ledger(toy.store / "ledger.db", read_only=True).verify() == ()
    assert found(toy, host=False) == (), "without the host nothing can be seen"
    problems = found(toy)
    assert any("the chain was rewritten" in problem for problem in problems), problems


def test_a_chain_written_anew_does_not_fit_the_proofs(toy: ToyHost) -> None:
    rewritten(toy, '"decision":"worse"', '"decision":"equivalent"', anew=True)
    assert any("the proof of another verdict" in problem for problem in found(toy, host=False))


def test_a_ledger_begun_anew_does_not_know_the_merges(toy: ToyHost) -> None:
    (toy.store / "ledger.db").unlink()
    for left in toy.store.glob("ledger.db-*"):
        left.unlink()
    Ledger(toy.store / "ledger.db")
    (problem,) = found(toy)
    assert "which no entry has" in problem


def test_a_merge_that_was_taken_out_of_the_history_is_named(toy: ToyHost) -> None:
    git(toy.path, "reset", "-q", "--hard", "HEAD~1")
    (problem,) = found(toy)
    assert "no ref of" in problem


def test_a_head_written_after_the_merge_proves_nothing(toy: ToyHost) -> None:
    ledger = Ledger(toy.store / "ledger.db")
    change = next(iter(ledger.changes().values()))
    later = ledger.append("note", "", {}, toy.clock).digest
    git(
        toy.path, "commit", "-q", "--allow-empty", "-m",
        f"Pretend\n\nQigheal-Change: {change.id}\nQigheal-Ledger: {later}",
    )  # fmt: skip
    (problem,) = found(toy)
    assert "was not written before its merge" in problem


def test_a_commit_that_only_speaks_of_it_is_no_merge(toy: ToyHost) -> None:
    git(toy.path, "commit", "-q", "--allow-empty", "-m", "Read\n\nQigheal-Ledger: what is it?\n\nNothing.")
    assert found(toy) == ()


def test_a_bundle_that_would_fill_the_memory_is_not_opened(tmp_path: Path) -> None:
    content = zstandard.ZstdCompressor().compress(bytes(proofs.MOST_BYTES + 1))
    (tmp_path / "x-1.qproof").write_bytes(content)
    kept = proofs.Kept("x-1.qproof", hashlib.sha256(content).hexdigest())
    with pytest.raises(LedgerError, match="expected a proof"):
        proofs.read(tmp_path, kept)


def test_a_bundles_name_leads_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="expected the name of a bundle"):
        proofs.read(tmp_path, proofs.Kept("../ledger.db", ""))


def test_one_patch_is_named_by_its_first_digits(told: ToyHost) -> None:
    ledger = Ledger(told.store / "ledger.db", read_only=True)
    change = next(iter(ledger.changes().values()))
    assert [each.kind for each in audit.named(ledger, change.id[:6])] == ["verdict"]
    with pytest.raises(EngineError, match="names 0 of the patches"):
        audit.named(ledger, "nothing")


def test_a_ledger_of_an_earlier_version_is_still_read(told: ToyHost) -> None:
    (entry,) = Ledger(told.store / "ledger.db", read_only=True).entries("verdict")
    data = msgspec.json.decode(entry.data)
    del data["bundle"], data["proof"]
    earlier = replace(entry, data=msgspec.json.encode(data).decode())
    assert earlier.read(audit.Judged).bundle == ""
    change = msgspec.json.decode(Ledger(told.store / "ledger.db").entries("change")[0].data)
    del change["patch"]["evidence"], change["verdict"]["detectable"]
    assert msgspec.convert(change, Change).patch.evidence == {}
