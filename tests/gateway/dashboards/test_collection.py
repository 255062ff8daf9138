"""Every dashboard is whole, asks for series and labels that are there, and is what its committed file says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

import promql_parser
import pytest
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard, RowPanel

from gateway.dashboards.collection import PanelQuery, all_dashboards, filled, panels, queries, text
from gateway.dashboards.frame import LOADED, RUNBOOKS, STEPS, TAG
from gateway.exchange import Outcome
from gateway.metrics import Metrics
from gateway.routes.carried import KINDS
from gateway.workers.protocol import WorkerState
from router.decision import Reason
from tests.deploy.expressions import grouped, selectors
from tests.deploy.files import DEPLOY, PROMETHEUS, ROOT, documents
from tests.deploy.gateways import metrics
from tests.deploy.vllms import series

FOLDER = DEPLOY / "grafana" / "dashboards"
BUILT = all_dashboards()
ALL = [pytest.param(name, built, id=name) for name, built in BUILT.items()]
QUERIES = [query for name, built in BUILT.items() for query in queries(built, name)]
GRAFANAS = {"__rate_interval": "1m", "__range": "3600s", "__interval": "15s"}  # what it fills in by itself
PROMETHEUS_OWN = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity"}}
COUNTED = metrics() | PROMETHEUS_OWN
ADDED = {"job", "instance"}  # to every series, by whoever asks for it
OLDER_VLLM = {"vllm:gpu_cache_usage_perc"}  # the name that the key-value cache had in it
FIELDS_OF_PROMETHEUS = {"useValueForTime", "titleFormat", "textFormat", "tagKeys", "step"}  # of an annotation
WIDTH = 24


@pytest.fixture(scope="module", autouse=True)
def _plugins() -> None:
    register_default_plugins()


def test_five_dashboards_are_there_and_no_others_lie_beside_them() -> None:
    assert list(BUILT) == ["overview", "experts", "routing", "cost", "gateway"]
    assert {path.stem for path in FOLDER.glob("*.json")} == BUILT.keys()


@pytest.mark.parametrize(("name", "built"), ALL)
def test_the_committed_file_is_what_is_built(name: str, built: Dashboard) -> None:
    assert (FOLDER / f"{name}.json").read_text("utf-8") == text(built), "run: make dashboards"


@pytest.mark.parametrize(("name", "built"), ALL)
def test_the_sdks_types_read_the_file_and_nothing_of_it_is_lost(name: str, built: Dashboard) -> None:
    """But for fields of the annotation that Prometheus' data source reads and the SDK does not know."""
    written = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    again = json.loads(text(Dashboard.from_json(written)))
    for annotation in written["annotations"]["list"]:
        assert annotation.keys() >= FIELDS_OF_PROMETHEUS
        for field in FIELDS_OF_PROMETHEUS:
            del annotation[field]
    assert again == written


@pytest.mark.parametrize(("name", "built"), ALL)
def test_a_dashboard_has_its_frame(name: str, built: Dashboard) -> None:
    assert built.uid == f"moe-{name}"
    assert built.editable is False
    assert built.schema_version == 41  # of Grafana 11.6; a later one brings it up to its own when it loads it
    assert built.tags == [TAG]
    [link] = built.links or []
    assert (link.tags, link.keep_time, link.include_vars) == ([TAG], True, True)
    assert built.refresh
    assert built.time
    assert built.description


