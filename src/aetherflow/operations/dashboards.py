"""The dashboard for Grafana, made with Grafana's own Foundation SDK (the extra ``operations``)."""

from __future__ import annotations

import json
from itertools import count
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableOption, VariableRefresh

from aetherflow.operations.panels import FLOW_VARIABLE, JOB_VARIABLE, ROWS, Panel, Target
from aetherflow.operations.promql import JOB, label, metric_name, quoted
from aetherflow.telemetry import conventions as names

__all__ = ["dashboard_json"]

_UID: Final = "aetherflow"
_SOURCE: Final = "datasource"
_WIDTH, _HEIGHT = 8, 8
"""Of a panel, in units of Grafana's grid, which is 24 wide."""


def dashboard_json(title: str = "AetherFlow") -> str:
    """Return the dashboard as Grafana imports it.

    Args:
        title: What it is called.
    """
    board = (
        dashboard.Dashboard(title)
        .uid(_UID)
        .description("Flows, nodes and what they lean on. Made by 'aetherflow dashboard'.")
        .tags([_UID, "opentelemetry"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(dashboard.DatasourceVariable(_SOURCE).label("Prometheus").type("prometheus"))
    )
    flows = f"{metric_name(names.RUN_DURATION)}_count"
    of_job = f"{JOB}=~{quoted(f'${JOB_VARIABLE}')}"
    board = board.with_variable(_variable(JOB_VARIABLE, "Service", f"{metric_name(names.NODE_DURATION)}_count", JOB))
    board = board.with_variable(_variable(FLOW_VARIABLE, "Flow", f"{flows}{{{of_job}}}", label(names.FLOW_NAME)))
    ids = count(1)
    for row in ROWS:
        board = board.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            board = board.with_panel(_panel(panel).id(next(ids)))
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variable(name: str, told: str, series: str, of: str) -> dashboard.QueryVariable:
    everything = VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboard.QueryVariable(name)
        .label(told)
        .datasource(_source())
        .query(f"label_values({series}, {of})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )


def _panel(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(_source())
        .unit(panel.unit)
        .min(0)
        .span(_WIDTH)
        .height(_HEIGHT)
        .draw_style(GraphDrawStyle.LINE)
        .fill_opacity(20 if panel.stacked else 0)
        .show_points(VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if panel.stacked:
        built = built.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for place, target in enumerate(panel.targets):
        built = built.with_target(_target(target, chr(ord("A") + place)))
    return built


def _target(target: Target, name: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(target.query).legend_format(target.legend).range().ref_id(name)
    return query.exemplar(target.exemplars).datasource(_source())


def _source() -> DataSourceRef:
    return DataSourceRef(type_val="prometheus", uid=f"${{{_SOURCE}}}")
