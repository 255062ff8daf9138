"""Comparison: models side by side: a table of their facts, and a picture of quality against price."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.cataloguing.catalog import Catalog
from router.cataloguing.entry import CRITERIA, Model
from router.cataloguing.listing import Listed
from router.cataloguing.quality import Quality, benchmarks_of, qualities
from router.cataloguing.words import BENCHMARKS, PRECISIONS
from router.errors import CatalogError
from router.measuring.pages import document_page, figure, section, table
from router.measuring.plots import escaped
from router.measuring.scatter import Dot, Frame, Look, line, picture, text, upright

NOTHING = "—"
FRAME = Frame(width=1080, height=760, left=62, right=30, top=76, bottom=52)
STEPS = tuple(float(f"{figure}e{power}") for power in range(-4, 5) for figure in (1, 2, 5))  # USD per million tokens
LOOKS = {
    "open: full": Look("star", "#15803d", "#6cc794"),
    "open: partial": Look("diamond", "#1d4ed8", "#7aa5ff"),
    "open: weights": Look("circle", "#b45309", "#f0a64b"),
    "open: not known": Look("square", "#6b7280", "#9aa4b2"),
}
FOOT = "USD per million tokens, three read for one written, as a provider asked for them (logarithmic)"


@dataclass(frozen=True)
class Comparison:
    """The models with `keys`, in that order; quality is for `task`, or all in all."""

    catalog: Catalog
    keys: Sequence[str]
    task: str | None = None

    @property
    def qualities(self) -> Mapping[str, Quality]:
        return qualities(self.catalog.models, self.task)

    def described(self) -> dict[str, Any]:
        found = self.qualities
        items = [Listed(k, m, found.get(k), m.precision).described() for k, m in self._models()]
        return {"object": "list", "task": self.task, "data": items, "not_drawn": self.not_drawn()}

    def rows(self) -> list[tuple[str, list[str]]]:
        """Each fact that any of them has, with a cell for each model."""
        found = self.qualities
        columns = [dict(facts(model, found.get(key))) for key, model in self._models()]
        names = list(dict.fromkeys(name for column in columns for name in column))
        order = {name: place for place, name in enumerate(_order())}
        names.sort(key=lambda name: order.get(name, len(order)))
        rows = [(name, [column.get(name, NOTHING) for column in columns]) for name in names]
        return [(name, cells) for name, cells in rows if set(cells) != {NOTHING}]

    def not_drawn(self) -> dict[str, str]:
        """Those of the models that the picture does not have, and why."""
        found = self.qualities
        return {key: why for key, model in self._models() if (why := _lacks(model, found.get(key)))}

    def svg(self) -> str:
        """The named ones strong, every other model of the catalogue that has a price and a quality faint. Raises CatalogError where
        there is none of the named to draw."""
        found, missing = self.qualities, self.not_drawn()
        if len(missing) == len(self.keys):
            why = "; ".join(f"{key} has {lacks}" for key, lacks in missing.items())
            raise CatalogError(f"there is nothing to draw: {why}")
        models = {key: model for key, model in self.catalog.models.items() if not _lacks(model, found.get(key))}
        prices = {key: model.price.blended for key, model in models.items() if model.price is not None}
        low, high = _ends(list(prices.values()))
        dots = [self._dot(key, models[key], found[key], _x(price, low, high)) for key, price in prices.items()]
        what = self.task or "all in all"
        return picture(dots, FRAME, LOOKS, f"Quality against price: {what}", _grid(low, high, self.task))

    def page(self) -> str:
        """The table and, where there is one, the picture as one HTML page."""
        missing = self.not_drawn()
        rows = [[f"<b>{escaped(name)}</b>", *map(_cell, cells)] for name, cells in self.rows()]
        names = ", ".join(escaped(key) for key in self.keys)
        head = f"<h1>Models side by side</h1><p class=sub>{names}</p>"
        parts = [section("Facts", _WHY, table(("", *map(escaped, self.keys)), rows))]
        if len(missing) < len(self.keys):
            parts.insert(0, section("Quality against price", _PICTURE, figure("", self.svg())))
        if missing:
            lines = "".join(f"<li>{escaped(key)}: {escaped(why)}</li>" for key, why in missing.items())
            parts.append(section("Not in the picture", "What it would take is not known.", f"<ul>{lines}</ul>"))
        return document_page("Models side by side", head, *parts, style="svg text{font-size:11px}")

    def _models(self) -> Iterator[tuple[str, Model]]:
        return ((key, self.catalog.models[key]) for key in self.keys)

    def _dot(self, key: str, model: Model, quality: Quality, x: float) -> Dot:
        named, price = key in self.keys, model.price
        cost = f"{price.blended:.2f} USD ({price.provider}, {price.date})" if price else NOTHING
        about = f"{key}: quality {quality.value:.0f} by {', '.join(quality.benchmarks)}; {cost}"
        family = f"open: {model.open or 'not known'}"
        return Dot(x, _y(quality.value), key, family, about, strong=named, faint=not named)


_WHY = (
    "Memory is that of one sequence of 8,192 tokens / of the whole context, in GB, by the formula of docs/catalog.md; a dash is "
    "what could not be checked. Scores are those that makers report, each in its own way."
)
_PICTURE = (
    "Quality is the mean of a model's percentiles in the task's benchmarks among the models of this catalogue that report them. "
    "Those that are compared are bold."
)


def facts(model: Model, quality: Quality | None) -> Iterator[tuple[str, str]]:
    """What is known of a model, as a person reads it."""
    price = model.price
    yield "hub id", model.name
    yield "maker", model.maker
    yield "family", model.family
    yield "tuned from", model.tuned_from or NOTHING
    yield "released", model.released or NOTHING
    yield "parameters", size_of(model)
    yield "context", f"{model.context:,}" if model.context else NOTHING
    yield "licence", model.licence.id if model.licence else NOTHING
    yield "kind of licence", model.licence.kind if model.licence else NOTHING
    yield "limits of use", (model.licence.limits if model.licence else "") or NOTHING
    yield "open", model.open or NOTHING
    for name, criterion in model.openness:
        yield name.replace("_", " "), criterion.open if criterion else NOTHING
    yield "tasks", ", ".join(model.tasks)
    yield "languages", " ".join(model.languages) or NOTHING
    yield "vLLM's class", model.architecture.name if model.architecture else NOTHING
    for precision in PRECISIONS:
        published = " (published)" if precision == model.precision else ""
        cells = [
            _gb(model.memory(precision)),
            _gb(model.memory(precision, model.context)) if model.context else NOTHING,
        ]
        yield f"GB at {precision}", " / ".join(dict.fromkeys(cells)) + published if cells[0] != NOTHING else NOTHING
    yield "quality", f"{quality.value:.0f} by {', '.join(quality.benchmarks)}" if quality else NOTHING
    for score in model.scores:
        yield score.benchmark, f"{score.score:g} ({score.date})"
    yield "price in / out", f"{price.input:g} / {price.output:g} ({price.provider})" if price else NOTHING
    yield "launch line", " ".join(model.command)


def size_of(model: Model) -> str:
    """Billions of parameters, such as 30.5B, 3.3B active."""
    if model.parameters is None:
        return NOTHING
    total, active = model.parameters.total, model.parameters.active
    return f"{total:g}B" if active in (None, total) else f"{total:g}B, {active:g}B active"


def _order() -> list[str]:
    before = ["hub id", "maker", "family", "tuned from", "released", "parameters", "context"]
    licence = ["licence", "kind of licence", "limits of use", "open", *(name.replace("_", " ") for name in CRITERIA)]
    rest = ["tasks", "languages", "vLLM's class", *(f"GB at {precision}" for precision in PRECISIONS), "quality"]
    return [*before, *licence, *rest, *BENCHMARKS, "price in / out", "launch line"]


def _gb(memory: Any) -> str:
    return NOTHING if memory is None else f"{memory.total:.1f}"


def _cell(said: str) -> str:
    return escaped(said)


def _lacks(model: Model, quality: Quality | None) -> str:
    """What it would take to draw it; nothing where it can be."""
    priced = model.price is not None and model.price.blended > 0
    lacks = [*([] if priced else ["no price"]), *([] if quality else ["no score to compare by"])]
    return " and ".join(lacks)


def _ends(prices: Sequence[float]) -> tuple[float, float]:
    low = max((step for step in STEPS if step <= min(prices) / 1.1), default=min(prices) / 2)
    high = min((step for step in STEPS if step >= max(prices) * 1.5), default=max(prices) * 2)
    return low, high


def _x(price: float, low: float, high: float) -> float:
    return FRAME.left + (FRAME.width - FRAME.left - FRAME.right) * math.log(price / low) / math.log(high / low)


def _y(quality: float) -> float:
    return FRAME.top + (FRAME.height - FRAME.top - FRAME.bottom) * (1 - (quality + 4) / 108)


def _grid(low: float, high: float, task: str | None) -> Iterator[str]:
    right, foot = FRAME.width - FRAME.right, FRAME.height - FRAME.bottom
    for value in (step for step in STEPS if low <= step <= high):
        x = _x(value, low, high)
        yield line(x, FRAME.top, x, foot, "grid")
        yield text(x, foot + 18, f"{value:g}", "tick mid")
    for value in range(0, 101, 20):
        yield line(FRAME.left, _y(value), right, _y(value), "grid")
        yield text(FRAME.left - 8, _y(value) + 4, f"{value}", "tick end")
    yield text((FRAME.left + right) / 2, FRAME.height - 12, FOOT, "tick mid")
    which = ", ".join(benchmarks_of(task)) if task and len(benchmarks_of(task)) < len(BENCHMARKS) else "every benchmark"
    yield upright(16, (FRAME.top + foot) / 2, f"mean percentile in {which}", "tick mid")
