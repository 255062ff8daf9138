"""Bars as SVG: a group for each kind of load, a bar for each way, its reach over the rounds, its figure at its end."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 820, 230, 86, 58, 40
BAR, GAP, HEADING, APART = 17, 5, 26, 10
COLOURS = (  # for a light and for a dark page
    ("#94a3b8", "#64748b"),
    ("#b45309", "#f0a64b"),
    ("#1d4ed8", "#7aa5ff"),
    ("#0f766e", "#4fd1c0"),
    ("#a21caf", "#e27df0"),
)


@dataclass(frozen=True)
class Bar:
    """`value`, and its `least` and `most`, above 0; `label` stands at its end."""

    name: str
    value: float
    least: float
    most: float
    label: str


def bars(groups: Mapping[str, Sequence[Bar]], title: str, foot: str) -> str:
    """The picture, which follows light and dark; lengths are logarithms. No more different names than COLOURS."""
    every = [bar for group in groups.values() for bar in group]
    names = list(dict.fromkeys(bar.name for bar in every))
    low = 10 ** math.floor(math.log10(min(bar.least for bar in every)))
    high = 10 ** math.ceil(math.log10(max(bar.most for bar in every) * 1.0001))
    height = TOP + BOTTOM + sum(HEADING + len(group) * (BAR + GAP) + APART for group in groups.values())

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / low) / math.log(high / low)

    parts = [f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>', _text(24, 28, title, "title")]
    power = low
    while power <= high * 1.01:
        parts.append(
            f'<line class="grid" x1="{x(power):.1f}" y1="{TOP - 8}" x2="{x(power):.1f}" y2="{height - BOTTOM}"/>'
        )
        parts.append(_text(x(power), height - BOTTOM + 15, f"{power:,g}", "tick mid"))
        power *= 10
    y = float(TOP)
    for heading, group in groups.items():
        parts.append(_text(24, y + 12, heading, "head"))
        y += HEADING
        for bar in group:
            parts += _bar(bar, names.index(bar.name), y, x)
            y += BAR + GAP
        y += APART
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 8, foot, "tick mid"))
    about = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}"'
    drawn = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {about}>\n<style>{_style(len(names))}</style>\n{drawn}\n</svg>\n'


def _bar(bar: Bar, number: int, y: float, x: Callable[[float], float]) -> Iterator[str]:
    middle = y + BAR / 2
    about = html.escape(f"{bar.name}: {bar.label}")
    yield _text(LEFT - 8, middle + 4, bar.name, "end")
    yield (
        f'<rect class="b{number}" x="{LEFT}" y="{y:.1f}" width="{max(1.0, x(bar.value) - LEFT):.1f}" height="{BAR}" rx="2">'
        f"<title>{about}</title></rect>"
    )
    yield f'<line class="reach" x1="{x(bar.least):.1f}" y1="{middle:.1f}" x2="{x(bar.most):.1f}" y2="{middle:.1f}"/>'
    yield _text(max(x(bar.most), x(bar.value)) + 6, middle + 4, bar.label, "tick")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _style(count: int) -> str:
    def coloured(place: int) -> str:
        return "".join(f".b{i}{{fill:{pair[place]}}}" for i, pair in enumerate(COLOURS[:count]))

    return (
        "text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#1b1f24}.title{font-size:15px;font-weight:600}"
        ".head{font-weight:600}.tick{fill:#4b5563}.mid{text-anchor:middle}.end{text-anchor:end}.page{fill:#fff}"
        f".grid{{stroke:#e2e6eb}}.reach{{stroke:#1b1f24;stroke-width:1.3;opacity:.6}}{coloured(0)}"
        "@media(prefers-color-scheme:dark){text{fill:#e8eaed}.tick{fill:#a2abb8}.page{fill:#14171b}.grid{stroke:#2b3037}"
        f".reach{{stroke:#e8eaed}}{coloured(1)}}}"
    )
