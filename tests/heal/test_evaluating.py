"""Somebody else's diff, and one commit against another, judged on the toy host; the host stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from qigheal.errors import EngineError, PatchError
from qigheal.healing import evaluating, submission
from qigheal.healing.submission import text_of
from qigheal.records import Evaluation
from qigheal.repo import Repo
from tests.faults import corpus
from tests.heal.test_engine import QUICK, engine, sick
from tests.heal.toyhost import CONFIG, ToyHost, git


@pytest.fixture
def toy(tmp_path: Path) -> ToyHost:
    return ToyHost(tmp_path)


def state(toy: ToyHost) -> tuple[str, str, bytes]:
    """All that a user has of a repository: refs, what differs from HEAD, and the index."""
    refs = git(toy.path, "for-each-ref") + git(toy.path, "symbolic-ref", "HEAD")
    return (
        refs,
        git(toy.path, "status", "--porcelain", "--ignored"),
        (toy.path / ".git/index").read_bytes(),
    )


def edited(toy: ToyHost, **files: str) -> str:
    """The diff that makes these changes to HEAD, files by path with `__` for `/`."""
    repo = Repo(toy.path)
    base = repo.head()
    named = {path.replace("__", "/"): text.encode() for path, text in files.items()}
    return repo.diff(base, repo.edit(base, named))


def gained(toy: ToyHost, gain: float) -> str:
    return edited(toy, **{"config__app.toml": CONFIG.format(gain=gain)})


def without_store(toy: ToyHost, diff: str, **claims: object) -> Evaluation:
    return evaluating.evaluate_without_store(
        Repo(toy.path),
        diff,
        healthy=toy.healthy,
        settings=QUICK,
        clock=lambda: toy.clock,
        **claims,  # type: ignore[arg-type]
    )


def test_a_cure_is_improved_and_nothing_of_the_host_moves(toy: ToyHost) -> None:
    sick(toy)
    before = state(toy)
    healer = engine(toy, phase=1)
    found = healer.evaluate(gained(toy, 1.0))
    assert found.verdict.decision == "improved", found.verdict.reason
    assert found.verdict.accepted
    assert found.named[0] in ("phi", "kappa", "basin_drift")
    assert found.before["phi"] < 0.2
    assert found.after["phi"] > 0.6
    assert found.after["basin_drift"] < 0.1 < found.before["basin_drift"]
    assert state(toy) == before
    assert healer.ledger.changes() == {}


def test_it_is_kept_in_the_ledger_and_counts_for_no_gate(toy: ToyHost) -> None:
    sick(toy)
    healer = engine(toy)
    found = healer.evaluate(gained(toy, 9.0))
    assert found.verdict.decision == "worse"
    (entry,) = healer.ledger.entries("evaluation")
    assert entry.subject == found.patch.fingerprint
    assert entry.read(Evaluation) == found
    assert healer.ledger.verdicts() == []
    assert healer.ledger.entries("trial") == ()


def test_a_healthy_service_has_nothing_to_heal_and_harm_is_seen(toy: ToyHost) -> None:
    harmless = edited(toy, **{"app__model.py": (toy.path / "app/model.py").read_text() + "\n# A note.\n"})
    found = without_store(toy, harmless)
    assert found.verdict.decision == "equivalent", found.verdict.reason
    assert "nothing to heal" in found.verdict.reason
    assert found.named == ()
    assert found.healthy == toy.healthy
    assert without_store(toy, gained(toy, 6.0)).verdict.decision == "worse"


def test_what_it_claims_it_is_held_to(toy: ToyHost) -> None:
    toy.break_it(6.0)
    half = gained(toy, 5.5)
    assert without_store(toy, half, heals=("phi",)).verdict.decision == "refused"
    assert "no output_digest" in without_store(toy, gained(toy, 1.0), same_output=True).verdict.reason
    with pytest.raises(EngineError, match="got 'speed'"):
        without_store(toy, half, heals=("speed",))


@pytest.mark.parametrize(
    ("diff", "said"),
    [
        (
            "--- a/qigheal.toml\n+++ b/qigheal.toml\n@@ -1,2 +1,2 @@\n \n-[probe]\n+[prob]\n",
            "decides how the code",
        ),
        (
            "--- a/app/probe.py\n+++ b/app/probe.py\n@@ -1 +1 @@\n-nothing\n+else\n",
            "app/probe.py: protected by",
        ),
        ("--- a/../x.py\n+++ b/../x.py\n@@ -0,0 +1 @@\n+else\n", "without empty parts"),
        ("--- /dev/null\n+++ b/app/new.py\n@@ -0,0 +1 @@\n+def (\n", "app/new.py:1: does not compile"),
        ("--- a/app/gone.py\n+++ b/app/gone.py\n@@ -1 +1 @@\n-nothing\n+else\n", "does not apply"),
        (
            "diff --git a/app/model.py b/app/model.py\nold mode 100644\nnew mode 100755\n",
            "changes its mode",
        ),
    ],
)
def test_what_may_not_be_tried_is_refused_before_anything_runs(toy: ToyHost, diff: str, said: str) -> None:
    git(toy.path, "rm", "-q", "--cached", "deploy.sh")  # what is staged stays staged
    before = state(toy)
    found = without_store(toy, diff)
    assert found.verdict.decision == "refused"
    assert said in " ".join(found.verdict.vetoes)
    assert found.verdict.pairs == 0
    assert state(toy) == before


def test_every_reason_is_named(toy: ToyHost) -> None:
    diff = edited(
        toy, **{"Makefile": "all:\n", "app__probe.py": "pass\n", "notes.txt": "x\n", "b.txt": "x\n"}
    )
    vetoes = without_store(toy, diff).verdict.vetoes
    assert len(vetoes) == 5, vetoes  # too many files, and four paths


def test_failing_tests_that_fail_without_it_too_say_so(toy: ToyHost) -> None:
    manifest = (toy.path / "qigheal.toml").read_text()
    (toy.path / "qigheal.toml").write_text(manifest + '\n[tests]\ncommand = ["python", "-c", "exit(1)"]\n')
    toy.healthy = toy.commit("Tests that fail")
    found = without_store(toy, gained(toy, 1.1))
    assert found.verdict.vetoes == ("tests fail",)
    assert found.notes == ("the host's tests fail without the patch too: mend them first",)


def test_other_peoples_code_does_not_run_half_isolated(toy: ToyHost) -> None:
    with engine(toy)._bench(toy.healthy) as bench:
        bench.level = "partial"  # type: ignore[assignment]
        with pytest.raises(EngineError, match="sandbox level partial: other people's code"):
            evaluating.check_level(bench)


SLOW = """def answer(request):
    for _ in range({turns}):
        pass
    return {result}
