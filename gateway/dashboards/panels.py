"""Panels as all dashboards have them: what they say of themselves, their units, legends and colours."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
USD, SECONDS, SHARE, COUNT, BYTES = "currencyUSD", "s", "percentunit", "short", "bytes"
REQUESTS, TOKENS, USD_PER_HOUR = "reqps", "suffix: tok/s", "suffix: USD/h"
EVENTS = "locale"  # of what was counted whole, in all digits
Kind = Literal["range", "instant"]
Meanings = Sequence[tuple[str, str, str]]  # a figure, what it means, its colour
Panel = bargauge.Panel | heatmap.Panel | stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel
P = TypeVar("P", bound=Panel)


@dataclass(frozen=True)
class Query:
    """`legend` names each series, with {{label}} for what it has; with `exemplars` single requests are dots, with their traces."""

    expr: str
    legend: str = "__auto"
    exemplars: bool = False


@dataclass(frozen=True)
class Column:
    """One of a table: a query that gives one value a row."""

    name: str
    expr: str
    unit: str
    thresholds: Sequence[tuple[float, str]] = ()
    base: str = "text"  # the colour below the first of these


def lines(title: str, description: str, unit: str, *queries: Query, limit: float | None = None) -> timeseries.Panel:
    """How something went over time, a line for each series and one at what should not be exceeded."""
    panel = _common(timeseries.Panel(), title, description, unit, "range", queries)
    if limit is not None:
        dashed = common.GraphThresholdsStyleConfig().mode(look.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(limits((limit, "red"), base="transparent")).thresholds_style(dashed)
    return (
        panel.line_width(2)
        .fill_opacity(8)
        .show_points(look.VisibilityMode.NEVER)
        .axis_soft_min(0)
        .color_scheme(_by_name())
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING))
        .span(12)
        .height(8)
    )


def stacked(title: str, description: str, unit: str, *queries: Query) -> timeseries.Panel:
    """Lines on top of each other: parts of a whole."""
    on_top = common.StackingConfig().mode(look.StackingMode.NORMAL)
    return lines(title, description, unit, *queries).stacking(on_top).fill_opacity(40).line_width(1)


def shares(title: str, description: str, *queries: Query) -> timeseries.Panel:
    """Parts of a whole that is always 100 %."""
    return stacked(title, description, SHARE, *queries).max(1)


def tile(title: str, description: str, unit: str, *queries: Query) -> stat.Panel:
    """One figure for all of the time that the dashboard shows."""
    return _tile(title, description, unit, "instant", queries).graph_mode(look.BigValueGraphMode.NONE)


def trend(title: str, description: str, unit: str, *queries: Query) -> stat.Panel:
    """One figure as it is now, over how it went."""
    return _tile(title, description, unit, "range", queries).graph_mode(look.BigValueGraphMode.AREA)


def names(title: str, description: str, *queries: Query) -> stat.Panel:
    """What runs, by the names in labels: the values are always 1."""
    panel = tile(title, description, "none", *queries).text_mode(look.BigValueTextMode.NAME)
    return panel.color_mode(look.BigValueColorMode.NONE)


def bars(title: str, description: str, unit: str, *queries: Query) -> bargauge.Panel:
    """A bar for each series, for all of the time that the dashboard shows."""
    return (
        _common(bargauge.Panel(), title, description, unit, "instant", queries)
        .reduce_options(_last())
        .orientation(look.VizOrientation.HORIZONTAL)
        .display_mode(look.BarGaugeDisplayMode.BASIC)
        .color_scheme(_by_name())
        .span(8)
        .height(8)
    )


def heat_map(title: str, description: str, unit: str, query: Query) -> heatmap.Panel:
    """How values were spread over time: `query` counts by bucket."""
    panel = _common(heatmap.Panel(), title, description, COUNT, "range", [query], PromQueryFormat.HEATMAP)
    colors = (
        heatmap.HeatmapColorOptions()
        .mode(heat.HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .steps(64)
        .exponent(0.5)
        .fill("blue")
    )
    axis = heatmap.YAxisConfig().unit(unit).axis_placement(look.AxisPlacement.LEFT)
    return (
        panel.calculate(False)
        .color(colors.scale(heat.HeatmapColorScale.EXPONENTIAL))
        .y_axis(axis)
        .cell_gap(1)
        .scale_distribution(common.ScaleDistributionConfig().type(look.ScaleDistribution.LINEAR))
        .show_legend()
        .mode(look.TooltipDisplayMode.SINGLE)
        .span(12)
        .height(8)
    )


def rows(title: str, description: str, labels: Sequence[str], columns: Sequence[Column]) -> table.Panel:
    """A row for each value of `labels`, by which every column's query is summed. Columns are two at the least."""
    queries = [Query(column.expr) for column in columns]
    panel = _common(table.Panel(), title, description, COUNT, "instant", queries, PromQueryFormat.TABLE)
    named = {f"Value #{ref}": column.name for ref, column in zip(string.ascii_uppercase, columns, strict=False)}
    order = {label: place for place, label in enumerate((*labels, *named))}
    panel.with_transformation(model.DataTransformerConfig("merge", options={}))
    panel.with_transformation(
        model.DataTransformerConfig(
            "organize", options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": named}
        )
    )
    for column in columns:
        panel.override_by_name(column.name, _of_column(column))
    panel.color_scheme(_by_thresholds()).cell_height(look.TableCellHeight.SM).filterable(True)
    return panel.span(24).height(8)


