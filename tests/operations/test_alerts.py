"""Alert and recording rules: what they say, when they fire, and when they keep still."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.scraping import needs_prometheus, promtool

from aetherflow.cli.main import main
from aetherflow.errors import ConfigurationError
from aetherflow.operations.alerts import alert_document, alert_groups
from aetherflow.operations.limits import _regex
from aetherflow.operations.objectives import Expectations, Latency, Objective, read_expectations
from aetherflow.operations.rules import Alert
from aetherflow.telemetry.health.limits import DEFAULTS

LATENCY = Expectations(objective=Objective(success=0.999, latency=Latency(within=0.5, share=0.99)))
NODE, RUN = "aetherflow_node_duration_seconds", "aetherflow_run_duration_seconds"

Series = Sequence[tuple[str, str]]


def histogram(name: str, labels: str, *, each: float, slow: bool = False, error: str = "") -> Series:
    """A histogram that takes so many values every minute, of about 0.2 s or of about 2 s."""
    labels += f', error_type="{error}"' if error else ""
    counts = {"0.25": 0 if slow else each, "0.5": 0 if slow else each, "1.0": 0 if slow else each, "2.5": each}
    buckets = {**counts, "+Inf": each}
    told = [(f'{name}_bucket{{{labels}, le="{bound}"}}', f"0+{count:g}x320") for bound, count in buckets.items()]
    total = each * (2 if slow else 0.2)
    return [*told, (f"{name}_count{{{labels}}}", f"0+{each:g}x320"), (f"{name}_sum{{{labels}}}", f"0+{total:g}x320")]


JOB_NODE = 'job="shop", aetherflow_flow_name="order", aetherflow_node_name="fetch"'
JOB_RUN = 'job="shop", aetherflow_flow_name="order"'
OPERATION = 'job="shop", aetherflow_operation_name="step"'
EXECUTOR = 'job="shop", instance="1", aetherflow_executor_name="threads"'
POOL = 'job="shop", instance="1", aetherflow_pool_name="connections"'
SPANS = "aetherflow_telemetry_spans_total"

GOOD: Series = [
    *histogram(NODE, JOB_NODE, each=60),
    *histogram(RUN, JOB_RUN, each=60),
    *histogram("aetherflow_operation_duration_seconds", OPERATION, each=60),
    *histogram("aetherflow_executor_wait_seconds", EXECUTOR, each=60),
    *histogram("aetherflow_pool_wait_seconds", POOL, each=60),
    (f"aetherflow_executor_queue{{{EXECUTOR}}}", "3x320"),
    (f"aetherflow_pool_waiting{{{POOL}}}", "3x320"),
    (f'{SPANS}{{job="shop", aetherflow_telemetry_outcome="exported"}}', "0+60x320"),
    ('aetherflow_health_status{job="shop", instance="1", aetherflow_health_state="healthy"}', "1x320"),
    ('aetherflow_health_status{job="shop", instance="1", aetherflow_health_state="degraded"}', "0x320"),
    ('aetherflow_health_status{job="shop", instance="1", aetherflow_health_state="unhealthy"}', "0x320"),
]

BAD: Mapping[frozenset[str], Series] = {
    frozenset({"AetherFlowNodeSlow", "AetherFlowNodeTailSlow"}): histogram(NODE, JOB_NODE, each=60, slow=True),
    frozenset({"AetherFlowNodeFailing"}): histogram(NODE, JOB_NODE, each=2, error="KeyError"),
    frozenset({"AetherFlowOperationSlow", "AetherFlowOperationTailSlow"}): histogram(
        "aetherflow_operation_duration_seconds", OPERATION, each=60, slow=True
    ),
    frozenset({"AetherFlowOperationFailing"}): histogram(
        "aetherflow_operation_duration_seconds", OPERATION, each=2, error="KeyError"
    ),
    frozenset({"AetherFlowExecutorSaturated"}): histogram(
        "aetherflow_executor_wait_seconds", EXECUTOR, each=60, slow=True
    ),
    frozenset({"AetherFlowPoolSaturated"}): histogram("aetherflow_pool_wait_seconds", POOL, each=60, slow=True),
    frozenset({"AetherFlowExecutorStuck"}): histogram("aetherflow_executor_wait_seconds", EXECUTOR, each=0),
    frozenset({"AetherFlowPoolStuck"}): histogram("aetherflow_pool_wait_seconds", POOL, each=0),
    frozenset({"AetherFlowTelemetryLost"}): [
        (f'{SPANS}{{job="shop", aetherflow_telemetry_outcome="dropped"}}', "0+2x320")
    ],
    frozenset({"AetherFlowDegraded"}): [
        ('aetherflow_health_status{job="shop", instance="1", aetherflow_health_state="degraded"}', "1x320")
    ],
    frozenset({"AetherFlowUnhealthy"}): [
        ('aetherflow_health_status{job="shop", instance="1", aetherflow_health_state="unhealthy"}', "1x320")
    ],
    frozenset({"AetherFlowErrorBudgetBurn"}): histogram(RUN, JOB_RUN, each=2, error="KeyError"),
    frozenset({"AetherFlowLatencyBudgetBurn"}): histogram(RUN, JOB_RUN, each=60, slow=True),
}
"""Series that replace or join the good ones, by the alerts that they must lead to and no others."""


def alerts(expected: Expectations) -> list[Alert]:
    return [rule for group in alert_groups(expected) for rule in group.rules if isinstance(rule, Alert)]


def firing(folder: Path, expected: Expectations, series: Series, names: frozenset[str], at: str = "20m") -> None:
    """Have promtool say that these alerts fire at a moment, and no others."""
    (folder / "rules.yaml").write_text(json.dumps(alert_document(expected)), encoding="utf-8")
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)]
    told = 'group by (alertname) (ALERTS{alertstate="firing"})'
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series],
                "promql_expr_test": [{"expr": told, "eval_time": at, "exp_samples": samples}],
            }
        ],
    }
    (folder / "test.yaml").write_text(json.dumps(test), encoding="utf-8")
    promtool("test", "rules", "test.yaml", cwd=folder)


def test_every_alert_is_tried() -> None:
    """There is no alert of which it is not shown that it fires."""
    assert {alert.name for alert in alerts(LATENCY)} == {name for names in BAD for name in names}


@pytest.mark.backend
@needs_prometheus
def test_nothing_fires_where_all_is_well(tmp_path: Path) -> None:
    """A service within all limits, busy pools and queues and all, is left alone."""
    firing(tmp_path, LATENCY, GOOD, frozenset())


@pytest.mark.backend
@needs_prometheus
@pytest.mark.parametrize(("names", "series"), BAD.items(), ids=map(min, BAD))
def test_an_alert_fires(tmp_path: Path, names: frozenset[str], series: Series) -> None:
    """What goes wrong is told by its alert, and by no other."""
    firing(tmp_path, LATENCY, list((dict(GOOD) | dict(series)).items()), names)


@pytest.mark.backend
@needs_prometheus
def test_few_values_say_nothing(tmp_path: Path) -> None:
    """With fewer values in the window than asked for, no threshold is held against them."""
    few = histogram(NODE, JOB_NODE, each=1, slow=True)
    firing(tmp_path, LATENCY, few, frozenset())
    firing(tmp_path, Expectations(min_samples=2), few, frozenset({"AetherFlowNodeSlow", "AetherFlowNodeTailSlow"}))


def of_kind(kind: str, **options: Any) -> Series:
    """A histogram of executions of the node that were not computed at their first attempt."""
    return histogram(NODE, f'{JOB_NODE}, aetherflow_execution_kind="{kind}"', **options)


@pytest.mark.backend
@needs_prometheus
def test_retried_executions_are_not_slow_ones(tmp_path: Path) -> None:
    """The back-off of many retried executions raises no alert on latency."""
    firing(tmp_path, LATENCY, [*GOOD, *of_kind("retried", each=600, slow=True)], frozenset())


@pytest.mark.backend
@needs_prometheus
@pytest.mark.parametrize("kind", ["cache_hit", "coalesced"])
def test_cache_hits_hide_no_slow_node(tmp_path: Path, kind: str) -> None:
    """A node that computes slowly is slow, however many hits are fast."""
    slow = dict(GOOD) | dict(histogram(NODE, JOB_NODE, each=12, slow=True)) | dict(of_kind(kind, each=600))
    firing(tmp_path, LATENCY, list(slow.items()), frozenset({"AetherFlowNodeSlow", "AetherFlowNodeTailSlow"}))


@pytest.mark.backend
@needs_prometheus
def test_hits_do_not_make_few_computed_executions_enough(tmp_path: Path) -> None:
    """A latency is held against its threshold only if enough executions were computed in the window."""
    few = [*histogram(NODE, JOB_NODE, each=1, slow=True), *of_kind("cache_hit", each=600)]
    firing(tmp_path, LATENCY, few, frozenset())


@pytest.mark.backend
@needs_prometheus
def test_failures_of_retried_executions_are_failures(tmp_path: Path) -> None:
    """The error rate is over executions of all kinds."""
    failing = [*GOOD, *of_kind("retried", each=2, error="KeyError")]
    firing(tmp_path, LATENCY, failing, frozenset({"AetherFlowNodeFailing"}))


@pytest.mark.backend
@needs_prometheus
def test_a_budget_that_is_spent_slowly_wakes_nobody(tmp_path: Path) -> None:
    """Four times the allowed failures are for office hours, after hours; twenty times wake somebody within minutes."""
    slow = dict(GOOD) | dict(histogram(RUN, JOB_RUN, each=60 * 0.004, error="KeyError"))
    firing(tmp_path, LATENCY, list(slow.items()), frozenset())
    firing(tmp_path, LATENCY, list(slow.items()), frozenset({"AetherFlowErrorBudgetBurn"}), at="5h")
    fast = dict(GOOD) | dict(histogram(RUN, JOB_RUN, each=60 * 0.02, error="KeyError"))
    firing(tmp_path, LATENCY, list(fast.items()), frozenset({"AetherFlowErrorBudgetBurn"}))


@pytest.mark.backend
@needs_prometheus
def test_thresholds_of_single_components(tmp_path: Path) -> None:
    """The first entry that fits a component applies, as in the health monitor: names before patterns."""
    slow = [
        (name.replace("fetch", node), values)
        for node in ("fetch", "import_a", "import_b", "quick")
        for name, values in histogram(NODE, JOB_NODE, each=60, slow=True)
    ]
    both = frozenset({"AetherFlowNodeSlow", "AetherFlowNodeTailSlow"})
    lenient = {"average": 9.0, "p95": 9.0}
    mine = {"import_*": lenient, "node fetch": lenient, "qu[hi]ck": lenient}
    firing(tmp_path, Expectations(per=mine), slow, frozenset())
    firing(tmp_path, Expectations(per={**mine, "import_b": {"p95": 1.5}}), slow, both)
    firing(tmp_path, Expectations(per={**mine, "pool fetch": {}}, limits={"p95": False}), slow, frozenset())


@pytest.mark.backend
@needs_prometheus
def test_what_is_written_is_accepted(tmp_path: Path) -> None:
    """Promtool finds nothing wrong with the file that the command writes."""
    file, config = tmp_path / "rules.yaml", tmp_path / "alerts.toml"
    config.write_text(
        'job = "sh\\"op"\n[objective]\nlatency = {within = 0.5}\n[per."a.*[!x]"]\np95 = 3\n[labels]\nteam = "x"\n'
    )
    assert main(["alerts", "--config", str(config), "-o", str(file)]) == 0
    promtool("check", "rules", file)


def test_defaults_are_those_of_the_health_monitor() -> None:
    """Without a configuration the thresholds are those that HealthMonitor has."""
    told = {alert.name: alert.condition for alert in alerts(Expectations())}
    assert told["AetherFlowNodeTailSlow"].startswith(f"> {DEFAULTS['p95']:g} and ")
    assert told["AetherFlowNodeFailing"].startswith(f"> {DEFAULTS['error_rate']:g} and ")
    assert told["AetherFlowTelemetryLost"].startswith(f"> {DEFAULTS['telemetry_loss']:g} and ")


@pytest.mark.parametrize("suffix", ["toml", "yaml"])
def test_a_configuration_is_read(tmp_path: Path, suffix: str) -> None:
    """TOML and YAML say the same."""
    text = {
        "toml": "window = 60\n[objective]\nsuccess = 0.99\n[limits]\np95 = 2\naverage = false\n",
        "yaml": "window: 60\nobjective: {success: 0.99}\nlimits: {p95: 2, average: null}\n",
    }
    (file := tmp_path / f"alerts.{suffix}").write_text(text[suffix], encoding="utf-8")
    found = read_expectations(file)
    common = found.thresholds.common
    assert (found.window, found.objective.success, common["p95"], common["average"]) == (60, 0.99, 2, None)
    assert "AetherFlowNodeSlow" not in {alert.name for alert in alerts(found)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[objective]\nsuccess = 1.5", "objective.success=1.5"),
        ("[objective]\nlatency = {within = 0.3}", "must be a boundary of the histograms: 0.0001, "),
        ("windw = 3", "windw=3"),
        ("[limits]\np59 = 3", "there is no threshold 'p59'"),
        ("[per.x]\nerror_rate = 3", "allowed: a share from 0 to 1"),
        ("nonsense", "is not TOML"),
    ],
)
def test_a_wrong_configuration_is_told(
    tmp_path: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the file, what was wrong and what is allowed."""
    (file := tmp_path / "alerts.toml").write_text(text, encoding="utf-8")
    assert main(["alerts", "--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert told in error


def test_an_objective_without_an_alert_is_refused() -> None:
    """Where even a run of failures spends the budget too slowly for any alert, that is told."""
    with pytest.raises(ConfigurationError, match="nearer to 1, or fewer days"):
        alert_groups(Expectations(objective=Objective(success=0.01, days=365)))


def test_labels_are_on_every_alert() -> None:
    """What the configuration labels alerts with is on each of them."""
    document: dict[str, Any] = alert_document(Expectations(labels={"team": "data"}))
    rules = [rule for group in document["groups"] for rule in group["rules"] if "alert" in rule]
    assert rules
    assert all(rule["labels"]["team"] == "data" for rule in rules)


@pytest.mark.filterwarnings("ignore:Possible set difference")  # "--", which Python may read otherwise one day
@example("[[:a]", "[")
@given(st.text("ab*?[]!-^.\\:", max_size=6), st.text("ab!-^.\\]:[", max_size=5))
def test_patterns_mean_the_same_to_prometheus(pattern: str, name: str) -> None:
    """A pattern matches, as a regular expression, the names that the health monitor matches with it."""
    import re

    try:
        compiled = re.compile(_regex(pattern), re.DOTALL)
    except ConfigurationError:
        return  # a backwards range, such as [b-a], which fnmatch takes for nothing
    assert bool(compiled.fullmatch(name)) == fnmatchcase(name, pattern)


def test_a_range_that_ends_before_it_begins_is_told() -> None:
    """One pattern that no name can match would have Prometheus refuse the whole file."""
    with pytest.raises(ConfigurationError, match=r"no name can match 'fetch_\[9-0\]': bad character range 9-0"):
        alert_groups(Expectations(per={"fetch_[9-0]": {"p95": 1.0}}))
