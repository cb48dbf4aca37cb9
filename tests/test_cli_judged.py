"""qigheal evaluate, compare, and patches show and --verify, as a user and a CI job meet them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from qigheal.cli import show_judged
from qigheal.cli.app import app
from qigheal.records import Evaluation, Guard, HealingPatch, Verdict
from qigheal.repo import Repo
from tests.heal.toyhost import CONFIG, MANIFEST, ToyHost, git
from tests.test_cli import qigheal


@pytest.fixture
def toy(tmp_path: Path) -> ToyHost:
    return ToyHost(tmp_path)


class Said(NamedTuple):
    returncode: int
    stdout: str


Run = Callable[..., Said]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command that is no error, in this process: starting another one takes longer than most of them."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Said:
        command = typer.main.get_command(app)
        code = command([*map(str, arguments)], standalone_mode=False)
        return Said(code, capsys.readouterr().out)

    return run


def diff_to(toy: ToyHost, gain: float) -> str:
    repo = Repo(toy.path)
    base = repo.head()
    return repo.diff(base, repo.edit(base, {"config/app.toml": CONFIG.format(gain=gain).encode()}))


def test_a_cure_and_a_harm_without_a_store(toy: ToyHost, tmp_path: Path, run: Run) -> None:
    toy.break_it(6.0)
    (tmp_path / "fix.diff").write_text(diff_to(toy, 1.0))
    asked = ("evaluate", toy.path, "--patch", "fix.diff", "--healthy", toy.healthy)
    said = run(*asked, "--markdown", "summary.md")
    assert said.returncode == 0, said.stdout
    assert "improved: fitness 0.9" in said.stdout
    assert "detectable" in said.stdout
    assert (tmp_path / "summary.md").read_text().startswith("### qigheal: improved\n")
    assert not (tmp_path / ".qigheal").exists()
    (tmp_path / "fix.diff").write_text(diff_to(toy, 9.0))
    worse = run(*asked, "--json")
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


@pytest.mark.parametrize("name", ["fifo", "/dev/null", "/dev/zero", "host"])
def test_a_diff_is_read_from_a_regular_file_alone(toy: ToyHost, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = qigheal("evaluate", toy.path, "--patch", name, "--healthy", "HEAD", cwd=tmp_path)
    assert done.returncode == 69
    assert done.stderr.startswith(f"qigheal: {name}: cannot be read: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--patch - <&-", 69, "standard input: expected a diff, got a closed input"),
        ("--patch - 0>written", 69, "-: cannot be read"),
        ("--patch <(cat fix.diff)", 1, ""),
        ("--patch /dev/stdin < fix.diff", 1, ""),
    ],
)
def test_what_the_shell_opened_is_read(toy: ToyHost, tmp_path: Path, line: str, code: int, said: str) -> None:
    (tmp_path / "fix.diff").write_text("--- /dev/null\n+++ b/Makefile\n@@ -0,0 +1 @@\n+x\n")
    command = f"exec '{sys.executable}' -c 'from qigheal.cli import main; main()' evaluate host --healthy HEAD {line}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert ("veto     Makefile: " in done.stdout) is (code == 1)


def test_compare_says_worse_equal_and_cannot_say(toy: ToyHost, run: Run) -> None:
    (toy.path / "notes.txt").write_text("mine\n")
    noted = toy.commit("Notes")
    broken = toy.break_it(6.0)
    (toy.path / "qigheal.toml").write_text(MANIFEST + "# more\n")
    manifest = toy.commit("The manifest")
    assert run("compare", toy.path, toy.healthy, noted).returncode == 0
    worse = run("compare", toy.path, noted, broken, "--markdown", "-")
    assert worse.returncode == 1
    assert worse.stdout.startswith("### qigheal: worse\n")
    unsaid = run("compare", toy.path, broken, manifest, "--json")
    assert unsaid.returncode == 2
    assert json.loads(unsaid.stdout)["unmeasured"] == ["qigheal.toml"]


@pytest.mark.parametrize(
    "harm",
    ["import os\n\nos._exit(0)\n", "\n_figures = figures\n\n\ndef figures(g, seed, batch):\n    import os\n\n"
     "    if batch % 10 == 7:\n        os._exit(3)\n    return _figures(g, seed, batch)\n"],
    ids=["always", "for some requests"],
)  # fmt: skip
def test_a_head_that_does_not_answer_is_worse(toy: ToyHost, run: Run, harm: str) -> None:
    model = toy.path / "app/model.py"
    model.write_text(model.read_text() + harm)
    silent = toy.commit("Silent")
    said = run("compare", toy.path, toy.healthy, silent, "--json")
    assert said.returncode == 1
    verdict = json.loads(said.stdout)["verdict"]
    assert (verdict["decision"], verdict["vetoes"]) == ("worse", ["does not answer"])
    assert "patched code: " in verdict["reason"]
    told = run("compare", toy.path, toy.healthy, silent, "--markdown", "-")
    assert told.returncode == 1
    assert told.stdout.startswith("### qigheal: worse\n")
    assert "does not answer" in told.stdout


def test_compare_where_head_does_not_compile_or_its_tests_fail(toy: ToyHost, run: Run) -> None:
    tests = '\n[tests]\ncommand = ["python", "-c", "import app.model; assert app.model.gain() < 3"]\n'
    (toy.path / "qigheal.toml").write_text(MANIFEST + tests)
    base = toy.commit("Tests")
    failing = toy.break_it(6.0)
    said = run("compare", toy.path, base, failing)
    assert said.returncode == 1
    assert "tests fail" in said.stdout
    (toy.path / "app/model.py").write_text("def (\n")
    said = run("compare", toy.path, base, toy.commit("Broken"))
    assert said.returncode == 1
    assert "does not compile" in said.stdout
    git(toy.path, "checkout", "-q", failing)
    both = run("compare", toy.path, failing, toy.break_it(7.0))
    assert both.returncode == 2  # the tests fail with BASE too
    assert "without the patch too" in both.stdout


def test_a_patch_is_shown_replayed_and_verified(
    toy: ToyHost, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.learn()
    toy.live(6.0, 60, toy.break_it(6.0))
    (tmp_path / "fix.diff").write_text(diff_to(toy, 1.0))
    monkeypatch.setenv("QIGHEAL_STORE", str(toy.store))
    done = run("evaluate", toy.path, "--patch", "fix.diff", "--json")
    assert done.returncode == 0
    patch = json.loads(done.stdout)
    elsewhere = toy.path.rename(tmp_path / "gone")  # the host is not needed
    (bundle,) = (toy.store / "proofs").iterdir()
    shown = run("patches", "show", bundle.name[:8], "--replay")
    assert shown.returncode == 0, shown.stdout
    for expected in ("-gain = 6.0", "+gain = 1.0", "the same verdict", "improved", "numpy", "detectable"):
        assert expected in shown.stdout
    as_json = json.loads(run("patches", "show", bundle.name[:8], "--replay", "--json").stdout)
    assert as_json["judged"][0]["digest"] == patch["proof"]
    assert as_json["judged"][0]["replay"] == {"same": True, "differences": []}
    listed = json.loads(run("patches", "--json").stdout)
    assert listed["measured"] == []
    assert [each["patch"]["strategy"] for each in listed["evaluated"]] == ["submitted"]
    assert "Evaluated diffs of others" in run("patches").stdout
    verified = run("patches", "--verify", "--host", elsewhere)
    assert verified.returncode == 0, verified.stdout
    assert "all holds together" in verified.stdout
    bundle.write_bytes(b"")
    told = json.loads(run("patches", "--verify", "--json").stdout)
    assert len(told["problems"]) == 1
    assert run("patches", "--verify").returncode == 1
    assert run("patches", "show", bundle.name[:8], "--replay").returncode == 1
    assert run("patches", "--store", toy.store, "show", bundle.name[:8]).returncode == 1
    bundle.unlink()
    os.mkfifo(bundle)
    assert run("patches", "--verify").returncode == 1
    said = run("patches", "show", bundle.name[:8], "--replay")
    assert said.returncode == 1
    assert "it is a FIFO and no regular file" in said.stdout


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