def timeline(title: str, description: str, values: Meanings, *queries: Query) -> statetimeline.Panel:
    """Which state something was in."""
    panel = _common(statetimeline.Panel(), title, description, "none", "range", queries)
    panel.mappings(meanings(values)).color_scheme(_by_thresholds())
    return panel.merge_values(True).row_height(0.8).fill_opacity(70).line_width(0).span(12).height(8)


def meanings(values: Meanings) -> list[model.ValueMapping]:
    """Words in place of figures, each with its colour."""
    results = {
        figure: model.ValueMappingResult(text=text, color=color, index=place)
        for place, (figure, text, color) in enumerate(values)
    }
    return [model.ValueMap(options=results)]


def limits(*steps: tuple[float, str], base: str = "green") -> dashboard.ThresholdsConfig:
    """From each figure on that colour, below all of them `base`."""
    made = [model.Threshold(value=None, color=base), *(model.Threshold(value, color) for value, color in steps)]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def _tile(title: str, description: str, unit: str, kind: Kind, queries: Sequence[Query]) -> stat.Panel:
    return (
        _common(stat.Panel(), title, description, unit, kind, queries)
        .reduce_options(_last())
        .color_mode(look.BigValueColorMode.VALUE)
        .text_mode(look.BigValueTextMode.AUTO)
        .thresholds(limits(base="text"))
        .color_scheme(_by_thresholds())
        .span(4)
        .height(4)
    )


def _common(
    panel: P,
    title: str,
    description: str,
    unit: str,
    kind: Kind,
    queries: Sequence[Query],
    form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> P:
    panel.title(title).description(description).unit(unit).datasource(SOURCE).no_value("–")
    if unit == EVENTS:
        panel.decimals(0)
    if kind == "range":
        panel.interval("$interval")
    for ref, query in zip(string.ascii_uppercase, queries, strict=False):
        target = prometheus.Dataquery().ref_id(ref).expr(query.expr).legend_format(query.legend).format(form)
        target.range() if kind == "range" else target.instant()
        panel.with_target((target.exemplar(True) if query.exemplars else target).datasource(SOURCE))
    return panel


def _of_column(column: Column) -> list[model.DynamicConfigValue]:
    properties = [model.DynamicConfigValue("unit", column.unit)]
    if column.unit == EVENTS:
        properties.append(model.DynamicConfigValue("decimals", 0))
    if column.thresholds:
        properties.append(model.DynamicConfigValue("thresholds", limits(*column.thresholds, base=column.base).build()))
        properties.append(model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
    return properties


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(look.LegendDisplayMode.TABLE)
        .placement(look.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "mean", "max"])
    )


def _by_name() -> dashboard.FieldColor:
    """An expert has the same colour on every panel."""
    return dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)


def _by_thresholds() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS)