"""


def test_leaving_work_out_is_no_cure_of_slowness(tmp_path: Path) -> None:
    case = corpus.Case(
        name="slow",
        strategy="",
        why="a loop that grew",
        healthy={"app/service.py": SLOW.format(turns=1000, result="request * 7")},
        fault={"app/service.py": SLOW.format(turns=60_000, result="request * 7")},
    )
    made = corpus.make(case, tmp_path / "host")
    repo = Repo(tmp_path / "host")

    def judged(turns: int, result: str) -> Evaluation:
        files = {"app/service.py": SLOW.format(turns=turns, result=result).encode()}
        diff = repo.diff(repo.head(), repo.edit(repo.head(), files))
        return evaluating.evaluate_without_store(
            repo, diff, healthy=made, settings=QUICK, clock=lambda: 1.7e9
        )

    cured = judged(1000, "request * 7")
    assert "latency" in cured.named
    assert cured.outputs_differ == 0
    assert cured.verdict.accepted, cured.verdict.reason
    left_out = judged(0, "0")
    assert left_out.verdict.decision == "refused"
    assert "the patch claims that none does" in left_out.verdict.reason
    assert left_out.notes == ("held to equal outputs, as only latency is unwell",)
    assert left_out.outputs_differ == left_out.verdict.pairs


# One commit against another


def compared(toy: ToyHost, base: str, head: str, store: Path | None = None) -> Evaluation:
    return evaluating.compare(
        Repo(toy.path), base, head, store=store, settings=QUICK, clock=lambda: toy.clock
    )


def test_a_commit_that_harms_is_worse_and_one_that_does_nothing_is_not(toy: ToyHost) -> None:
    broken = toy.break_it(6.0)
    worse = compared(toy, toy.healthy, broken)
    assert worse.verdict.decision == "worse"
    assert worse.head == broken
    assert worse.patch.diff == ""
    (toy.path / "app/model.py").write_text((toy.path / "app/model.py").read_text() + "\n# A note.\n")
    noted = toy.commit("A note")
    before = state(toy)
    assert compared(toy, broken, noted).verdict.decision == "equivalent"
    assert state(toy) == before


def test_a_cure_is_better_by_what_the_service_learned(toy: ToyHost) -> None:
    broken = sick(toy)
    cured = toy.break_it(1.0)
    assert compared(toy, broken, cured, toy.store).verdict.decision == "improved"
    assert compared(toy, broken, cured).verdict.decision == "worse"  # by what the broken one answers


def test_a_persons_commits_may_be_large_and_anywhere(toy: ToyHost) -> None:
    for number in range(5):
        (toy.path / f"notes{number}.txt").write_text("mine\n" * 50)
    (toy.path / "picture.png").write_bytes(bytes(range(256)))
    (toy.path / ".gitignore").write_text("*.log\n")
    found = compared(toy, toy.healthy, toy.commit("Much of it"))
    assert found.verdict.decision == "equivalent", found.verdict.reason
    assert found.unmeasured == ()


def test_what_decides_about_the_measurement_is_the_bases_and_named(toy: ToyHost) -> None:
    probe = (toy.path / "app/probe.py").read_text()
    (toy.path / "app/probe.py").write_text(probe.replace("gain()", "1.0"))
    (toy.path / "tests").mkdir()
    (toy.path / "tests/test_it.py").write_text("")
    (toy.path / "qigheal.toml").write_text("nonsense")
    (toy.path / "link").symlink_to("/etc/passwd")
    found = compared(toy, toy.healthy, toy.break_it(6.0))
    assert set(found.unmeasured) == {"app/probe.py", "tests/test_it.py", "qigheal.toml", "link"}
    assert found.verdict.decision == "worse"  # by the probe of the base


def test_nothing_that_is_measured_differs(toy: ToyHost) -> None:
    (toy.path / "app/probe.py").write_text("import nothing\n")
    found = compared(toy, toy.healthy, toy.commit("A probe"))
    assert found.verdict.decision == "equivalent"
    assert found.verdict.pairs == 0
    assert found.unmeasured == ("app/probe.py",)


def test_a_head_that_does_not_compile_is_refused(toy: ToyHost) -> None:
    (toy.path / "app/model.py").write_text("def (\n")
    assert "does not compile" in compared(toy, toy.healthy, toy.commit("Broken")).verdict.reason


# Forms in which diffs are sent


DIFF = """diff --git a/config/app.toml b/config/app.toml
--- a/config/app.toml
+++ b/config/app.toml
@@ -1,3 +1,3 @@
 # How strongly the toy attends.
 [attention]
