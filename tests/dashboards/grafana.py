"""deploy/grafana/dashboards, read and asked as Grafana does: variables filled in, rows repeated, every query of every panel."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.deploy.files import DEPLOY

FOLDER = DEPLOY / "grafana" / "dashboards"
ALL = ".*"  # what a variable stands for where nothing is chosen


@dataclass(frozen=True)
class Target:
    """One query. `column` is its name in a table, `unit` its own where it has one."""

    ref: str
    expr: str
    legend: str
    instant: bool
    form: str
    column: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Panel:
    """`place` is x, y, width and height in Grafana's 24 columns; `repeat` the variable that its row is repeated for, if any;
    `chosen` the value that stands for it."""

    dashboard: str
    title: str
    kind: str
    unit: str
    place: tuple[int, int, int, int]
    targets: tuple[Target, ...]
    raw: Mapping[str, Any] = field(hash=False, compare=False)
    repeat: str = ""
    chosen: str = ""

    @property
    def time_from(self) -> str:
        """The panel's own time, such as now/d for since midnight; empty where it has the dashboard's."""
        return str(self.raw.get("timeFrom") or "")

    def of(self, value: str) -> Panel:
        """It, in the row of this value."""
        return replace(self, title=self.title.replace(f"${self.repeat}", value), chosen=value)

    def filled(self, target: Target, values: Mapping[str, str]) -> str:
        """The query with these values of variables, where the row has none of its own."""
        own = {self.repeat: re.escape(self.chosen)} if self.chosen else {}
        return filled(
            target.expr, {"expert": ALL, "domain": ALL, "instance": ALL, "datasource": "prometheus", **values, **own}
        )


@dataclass(frozen=True)
class Row:
    """A heading over panels. `y` is where it is."""

    title: str
    y: int
    repeat: str = ""


@dataclass(frozen=True)
class Dashboard:
    """`parts` are its rows and panels, in order."""

    name: str
    title: str
    parts: tuple[Row | Panel, ...]
    variables: Mapping[str, str]  # those that Prometheus is asked for, and what it is asked
    annotations: tuple[str, ...]

    @property
    def panels(self) -> list[Panel]:
        return [part for part in self.parts if isinstance(part, Panel)]


def filled(expr: str, values: Mapping[str, str]) -> str:
    """With every variable's value, longer names first."""
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(f"${{{name}}}", values[name]).replace(f"${name}", values[name])
    return expr


def milliseconds(seconds: float) -> str:
    """A range, as PromQL writes it."""
    return f"{round(seconds * 1000)}ms"


@cache
def dashboards() -> tuple[Dashboard, ...]:
    return tuple(_dashboard(path) for path in sorted(FOLDER.glob("*.json")))


def _dashboard(path: Path) -> Dashboard:
    made = json.loads(path.read_text("utf-8"))
    variables = {v["name"]: v["query"]["query"] for v in made["templating"]["list"] if v["type"] == "query"}
    annotations = tuple(a["expr"] for a in made["annotations"]["list"] if "expr" in a)
    return Dashboard(path.stem, made["title"], tuple(_parts(path.stem, made["panels"])), variables, annotations)


def _parts(dashboard: str, panels: list[Mapping[str, Any]]) -> Iterator[Row | Panel]:
    repeat = ""
    for raw in panels:
        place = raw["gridPos"]
        if raw["type"] == "row":
            repeat = raw.get("repeat") or ""
            yield Row(raw["title"], place["y"], repeat)
            continue
        columns, units = _columns(raw), _units(raw)
        targets = tuple(
            Target(
                t["refId"], t["expr"], t.get("legendFormat") or "", bool(t.get("instant")), t.get("format") or "time_series",
                columns.get(t["refId"], ""), units.get(columns.get(t["refId"], ""), ""),
            )
            for t in raw["targets"]
        )  # fmt: skip
        unit = raw.get("fieldConfig", {}).get("defaults", {}).get("unit") or ""
        yield Panel(
            dashboard,
            raw["title"],
            raw["type"],
            unit,
            (place["x"], place["y"], place["w"], place["h"]),
            targets,
            raw,
            repeat,
        )


def _columns(raw: Mapping[str, Any]) -> dict[str, str]:
    """A table's columns, by the letters of their queries."""
    named: dict[str, str] = {}
    for step in raw.get("transformations") or ():
        named |= (step.get("options") or {}).get("renameByName") or {}
    return {
        "A" if name == "Value" else name.removeprefix("Value #"): text
        for name, text in named.items()
        if name.startswith("Value")
    }


def _units(raw: Mapping[str, Any]) -> dict[str, str]:
    """Those of a table's columns that have one of their own."""
    return {
        override["matcher"]["options"]: one["value"]
        for override in raw.get("fieldConfig", {}).get("overrides") or ()
        for one in override["properties"]
        if one["id"] == "unit"
    }


def finite(values: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Without what a histogram says that nothing fell into."""
    return {key: value for key, value in values.items() if math.isfinite(value)}
