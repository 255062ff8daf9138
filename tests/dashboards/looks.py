"""Panels drawn by matplotlib from what Prometheus answered, about as Grafana draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from tests.dashboards.grafana import Panel, Target
from tests.dashboards.prometheus import Series
from tests.dashboards.units import written

INK, FAINT, EDGE, PAPER, GROUND = "#1f2328", "#6b7280", "#d9dce1", "#ffffff", "#f1f3f5"
NAMED = {
    "green": "#2e9e58", "orange": "#e8890c", "red": "#d9363e", "text": INK, "transparent": INK, "yellow": "#d9a400",
    "blue": "#2f6fd6", "purple": "#8a4fd0", "gray": "#8b929c",
}  # fmt: skip
PALETTE = (
    "#2f6fd6", "#e8890c", "#2e9e58", "#8a4fd0", "#17a2b8", "#d9363e", "#a0642c", "#d36bb8", "#6b8e23", "#5c6bc0", "#00897b",
    "#b0791f",
)  # fmt: skip
# What always looks the same, whatever else there is.
FIXED = {
    "coder": "#2f6fd6", "mathematician": "#e8890c", "biologist": "#2e9e58", "general": "#8a4fd0", "archivist": "#17a2b8",
    "none": "#8b929c", "code": "#2f6fd6", "math": "#e8890c", "bio": "#2e9e58",
    "p50": "#2e9e58", "p95": "#e8890c", "p99": "#d9363e", "written": "#2e9e58", "dropped": "#d9363e",
    "499": "#8b929c", "404": "#d9a400", "429": "#e8890c", "500": "#d9363e", "502": "#b3202c", "503": "#e8615a", "504": "#8a1c2b",
    "in flight": "#2f6fd6", "queued": "#e8890c", "gpt-4o": "#2e9e58", "dearest": "#8a4fd0", "here": "#e8890c",
    "at gpt-4o": "#2e9e58", "at dearest": "#8a4fd0", "best": "#2f6fd6", "static": "#2f6fd6", "transformer": "#e8890c",
}  # fmt: skip
MOST_NAMES, MOST_LINES = 12, 5  # in a legend
LEGEND_LINE, LETTER = 0.18, 0.0655  # inches: a line of it, a letter of it


@dataclass
class Answer:
    """What Prometheus gave for one query of a panel."""

    target: Target
    series: Sequence[Series]


@dataclass
class Painter:
    """`start` and `end` are the time shown, in unix seconds; `height` and `width` those of the picture in inches."""

    figure: Figure
    width: float
    height: float
    start: float
    end: float
    marks: Sequence[float] = ()  # when experts.yaml was loaded
    colours: dict[str, str] = field(default_factory=lambda: dict(FIXED))

    def panel(self, panel: Panel, place: tuple[float, float, float, float], answers: Sequence[Answer]) -> None:
        """Into `place`: left, top, width and height in inches from the upper left corner."""
        left, top, width, height = place
        card = FancyBboxPatch(
            (left / self.width, 1 - (top + height) / self.height), width / self.width, height / self.height,
            boxstyle="round,pad=0,rounding_size=0.002", facecolor=PAPER, edgecolor=EDGE, linewidth=0.8,
            transform=self.figure.transFigure, zorder=-1,
        )  # fmt: skip
        self.figure.patches.append(card)
        size = min(9.5, max(7.5, (width - 0.2) / len(panel.title) / 0.0083))
        self.text(
            left + 0.10, top + 0.17, shortened(panel.title, (width - 0.2) / size / 0.0083), size=size, weight="bold"
        )
        inner = left + 0.10, top + 0.34, width - 0.20, height - 0.42
        if not any(answer.series for answer in answers):
            none = panel.raw.get("fieldConfig", {}).get("defaults", {}).get("noValue") or "No data"
            self.text(left + width / 2, top + height / 2, none, size=12, color=FAINT, ha="center")
            return
        draw = {
            "timeseries": self._lines, "stat": self._tiles, "bargauge": self._bars, "table": self._table,
            "heatmap": self._heat, "state-timeline": self._states,
        }[panel.kind]  # fmt: skip
        draw(panel, inner, answers)

    def heading(self, text: str, left: float, top: float, width: float) -> None:
        """Of a row."""
        self.text(left, top + 0.20, f"▾ {text}", size=11, weight="bold")

    def _axes(self, place: tuple[float, float, float, float]) -> Axes:
        left, top, width, height = place
        axes = self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )
        axes.set_facecolor("none")
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(colors=FAINT, labelsize=7.5, length=0)
        return axes

    def text(self, x: float, y: float, text: str, **more: Any) -> None:
        """At inches from the upper left corner, in the middle of its height."""
        more = {"color": INK, "size": 9, "va": "center", **more}
        self.figure.text(x / self.width, 1 - y / self.height, text, parse_math=False, **more)

    def colour(self, name: str) -> str:
        """The same for a name on every panel."""
        if name not in self.colours:
            self.colours[name] = PALETTE[len(self.colours) % len(PALETTE)]
        return self.colours[name]

    def _time_axis(self, axes: Axes) -> None:
        axes.set_xlim(moment(self.start), moment(self.end))
        axes.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=6))  # type: ignore[no-untyped-call]
        form = "%H:%M" if self.end - self.start > 300 else "%H:%M:%S"
        axes.xaxis.set_major_formatter(DateFormatter(form, tz=UTC))  # type: ignore[no-untyped-call]

    def _lines(self, panel: Panel, place: tuple[float, float, float, float], answers: Sequence[Answer]) -> None:
        named = [(name, series) for answer in answers for name, series in labelled(answer, panel)]
        entries, across = legend(named, panel.unit, place[2])
        below = LEGEND_LINE * math.ceil(len(entries) / across)
        left, top, width, height = place
        axes = self._axes((left + 0.62, top + 0.06, width - 0.72, height - 0.36 - below))
        custom = panel.raw["fieldConfig"]["defaults"].get("custom") or {}
        if (custom.get("stacking") or {}).get("mode") == "normal":
            self._stack(axes, named)
        else:
            for name, series in named:
                times, values = curve(series)
                axes.plot(times, values, color=self.colour(name), linewidth=1.5, solid_joinstyle="round")
                if len(named) <= 3:
                    axes.fill_between(times, values, color=self.colour(name), alpha=0.06, linewidth=0)
        self._limits(axes, panel)
        for mark in self.marks:
            axes.axvline(moment(mark), color=NAMED["purple"], linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.8)
        self._time_axis(axes)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if panel.unit == "bytes":
            axes.yaxis.set_major_locator(MultipleLocator(2.0 ** math.ceil(math.log2(axes.get_ylim()[1] / 6))))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, panel.unit)))
        axes.grid(axis="y", color=EDGE, linewidth=0.6)
        self._legend(entries, (left, top + height - below, width, below), across)

    def _stack(self, axes: Axes, named: Sequence[tuple[str, Series]]) -> None:
        stamps = sorted({stamp for _, series in named for stamp, _ in series.points})
        at = {stamp: i for i, stamp in enumerate(stamps)}
        below = np.zeros(len(stamps))
        times = [moment(stamp) for stamp in stamps]
        for name, series in named:
            values = np.zeros(len(stamps))
            for stamp, value in series.points:
                values[at[stamp]] = value if math.isfinite(value) else 0.0
            colour = self.colour(name)
            axes.fill_between(times, below, below + values, color=colour, alpha=0.45, linewidth=0)
            below = below + values
            axes.plot(times, below, color=colour, linewidth=1.0)

    def _limits(self, axes: Axes, panel: Panel) -> None:
        """The y axis begins at 0, or below it where something is; a threshold is a line where it is not far above what there is."""
        defaults = panel.raw["fieldConfig"]["defaults"]
        low, high = axes.get_ylim()
        low, high = min(0.0, low), high if high > 1e-9 and abs(low - high) > 1e-9 and high != -low else 1.0
        if low > -0.02 * high:
            low = 0.0
        if defaults.get("max") is not None:
            high = defaults["max"]
        axes.set_ylim(low, high if defaults.get("max") is not None else high * 1.08)
        style = ((defaults.get("custom") or {}).get("thresholdsStyle") or {}).get("mode", "off")
        for step in (defaults.get("thresholds") or {}).get("steps") or ():
            if step.get("value") is not None and style != "off" and low < step["value"] < high * 1.05:
                axes.axhline(step["value"], color=NAMED.get(step["color"], INK), linewidth=0.9, linestyle=":")

    def _legend(self, entries: Sequence[Entry], place: tuple[float, float, float, float], across: int) -> None:
        left, top, width, _ = place
        each = width / across
        for number, entry in enumerate(entries):
            x, y = left + (number % across) * each, top + (number // across) * LEGEND_LINE + 0.06
            mark = Rectangle(
                (x / self.width, 1 - (y + 0.015) / self.height), 0.14 / self.width, 0.03 / self.height,
                facecolor=self.colour(entry.name) if entry.figures else PAPER, transform=self.figure.transFigure,
            )  # fmt: skip
            self.figure.patches.append(mark)
            room = (each - 0.3) / LETTER - len(entry.figures) - 1
            self.text(x + 0.2, y, shortened(entry.name, room), size=7.8)
            self.text(x + each - 0.12, y, entry.figures, size=7.8, color=FAINT, ha="right")

    def _tiles(self, panel: Panel, place: tuple[float, float, float, float], answers: Sequence[Answer]) -> None:
        named = [pair for answer in answers for pair in labelled(answer, panel)][:4]
        left, top, width, height = place
        options = panel.raw.get("options") or {}
        only_names = options.get("textMode") == "name"
        trend = options.get("graphMode") == "area" and any(len(series.points) > 1 for _, series in named)
        each = width / max(1, len(named))
        for number, (name, series) in enumerate(named):
            x = left + number * each
            shown = name if only_names else self._stated(panel, series)
            below = "" if only_names or len(named) == 1 else name
            size = min(24 if not only_names else 15, 0.92 * each / max(1, len(shown)) / 0.0095)
            middle = top + (height * 0.34 if trend else height * 0.44)
            self.text(
                x + each / 2, middle, shown, size=size, weight="bold", ha="center", color=coloured(panel, series.last)
            )
            if below:
                self.text(x + each / 2, middle + 0.34, shortened(below, each / 0.07), size=8, color=FAINT, ha="center")
            if trend:
                axes = self._axes((x + 0.05, top + height * 0.62, each - 0.1, height * 0.38))
                times, values = curve(series)
                colour = NAMED["blue"]
                axes.plot(times, values, color=colour, linewidth=1.1)
                axes.fill_between(times, values, color=colour, alpha=0.12, linewidth=0)
                axes.set_axis_off()
                axes.set_ylim(bottom=0)

    def _stated(self, panel: Panel, series: Series) -> str:
        meaning = meanings(panel).get(f"{latest(series):g}")
        if meaning is not None:
            return str(meaning["text"])
        if panel.unit == "dateTimeFromNow":
            ago = self.end - series.last / 1000
            return f"{written(ago, 's')} ago"
        decimals = panel.raw["fieldConfig"]["defaults"].get("decimals")
        return written(latest(series), panel.unit, None if decimals is None else round(decimals))

    def _bars(self, panel: Panel, place: tuple[float, float, float, float], answers: Sequence[Answer]) -> None:
        named = [pair for answer in answers for pair in labelled(answer, panel)][:20]
        left, top, width, height = place
        most = max((abs(series.last) for _, series in named), default=0.0) or 1.0
        each = min(0.42, height / len(named))
        size = 8.5 if each > 0.2 else 7
        longest = min(max(len(name) for name, _ in named), 22) * 0.072 + 0.1
        room = width - longest - 0.85
        for number, (name, series) in enumerate(named):
            y = top + each * number + each / 2
            self.text(left, y, shortened(name, 22), size=size)
            for share, colour in ((1.0, GROUND), (max(0.0, series.last) / most, self.colour(name))):
                bar = Rectangle(
                    ((left + longest) / self.width, 1 - (y + each * 0.32) / self.height), room * share / self.width,
                    each * 0.64 / self.height, facecolor=colour, transform=self.figure.transFigure,
                )  # fmt: skip
                self.figure.patches.append(bar)
            self.text(left + width, y, written(series.last, panel.unit), size=size, ha="right", weight="bold")

    def _table(self, panel: Panel, place: tuple[float, float, float, float], answers: Sequence[Answer]) -> None:
        labels, rows = merged(answers)
        left, top, width, height = place
        heads = [*labels, *(answer.target.column for answer in answers)]
        weights = [max(1.0, len(head) * 0.085 + 0.25) for head in heads]
        starts = np.concatenate(([0.0], np.cumsum(weights))) / sum(weights) * width
        each = min(0.30, height / (len(rows) + 1))
        for number, head in enumerate(heads):
            x, side = self._cell(left, starts, number, len(labels))
            self.text(x, top + each / 2, head, size=8.3, weight="bold", color=FAINT, ha=side)
        for line, (key, values) in enumerate(sorted(rows.items()), start=1):
            y = top + each * line + each / 2
            rule = Rectangle(
                (left / self.width, 1 - (y - each / 2) / self.height), width / self.width, 0.006 / self.height,
                facecolor=EDGE, transform=self.figure.transFigure,
            )  # fmt: skip
            self.figure.patches.append(rule)
            for number, text in enumerate(key):
                x, side = self._cell(left, starts, number, len(labels))
                self.text(x, y, text, size=8.8, ha=side, weight="bold")
            for number, answer in enumerate(answers):
                x, side = self._cell(left, starts, number + len(labels), len(labels))
                value = values.get(answer.target.ref)
                text = "" if value is None else written(value, answer.target.unit or panel.unit)
                colour = INK if value is None else coloured(panel, value, answer.target.column)
                self.text(x, y, text, size=8.8, ha=side, color=colour)

    def _cell(self, left: float, starts: Any, number: int, labels: int) -> tuple[float, str]:
        """Where a cell's text stands, and on which side of it: names begin on the left, figures end on the right."""
        return (
            (left + float(starts[number]), "left")
            if number < labels
            else (left + float(starts[number + 1]) - 0.15, "right")
        )

    def _heat(self, panel: Panel, place: tuple[float, float, float, float], answers: Sequence[Answer]) -> None:
        """Buckets hold what those below them hold: each less the one below is what fell into it."""
        left, top, width, height = place
        axes = self._axes((left + 0.62, top + 0.06, width - 0.72, height - 0.42))
        by_bound = sorted((float(series.labels["le"]), dict(series.points)) for series in answers[0].series)
        stamps = sorted({stamp for _, points in by_bound for stamp in points})
        counts = np.array([[points.get(stamp, 0.0) for stamp in stamps] for _, points in by_bound])
        fell = np.diff(np.vstack((np.zeros(len(stamps)), counts)), axis=0).clip(min=0)
        keep = [i for i, (bound, _) in enumerate(by_bound) if math.isfinite(bound)]
        edges = [0.0, *(by_bound[i][0] for i in keep)]
        step = stamps[1] - stamps[0] if len(stamps) > 1 else 1.0
        times = [moment(stamp - step) for stamp in stamps] + [moment(stamps[-1])]
        shown = np.ma.masked_less(fell[keep] ** 0.5, 1e-6)
        axes.pcolormesh(times, edges, shown, cmap="Blues", vmin=0)
        axes.set_ylim(0, edges[-1])
        self._time_axis(axes)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, "percentunit")))
        self.text(
            left + 0.62, top + height - 0.06, f"darker is more; at most {fell.max():.0f} at once", size=7.8, color=FAINT
        )

    def _states(self, panel: Panel, place: tuple[float, float, float, float], answers: Sequence[Answer]) -> None:
        named = [pair for answer in answers for pair in labelled(answer, panel)]
        left, top, width, height = place
        axes = self._axes((left + 1.15, top + 0.06, width - 1.25, height - 0.36))
        known = meanings(panel)
        for number, (_, series) in enumerate(named):
            points = list(series.points)
            for (stamp, value), following in zip(points, [*(p[0] for p in points[1:]), self.end], strict=True):
                meaning = known.get(f"{value:g}", {"color": "gray"})
                span = moment(stamp), moment(following) - moment(stamp)
                axes.broken_barh(
                    [span], (number - 0.4, 0.8), color=NAMED.get(meaning["color"], INK), alpha=0.75, linewidth=0
                )
        axes.set_yticks(range(len(named)), [shortened(name, 16) for name, _ in named])
        axes.set_ylim(-0.6, len(named) - 0.4)
        self._time_axis(axes)
        texts = "   ".join(f"{m['text']}: {m['color']}" for m in known.values())
        self.text(left + width, top - 0.17, texts, size=7.8, color=FAINT, ha="right")


