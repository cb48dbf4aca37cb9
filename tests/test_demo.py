"""The main job, as the README promises it: the demo at its default and with other faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qigheal.demo import story
from qigheal.demo.story import DemoError, Story, tell

# The healer measures time: these run by themselves, after the tests that share the machine.
pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-c", "from qigheal.cli import main; main()", "demo"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads((folder / "demo-report.json").read_text()), folder, done.stdout


def test_the_fault_is_found(report: tuple[dict[str, Any], Path, str]) -> None:
    told = report[0]
    assert told["snapshots"] >= 1000
    assert told["baseline"]["phi"] == pytest.approx(0.772, abs=0.02)
    assert told["baseline"]["kappa"] == pytest.approx(66.8, abs=3.0)
    assert told["fault"]["severity"] == "critical"
    assert 1 <= told["fault"]["detected_after_snapshots"] <= 20
    assert any("Φ" in issue for issue in told["fault"]["issues"])
    assert any("κ" in issue for issue in told["fault"]["issues"])


def test_the_repair_is_measured_merged_and_confirmed(report: tuple[dict[str, Any], Path, str]) -> None:
    told = report[0]
    patch = told["patch"]
    assert patch["strategy"] == "attention"
    assert patch["file"] == "config/model.toml"
    assert patch["pairs"] >= 20
    assert patch["fitness"]["low"] > 0.6
    assert patch["fitness"]["low"] <= patch["fitness"]["point"] <= patch["fitness"]["high"]
    assert patch["parameters"]["attention.temperature"] == pytest.approx(0.85, rel=0.15)
    assert told["change"]["state"] == "confirmed"
    assert told["change"]["branch"].startswith("qigheal/attention-")
    assert len(told["change"]["merge_commit"]) == 40
    assert told["recovered"]["phi"] == pytest.approx(told["baseline"]["phi"], abs=0.03)


def test_the_harmful_change_is_taken_back(report: tuple[dict[str, Any], Path, str]) -> None:
    told = report[0]
    assert told["rollback"]["commit"] != told["rollback"]["reverted_by"]
    assert told["rollback"]["phi_after"] == pytest.approx(told["baseline"]["phi"], abs=0.03)


def test_the_story_and_the_picture_are_there(report: tuple[dict[str, Any], Path, str]) -> None:
    told, folder, said = report
    assert told["seconds"] < 180
    assert (folder / "demo-report.png").read_bytes().startswith(b"\x89PNG")
    assert "temperature" in said
    assert "The watch took it back by itself" in said
    assert str(folder.parent) not in json.dumps(told), "the report names a folder of this machine"


@pytest.mark.parametrize("temperature", [0.2, 2.0, 30.0])
def test_other_faults_are_found_and_healed(temperature: float, tmp_path: Path) -> None:
    told = tell(fault_temperature=temperature, folder=tmp_path, say=lambda _: None)
    assert told["fault"]["detected_after_snapshots"] is not None
    assert told["change"]["state"] == "confirmed"
    assert told["patch"]["parameters"]["attention.temperature"] == pytest.approx(0.85, rel=0.15)


def test_a_deploy_that_does_no_harm_gets_no_patch(tmp_path: Path) -> None:
    told = tell(fault_temperature=0.85, folder=tmp_path, say=lambda _: None)
    assert told["fault"]["detected_after_snapshots"] is None
    assert told["patch"] is None
    assert told["change"] is None


@pytest.mark.parametrize(
    ("severities", "after"),
    [
        ([0] * 60, None),
        ([0] * 20 + [1] * 20 + [0] * 20, None),
        ([2] * 60, 1),
        ([1] + [0] * 19 + [2] * 40, 21),
        ([0] * 30 + [1] * 30, 31),
        ([0] * 31 + [1] * 29, None),
    ],
)
def test_an_alarm_that_came_and_went_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, severities: list[int], after: int | None
) -> None:
    batch = SimpleNamespace(code_hash=["a" * 10] * 2 + ["b" * 10] * 60)
    monkeypatch.setattr(story, "replay", lambda *_: np.array([1, 0, *severities]))
    monkeypatch.setattr(story, "rules_for", lambda *_: None)
    told = SimpleNamespace(read=lambda: (batch, None), store=tmp_path)
    assert Story.detection(told, "b" * 40) == after


def test_an_alarm_that_passes_before_a_change_is_known_is_no_fault() -> None:
    said: list[str] = []
    result = SimpleNamespace(changes=(), message="no strategy has a patch for this")
    told = SimpleNamespace(
        say=said.append,
        engine=SimpleNamespace(check_and_heal=lambda: result),
        well=lambda when: None,
    )
    told.heal = lambda: Story.heal(told)
    assert story.heal_and_harm(told) is None
    assert "passed by itself" in said[-1]

    def unwell(when: str) -> None:
        raise DemoError(f"health {when}: not seen within 120 s")

    told.well = unwell
    with pytest.raises(DemoError, match="no strategy has a patch for this; health without a change"):
        story.heal_and_harm(told)
