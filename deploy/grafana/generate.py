"""Writes dashboard.json, the Grafana dashboard of one or more services, beside this file.

    pip install grafana-foundation-sdk
    python deploy/grafana/generate.py

What the metrics mean stands in docs/metrics.md. Only what is drawn, and how, is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, GraphDrawStyle, LineStyle, VisibilityMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
    VariableSort,
)

FILE = Path(__file__).with_name("dashboard.json")

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
ONE = '{instance=~"$instance"}'
STEP = "[$__rate_interval]"

SEVERITY = (
    'sum without (severity) (geometric_health_status{instance=~"$instance", severity="warning"} or '
    '2 * geometric_health_status{instance=~"$instance", severity="critical"})'
)
LIMIT = (
    DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"}),
    DynamicConfigValue("custom.lineStyle", LineStyle(fill="dash", dash=[8, 6])),
    DynamicConfigValue("custom.fillOpacity", 0),
)
Drawn = tuple[str, str]
"""An expression, and the name of its line."""

Panel = timeseries.Panel | stat.Panel | statetimeline.Panel


def _words(*pairs: tuple[str, str]) -> list[ValueMap]:
    """What the values 0, 1, 2... are called, and their colours."""
    return [
        ValueMap(
            {
                str(value): ValueMappingResult(text=text, color=colour, index=value)
                for value, (text, colour) in enumerate(pairs)
            }
        )
    ]


SEVERITIES = _words(("normal", "green"), ("warning", "orange"), ("critical", "red"))
BREAKER = _words(("closed", "green"), ("open", "red"))
PHASES = _words(
    ("none", "gray"),
    ("1 monitor", "blue"),
    ("2 evaluate", "blue"),
    ("3 review", "purple"),
    ("4 autonomous", "green"),
)


def _asked(panel: Panel, drawn: Sequence[Drawn], title: str, unit: str, told: str) -> None:
    panel.title(title).datasource(SOURCE).unit(unit).description(told)
    for number, (expression, name) in enumerate(drawn):
        panel.with_target(
            prometheus.Dataquery()
            .expr(expression)
            .legend_format(name)
            .ref_id(chr(ord("A") + number))
            .datasource(SOURCE)
        )


def _figure(
    title: str, expression: str, told: str, *, unit: str = "short", name: str = "{{instance}}"
) -> stat.Panel:
    panel = stat.Panel().height(4).span(4).color_mode(BigValueColorMode.VALUE).no_value("none")
    _asked(panel, [(expression, name)], title, unit, told)
    return panel


def _chart(
    title: str, told: str, *drawn: Drawn, unit: str = "short", span: int = 12, bars: bool = False
) -> timeseries.Panel:
    panel = timeseries.Panel().height(8).span(span).fill_opacity(6 if not bars else 60)
    panel.show_points(VisibilityMode.NEVER)
    panel.override_by_regexp(".*limit.*", list(LIMIT))
    if bars:
        panel.draw_style(GraphDrawStyle.BARS)
    _asked(panel, drawn, title, unit, told)
    return panel


def _timeline(
    title: str, told: str, expression: str, mappings: list[ValueMap], *, span: int = 12
) -> statetimeline.Panel:
    panel = statetimeline.Panel().height(4).span(span).mappings(mappings).merge_values(True)
    panel.show_value(VisibilityMode.AUTO)
    _asked(panel, [(expression, "{{instance}}")], title, "short", told)
    return panel


def _mean_s(what: str) -> str:
    name = f"healing_patch_{what}_duration_seconds"
    return f"increase({name}_sum{ONE}[$__range]) / increase({name}_count{ONE}[$__range])"


def _good(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    made = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    return made.steps([Threshold(value=value, color=colour) for value, colour in steps])


def _health() -> list[Panel]:
    return [
        _figure("Health", SEVERITY, "The present severity by the rules in force.").mappings(SEVERITIES),
        _figure("Φ", f"geometric_health_phi{ONE}", "Integration score as the service reports it.").decimals(
            3
        ),
        _figure(
            "Drift", f"geometric_health_basin_drift{ONE}", "Distance from the healthy state, in radians."
        ).decimals(3),
        _figure(
            "Newest snapshot",
            f"geometric_health_snapshot_age_seconds{ONE}",
            "How long ago it was recorded.",
            unit="s",
        ).thresholds(_good((None, "green"), (120.0, "orange"), (300.0, "red"))),
        _figure("Processes", f"geometric_health_writers{ONE}", "How many record at present."),
        _figure(
            "Degradations in a day",
            f"increase(geometric_health_degradations_total{ONE}[1d])",
            "How often the health went from normal to a warning or worse.",
        ).decimals(0),
        _timeline("Health over time", "Severity by the rules in force.", SEVERITY, SEVERITIES, span=24),
        _chart(
            "Φ and its limit",
            "The limit is what was learned from the service's healthy time, or the absolute one before that.",
            (f"geometric_health_phi{ONE}", "Φ {{instance}}"),
            (f"geometric_health_phi_limit{ONE}", "limit {{instance}}"),
        ),
        _chart(
            "κ", "Coupling as the service reports it.", (f"geometric_health_kappa{ONE}", "κ {{instance}}")
        ),
        _chart(
            "Drift and its limit",
            "Distance of the state from the healthy one, in radians.",
            (f"geometric_health_basin_drift{ONE}", "drift {{instance}}"),
            (f"geometric_health_basin_drift_limit{ONE}", "limit {{instance}}"),
        ),
        _chart(
            "Degradations per day",
            "At each moment, those of the 24 hours before it.",
            (f"increase(geometric_health_degradations_total{ONE}[1d])", "{{instance}}"),
            bars=True,
        ),
        _chart(
            "Latency",
            "Mean of the processes.",
            (f"geometric_health_latency_seconds{ONE}", "{{instance}}"),
            unit="s",
        ),
        _chart(
            "Errors",
            "Share of failed requests.",
            (f"geometric_health_error_ratio{ONE}", "{{instance}}"),
            unit="percentunit",
        ),
        _chart(
            "Alarms",
            "Findings that began, by kind, within the time between two points.",
            (f"sum by (kind) (increase(geometric_health_alarms_total{ONE}{STEP}))", "{{kind}}"),
            bars=True,
        ),
        _chart(
            "Memory",
            "Sum of the processes.",
            (f"geometric_health_memory_bytes{ONE}", "{{instance}}"),
            unit="bytes",
        ),
    ]


def _healing() -> list[Panel]:
    return [
        _figure("Phase", f"healing_phase{ONE}", "What the healer may do by itself.").mappings(PHASES),
        _figure(
            "Breaker", f"healing_breaker_open{ONE}", "Open: repeated rollbacks stopped healing."
        ).mappings(BREAKER),
        _figure(
            "Success rate",
            f"increase(healing_success_total{ONE}[$__range]) / "
            f"(increase(healing_success_total{ONE}[$__range]) + increase(healing_failures_total{ONE}[$__range]))",
            "Of the patches that came to an end in the time shown, the share that the live service confirmed.",
            unit="percentunit",
        ).thresholds(_good((None, "red"), (0.5, "orange"), (0.7, "green"))),
        _figure(
            "Waiting for review", 'healing_changes{instance=~"$instance", state="open"}', "Open changes."
        ),
        _figure(
            "Rollbacks",
            f"increase(healing_rollbacks_total{ONE}[$__range])",
            "Changes taken back in the time shown.",
        ).decimals(0),
        _figure(
            "Fitness", f"healing_fitness_score{ONE}", "Score of the patch that was scored last."
        ).decimals(2),
        _chart(
            "Patches judged",
            "By decision, in the 24 hours before each moment.",
            (f"sum by (decision) (increase(healing_patches_total{ONE}[1d]))", "{{decision}}"),
            bars=True,
        ),
        _chart(
            "Changes by state",
            "How many are in each state now; states without any are left out.",
            (f"sum by (state) (healing_changes{ONE}) > 0", "{{state}}"),
        ),
        _timeline("Phase over time", "What the healer may do by itself.", f"healing_phase{ONE}", PHASES),
        _timeline(
            "Breaker over time",
            "Open: repeated rollbacks stopped healing.",
            f"healing_breaker_open{ONE}",
            BREAKER,
        ),
        _chart(
            "Fitness of patches",
            "Score of the patch that was scored last; accepted from 0.6 on.",
            (f"healing_fitness_score{ONE}", "{{instance}}"),
        ),
        _chart(
            "How long healing takes",
            "Means over the time shown: until a patch is proposed, until it is tried, until it is merged and deployed.",
            (_mean_s("generation"), "proposed {{instance}}"),
            (_mean_s("test"), "tried {{instance}}"),
            (_mean_s("apply"), "applied {{instance}}"),
            unit="s",
        ),
    ]


def _monitoring() -> list[Panel]:
    return [
        _chart(
            "Snapshots",
            "Recorded per second.",
            (f"rate(geometric_health_snapshots_total{ONE}{STEP})", "{{instance}}"),
            span=8,
        ),
        _chart(
            "Unusable fields",
            "Snapshots per second in which a field had to be repaired.",
            (f"sum by (field) (rate(geometric_health_invalid_snapshots_total{ONE}{STEP}))", "{{field}}"),
            span=8,
        ),
        _chart(
            "History on disk",
            "Of the store.",
            (f"geometric_health_history_bytes{ONE}", "{{instance}}"),
            unit="bytes",
            span=8,
        ),
        _chart(
            "Snapshots lost",
            "Recorded, and not in the history.",
            (f"increase(geometric_health_snapshots_lost_total{ONE}{STEP})", "{{instance}}"),
            span=8,
            bars=True,
        ),
        _chart(
            "Checks",
            "Assessments of the health for these metrics, per second.",
            (f"rate(geometric_health_checks_total{ONE}{STEP})", "{{instance}}"),
            span=8,
        ),
        _chart(
            "Unreadable parts",
            "1 while this part of the figures cannot be had.",
            (f"qigheal_scrape_errors{ONE}", "{{part}} {{instance}}"),
            span=8,
        ),
    ]


def _annotation(name: str, colour: str, expression: str, title: str) -> dict[str, Any]:
    """Of a kind that the SDK has no words for: what a Prometheus data source asks, and how it is told."""
    made = (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(colour)
        .expr(expression)
    )
    return {**made.build().to_json(), "step": "60s", "titleFormat": title, "textFormat": "{{instance}}"}


def document() -> dict[str, Any]:
    """The dashboard, ready for Grafana's import."""
    board = (
        dashboard.Dashboard("qigheal: health and healing")
        .uid("qigheal-health")
        .description("How a service that records itself is, and what the healer did about it.")
        .tags(["qigheal"])
        .time("now-24h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .editable()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Service")
            .datasource(SOURCE)
            .query("label_values(qigheal_scrape_errors, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for title, panels in (("Health", _health()), ("Healing", _healing()), ("Monitoring", _monitoring())):
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    made: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    for number, panel in enumerate(made["panels"], 1):
        panel["id"] = number
        panel["options"] = panel.get("options") or {}
    made["annotations"] = {
        "list": [
            _annotation(
                "Alarms", "orange", f"increase(geometric_health_alarms_total{ONE}[1m]) > 0", "{{kind}}"
            ),
            _annotation(
                "Confirmed repairs",
                "green",
                f"increase(healing_success_total{ONE}[1m]) > 0",
                "repair confirmed",
            ),
            _annotation("Rollbacks", "red", f"increase(healing_rollbacks_total{ONE}[1m]) > 0", "taken back"),
        ]
    }
    return made


def text() -> str:
    """The dashboard as it lies in the file."""
    return json.dumps(document(), indent=2, ensure_ascii=False, cls=JSONEncoder, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
