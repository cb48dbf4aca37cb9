"""The manifest: what it says, where it is read from, and one line for every mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qigheal.errors import ManifestError, RepoError
from qigheal.host import Manifest
from qigheal.repo import Repo
from tests.heal.gitfix import Place

FULL = """
[probe]
command = ["python", "-m", "digits.probe"]
timeout_s = 30
protect = ["digits/probe.py"]
interpreter = "/usr/bin/python3"
[tests]
command = ["python", "-m", "pytest", "-q"]
[patch]
allow = ["digits/**/*.py", "config/*.toml"]
max_files = 2
max_lines = 40
[[levers]]
name = "attention.temperature"
strategy = "attention"
file = "config/model.toml"
key = "attention.temperature"
min = 0.05
max = 20
[[levers]]
name = "anchor"
strategy = "basin"
file = "config/model.toml"
key = 'anchor."the weight"'
min = -1.0
max = 1.0
[sites]
idempotent = ["digits.store:fetch", "digits.store:Store.get"]
transient = ["ConnectionError", "http.client.HTTPException"]
[deploy]
command = ["./deploy", "now"]
"""
SMALL = '[probe]\ncommand = ["probe"]\n'


def test_everything_that_can_be_said() -> None:
    manifest = Manifest.parse(FULL)
    assert manifest.probe.command == ("python", "-m", "digits.probe")
    assert (manifest.probe.timeout_s, manifest.probe.interpreter) == (30.0, "/usr/bin/python3")
    assert manifest.probe.protect == ("digits/probe.py",)
    assert manifest.tests.command == ("python", "-m", "pytest", "-q")
    assert manifest.patch.allow == ("digits/**/*.py", "config/*.toml")
    assert (manifest.patch.max_files, manifest.patch.max_lines) == (2, 40)
    assert [(lever.name, lever.strategy, lever.parts) for lever in manifest.levers] == [
        ("attention.temperature", "attention", ("attention", "temperature")),
        ("anchor", "basin", ("anchor", "the weight")),
    ]
    assert (manifest.levers[0].min, manifest.levers[0].max) == (0.05, 20.0)
    assert manifest.sites.idempotent == ("digits.store:fetch", "digits.store:Store.get")
    assert manifest.sites.transient == ("ConnectionError", "http.client.HTTPException")
    assert manifest.deploy.command == ("./deploy", "now")
    with pytest.raises(AttributeError):
        manifest.probe = manifest.probe  # type: ignore[misc]


def test_what_is_left_out() -> None:
    manifest = Manifest.parse(SMALL)
    assert manifest.tests.command is None
    assert manifest.probe.timeout_s == 60.0
    assert manifest.probe.interpreter is None
    assert (manifest.patch.allow, manifest.patch.max_files, manifest.patch.max_lines) == ((), 3, 80)
    assert (manifest.levers, manifest.deploy.command, manifest.sites.idempotent) == ((), (), ())


def probe(line: str) -> str:
    return f"[probe]\n{line}\n"


def with_(text: str) -> str:
    return SMALL + text + "\n"


def lever(**changed: str) -> str:
    fields = {
        "name": '"g"',
        "strategy": '"attention"',
        "file": '"config/a.toml"',
        "key": '"a.g"',
        "min": "0",
        "max": "1",
    }
    fields |= changed
    lines = "\n".join(f"{key} = {value}" for key, value in fields.items() if value)
    return SMALL + f'[patch]\nallow = ["config/*.toml", "**/x.toml"]\n[[levers]]\n{lines}\n'


def second(**changed: str) -> str:
    return "[[levers]]" + lever(**changed).partition("[[levers]]")[2]


# The text, where the mistake is, what was expected, what came.
MISTAKES = [
    ("", "[probe]", "a table", "none"),
    ("[probe\n", "", "TOML", "line 1"),
    ("a = 1\na = 2\n", "", "TOML", "line 2"),
    ("probe = 3", "probe", "a table", "the number 3"),
    (with_("[[probes]]"), "'probes'", "one of probe, tests", "did you mean 'probe'?"),
    (with_("[zzz]"), "'zzz'", "one of probe, tests", "remove it"),
    (probe("timeout_s = 3"), "[probe] command", "a list of strings", "nothing"),
    (probe("comand = ['x']"), "[probe] 'comand'", "one of command", "did you mean 'command'?"),
    (probe("command = 'python -m x'"), "[probe] command", "a list of strings", "the string 'python -m x'"),
    (probe("command = []"), "[probe] command", "a command", "an empty list"),
    (probe("command = ['x', 3]"), "[probe] command[1]", "a string", "the number 3"),
    (probe("command = ['']"), "[probe] command", "the first not empty", "''"),
    (probe('command = ["x", "a\\u0000b"]'), "[probe] command", "without NUL", "x00"),
    (with_("timeout_s = '60'"), "[probe] timeout_s", "a number", "the string '60'"),
    (with_("timeout_s = true"), "[probe] timeout_s", "a number", "a boolean"),
    (with_("timeout_s = 0"), "[probe] timeout_s", "a number above 0", "0"),
    (with_("timeout_s = -1.5"), "[probe] timeout_s", "a number above 0", "-1.5"),
    (with_("timeout_s = nan"), "[probe] timeout_s", "a number above 0", "nan"),
    (with_("timeout_s = 1e9"), "[probe] timeout_s", "at most 86400", "1000000000.0"),
    (with_("timeout_s = 2024-02-29"), "[probe] timeout_s", "a number", "date"),
    (with_("protect = 'x'"), "[probe] protect", "a list of strings", "the string 'x'"),
    (with_("protect = ['/abs']"), "[probe] protect", "paths from the repository's root", "'/abs'"),
    (with_("protect = ['../up']"), "[probe] protect", "paths from the repository's root", "'../up'"),
    (with_("interpreter = ''"), "[probe] interpreter", "a string", "the string ''"),
    (with_("interpreter = ['x']"), "[probe] interpreter", "a string", "a list"),
    (with_("[tests]\ncommand = []"), "[tests] command", "a command", "an empty list"),
    (with_("[tests]\nrun = 'x'"), "[tests] 'run'", "one of command", "an unknown key"),
    (with_("tests = 'pytest'").replace("[probe]\n", "") + "[probe]\n", "tests", "a table", "the string 'pytest'"),
    (with_("[patch]\nallow = '**'"), "[patch] allow", "a list of strings", "the string '**'"),
    (with_("[patch]\nallow = [':(exclude)x']"), "[patch] allow", "without '.', '..'", "':(exclude)x'"),
    (with_("[patch]\nallow = ['']"), "[patch] allow", "paths from the repository's root", "''"),
    (with_("[patch]\nallow = ['a//b']"), "[patch] allow", "paths from the repository's root", "'a//b'"),
    (with_("[patch]\nmax_files = 0"), "[patch] max_files", "a whole number from 1", "0"),
    (with_("[patch]\nmax_files = 2.0"), "[patch] max_files", "a whole number", "the number 2.0"),
    (with_("[patch]\nmax_lines = false"), "[patch] max_lines", "a whole number", "a boolean"),
    (with_("[levers]\nname = 'x'"), "levers", "a list of tables", "a table"),
    (with_("[[levers]]\nname = 'x'"), "[levers 1] strategy", "a string", "nothing"),
    (lever(strategy='"memory"'), "[levers 1] strategy", '"attention" or "basin"', "'memory'"),
    (lever(step="1"), "[levers 1] 'step'", "one of name", "an unknown key"),
    (lever(name='"a\\nb"'), "[levers 1] name", "in one line", r"a\nb"),
    (lever(file='"config/a.json"'), "[levers 1] file", "a .toml file", "'config/a.json'"),
    (lever(file='"other/a.toml"'), "[levers 1] file", "a file that a patch may change", "not allowed by [patch]"),
    (lever(file='"../x.toml"'), "[levers 1] file", "a file that a patch may change", "'../x.toml'"),
    (lever(file='"/x.toml"'), "[levers 1] file", "a file that a patch may change", "'/x.toml'"),
    (lever(file='"tests/x.toml"'), "[levers 1] file", "a file that a patch may change", "one of the tests"),
    (lever(key='"a..g"'), "[levers 1] key", "a dotted TOML key", "'a..g'"),
    (lever(key='"a = 0 #"'), "[levers 1] key", "a dotted TOML key", "'a = 0 #'"),
    (lever(key="'a = {b'"), "[levers 1] key", "a dotted TOML key", "'a = {b'"),
    (lever(min="1", max="1"), "[levers 1] min", "a number below max = 1", "1"),
    (lever(min="2", max="1"), "[levers 1] min", "a number below max = 1", "2"),
    (lever(max="inf"), "[levers 1] max", "a number", "inf"),
    (lever(min='"0"'), "[levers 1] min", "a number", "the string '0'"),
    (lever() + second(), "[levers 2] name", "a name of its own", "'g' again"),
    (lever() + second(name='"h"', key='" a . g"'), "[levers 2] key", "a value of its own", "again"),
    (with_("[sites]\nidempotent = ['fetch']"), "[sites] idempotent", "package.module:function", "'fetch'"),
    (with_("[sites]\ntransient = ['Some Error']"), "[sites] transient", "name of an exception", "'Some Error'"),
    (with_("[deploy]\ncommand = 'make'"), "[deploy] command", "a list of strings", "the string 'make'"),
    (with_("[deploy]\ncommand = ['']"), "[deploy] command", "the first not empty", "''"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "where", "expected", "got"), MISTAKES, ids=[f"{m[1]} {m[3]}" for m in MISTAKES]
)
def test_every_mistake_is_told_in_one_line(text: str, where: str, expected: str, got: str) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"qigheal.toml: {where}")
    says, _, rest = message.removeprefix(f"qigheal.toml: {where}").partition(", got ")
    assert expected in says + rest
    assert got in rest
    assert "; " in rest  # the remedy


def test_read_from_the_commit_and_not_from_the_files(tmp_path: Path) -> None:
    place = Place(tmp_path / "host", {"qigheal.toml": SMALL})
    place.write("qigheal.toml", "nonsense")
    assert Manifest.at(Repo(place.path), place.base).probe.command == ("probe",)
    with pytest.raises(ManifestError, match="expected TOML"):
        Manifest.load(place.path)


def test_pyproject_stands_in(tmp_path: Path) -> None:
    text = '[project]\nname = "x"\n[tool.qigheal.probe]\ncommand = ["other"]\n'
    place = Place(tmp_path / "host", {"pyproject.toml": text})
    repo = Repo(place.path)
    assert (
        Manifest.at(repo, place.base).probe.command == Manifest.load(place.path).probe.command == ("other",)
    )
    place.write("pyproject.toml", text + "timeout_s = 0\n")
    with pytest.raises(
        ManifestError, match=r"^pyproject\.toml: \[tool\.qigheal\.probe\] timeout_s: expected"
    ):
        Manifest.load(place.path)
    place.write("pyproject.toml", '[tool.qigheal]\nprobes = 1\nprobe = {command = ["x"]}\n')
    with pytest.raises(ManifestError, match=r"^pyproject\.toml: \[tool\.qigheal\] 'probes': expected"):
        Manifest.load(place.path)
    place.write("pyproject.toml", "[tool.qigheal.patch]\n")
    with pytest.raises(ManifestError, match=r"^pyproject\.toml: \[tool\.qigheal\.probe\]: expected"):
        Manifest.load(place.path)
    place.write("qigheal.toml", SMALL)
    assert Manifest.at(repo, place.commit("both")).probe.command == ("probe",)


@pytest.mark.parametrize(
    "files", [{"a": "a\n"}, {"pyproject.toml": "[tool.other]\n"}, {"sub/qigheal.toml": SMALL}]
)
def test_none_at_all(tmp_path: Path, files: dict[str, str]) -> None:
    place = Place(tmp_path / "host", files)
    none = r"^qigheal\.toml: expected it at the root .* write one with \[probe\]"
    with pytest.raises(ManifestError, match=none):
        Manifest.load(place.path)
    with pytest.raises(ManifestError, match=none):
        Manifest.at(Repo(place.path), place.base)


def test_files_that_are_no_text_of_their_own(tmp_path: Path) -> None:
    place = Place(tmp_path / "host", {"a": "a\n"})
    place.write("qigheal.toml", b"\xff\xfe")
    with pytest.raises(ManifestError, match="expected UTF-8"):
        Manifest.load(place.path)
    (place.path / "qigheal.toml").unlink()
    (place.path / "qigheal.toml").symlink_to("a")
    with pytest.raises(RepoError, match="mode is 120000"):
        Manifest.at(Repo(place.path), place.commit("link"))
    place.write("bom.toml", b"\xef\xbb\xbf" + SMALL.encode())
    (place.path / "qigheal.toml").unlink()
    (place.path / "bom.toml").rename(place.path / "qigheal.toml")
    assert Manifest.load(place.path).probe.command == ("probe",)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("a = " + "[" * 100_000, "too many brackets in brackets"),
        ("a = " + "1" * 5_000, "Exceeds the limit"),
        ("#" * 1_000_001, "expected at most 1,000,000 bytes, got more"),
        (SMALL + '[[levers]]\nname = "a"\nstrategy = "basin"\nfile = "a.toml"\nmin = 0\nmax = 1\n'
         + f"key = 'a = {'[' * 100_000}'", "expected a dotted TOML key"),
    ],
    ids=["nested", "digits", "long", "key"],
)  # fmt: skip
def test_a_manifest_beyond_reason_is_refused_like_any_other(tmp_path: Path, text: str, got: str) -> None:
    (tmp_path / "qigheal.toml").write_text(text)
    with pytest.raises(ManifestError, match=got):
        Manifest.load(tmp_path)


def test_a_manifest_that_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    for kind, make in (
        ("FIFO", os.mkfifo),
        ("device", lambda path: path.symlink_to("/dev/zero")),
    ):
        make(tmp_path / "qigheal.toml")
        with pytest.raises(ManifestError, match=f"cannot be read: it is a {kind} and no regular file"):
            Manifest.load(tmp_path)
        (tmp_path / "qigheal.toml").unlink()
