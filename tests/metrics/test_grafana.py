"""The dashboard is what its generator writes, and every question that it asks has an answer."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from qigheal.integrations.metrics.catalogue import BY_NAME
from tests.metrics.conftest import Prometheus

GRAFANA = Path(__file__).resolve().parents[2] / "deploy/grafana"
BOARD: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text(encoding="utf-8"))
FILLED = {"$instance": ".*", "$__rate_interval": "10s", "$__range": "5m"}


def filled(expression: str) -> str:
    for name, value in FILLED.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def panels() -> list[dict[str, Any]]:
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """By where they stand."""
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }
    return found | {f"annotation {each['name']}": each["expr"] for each in BOARD["annotations"]["list"]}


def test_it_is_what_the_generator_writes() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    spec = importlib.util.spec_from_file_location("generate", GRAFANA / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.text() == (GRAFANA / "dashboard.json").read_text(encoding="utf-8"), (
        "run deploy/grafana/generate.py"
    )


def test_every_expression_is_answered_with_data(prometheus: Prometheus) -> None:
    unanswered = [
        where for where, expression in expressions().items() if not prometheus.graph(filled(expression))
    ]
    assert not unanswered


def test_every_variable_has_values(prometheus: Prometheus) -> None:
    asked = [each["query"] for each in BOARD["templating"]["list"] if each["type"] == "query"]
    assert asked
    for query in asked:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
        assert found is not None, query
        assert prometheus.label_values(found[2], found[1]), query


def test_it_shows_what_operators_need() -> None:
    shown = " ".join(panel["title"] for panel in panels())
    for what in ("Φ", "κ", "Drift and its limit", "Success rate", "Degradations per day", "Phase", "Breaker",
                 "Latency", "Errors", "Fitness", "Health over time"):  # fmt: skip
        assert what in shown, what
    used = {
        name
        for each in expressions().values()
        for name in re.findall(r"\b(?:geometric|healing|qigheal)_\w+", each)
    }
    bases = {re.sub(r"_(sum|count|bucket)$", "", name) if name not in BY_NAME else name for name in used}
    assert bases <= BY_NAME.keys()
    assert "geometric_health_basin_drift_limit" in used


def test_every_question_goes_to_the_chosen_data_source() -> None:
    assert BOARD["templating"]["list"][0]["type"] == "datasource"
    asking = [
        *panels(),
        *(target for panel in panels() for target in panel["targets"]),
        *BOARD["annotations"]["list"],
    ]
    assert {each["datasource"]["uid"] for each in asking} == {"${datasource}"}
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
