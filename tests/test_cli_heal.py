"""What `qigheal heal` says where nothing came of a pass: why, shortly, and all of it when asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qigheal.cli import heal_loop, show
from qigheal.records import Change, HealingPatch, HealResult, Reason
from tests.heal.lives import ACCEPTED
from tests.heal.toyhost import ToyHost
from tests.test_cli import qigheal

NOTHING = "unhealthy; no strategy has a patch for this"


def reasons(**counts: int) -> tuple[Reason, ...]:
    return tuple(
        Reason(strategy=name, text=f"{name} {number}")
        for name, count in counts.items()
        for number in range(1, count + 1)
    )


def vain(why: tuple[Reason, ...], message: str = NOTHING) -> HealResult:
    return HealResult(triggered=True, message=message, reasons=why)


def shown(capsys: pytest.CaptureFixture[str], result: HealResult, *, verbose: bool = False) -> list[str]:
    show.healed(result, "--host h", json=False, verbose=verbose)
    return capsys.readouterr().out.splitlines()


def test_every_strategy_has_a_line_and_the_longest_list_gives_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = vain(reasons(latency=20, errors=1, revert=2))
    message, *lines = shown(capsys, result)
    assert message == f"{NOTHING}:"
    assert len(lines) == show.MOST_REASONS + 1
    assert lines[:5] == [f"  latency    latency {number}" for number in range(1, 6)]
    assert lines[5:] == [
        "  errors     errors 1",
        "  revert     revert 1",
        "  revert     revert 2",
        "  and 15 more, with --verbose",
    ]
    assert len(shown(capsys, result, verbose=True)) == 1 + 23


def test_without_reasons_nothing_is_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, vain(())) == [NOTHING]
    said = "unhealthy; the present code cannot be measured: it died"
    assert shown(capsys, vain((Reason(strategy="revert", text="it died"),), said)) == [said]


def test_a_change_that_was_opened_needs_no_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    patch = HealingPatch(
        strategy="attention", tier="safe", base="c0ffee", diff="", rationale="r", heals=("phi",)
    )
    made = Change(
        id="3f2a", state="open", patch=patch, verdict=None, branch="b", target="main", opened_at=1.0
    )
    result = HealResult(
        triggered=True, message="a change is open", changes=(made,), reasons=reasons(attention=1)
    )
    assert not any("attention 1" in line for line in shown(capsys, result))
    assert any("attention 1" in line for line in shown(capsys, result, verbose=True))


def test_a_patch_that_helps_is_not_followed_by_why_others_had_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    helps = "a patch helps; phase 2 opens no changes"
    result = replace(vain(reasons(attention=1), helps), verdicts=(ACCEPTED,))
    lines = shown(capsys, result)
    assert lines[-1] == helps
    assert not any("attention 1" in line for line in lines)
    *_, message, heading, reason = shown(capsys, result, verbose=True)
    assert message == helps
    assert heading.startswith("why other")
    assert reason == "  attention  attention 1"


def test_reasons_are_data(capsys: pytest.CaptureFixture[str]) -> None:
    why = Reason(strategy="rev\x1b[2Jert", text="[red]x[/red] \x1b[31m\r\u202e")
    (_, line) = shown(capsys, vain((why,)))
    assert "[red]x[/red]" in line
    assert not re.search("[\x1b\r\u202e]", line)


def test_a_loop_tells_the_same_reasons_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passes = [vain(reasons(latency=1)), vain(reasons(latency=1)), vain(reasons(latency=2)), vain(())]
    passes += [vain(reasons(latency=1))] * 2

    def loop(one_pass: object, store: Path, every_s: float, *, told: Callable[..., Any], failed: Any) -> None:
        for result in passes:
            told(result)
        failed("no store")
        told(passes[-1])

    monkeypatch.setattr(heal_loop, "loop", loop)
    monkeypatch.setattr(heal_loop, "be_nice", lambda: None)
    heal_loop.heal_every("5m", lambda: passes[0], tmp_path, "", parent=None, json=False)
    assert capsys.readouterr().out.splitlines() == [
        f"{NOTHING}:",
        "  latency    latency 1",
        f"{NOTHING}:",
        "  latency    latency 1",
        "  latency    latency 2",
        NOTHING,
        *[f"{NOTHING}:", "  latency    latency 1"] * 2,
    ]


def test_heal_says_why_and_verbose_shows_the_log(tmp_path: Path) -> None:
    """A lever that is not in its file: the strategy that would turn it says so, wherever one looks."""
    toy = ToyHost(tmp_path)
    manifest = toy.path / "qigheal.toml"
    manifest.write_text(manifest.read_text().replace('key = "attention.gain"', 'key = "attention.gian"'))
    toy.healthy = toy.commit("A typo")
    toy.learn()
    toy.live(1.0, 60, "")  # a service that does not know its commit
    toy.live(6.0, 60, toy.break_it())
    store = ("--store", toy.store)
    assert qigheal("phase", "override", "2", "--reason", "a test", *store, cwd=tmp_path).returncode == 0
    lost = "cannot read attention.gian of config/app.toml: there is no"

    said = qigheal("heal", toy.path, *store, "--strategy", "attention", cwd=tmp_path)
    assert said.returncode == 1, said.stderr
    first, second = said.stdout.splitlines()[-2:]
    assert first == f"{NOTHING}:"
    assert second.startswith(f"  attention  lever attention.gain: {lost}")

    told = qigheal("heal", toy.path, *store, "--strategy", "attention", "--json", "--verbose", cwd=tmp_path)
    (reason,) = json.loads(told.stdout)["reasons"]
    assert lost in reason["text"]
    assert (reason["strategy"], reason["patch"]) == ("attention", "")
    logged = told.stderr.splitlines()
    assert any(re.fullmatch(rf"\S+ \S+ WARNING lever attention\.gain: {lost}.*", line) for line in logged)
    assert any(line.endswith("INFO    strategy: attention: looking for a patch") for line in logged)

    listed = qigheal("patches", *store, cwd=tmp_path)
    assert "Strategies that had no patch" in listed.stdout
    assert "lever attention.gain" in listed.stdout
    (without,) = json.loads(qigheal("patches", *store, "--json", cwd=tmp_path).stdout)["without"]
    assert (without["strategy"], without["reasons"]) == ("attention", [reason["text"]])
