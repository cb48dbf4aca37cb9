"""Every command, one after another: its help, its JSON, its errors, and the page about all of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from qigheal.cli import main, reference
from qigheal.cli.app import WHERE, app
from qigheal.cli.glance import Asked, plainly_asked
from tests.heal.toyhost import ToyHost

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = dict(reference.commands())
SPEAKS_NO_JSON = {"serve"}
"""Runs until it is ended; what it has to tell, its routes tell."""

NEEDED = {
    "baseline compare": ["{store}", "{store}"],
    "review": ["ab", "--approve"],
    "phase override": ["2", "--reason", "x"],
    "patches show": ["ab"],
    "compare": ["{host}", "HEAD", "HEAD"],
    "evaluate": ["{host}", "--patch", "{diff}"],
    "export": ["out.csv"],
    "import": ["{file}"],
    "heal": ["{host}"],
    "phase drill": ["--host", "{host}"],
}
"""Arguments without which a command cannot be run."""

DIFF = """--- a/deploy.sh
+++ b/deploy.sh
@@ -1 +1 @@
-# a
+# b
"""

POSITIONAL = {"baseline show", "baseline compare", "backtest"}
"""Commands that take a store as an argument."""

MAKES_ONE = {"import"}
"""The command for which a store that is not there is none yet: it is made."""

WITHOUT_A_STORE = {"demo", "compare", "roi"}
"""Commands that need none; `compare` and `roi` may be given one."""


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """The command line in this process: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QIGHEAL_STORE", raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}

    def ran(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qigheal", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    yield ran
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyHost:
    made = ToyHost(tmp_path_factory.mktemp("toy"))
    made.live(1.0, 12, made.healthy)
    return made


def filled(name: str, toy: ToyHost, tmp_path: Path, store: object) -> list[object]:
    (tmp_path / "file").write_text("{}")
    (tmp_path / "diff").write_text(DIFF)
    places = {"{host}": toy.path, "{store}": store, "{file}": tmp_path / "file", "{diff}": tmp_path / "diff"}
    rest: list[object] = [places.get(word, word) for word in NEEDED.get(name, [])]
    if name in ("backtest", "baseline show"):
        rest = [store]
    elif name not in POSITIONAL | {"demo"}:
        rest += ["--store", store]
    if name == "watch":
        rest.append("--once")
    return [*name.split(), *rest]


def test_every_place_of_a_command_is_there() -> None:
    assert len(COMMANDS) >= len(WHERE)
    assert set(reference.EXITS) == set(COMMANDS)
    assert list(typer.main.get_command(app).commands) == list(WHERE)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_can_be_typed(name: str) -> None:
    command = COMMANDS[name]
    examples = re.findall(r"^(?:Example|[A-Z][^.\n]*): (qigheal [^\n]+)", command.help, re.M)
    assert any(example.startswith(f"qigheal {name}") for example in examples), command.help
    for example in examples:
        words = example.split()
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given <= {option for parameter in command.params for option in parameter.opts}, example


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    for parameter in COMMANDS[name].params:
        if not parameter.hidden:
            assert parameter.help, f"{name}: {parameter.name}"


def test_json_is_an_option_of_all_that_answer() -> None:
    silent = {
        name
        for name, command in COMMANDS.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert silent == SPEAKS_NO_JSON


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_help_is_printed(name: str, run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, complaints = run(*name.split(), "--help")
    assert (code, complaints) == (0, "")
    assert f"qigheal {name}" in " ".join(out.split())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - MAKES_ONE - WITHOUT_A_STORE))
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_store_that_is_none_is_one_line_with_a_remedy(
    name: str, kind: str, run: Callable[..., tuple[int, str, str]], toy: ToyHost, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("no store")
    code, out, complaints = run(*filled(name, toy, tmp_path, place))
    if name == "doctor":
        assert code == 1
        assert re.search(r"fail +store", out)
        return
    assert code == 69, (out, complaints)
    assert out == ""
    assert complaints.startswith("qigheal: ")
    assert len(complaints.splitlines()) == 1
    assert str(place) in complaints
    if kind == "missing":
        assert re.search(r"[;,] .*\bname\b", complaints), complaints
    assert place.exists() == (kind == "file")


def test_a_baseline_that_is_not_there_has_a_remedy(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, complaints = run("baseline", "show", "/nope")
    assert (code, out) == (69, "")
    assert "/nope" in complaints
    assert "; name its file" in complaints


@pytest.mark.parametrize("name", ["status", "history", "phase status", "roi", "doctor"])
def test_a_working_folder_that_was_removed_is_no_full_disk(
    name: str, run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, _, complaints = run(*name.split())
    assert "disk" not in complaints
    assert "Traceback" not in complaints
    if complaints:
        assert code == 69
        assert len(complaints.splitlines()) == 1
        assert "; " in complaints


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"demo"}))
def test_wrong_options_are_one_line(
    name: str, run: Callable[..., tuple[int, str, str]], toy: ToyHost, tmp_path: Path
) -> None:
    arguments = filled(name, toy, tmp_path, toy.store)
    code, out, complaints = run(*arguments, "--no-such-option")
    assert (code, out) == (64, "")
    assert len(complaints.splitlines()) == 1
    assert "--no-such-option" in complaints


@pytest.mark.parametrize(
    "arguments",
    [
        ("trends", "--window", "many"),
        ("history", "--last", "0"),
        ("watch", "--every", "never"),
        ("serve", "--port", "70000"),
        ("serve", "--widget-ancestors", "https://a.example; script-src *"),
        ("serve", "--widget-ancestors", ""),
        ("export", "x.csv", "--start", "yesterday"),
        ("compact", "--keep-days", "-1"),
        ("backtest", "--within", "a while"),
        ("baseline", "compare", "a", "b", "--level", "2"),
        ("phase", "override", "9", "--reason", "x"),
        ("demo", "--fault-temperature", "0"),
        ("status", "--store", "a", "--state-dir", "b"),
        ("trends", "--store", "a", "--state-dir", "b"),
        ("status", "--store"),
        ("status", "extra"),
        ("review",),
        ("roi", "--hourly-rate", "-1"),
        ("roi", "--uptime-gain", "2"),
        ("heal", "--sandbox", "foo"),
        ("heal", "r", "--every", "x"),
        ("backtest", "--phi-min", "nan"),
        ("backtest", "--drift-max", "4"),
        ("backtest", "--average-run-length", "-1"),
        ("backtest", "--average-run-length", "nan"),
        ("backtest", "--average-run-length", "many"),
        ("export", "x.csv", "--columns", "foo"),
        ("export", "x.json", "--columns", "phi"),
        ("export", "x.foo"),
        ("export", "x", "--format", "foo"),
        ("phase", "override", "3", "--reason", " "),
    ],
)
def test_wrong_values_are_errors_of_usage(
    arguments: tuple[str, ...], run: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, complaints = run(*arguments)
    assert (code, out) == (64, ""), complaints
    assert complaints.startswith("qigheal: ")
    assert len(complaints.splitlines()) == 1
    command = " ".join(arguments[:2] if arguments[0] in ("phase", "baseline") else arguments[:1])
    assert complaints.endswith(f"(see: qigheal {command} --help)\n")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["status"], Asked()),
        (["status", "--json", "--store", "a b"], Asked(store=Path("a b"), json=True)),
        (["status", "--store=a=b"], Asked(store=Path("a=b"))),
        (["status", "--state-dir", "s"], Asked(state_dir=Path("s"))),
        (["status", "--store", "a", "--store", "b"], Asked(store=Path("b"))),
        (["status", "--store=-a"], Asked(store=Path("-a"))),
        (["status", "--store", "--json"], None),
        (["status", "--json=x"], None),
        (["status", "--js"], None),
        (["status", "--help"], None),
        (["status", "--store="], None),
        (["status", "--store", "a", "--state-dir", "b"], None),
        (["trends"], None),
        (["--version"], None),
        ([], None),
    ],
)
def test_what_a_plain_status_is(arguments: list[str], asked: Asked | None) -> None:
    assert plainly_asked(arguments) == asked


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_status_says_the_same_however_it_is_read(
    more: tuple[str, ...],
    run: Callable[..., tuple[int, str, str]],
    toy: ToyHost,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qigheal.cli import glance

    with toy.running():  # of an ended one the age is said to the second
        quick = run("status", "--store", toy.store, *more)
        monkeypatch.setattr(glance, "plainly_asked", lambda _: None)
        assert run("status", "--store", toy.store, *more) == quick


def test_the_page_about_commands_is_that_of_the_code() -> None:
    assert (ROOT / "docs/commands.md").read_text("utf-8") == reference.page(), (
        "make it again: python -m qigheal.cli.reference > docs/commands.md"
    )


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("qigheal sta", {"status"}),
        ("qigheal phase ", {"status", "advance", "override", "drill"}),
        ("qigheal status --st", {"--store", "--state-dir"}),
    ],
)
def test_completion_offers_commands_and_options(typed: str, offered: set[str], tmp_path: Path) -> None:
    asked: dict[str, str] = {
        "_QIGHEAL_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split(" ")) - 1),
    }
    done = command([], tmp_path, **asked)
    assert set(done.stdout.split()) == offered, done.stderr


