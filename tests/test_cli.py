"""The command line as a user meets it: what it prints, in which form, with which exit code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qigcore.history import History
from qigcore.rows import HEAD
from qigheal.records import Change, HealingPatch
from qigheal.settings import MonitorSettings
from tests import commandline
from tests.heal.test_engine import engine
from tests.heal.toyhost import ToyHost


def qigheal(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return commandline.qigheal(*arguments, cwd=cwd, TOY_DEPLOYS=str(cwd / "deploys"))


@pytest.fixture
def toy(tmp_path: Path) -> ToyHost:
    host = ToyHost(tmp_path)
    host.learn()
    host.live(1.0, 60, host.healthy)
    return host


def test_status_of_a_healthy_service(toy: ToyHost, tmp_path: Path) -> None:
    with toy.running():
        said = qigheal("status", "--store", toy.store, cwd=tmp_path)
        as_json = json.loads(qigheal("status", "--store", toy.store, "--json", cwd=tmp_path).stdout)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("healthy after 361 snapshots, the newest of 2023-11-1")
    assert re.search(
        r"note +the last snapshot is \d+ weeks old, though a living process writes here", said.stdout
    )
    assert as_json["healthy"] is True
    assert as_json["snapshots"] == 361
    assert as_json["last_at"] == pytest.approx(toy.clock - 1.0)
    assert as_json["metrics"]["phi"] == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("command", ["status", "roi", "--help", "phase status"])
def test_a_closed_output_is_one_line_and_no_verdict(command: str, tmp_path: Path) -> None:
    program = ("-c", "from qigheal.cli import main; main()", *command.split())
    for closed, said in ((">&-", 1), (">&- 2>&-", 0)):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, *program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert (done.returncode, len(done.stderr.splitlines())) == (69, said), done.stderr
        assert "Traceback" not in done.stderr


def test_a_service_that_has_ended_is_silent_and_not_healthy(toy: ToyHost, tmp_path: Path) -> None:
    said = qigheal("status", "--store", toy.store, cwd=tmp_path)
    assert said.returncode == 1, said.stderr
    assert said.stdout.startswith("warning after 360 snapshots")
    assert re.search(r"silent: no process writes here, and the last snapshot is \d+ weeks old", said.stdout)
    healed = qigheal("heal", toy.path, "--store", toy.store, cwd=tmp_path)
    assert healed.returncode == 0, healed.stderr
    assert re.search(r"healthy when it was last seen, \d+ weeks ago: nothing to heal", healed.stdout)


def test_a_store_that_cannot_be_read_is_not_a_healthy_one(toy: ToyHost, tmp_path: Path) -> None:
    for segment in toy.store.glob("*.qigh"):
        segment.write_bytes(b"\0" * segment.stat().st_size)
    for journal in toy.store.glob("*.journal"):
        journal.unlink()
    said = qigheal("status", "--store", toy.store, cwd=tmp_path)
    assert said.returncode == 2, said.stderr
    assert "no snapshots can be read here" in said.stdout
    assert "parts of the store could not be read: " in said.stdout
    assert "see: qigheal doctor" in said.stdout
    refused = qigheal("heal", toy.path, "--store", toy.store, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (69, "")
    assert "nothing readable" in refused.stderr


def test_status_of_a_sick_service_names_what_is_wrong(toy: ToyHost, tmp_path: Path) -> None:
    toy.live(6.0, 40, toy.break_it(6.0))
    said = qigheal("status", "--store", toy.store, cwd=tmp_path)
    assert said.returncode == 1
    assert "critical" in said.stdout
    assert "Φ" in said.stdout
    assert "components that moved" in said.stdout


def test_too_few_snapshots_is_nothing_to_say(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.live(1.0, 5, toy.healthy)
    assert qigheal("status", "--store", toy.store, cwd=tmp_path).returncode == 2
    assert qigheal("trends", "--store", toy.store, cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("command", ["status", "trends", "history"])
def test_a_folder_without_anything_of_ours_is_no_store(command: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("of somebody else")
    said = qigheal(command, "--store", tmp_path, cwd=tmp_path)
    assert (said.returncode, said.stdout) == (69, "")
    assert f"{tmp_path}: no store here" in said.stderr
    assert "--store" in said.stderr


def test_the_store_of_a_service_that_has_recorded_nothing_yet_is_one(tmp_path: Path) -> None:
    MonitorSettings().save(tmp_path)
    said = qigheal("status", "--store", tmp_path, cwd=tmp_path)
    assert (said.returncode, said.stdout) == (2, "no snapshots are stored here\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--store", ""],
        ["status", "--store="],
        ["trends", "--state-dir", "", "--json"],
        ["watch", "--store="],
    ],
)
def test_an_empty_name_is_no_folder(arguments: list[str], toy: ToyHost) -> None:
    said = qigheal(*arguments, cwd=toy.store)
    assert (said.returncode, said.stdout) == (64, "")
    assert "expected a folder, got an empty name" in said.stderr


def test_trends_and_history(toy: ToyHost, tmp_path: Path) -> None:
    trends = json.loads(qigheal("trends", "--store", toy.store, "--json", cwd=tmp_path).stdout)
    assert set(trends) == {"phi", "kappa", "basin_drift", "latency", "errors", "memory"}
    assert trends["phi"]["direction"] == "stable"
    assert trends["phi"]["reaches"] is None
    assert -1.0 <= trends["phi"]["autocorrelation"] <= 1.0
    history = json.loads(
        qigheal("history", "--store", toy.store, "--last", "3", "--json", cwd=tmp_path).stdout
    )
    assert len(history["snapshots"]) == 3
    assert history["snapshots"][0]["code_hash"] == toy.healthy
    assert len(history["snapshots"][0]["basin_coords"]) == 64
    assert sum(segment["rows"] for segment in history["segments"]) == 360


def test_trends_say_when_what_degrades_is_at_its_limit(tmp_path: Path) -> None:
    # No baseline is known here, so that Φ falls towards 0.65 and latency is beyond 2000 ms throughout.
    store = tmp_path / "store"
    noise = np.random.default_rng(9).normal(size=60)
    with History(store) as history:
        heads = np.zeros(60, HEAD)
        heads["timestamp"] = 1.7e9 + 60.0 * np.arange(60)
        heads["phi"] = 0.9 - 0.001 * np.arange(60) + 0.002 * noise
        heads["kappa_eff"] = 64.0
        heads["avg_latency_ms"] = 3000.0 + 10.0 * np.arange(60) + noise
        heads["memory_mb"] = 100.0 + 5.0 * np.arange(60)
        history.append_rows(heads, np.ones((60, 64)), ("",))
    said = qigheal("trends", "--store", store, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert re.search(
        r"^Φ reaches 0\.65 in about 3\.[0-9] h, 95 %: 2\.[0-9]–[34]\.?[0-9]? h$", said.stdout, re.M
    )
    assert "latency is beyond 2000 already\n" in said.stdout
    assert "memory reaches" not in said.stdout
    trends = json.loads(qigheal("trends", "--store", store, "--json", cwd=tmp_path).stdout)
    reaches = trends["phi"]["reaches"]
    assert (reaches["course"], reaches["limit"]) == ("reaches", 0.65)
    assert reaches["eta_s"] == pytest.approx(60.0 * reaches["eta"])
    assert reaches["low"] < 191.0 < reaches["high"]
    assert trends["latency"]["reaches"]["eta"] is None
    assert trends["memory"]["reaches"] is None


def test_heal_review_patches(toy: ToyHost, tmp_path: Path) -> None:
    toy.live(6.0, 60, toy.break_it(6.0))
    store = ("--store", toy.store)
    refused = qigheal("phase", "advance", *store, cwd=tmp_path)
    assert refused.returncode == 69
    assert "1000" in refused.stderr
    assert qigheal("phase", "override", "3", "--reason", "a test", *store, cwd=tmp_path).returncode == 0
    assert json.loads(qigheal("phase", "status", "--json", *store, cwd=tmp_path).stdout)["phase"] == 3

    healed = qigheal("heal", toy.path, *store, "--json", cwd=tmp_path)
    assert healed.returncode == 2, healed.stderr  # a change waits for a person
    (change,) = json.loads(healed.stdout)["changes"]
    assert change["state"] == "open"
    approved = qigheal("review", change["id"], "--approve", "--host", toy.path, *store, cwd=tmp_path)
    assert approved.returncode == 0, approved.stderr
    listed = json.loads(qigheal("patches", *store, "--json", cwd=tmp_path).stdout)
    assert [c["state"] for c in listed["changes"]] == ["watching"]
    assert listed["measured"][0]["verdict"]["accepted"] is True
    assert change["id"] in qigheal("patches", *store, cwd=tmp_path).stdout


def test_an_approval_that_merges_nothing_is_not_fine(toy: ToyHost, tmp_path: Path) -> None:
    toy.live(6.0, 60, toy.break_it(6.0))
    store = ("--store", toy.store)
    assert qigheal("phase", "override", "3", "--reason", "a test", *store, cwd=tmp_path).returncode == 0
    (change,) = json.loads(qigheal("heal", toy.path, *store, "--json", cwd=tmp_path).stdout)["changes"]
    toy.break_it(5.0)  # the target moves on
    asked = ("review", change["id"], "--approve", "--host", toy.path, *store, "--json")
    approved = qigheal(*asked, cwd=tmp_path)
    assert approved.returncode == 2, approved.stderr
    assert json.loads(approved.stdout)["state"] == "superseded"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["review", "ab", "--approve", "--reject"], 64, "got both"),
        (["review", "ab"], 64, "got none"),
        (["status", "--store", "nowhere"], 69, "nowhere"),
        (["status", "--stoer", "x"], 64, "--stoer"),
        (["frobnicate"], 64, "frobnicate"),
        (["trends", "--window", "3"], 64, "window"),
        (["patches", "--store", "nowhere"], 69, "nowhere"),
        (["heal", "nowhere"], 69, "nowhere"),
        (["heal", ".", "--sandbox", "cardboard"], 64, "cardboard"),
        (["phase", "override", "7", "--reason", "x"], 64, "4"),
    ],
)
def test_errors_are_one_line_with_a_remedy(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = qigheal(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("qigheal: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "nowhere").exists()


def test_looking_at_a_folder_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    qigheal("status", "--store", tmp_path / "empty", cwd=tmp_path)
    qigheal("patches", "--store", tmp_path / "empty", cwd=tmp_path)
    assert list((tmp_path / "empty").iterdir()) == []


def test_markup_in_telemetry_is_shown_as_text(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    toy.live(1.0, 12, "[red]boo[/red]")
    said = qigheal("history", "--store", toy.store, cwd=tmp_path)
    assert said.returncode == 0
    assert "[red]boo[/" in said.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("phase", "status"),
        ("phase", "advance"),
        ("heal", "host"),
        ("review", "ab", "--approve", "--host", "host"),
    ],
    ids=" ".join,
)
def test_a_mistyped_store_is_not_made(toy: ToyHost, tmp_path: Path, command: tuple[str, ...]) -> None:
    said = qigheal(*command, "--store", "mistyped", cwd=tmp_path)
    assert said.returncode == 69
    assert "mistyped: no store here" in said.stderr
    assert not (tmp_path / "mistyped").exists()


def test_text_of_others_gives_the_terminal_no_orders(toy: ToyHost, tmp_path: Path) -> None:
    toy.live(1.0, 3, "\033[2Jcode")
    engine(toy).ledger.record_change(
        Change(
            id="ab",
            state="rejected",
            patch=HealingPatch(strategy="x", tier="review", base="0" * 40, diff="", rationale="", heals=()),
            verdict=None,
            branch="qigheal/x",
            target="main",
            opened_at=1.0,
            reason="\033]0;title\a[red]reason",
        ),
        toy.clock,
    )
    for command in (("history", "--last", "2"), ("patches",)):
        said = qigheal(*command, "--store", toy.store, cwd=tmp_path)
        assert said.returncode == 0, said.stderr
        assert "\033" not in said.stdout
        assert "\a" not in said.stdout
    assert "[red]reason" in said.stdout


def test_times_beyond_the_calendar_and_names_beyond_utf8_are_shown(tmp_path: Path) -> None:
    heads = np.zeros(12, HEAD)
    heads["timestamp"], heads["code"] = 1e300, 1
    with History(tmp_path / "store", dim=4) as history:
        history.append_rows(heads, np.full((12, 4), 0.25), ("", "a\ud800\nb"))
    (tmp_path / "store" / os.fsdecode(b"\xff.qigh")).write_bytes(b"foreign")
    said = qigheal("history", "--store", tmp_path / "store", "--last", "2", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "1e+300 s" in said.stdout
    assert "a\N{REPLACEMENT CHARACTER} b" in said.stdout
    document = json.loads(qigheal("history", "--store", tmp_path / "store", "--json", cwd=tmp_path).stdout)
    assert len(document["snapshots"]) == 12
    assert qigheal("status", "--store", tmp_path / "store", cwd=tmp_path).returncode == 1


def test_a_report_that_cannot_be_written_is_said_before_the_story(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = qigheal("demo", "--json", "--output", "file", cwd=tmp_path)
    assert said.returncode == 69
    assert said.stdout == ""
    assert "--output" in said.stderr
    assert said.stderr.count("\n") == 1


def test_a_locale_without_greek(toy: ToyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert qigheal("history", "--store", toy.store, "--last", "1", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_stopped_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-u", "-c", "from qigheal.cli import main; main()", "demo"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    ) as demo:
        assert demo.stdout is not None
        while not demo.stdout.readline().startswith("1."):
            assert demo.poll() is None
        demo.send_signal(number)
        _, complaint = demo.communicate(timeout=60)
    assert demo.returncode == code, complaint
    assert complaint.startswith("qigheal: interrupted") or number != signal.SIGINT
    assert complaint.count("\n") <= 1
    assert not any(scratch.glob("qigheal-demo-*"))
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may end while we look
            assert os.fsencode(scratch) not in process.read_bytes()


def test_an_output_that_cannot_be_written_is_no_verdict(toy: ToyHost, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from qigheal.cli import main; main()",
        "status",
        "--store",
        str(toy.store),
    ]
    for arguments in ([], ["--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*command, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 69
        assert done.stderr.startswith("qigheal: ")
        assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_went_away_is_no_verdict(toy: ToyHost, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for arguments in (["--last", "300"], ["--last", "300", "--json"]):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from qigheal.cli import main; main()",
                "history",
                "--store",
                str(toy.store),
                *arguments,
            ],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode in (69, 130), done.stderr
        assert "Traceback" not in done.stderr
    os.close(writer)


def test_patches_of_a_store_that_has_none(toy: ToyHost, tmp_path: Path) -> None:
    said = qigheal("patches", "--store", toy.store, "--json", cwd=tmp_path)
    assert said.returncode == 2
    assert json.loads(said.stdout) == {"changes": [], "measured": [], "evaluated": [], "without": []}
    assert not (toy.store / "ledger.db").exists()