def moment(stamp: float) -> float:
    """As matplotlib counts: in days."""
    return stamp / 86400


def curve(series: Series) -> tuple[list[float], list[float]]:
    return [moment(stamp) for stamp, _ in series.points], [value for _, value in series.points]


def latest(series: Series) -> float:
    """Its last figure that is one."""
    return next((value for _, value in reversed(series.points) if math.isfinite(value)), math.nan)


@dataclass(frozen=True)
class Entry:
    """One line of a legend."""

    name: str
    figures: str


def legend(named: Sequence[tuple[str, Series]], unit: str, width: float) -> tuple[list[Entry], int]:
    """What stands under a panel, in how many columns: the most at which every name is whole, with the last figure and the highest
    or with the last alone."""
    shown = named if len(named) <= MOST_NAMES else named[: MOST_NAMES - 1]
    for across, highest in ((3, True), (2, True), (3, False), (2, False), (1, True)):
        entries = [Entry(name, _figures(series, unit, highest)) for name, series in shown]
        if len(shown) < len(named):
            entries.append(Entry(f"and {len(named) - len(shown)} more", ""))
        longest = max((len(entry.name) + len(entry.figures) + 1 for entry in entries), default=0)
        if longest * LETTER + 0.3 <= width / across and math.ceil(len(entries) / across) <= MOST_LINES:
            return entries, across
    return [Entry(name, _figures(series, unit, False)) for name, series in shown], 2


