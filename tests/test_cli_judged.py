"""qigheal evaluate, compare, and patches show and --verify, as a user and a CI job meet them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qigheal.cli import show_judged
from qigheal.records import Evaluation, Guard, HealingPatch, Verdict
from qigheal.repo import Repo
from tests.heal.toyhost import CONFIG, MANIFEST, ToyHost, git
from tests.test_cli import qigheal


@pytest.fixture
def toy(tmp_path: Path) -> ToyHost:
    return ToyHost(tmp_path)


def diff_to(toy: ToyHost, gain: float) -> str:
    repo = Repo(toy.path)
    base = repo.head()
    return repo.diff(base, repo.edit(base, {"config/app.toml": CONFIG.format(gain=gain).encode()}))


def test_a_cure_and_a_harm_without_a_store(toy: ToyHost, tmp_path: Path) -> None:
    toy.break_it(6.0)
    (tmp_path / "fix.diff").write_text(diff_to(toy, 1.0))
    asked = ("evaluate", toy.path, "--patch", "fix.diff", "--healthy", toy.healthy)
    said = qigheal(*asked, "--markdown", "summary.md", cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "improved: fitness 0.9" in said.stdout
    assert "detectable" in said.stdout
    assert (tmp_path / "summary.md").read_text().startswith("### qigheal: improved\n")
    assert not (tmp_path / ".qigheal").exists()
    (tmp_path / "fix.diff").write_text(diff_to(toy, 9.0))
    worse = qigheal(*asked, "--json", cwd=tmp_path)
    assert worse.returncode == 1
    document = json.loads(worse.stdout)
    assert document["verdict"]["decision"] == "worse"
    assert {"patch", "verdict", "named", "healthy", "before", "after", "notes"} <= set(document)


def test_a_forbidden_diff_is_refused_with_every_reason(toy: ToyHost, tmp_path: Path) -> None:
    diff = "".join(
        f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
        for path in ("Makefile", "tests/test_x.py", "sitecustomize.py")
    )
    done = subprocess.run(
        [sys.executable, "-c", "from qigheal.cli import main; main()", "evaluate", str(toy.path), "--patch", "-",
         "--healthy", "HEAD"],
        input=diff, capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    for path in ("Makefile", "tests/test_x.py", "sitecustomize.py"):
        assert f"veto     {path}: " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("evaluate", "host", "--patch", "none.diff", "--healthy", "HEAD"), 69, "none.diff: cannot be read"),
        (("evaluate", "host", "--patch", "host/deploy.sh", "--healthy", "HEAD"), 69, "got other text"),
        (("evaluate", "host", "--patch", "host/deploy.sh"), 69, "got other text"),
        (("evaluate", "nowhere", "--patch", "x"), 69, "nowhere"),
        (("evaluate", "host"), 64, "--patch"),
        (("compare", "host", "HEAD", "nothing"), 69, "'nothing' names none"),
        (("compare", "host", "HEAD", "HEAD", "--json", "--markdown", "-"), 64, "standard output"),
        (("patches", "--host", "host"), 64, "--verify"),
    ],
)
def test_what_cannot_be_judged_is_an_error(
    toy: ToyHost, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = qigheal(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr
    assert done.stdout == ""


def test_compare_says_worse_equal_and_cannot_say(toy: ToyHost, tmp_path: Path) -> None:
    (toy.path / "notes.txt").write_text("mine\n")
    noted = toy.commit("Notes")
    broken = toy.break_it(6.0)
    (toy.path / "qigheal.toml").write_text(MANIFEST + "# more\n")
    manifest = toy.commit("The manifest")
    assert qigheal("compare", toy.path, toy.healthy, noted, cwd=tmp_path).returncode == 0
    worse = qigheal("compare", toy.path, noted, broken, "--markdown", "-", cwd=tmp_path)
    assert worse.returncode == 1
    assert worse.stdout.startswith("### qigheal: worse\n")
    unsaid = qigheal("compare", toy.path, broken, manifest, "--json", cwd=tmp_path)
    assert unsaid.returncode == 2
    assert json.loads(unsaid.stdout)["unmeasured"] == ["qigheal.toml"]


def test_compare_where_head_does_not_compile_or_its_tests_fail(toy: ToyHost, tmp_path: Path) -> None:
    tests = '\n[tests]\ncommand = ["python", "-c", "import app.model; assert app.model.gain() < 3"]\n'
    (toy.path / "qigheal.toml").write_text(MANIFEST + tests)
    base = toy.commit("Tests")
    failing = toy.break_it(6.0)
    said = qigheal("compare", toy.path, base, failing, cwd=tmp_path)
    assert said.returncode == 1
    assert "tests fail" in said.stdout
    (toy.path / "app/model.py").write_text("def (\n")
    said = qigheal("compare", toy.path, base, toy.commit("Broken"), cwd=tmp_path)
    assert said.returncode == 1
    assert "does not compile" in said.stdout
    git(toy.path, "checkout", "-q", failing)
    both = qigheal("compare", toy.path, failing, toy.break_it(7.0), cwd=tmp_path)
    assert both.returncode == 2  # the tests fail with BASE too
    assert "without the patch too" in both.stdout


def test_a_patch_is_shown_replayed_and_verified(
    toy: ToyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.learn()
    toy.live(6.0, 60, toy.break_it(6.0))
    (tmp_path / "fix.diff").write_text(diff_to(toy, 1.0))
    monkeypatch.setenv("QIGHEAL_STORE", str(toy.store))
    done = qigheal("evaluate", toy.path, "--patch", "fix.diff", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    patch = json.loads(done.stdout)
    elsewhere = toy.path.rename(tmp_path / "gone")  # the host is not needed
    (bundle,) = (toy.store / "proofs").iterdir()
    shown = qigheal("patches", "show", bundle.name[:8], "--replay", cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for expected in ("-gain = 6.0", "+gain = 1.0", "the same verdict", "improved", "numpy", "detectable"):
        assert expected in shown.stdout
    as_json = json.loads(
        qigheal("patches", "show", bundle.name[:8], "--replay", "--json", cwd=tmp_path).stdout
    )
    assert as_json["judged"][0]["digest"] == patch["proof"]
    assert as_json["judged"][0]["replay"] == {"same": True, "differences": []}
    listed = json.loads(qigheal("patches", "--json", cwd=tmp_path).stdout)
    assert listed["measured"] == []
    assert [each["patch"]["strategy"] for each in listed["evaluated"]] == ["submitted"]
    assert "Evaluated diffs of others" in qigheal("patches", cwd=tmp_path).stdout
    verified = qigheal("patches", "--verify", "--host", elsewhere, cwd=tmp_path)
    assert verified.returncode == 0, verified.stdout
    assert "all holds together" in verified.stdout
    bundle.write_bytes(b"")
    told = json.loads(qigheal("patches", "--verify", "--json", cwd=tmp_path).stdout)
    assert len(told["problems"]) == 1
    assert qigheal("patches", "--verify", cwd=tmp_path).returncode == 1
    assert qigheal("patches", "show", bundle.name[:8], "--replay", cwd=tmp_path).returncode == 1
    assert qigheal("patches", "--store", toy.store, "show", bundle.name[:8], cwd=tmp_path).returncode == 1


# Markdown


def hostile(text: str) -> Evaluation:
    patch = HealingPatch(strategy="compare", tier="review", base="b" * 40, diff="", rationale=text, heals=())
    guard = Guard(metric="latency", margin=0.03, estimate=0.1, low=0.05, high=0.2, result="worse")
    verdict = Verdict(
        decision="refused", accepted=False, fitness=None, guards=(guard,), vetoes=(text, "other"),
        pairs=20, sandbox_level="namespaces", reason=f"tests fail: {text}",
    )  # fmt: skip
    return Evaluation(patch=patch, verdict=verdict, head="h" * 40, unmeasured=(text,), notes=(text,))


@pytest.mark.parametrize(
    "text",
    [
        "@everyone closes #1, see [this](https://example.org)",
        "```\n</details><img src=x>\n# Approved\n```",
        "````\n@team",
        "\x1b[2J\r@team\u202e",
        "| a | b |\n\n@team",
    ],
)
def test_text_of_others_stays_inside_its_fence(text: str) -> None:
    outside, fence = [], ""
    for line in show_judged.summary(hostile(text)).splitlines():
        if fence:
            fence = "" if line.strip() == fence else fence
        elif opened := re.match("(`{3,})", line):
            fence = opened[1]
        else:
            outside.append(line)
    assert fence == ""
    assert not re.search(r"@|example|<|Approved|\x1b|\u202e|\r", "\n".join(outside))
    assert "| latency (ms) |" in "\n".join(outside)


def test_a_long_text_is_cut() -> None:
    assert len(show_judged.summary(hostile("x" * 100_000))) < 12_000


def test_a_table_of_figures_survives_markdown() -> None:
    rows = [line for line in show_judged.summary(hostile("x")).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {len(show_judged.COLUMNS) + 1}
    assert "+20.00 %" in rows[-1]
