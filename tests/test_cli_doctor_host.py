"""`qigheal doctor --host`: what a manifest names and is not there, and what its probe and tests do when started."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import pytest

from qigheal.cli.checks import Check, host, rehearsal
from qigheal.errors import SandboxError
from qigheal.healing import bench
from tests.heal.toyhost import CONFIG, MANIFEST, PROBE, ToyHost
from tests.test_cli import qigheal

REPORTING = PROBE.replace('"kappa_eff": kappa,', '"kappa_eff": kappa, "output_digest": str(weights),')
PACED = REPORTING.replace(
    "for line in sys.stdin:\n", "import time\nfor line in sys.stdin:\n    time.sleep(0.02)\n"
)


@pytest.fixture
def toy(tmp_path: Path) -> ToyHost:
    return ToyHost(tmp_path)


def changed(toy: ToyHost, **files: str) -> None:
    """Commit these files; __ in a name stands for a slash, and _ before its ending for the dot."""
    for name, text in files.items():
        stem, _, ending = name.replace("__", "/").rpartition("_")
        place = toy.path / f"{stem}.{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    toy.commit("Other files")


def said(found: Iterable[Check]) -> list[tuple[str, str, str]]:
    return [(check.state, check.name, check.found) for check in found if check.state != "ok"]


def test_a_host_as_it_should_be_has_no_complaint(toy: ToyHost) -> None:
    found = {check.name: check for check in host.committed(toy.path)}
    assert {check.state for check in found.values()} == {"ok"}
    assert found["lever attention.gain"].found == "1, to be set from 0.05 to 20"
    assert "1 of those allowed may not: app/probe.py (protected by [probe] protect)" in found["files"].found


def test_patterns_that_match_nothing(toy: ToyHost) -> None:
    changed(
        toy,
        qigheal_toml=MANIFEST.replace('"app/**/*.py"', '"src/**/*.py"').replace('"app/probe.py"', '"data/*"'),
    )
    assert said(host.committed(toy.path)) == [
        ("warn", "pattern", "[patch] allow: src/**/*.py matches no file of the commit"),
        ("warn", "pattern", "[probe] protect: data/* matches no file of the commit"),
    ]


def test_files_that_are_allowed_and_never_patched(toy: ToyHost) -> None:
    named = MANIFEST.replace(
        'allow = ["app/**/*.py", "config/*.toml"]', 'allow = ["deploy.sh", "app/probe.py"]'
    )
    changed(toy, qigheal_toml=named.partition("[[levers]]")[0] + '[deploy]\ncommand = ["sh", "deploy.sh"]\n')
    ((state, name, found),) = said(host.committed(toy.path))
    assert (state, name) == ("warn", "files")
    assert "app/probe.py (protected by [probe] protect), deploy.sh (named by [deploy] command)" in found


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("[attention]\ngian = 1.0\n", "cannot read attention.gain of config/app.toml: there is no "),
        ('[attention]\ngain = "high"\n', "expected a number at attention.gain of config/app.toml, got high"),
        ("[attention", "cannot read attention.gain of config/app.toml: "),
    ],
)
def test_levers_that_are_never_turned(toy: ToyHost, config: str, found: str) -> None:
    changed(toy, config__app_toml=config)
    ((state, name, told),) = said(host.committed(toy.path))
    assert (state, name) == ("warn", "lever attention.gain")
    assert told.startswith(found)


def test_levers_that_cannot_be_looked_at_name_the_extra(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tomlkit", None)
    ((state, name, found),) = said(host.committed(toy.path))
    assert (state, name) == ("fail", "levers")
    assert "pip install 'qigheal[heal]'" in found


@pytest.mark.parametrize(
    ("probe", "tests", "missing"),
    [
        ('["python", "-m", "app.prob"]', '["python", "-m", "unittest"]', ["[probe] command names the module app.prob"]),
        ('["python", "probe/run.py"]', '["python", "-m", "app"]',
         ["[probe] command names probe/run.py", "[tests] command names the module app"]),
        ('["python", "-m", "app.model", "--out", "data/new"]', '["python", "-m", "unittest", "tests/unit", "-k", "x"]',
         ["[tests] command names tests/unit"]),
        ('["python", "./app/probe.py"]', '["python", "-m", "no_such_runner", "app/model.py::Test"]',
         ["[tests] command names the module no_such_runner"]),
        ('["python", "-W", "ignore", "-m", "app.probe"]', '["sh", "-c", "python tests/run.py"]', []),
    ],
)  # fmt: skip
def test_modules_and_files_of_commands_that_nobody_has(
    toy: ToyHost, probe: str, tests: str, missing: list[str]
) -> None:
    manifest = MANIFEST.replace('["python", "-m", "app.probe"]', probe) + f"[tests]\ncommand = {tests}\n"
    changed(toy, qigheal_toml=manifest)
    assert [found for _, _, found in said(host.committed(toy.path))] == [
        f"{name}, which the commit does not have" for name in missing
    ]


def test_modules_of_another_interpreter_are_not_judged(toy: ToyHost) -> None:
    other = MANIFEST.replace('"app.probe"]', '"app.probe"]\ninterpreter = "/opt/python"')
    changed(toy, qigheal_toml=other + '[tests]\ncommand = ["python", "-m", "no_such_runner"]\n')
    assert said(host.committed(toy.path)) == []


def test_a_probe_that_cannot_be_looked_into(toy: ToyHost) -> None:
    changed(toy, qigheal_toml=MANIFEST.replace('["python", "-m", "app.probe"]', '["sh", "run.sh"]'))
    ((state, name, found),) = said(host.committed(toy.path))
    assert (state, name) == ("warn", "probe command")
    assert "expected a probe that is started as python -m MODULE" in found


def test_a_manifest_that_is_not_committed_is_a_failure_told_once(tmp_path: Path, toy: ToyHost) -> None:
    manifest = (toy.path / "qigheal.toml").read_text()
    (toy.path / "qigheal.toml").unlink()
    toy.commit("No manifest")
    (toy.path / "qigheal.toml").write_text(manifest)
    done = qigheal("doctor", "--host", toy.path, "--json", cwd=tmp_path)
    assert done.returncode == 1
    failed = [check for check in json.loads(done.stdout)["checks"] if check["state"] == "fail"]
    assert [check["name"] for check in failed] == ["commit"]
    assert failed[0]["remedy"].startswith("commit it")


def test_the_probe_is_asked_once_and_its_figures_are_shown(toy: ToyHost) -> None:
    changed(toy, app__probe_py=PACED)
    (found,) = rehearsal.probe(toy.path)
    assert (found.name, found.state) == ("probe", "ok")
    assert found.found.startswith("Φ 0.7")
    assert "a basin of 64, errors 0.00%;" in found.found


def test_a_probe_without_a_digest_must_not_merge_unattended(toy: ToyHost) -> None:
    changed(toy, app__probe_py=PACED.replace('"output_digest"', '"digest"'))
    _, found = rehearsal.probe(toy.path)
    assert (found.name, found.state) == ("probe output", "warn")
    assert "output_digest" in found.found
    assert "waits for a person in every phase" in found.remedy


def test_a_probe_that_answers_too_fast_to_be_measured(toy: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(toy, app__probe_py=PACED)
    monkeypatch.setattr(rehearsal, "SHORT_MS", 1e9)
    _, found = rehearsal.probe(toy.path)
    assert (found.name, found.state) == ("probe time", "warn")
    assert "10 to 100 ms" in found.remedy


def test_a_probe_that_does_not_answer(toy: ToyHost) -> None:
    changed(toy, app__probe_py="import sys\nsys.exit('no requests here')\n")
    (found,) = rehearsal.probe(toy.path)
    assert (found.name, found.state) == ("probe", "fail")
    assert "ended with code 1 instead of answering" in found.found
    assert "no requests here" in found.found
    assert "env -i" in found.remedy


TESTED = MANIFEST + '[tests]\ncommand = ["python", "tests/run.py"]\n'


@pytest.mark.parametrize(
    ("program", "state", "found"),
    [
        ("print('fine')", "ok", "pass in "),
        ("import sys; sys.exit('\\x1b[31mone\\ntwo is not three')", "fail",
         "fail without any patch, with exit code 1: two is not three"),
        ("import socket; socket.create_connection(('127.0.0.1', 9), 5)", "fail",
         "fail without any patch, with exit code 1: "),
        ("import time; time.sleep(600)", "fail", "were ended after "),
    ],
)  # fmt: skip
def test_the_tests_are_run_once_with_a_trials_limits(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch, program: str, state: str, found: str
) -> None:
    changed(toy, qigheal_toml=TESTED, tests__run_py=program)
    if "sleep" in program:
        monkeypatch.setattr(bench, "TESTS_TIMEOUT_S", 1.0)
    (told,) = rehearsal.tests(toy.path)
    assert (told.name, told.state) == ("tests", state)
    assert told.found.startswith(found)
    assert bool(told.remedy) is (state == "fail")


def test_a_host_without_tests_has_none_to_run(toy: ToyHost) -> None:
    assert [*rehearsal.tests(toy.path)] == []


def test_without_a_sandbox_nothing_is_started(toy: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(level: str) -> NoReturn:
        raise SandboxError("no isolation: bwrap not on PATH")

    monkeypatch.setattr(rehearsal, "Sandbox", none)
    found = [*rehearsal.probe(toy.path), *rehearsal.tests(toy.path)]
    assert [(check.name, check.state) for check in found] == [("probe", "warn"), ("tests", "warn")]
    assert all("bwrap not on PATH" in check.found for check in found)


def test_all_of_it_by_the_command(tmp_path: Path, toy: ToyHost) -> None:
    changed(
        toy,
        qigheal_toml=TESTED,
        tests__run_py="raise SystemExit(3)",
        config__app_toml=CONFIG.format(gain=6.0),
    )
    before = {path: path.read_bytes() for path in toy.path.rglob("*") if path.is_file()}
    done = qigheal("doctor", "--host", toy.path, "--json", cwd=tmp_path)
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert (found["probe"]["state"], found["tests"]["state"]) == ("ok", "fail")
    assert found["lever attention.gain"]["found"].startswith("6, ")
    assert {path: path.read_bytes() for path in toy.path.rglob("*") if path.is_file()} == before
