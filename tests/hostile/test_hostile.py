"""Every hostile diff is refused by `qigheal evaluate`, which names the reason and leaves the host alone."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from qigheal.cli.app import app
from qigheal.sandbox.processes import marked
from tests.heal.isolated import isolated
from tests.heal.probed_host import belongs
from tests.hostile.diffs import CURE, EVERY, Hostile
from tests.hostile.host import Host, Kind, diff_of

HARMED = (Path("/tmp/fill"), Path("/etc/cron.d/harm"))


@pytest.fixture(scope="module")
def hosts() -> Iterator[Callable[[Kind], Host]]:
    """The hosts, made when they are first asked for; afterwards no process of theirs runs any more."""
    if isinstance(found := isolated(), str):
        pytest.skip(found)
    folder = Path(tempfile.mkdtemp(prefix="qigheal-hostile-"))
    made: dict[Kind, Host] = {}

    def host(kind: Kind) -> Host:
        if kind not in made:
            made[kind] = Host(folder / kind, kind)
        return made[kind]

    yield host
    assert not [pid for pid in marked("OMP_NUM_THREADS=1") if belongs(pid, folder)]
    shutil.rmtree(folder)


def evaluate(host: Host, diff: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    """The exit code of `qigheal evaluate`, and the document that it prints."""
    (folder / "submitted.diff").write_text(diff)
    arguments = ["evaluate", str(host.path), "--patch", str(folder / "submitted.diff")]
    command = typer.main.get_command(app)
    code = command([*arguments, "--store", str(host.store), "--json"], standalone_mode=False)
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("hostile", EVERY, ids=lambda hostile: hostile.name)
def test_it_is_refused_and_the_reason_is_named(
    hostile: Hostile,
    hosts: Callable[[Kind], Host],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host = hosts(hostile.kind)
    before = host.state()
    code, said = evaluate(host, hostile.text or diff_of(host, tmp_path, hostile.shell), tmp_path, capsys)
    verdict = said["verdict"]
    assert code in (1, 2)
    assert verdict["accepted"] is False
    assert re.search(hostile.named, " | ".join([verdict["reason"], *verdict["vetoes"]]))
    assert host.state() == before
    assert not any(path.exists() for path in HARMED)


def test_an_honest_cure_passes(
    hosts: Callable[[Kind], Host], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that the diffs above are refused for what they do, and not because everything is."""
    host = hosts("phi")
    code, said = evaluate(host, diff_of(host, tmp_path, CURE), tmp_path, capsys)
    assert (code, said["verdict"]["decision"]) == (0, "improved"), said["verdict"]["reason"]
