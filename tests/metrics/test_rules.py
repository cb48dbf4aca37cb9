"""The alert rules: promtool's checks and unit tests, and that they speak of metrics that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from qigheal.integrations.metrics.catalogue import BY_NAME

RULES = Path(__file__).resolve().parents[2] / "deploy/prometheus"
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")


def run(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=RULES, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@promtool
def test_promtool_accepts_rules_and_configuration() -> None:
    assert "SUCCESS" in run("check", "rules", "--lint=all", "--lint-fatal", "rules.yml")
    assert "SUCCESS" in run("check", "config", "prometheus.yml")


@promtool
def test_each_alert_fires_when_it_should() -> None:
    assert "SUCCESS" in run("test", "rules", "rules_test.yml")


def test_each_alert_is_tested_and_says_what_to_do() -> None:
    rules = [
        r for group in yaml.safe_load((RULES / "rules.yml").read_text())["groups"] for r in group["rules"]
    ]
    tested = (RULES / "rules_test.yml").read_text()
    for rule in rules:
        name, said = rule["alert"], rule["annotations"]
        assert name in tested, name
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert said["summary"]
        assert re.search(r"docs/troubleshooting\.md#[a-z-]+$", said["description"]), name
        used = re.findall(r"\b(?:geometric_health|healing|qigheal)_\w+", rule["expr"])
        assert used
        assert {*used} <= BY_NAME.keys(), f"{name} speaks of what is not exported"