-gain = 1.0  # healthy: 1.0
+gain = 2.0  # healthy: 1.0
"""
MAIL = f"""From 1111111111111111111111111111111111111111 Mon Sep 17 00:00:00 2001
From: Ada <ada@localhost>
Subject: [PATCH] More gain

It was too little.
---
 config/app.toml | 2 +-

{DIFF}--\x20
2.39.2

"""


@pytest.mark.parametrize(
    "sent",
    [
        DIFF.encode(),
        MAIL.encode(),
        MAIL.replace("\n", "\r\n").encode(),
        DIFF.replace("a/", "").replace("b/", "").encode(),
        DIFF.replace("a/", "i/").replace("b/", "w/").encode(),
        DIFF.partition("\n")[2].replace("a/", "").replace("b/", "").encode(),
        b"\xef\xbb\xbf" + DIFF.encode(),
        DIFF.rstrip("\n").encode(),
    ],
    ids=["git", "mail", "crlf", "no-prefix", "mnemonic", "diff -u", "bom", "no last newline"],
)
def test_one_change_in_many_forms_is_one_change(toy: ToyHost, sent: bytes) -> None:
    measuring = engine(toy)._measuring
    patch = evaluating.submitted(measuring, text_of(sent, "x"))
    assert patch.diff == gained(toy, 2.0)
    assert patch.tier == "review"


def test_a_file_with_line_ends_of_windows_keeps_them(toy: ToyHost) -> None:
    (toy.path / "config/app.toml").write_bytes(CONFIG.format(gain=1.0).replace("\n", "\r\n").encode())
    base = toy.commit("Windows")
    body = DIFF.splitlines()
    sent = "\r\n".join(body) + "\r\n"
    patch = evaluating.submitted(engine(toy)._measuring, text_of(sent.encode(), "x"))
    repo = Repo(toy.path)
    assert repo.read(repo.apply(base, patch.diff), "config/app.toml").count(b"\r\n") == 3


def test_a_new_file_without_a_prefix_lands_where_it_says(toy: ToyHost) -> None:
    diff = "diff --git app/new.py app/new.py\nnew file mode 100644\n--- /dev/null\n"
    diff += "+++ app/new.py\n@@ -0,0 +1 @@\n+X = 1\n"
    assert evaluating.submitted(engine(toy)._measuring, diff).files == ("app/new.py",)


def test_a_short_diff_may_not_stand_for_a_long_one(toy: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "MOST_LINES", 30)
    moved = "diff --git a/app/model.py b/app/m.py\nsimilarity index 100%\n"
    moved += "rename from app/model.py\nrename to app/m.py\n"
    with pytest.raises(PatchError, match="the diff changes 38 lines: expected at most 30"):
        evaluating.submitted(engine(toy)._measuring, moved)


def test_a_binary_is_refused_as_one(toy: ToyHost) -> None:
    (toy.path / "app/picture.py").write_bytes(bytes(range(256)))
    git(toy.path, "add", "-A")
    diff = git(toy.path, "diff", "--cached", "--binary") + "\n\n"
    git(toy.path, "reset", "-q", "--hard")
    assert without_store(toy, text_of(diff.encode(), "x")).verdict.vetoes == ("app/picture.py: is binary",)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "got nothing"),
        (b"hello\n", "got other text"),
        (b"x" * 1_000_001, "at most 1000000 bytes"),
        (DIFF.encode("utf-16"), "UTF-16"),
        (DIFF.replace("toy", "t\xf6y").encode("latin-1"), "other bytes at"),
        (DIFF.encode() + b"\0", "NUL"),
        (b"Content-Transfer-Encoding: base64\n\n" + DIFF.encode(), "mail in base64"),
    ],
)
def test_what_is_no_diff_is_said_to_be_none(sent: bytes, said: str) -> None:
    with pytest.raises(PatchError, match=said):
        text_of(sent, "fix.diff")