NAMED_SHELL = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
"""Typer's own switch: the shell is the one that is named, and not whichever runs the tests."""


def test_the_script_of_completion_is_shown(tmp_path: Path) -> None:
    done = command(["--show-completion", "bash"], tmp_path, **NAMED_SHELL)
    assert done.returncode == 0, done.stderr
    assert "_QIGHEAL_COMPLETE=complete_bash" in done.stdout


def test_completion_is_installed_for_a_shell(tmp_path: Path) -> None:
    done = command(["--install-completion", "bash"], tmp_path, HOME=str(tmp_path), **NAMED_SHELL)
    assert done.returncode == 0, done.stderr
    (script,) = tmp_path.rglob("qigheal.sh")
    assert "_QIGHEAL_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


def command(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", "from qigheal.cli import main; main()", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


LOADED = """
import sys
sys.argv = ["qigheal", "status", "--store", sys.argv[1]]
from qigheal.cli import main
try:
    main()
except SystemExit:
    print(*sorted({name.split(".")[0] for name in sys.modules} | set(sys.modules)), file=sys.stderr)
"""


def test_status_loads_only_what_it_needs(toy: ToyHost, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(toy.store)], capture_output=True, text=True, check=False
    )
    loaded: Any = set(done.stderr.split())
    assert "qigheal.standing" in loaded
    heavy = {
        "typer", "pydantic", "fastapi", "httpx", "libcst", "matplotlib", "numba", "scipy", "sqlite3",
        "qigheal.monitor", "qigheal.repo", "qigheal.backtest", "qigheal.integrations",
    }  # fmt: skip
    assert not loaded & heavy
    assert not {name for name in loaded if name.startswith("qigheal.healing")}