@pytest.mark.parametrize(("name", "built"), ALL)
def test_grafana_asks_the_prometheus_that_compose_provides(name: str, built: Dashboard) -> None:
    [file] = documents((DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text("utf-8"))
    [provided] = [source for source in file["datasources"] if source["type"] == "prometheus"]
    assert built.templating is not None
    chosen = {variable.name: variable for variable in built.templating.list_val or ()}
    source = chosen["datasource"].current
    assert source is not None
    assert source.value == provided["uid"]
    [scraped] = documents((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    assert STEPS[0] == provided["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]


@pytest.mark.parametrize(("name", "built"), ALL)
def test_every_panel_says_what_it_is(name: str, built: Dashboard) -> None:
    shown = list(panels(built))
    assert [panel.title for panel in shown if not panel.title] == []
    assert [title for title, count in Counter(panel.title for panel in shown).items() if count > 1] == []
    numbers = [panel.id_val for panel in built.panels or ()]
    assert numbers == list(range(1, len(numbers) + 1))
    for panel in shown:
        assert panel.description, panel.title
        assert len(panel.description) > 30, panel.title
        assert panel.description.endswith("."), panel.title
        assert panel.field_config is not None
        assert panel.field_config.defaults.unit, panel.title
        assert panel.datasource is not None
        assert (panel.datasource.type_val, panel.datasource.uid) == ("prometheus", "${datasource}")
        assert panel.targets, panel.title


@pytest.mark.parametrize(("name", "built"), ALL)
def test_panels_lie_side_by_side_within_the_page(name: str, built: Dashboard) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in built.panels or ():
        place = panel.grid_pos
        assert place is not None
        assert place.x + place.w <= WIDTH, panel.title
        for cell in ((x, y) for x in range(place.x, place.x + place.w) for y in range(place.y, place.y + place.h)):
            assert cell not in taken, f"{panel.title} lies on {taken.get(cell)}"
            taken[cell] = panel.title or ""
    for number in {y for _, y in taken}:
        row = sum(y == number for _, y in taken)
        assert row == WIDTH, f"{name}: {row} columns are used beside {taken[0, number]}"


def each_query() -> list[Any]:
    return [pytest.param(query, id=f"{query.dashboard}: {query.panel} {query.ref}") for query in QUERIES]


def known(name: str) -> set[str]:
    """The labels of a series."""
    if name.startswith("vllm:"):
        return {"model_name", "engine", "expert"}  # the last is given by those who scrape it
    return COUNTED[name]


@pytest.mark.parametrize("query", each_query())
def test_a_query_asks_for_series_and_labels_that_are_there(query: PanelQuery) -> None:
    built = BUILT[query.dashboard]
    assert built.templating is not None
    variables = {variable.name: ".*" for variable in built.templating.list_val or ()}
    expression = filled(query.expr, GRAFANAS | variables)
    assert "$" not in expression.replace('"$1"', "")
    found = list(selectors(promql_parser.parse(expression)))
    labels = set[str]()
    for selector in found:
        labels |= known(selector.name)
        assert {matcher.name for matcher in selector.matchers.matchers} <= known(selector.name) | ADDED, selector.name
    made = set(re.findall(r'label_replace\(.*, "(\w+)", "\$1"', expression))
    assert grouped(expression) - {""} <= labels | ADDED | made
    assert set(re.findall(r"{{(\w+)}}", query.legend)) <= grouped(expression)


def test_whoever_runs_queries_elsewhere_is_told_how() -> None:
    known = {(query.dashboard, query.panel, query.ref): query for query in QUERIES}
    assert len(known) == len(QUERIES)
    today, cache = known["cost", "Spent today", "A"], known["experts", "Experts", "J"]
    assert (today.kind, today.unit, today.time_from) == ("instant", "currencyUSD", "now/d")
    assert (cache.kind, cache.unit, cache.legend, cache.time_from) == ("instant", "percentunit", "Cache full", None)
    by_phase = known["overview", "Clients that left", "A"]
    assert (by_phase.kind, by_phase.unit, by_phase.legend) == ("range", "short", "{{phase}}")


def test_a_variable_is_filled_in_whole() -> None:
    values = {"a": "1", "ab": "2", "__interval": "15s", "interval": "1m"}
    assert filled("$ab $a $interval $__interval", values) == "2 1 1m 15s"


@pytest.mark.parametrize(("name", "built"), ALL)
def test_every_variable_is_used_and_has_values(name: str, built: Dashboard) -> None:
    assert built.templating is not None
    asked = text(built)
    for variable in built.templating.list_val or ():
        assert re.search(rf"\${{?{variable.name}\b", asked), variable.name
        if isinstance(variable.query, dict):
            [metric, label] = re.findall(r"label_values\((\w+), (\w+)\)", str(variable.query["query"]))[0]
            assert label in metrics()[metric] | ADDED


def test_vllms_series_are_those_of_the_vllm_that_is_installed() -> None:
    named = {name for query in QUERIES for name in re.findall(r"vllm:\w+", query.expr)}
    assert len(named) > 4
    assert named - series().keys() == OLDER_VLLM


def values_of(label: str) -> Iterator[str]:
    """What expressions ask a label for, patterns of several taken apart."""
    for query in QUERIES:
        for values in re.findall(rf'\b{label}(?:=~|!~|!=|=)"([^"$]+)"', query.expr):
            yield from values.split("|")


def test_values_of_labels_are_ones_that_are_counted() -> None:
    assert set(values_of("reason")) <= set(get_args(Reason))
    assert set(values_of("outcome")) <= set(Outcome)
    assert set(values_of("state")) <= set(WorkerState)
    assert set(values_of("endpoint")) <= {"route", *(kind.endpoint for kind in KINDS.values())}
    assert set(values_of("kind")) <= {"input", "cached_input", "output", "reasoning"}
    bounds = {sample.labels["le"] for sample in _confidence()}
    assert set(values_of("le")) <= bounds
    for label in ("endpoint", "reason", "outcome", "state", "kind", "le"):
        assert list(values_of(label)), label


def _confidence() -> Iterator[Any]:
    """The buckets of a router's confidence as Prometheus is told them."""
    counted = Metrics()
    counted.confidence.labels("code").observe(0.5)
    for metric in counted.confidence.collect():
        yield from (sample for sample in metric.samples if sample.name.endswith("_bucket"))


def test_pages_that_descriptions_name_are_there_and_are_of_an_alert() -> None:
    groups = documents((PROMETHEUS / "alerts.yml").read_text("utf-8"))[0]["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    said = " ".join(text(built) for built in BUILT.values())
    named = set(re.findall(rf"{RUNBOOKS}/(\w+)\.md", said))
    assert len(named) > 10
    assert named <= alerts
    assert [page for page in re.findall(r"docs/[\w/-]+\.md", said) if not (ROOT / page).exists()] == []


def test_links_lead_to_dashboards_that_are_there() -> None:
    linked = {found for built in BUILT.values() for found in re.findall(r'"/d/([\w-]+)', text(built))}
    assert linked
    assert linked <= {built.uid for built in BUILT.values()}


@pytest.mark.parametrize(("name", "built"), ALL)
def test_loads_of_experts_yaml_are_marked_where_they_were(name: str, built: Dashboard) -> None:
    [mark] = json.loads(text(built))["annotations"]["list"]
    assert mark["expr"] == LOADED
    assert mark["useValueForTime"] is True
    for selector in selectors(promql_parser.parse(LOADED)):
        assert selector.name in metrics()
    assert "moe_config_last_success_timestamp_seconds" in LOADED


def test_an_experts_row_is_there_once_for_each() -> None:
    rows = [panel for panel in BUILT["experts"].panels or () if isinstance(panel, RowPanel)]
    assert [(row.title, row.repeat) for row in rows] == [("All", None), ("$expert", "expert")]