def _figures(series: Series, unit: str, highest: bool) -> str:
    known = [value for _, value in series.points if math.isfinite(value)]
    last = written(series.last, unit)
    return f"{last}   max {written(max(known), unit)}" if highest and known else last


def shortened(text: str, room: float) -> str:
    return text if len(text) <= room else text[: max(1, int(room) - 1)].rstrip() + "…"


def labelled(answer: Answer, panel: Panel) -> list[tuple[str, Series]]:
    """Its series with their names, by the legend that the query has; those without a figure are left out."""
    return [
        (named(answer.target.legend, series.labels) or panel.title, series)
        for series in answer.series
        if any(math.isfinite(value) for _, value in series.points)
    ]


def named(legend: str, labels: Mapping[str, str]) -> str:
    if legend in ("", "__auto"):
        return ", ".join(value for label, value in labels.items() if label != "__name__")
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend


def meanings(panel: Panel) -> dict[str, Mapping[str, str]]:
    """What single figures mean, by how they are written."""
    mappings = panel.raw["fieldConfig"]["defaults"].get("mappings") or ()
    return {figure: meaning for mapping in mappings for figure, meaning in mapping["options"].items()}


def coloured(panel: Panel, value: float, column: str = "") -> str:
    """By the highest threshold that it reaches: the panel's, or those of a table's column."""
    defaults = panel.raw["fieldConfig"]["defaults"]
    if not column and (meaning := meanings(panel).get(f"{value:g}")):
        return NAMED.get(meaning["color"], INK)
    steps = [] if column else (defaults.get("thresholds") or {}).get("steps") or []
    for override in panel.raw["fieldConfig"].get("overrides") or ():
        if column and override["matcher"]["options"] == column:
            steps = next((p["value"]["steps"] for p in override["properties"] if p["id"] == "thresholds"), [])
    reached = [step["color"] for step in steps if step.get("value") is None or value >= step["value"]]
    return NAMED.get(reached[-1], INK) if reached else INK


def merged(answers: Sequence[Answer]) -> tuple[list[str], dict[tuple[str, ...], dict[str, float]]]:
    """The labels of a table's rows, and for each row the figures by query. Rows are one where all labels are the same that every
    query has; what only some of them have is put beside."""
    having = [
        {frozenset(series.labels) - {"__name__"} for series in answer.series} for answer in answers if answer.series
    ]
    sets = [labels for each in having for labels in each]
    shared = sorted(frozenset.intersection(*sets))
    others = sorted(frozenset.union(*sets) - set(shared))
    beside: dict[tuple[str, ...], dict[str, str]] = {}
    figures: dict[tuple[str, ...], dict[str, float]] = {}
    for answer in answers:
        for series in answer.series:
            key = tuple(series.labels[label] for label in shared)
            beside.setdefault(key, {}).update(
                {label: series.labels[label] for label in others if label in series.labels}
            )
            figures.setdefault(key, {})[answer.target.ref] = series.last
    rows = {(*key, *(beside[key].get(label, "") for label in others)): values for key, values in figures.items()}
    return [*shared, *others], rows
