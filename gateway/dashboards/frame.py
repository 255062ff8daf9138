"""What every dashboard has around its panels: variables, links to the others, and marks where experts.yaml was loaded."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from gateway.dashboards.panels import SOURCE, Panel

TAG = "moe-gateway"
RUNBOOKS = "docs/runbooks"
EXPERTS = ("expert", "Expert", "label_values(moe_requests_in_flight, expert)")
DOMAINS = ("domain", "Domain", "label_values(moe_routing_decisions_total, domain)")
INSTANCES = ("instance", "Gateway", "label_values(moe_build_info, instance)")
STEPS = ("15s", "1m", "5m", "15m", "1h")
LOADED = "max by (hash) (moe_config_info * on (instance, job) group_left () moe_config_last_success_timestamp_seconds) * 1000"


class Loaded(model.AnnotationQuery):
    """When each experts.yaml was loaded: the value is the time, in ms. The SDK's type lacks these of Prometheus' own fields."""

    def to_json(self) -> dict[str, object]:
        return {
            **super().to_json(),
            "useValueForTime": True,
            "titleFormat": "experts.yaml loaded",
            "textFormat": "hash {{hash}}",
            "tagKeys": "hash",
            "step": "60s",
        }


class _Annotation(dashboard.AnnotationQuery):
    def __init__(self) -> None:
        super().__init__()
        self._internal = Loaded()


def frame(name: str, title: str, description: str, variables: Sequence[tuple[str, str, str]]) -> dashboard.Dashboard:
    """One without panels yet. Its address in Grafana is /d/moe-NAME, whatever its title becomes."""
    made = (
        dashboard.Dashboard(title)
        .uid(f"{TAG.removesuffix('-gateway')}-{name}")
        .description(description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("30s")
        .link(_others())
        .annotation(_loads())
        .with_variable(_source())
    )
    for variable in variables:
        made.with_variable(_labels(*variable))
    return made.with_variable(_step())


def runbook(alert: str) -> str:
    """Where it stands what to do, for the end of a description: a path in the repository, as dashboards know no address of it."""
    return f" {RUNBOOKS}/{alert}.md says what to do."


def section(made: dashboard.Dashboard, title: str, panels: Sequence[Panel], repeat: str = "") -> None:
    """A row with a title above these; with `repeat`, once for each value of that variable."""
    row = dashboard.Row(title)
    made.with_row(row.repeat(repeat) if repeat else row)
    for panel in panels:
        made.with_panel(panel)


def numbered(made: dashboard.Dashboard) -> model.Dashboard:
    """Built, its panels numbered in order: Grafana would number them anew at each start."""
    built = made.build()
    for number, panel in enumerate(built.panels or (), start=1):
        panel.id_val = number
    return built


def _others() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("moe-gateway")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
    )


def _loads() -> dashboard.AnnotationQuery:
    return _Annotation().name("experts.yaml loaded").datasource(SOURCE).icon_color("purple").enable(True).expr(LOADED)


def _source() -> dashboard.DatasourceVariable:
    chosen = model.VariableOption(text="Prometheus", value="prometheus", selected=True)
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus").current(chosen)


def _labels(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """All of them at first; a series that lacks the label's value is then among them too."""
    everything = model.VariableOption(text="All", value="$__all", selected=True)
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query({"query": query, "refId": "Variable"})
        .datasource(SOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )


def _step() -> dashboard.CustomVariable:
    """The least time between two points. Rates look back four times as far or more: Grafana's $__rate_interval."""
    options = [model.VariableOption(text=step, value=step, selected=step == STEPS[0]) for step in STEPS]
    return (
        dashboard.CustomVariable("interval")
        .label("Finest step")
        .description("The least time between two points; over long times Grafana makes it longer by itself.")
        .values(",".join(STEPS))
        .options(options)
        .current(options[0])
    )
