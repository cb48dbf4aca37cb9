"""Every code block of the README and of docs/ is run, or held against what it speaks of."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qigheal.host import Manifest
from tests.doccommands import SYNOPSIS, faults
from tests.docpages import ROOT, Block, as_job, blocks, every, lines, pages

NOT_RUN: dict[str, str] = {}
"""Pages whose Python cannot be run here, each with the reason."""

GIVEN = {"ALERT_WEBHOOK": "http://127.0.0.1:9/hook"}
"""What pages read from the environment; nothing listens there."""

RUNNABLE = [page for page in pages() if page not in NOT_RUN and json.loads(as_job(page))["steps"]]
COMMANDS = [(block, line, text) for block in every("commands") for line, text in lines(block)]
INSTRUCTIONS = {
    "FROM",
    "RUN",
    "COPY",
    "ENV",
    "USER",
    "WORKDIR",
    "VOLUME",
    "EXPOSE",
    "CMD",
    "ENTRYPOINT",
    "ARG",
}


def ids(value: Any) -> str | None:
    return value.where if isinstance(value, Block) else None


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history in one Parquet file, as `qigheal export` leaves it."""
    from qigheal import GeometricHealthMonitor

    folder = tmp_path_factory.mktemp("exported")
    rng = np.random.default_rng(0)
    with GeometricHealthMonitor(history=folder / "store") as monitor:
        for basin in rng.dirichlet(np.full(64, 200.0), 50):
            monitor.record(0.75, 64.0, basin, 0.0, 5.0, 120.0)
        monitor.flush()
        assert monitor.history is not None
        monitor.history.export(folder / "history.parquet")
    return folder / "history.parquet"


@pytest.mark.parametrize("page", RUNNABLE)
def test_the_code_of_a_page_runs_in_order(page: str, tmp_path: Path, exported: Path) -> None:
    (tmp_path / "history.parquet").write_bytes(exported.read_bytes())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QIGHEAL_")}
    environment |= GIVEN
    environment["PYTHONPATH"] = os.pathsep.join(
        [*(str(Path(each).resolve()) for each in sys.path if each), environment.get("PYTHONPATH", "")]
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tests" / "docrun.py")],
        input=as_job(page),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_what_is_not_run_is_there_and_has_a_reason() -> None:
    for page, reason in NOT_RUN.items():
        assert any(block.kind == "python" for block in blocks(page)), page
        assert len(reason) > 20, page


def test_every_block_says_a_language_that_is_checked() -> None:
    """A fence without one, or of another: name it in tests/docpages.py together with what is checked of it."""
    assert [block.where for block in every("unknown")] == []


@pytest.mark.parametrize(("block", "line", "text"), COMMANDS, ids=ids)
def test_commands_could_be_typed(block: Block, line: int, text: str) -> None:
    assert faults(text) == [], f"{block.page}:{line}: {text}"


def test_a_command_that_could_not_be_typed_is_found() -> None:
    for wrong in (
        "qigheal stats",
        "qigheal status --stor DIR",
        "qigheal phase override 7 --reason x",
        "qigheal phase override 3",
        "qigheal review",
        "make nothing",
        "pip install 'qigheal[nothing]'",
        "qigehal status",
        "qigheal patches show ID [--repaly]",
        "python -m benchmarks.nothing",
        "python -m qigheal heel HOST",
    ):
        assert faults(wrong), wrong
    assert faults("qigheal status --json > status.json && qigheal trends  # and so on") == []
    assert faults("qigheal patches show ID [--replay] [--json]     one patch") == []
    assert SYNOPSIS.search("qigheal patches show ID [--replay]")


@pytest.mark.parametrize("block", every("toml"), ids=ids)
def test_toml_is_what_its_reader_takes(block: Block) -> None:
    tables = tomllib.loads(block.text)
    if "project" in tables:
        assert set(tables["project"]) <= {"entry-points", "dependencies", "optional-dependencies"}
        return
    whole = (
        block.text if "probe" in tables else f'{block.text}\n[probe]\ncommand = ["python", "-m", "probe"]\n'
    )
    Manifest.parse(whole, block.where)


def test_json_can_be_read() -> None:
    for block in every("json"):
        json.loads(block.text)


@pytest.mark.parametrize("block", every("yaml"), ids=ids)
def test_yaml_can_be_read_and_its_commands_typed(block: Block) -> None:
    import yaml

    yaml.safe_load(block.text)
    for line in block.text.splitlines():
        if match := re.match(r"\s*(?:- )?(?:run: )?((?:qigheal|pip install) [^|>&]*)", line):
            assert faults(match[1].rstrip("\\ ")) == [], f"{block.where}: {line}"


@pytest.mark.parametrize("block", every("unit"), ids=ids)
def test_units_can_be_read_and_their_commands_typed(block: Block) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.text)
    assert set(unit.sections()) <= {"Unit", "Service", "Install", "Timer"}, block.where
    if "Service" in unit:
        command = unit["Service"]["ExecStart"]
        assert faults(" ".join([command.split()[0].rpartition("/")[2], *command.split()[1:]])) == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("block", every("unit"), ids=ids)
def test_systemd_knows_every_key_of_a_unit(block: Block, tmp_path: Path) -> None:
    unit = tmp_path / "qigheal.service"
    unit.write_text(re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", block.text))  # ours is not installed
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, ""), block.where


@pytest.mark.parametrize("block", every("container"), ids=ids)
def test_container_files_hold_instructions(block: Block) -> None:
    for line in block.text.replace("\\\n", " ").splitlines():
        if not line or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        assert word in INSTRUCTIONS, f"{block.where}: {line}"
        if word in ("CMD", "ENTRYPOINT"):
            assert faults(shlex.join(json.loads(rest))) == [], f"{block.where}: {line}"
        if word == "RUN":
            assert faults(rest) == [], f"{block.where}: {line}"


@pytest.mark.parametrize("block", every("http"), ids=ids)
def test_requests_and_answers_have_their_shape(block: Block) -> None:
    head, _, body = block.text.partition("\n\n")
    first, *headers = head.splitlines()
    assert re.fullmatch(r"(GET|POST) /api/self-healing/\S+ HTTP/1\.1|HTTP/1\.1 [1-5]\d\d [A-Z].*", first), (
        first
    )
    for header in headers:
        assert re.fullmatch(r"[A-Z][A-Za-z-]*: \S.*", header), f"{block.where}: {header}"
    if body and "text/event-stream" not in head:
        json.loads(body)


def test_queries_are_balanced_and_ask_for_something_of_ours() -> None:
    for block in every("promql"):
        for opening, closing in ("()", "[]", "{}"):
            assert block.text.count(opening) == block.text.count(closing), block.where
        assert re.search(r"\b(geometric_health|healing|qigheal)_", block.text), block.where
