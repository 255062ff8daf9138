"""All dashboards: as Grafana reads them, and every query in them for those who want to run it elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from grafana_foundation_sdk.models.prometheus import Dataquery

from gateway.dashboards.cost import cost
from gateway.dashboards.experts import experts
from gateway.dashboards.gateway import gateway
from gateway.dashboards.overview import overview
from gateway.dashboards.panels import Kind
from gateway.dashboards.routing import routing


@dataclass(frozen=True)
class PanelQuery:
    """One query of one panel. `legend` names a series, with {{label}} for what it has, or a table's column. `time_from` is the
    panel's own time if it has one, such as now/d for since midnight."""

    dashboard: str
    panel: str
    ref: str
    expr: str
    kind: Kind
    unit: str
    legend: str
    time_from: str | None


def all_dashboards() -> dict[str, Dashboard]:
    """Each by the name of its file, in the order of the links at the top."""
    makers = (overview, experts, routing, cost, gateway)
    return {maker.__name__: maker() for maker in makers}


def text(dashboard: Dashboard) -> str:
    """The file that Grafana reads; the same for the same dashboard, always."""
    return JSONEncoder(indent=2, ensure_ascii=False).encode(dashboard) + "\n"


def queries(dashboard: Dashboard, name: str) -> Iterator[PanelQuery]:
    """Every query of its panels, variables not yet filled in."""
    for panel in panels(dashboard):
        columns = _columns(panel)
        for target in cast(list[Dataquery], panel.targets):
            legend = columns.get(target.ref_id, target.legend_format or "")
            yield PanelQuery(
                dashboard=name,
                panel=panel.title or "",
                ref=target.ref_id,
                expr=target.expr,
                kind="instant" if target.instant else "range",
                unit=_unit(panel, legend),
                legend=legend,
                time_from=panel.time_from,
            )


def panels(dashboard: Dashboard) -> Iterator[Panel]:
    """Those with queries: rows are left out."""
    return (panel for panel in dashboard.panels or () if isinstance(panel, Panel))


def filled(expr: str, values: Mapping[str, str]) -> str:
    """With every variable's value: `expert` for $expert, `__range` for $__range. Others stay."""
    return re.sub(r"\$(\w+)", lambda found: values.get(found[1], found[0]), expr)


def _columns(panel: Panel) -> dict[str, str]:
    """The names of a table's columns by their queries."""
    named: dict[str, str] = {}
    for transformation in panel.transformations or ():
        options: Any = transformation.options
        named |= options.get("renameByName", {})
    return {field.removeprefix("Value #"): name for field, name in named.items()}


def _unit(panel: Panel, column: str) -> str:
    settings = panel.field_config
    if settings is None:
        return ""
    for override in settings.overrides:
        if override.matcher.options == column:
            return next(str(p.value) for p in override.properties if p.id_val == "unit")
    return settings.defaults.unit or ""
