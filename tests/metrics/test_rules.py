"""The alert rules: promtool's checks and unit tests, and that they speak of metrics that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from qigheal.integrations.metrics.catalogue import BY_NAME

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus"
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")


def run(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=RULES, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def anchors(page: Path) -> set[str]:
    """As GitHub and mkdocs make them of headings in plain letters."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


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
        told = re.search(r"(docs/[a-z]+\.md)#([a-z-]+)$", said["description"])
        assert told is not None, name
        if (page := ROOT / told[1]).exists():  # pages come one by one
            assert told[2] in anchors(page), f"{name}: {told[0]} leads nowhere"
        used = re.findall(r"\b(?:geometric_health|healing|qigheal)_\w+", rule["expr"])
        assert used
        assert {*used} <= BY_NAME.keys(), f"{name} speaks of what is not exported"


def test_the_reference_lists_every_alert_with_its_severity() -> None:
    rules = [
        r for group in yaml.safe_load((RULES / "rules.yml").read_text())["groups"] for r in group["rules"]
    ]
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(Qigheal\w+)` \| [^|]+ \| (\w+) \|", page, re.MULTILINE))
    assert told == {rule["alert"]: rule["labels"]["severity"] for rule in rules}
