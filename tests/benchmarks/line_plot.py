"""Lines as SVG: a share against a number, one line a name, each point with the reach from its worst draw to its best."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 62, 96, 52, 52
LINE = 14.0  # between two names at the right
SIDE = 4.0  # how far the reaches of neighbouring lines stand apart
COLOURS = (  # for a light and for a dark page
    ("#1d4ed8", "#7aa5ff"),
    ("#b45309", "#f0a64b"),
    ("#15803d", "#6cc794"),
    ("#a21caf", "#e27df0"),
    ("#0f766e", "#4fd1c0"),
)


@dataclass(frozen=True)
class Point:
    """`number` above 0; `share`, and its `least` and `most` over draws, 0 to 1."""

    number: float
    share: float
    least: float
    most: float


@dataclass(frozen=True)
class Frame:
    """From figures to places: the numbers in logarithms, the shares from `low` to 1."""

    first: float
    last: float
    low: float

    @staticmethod
    def of(points: Sequence[Point]) -> Frame:
        numbers = [point.number for point in points]
        low = math.floor(10 * min(point.least for point in points)) / 10
        return Frame(min(numbers), max(numbers), min(low, 0.9))

    def x(self, number: float) -> float:
        """One number alone stands at the left."""
        width = math.log(self.last / self.first) or 1.0
        return LEFT + 24 + (WIDTH - LEFT - RIGHT - 48) * math.log(number / self.first) / width

    def y(self, share: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (share - self.low) / (1 - self.low)


def line_plot(lines: Mapping[str, Sequence[Point]], title: str, axis: str, foot: str) -> str:
    """The picture, which follows light and dark. `axis` says what the shares are, `foot` what the numbers.

    `lines` has one point at the least in each line, and no more lines than COLOURS.
    """
    frame = Frame.of([point for points in lines.values() for point in points])
    parts = [*_grid(frame, sorted({p.number for points in lines.values() for p in points}), axis, foot)]
    heights = _apart([frame.y(points[-1].share) for points in lines.values()])
    for i, ((name, points), height) in enumerate(zip(lines.items(), heights, strict=True)):
        parts += _line(frame, i, (i - (len(lines) - 1) / 2) * SIDE, points, name)
        parts.append(_text(WIDTH - RIGHT + 4, height + 4, name, f"t{i}"))
    parts.append(_text(LEFT, 24, title, "title"))
    about = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {about}>\n<style>{_style(len(lines))}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _apart(heights: Sequence[float]) -> list[float]:
    """The heights with names in between moved so that none stands upon another, in the same order."""
    out = list(heights)
    order = sorted(range(len(out)), key=lambda i: out[i])
    for above, below in pairwise(order):
        out[below] = max(out[below], out[above] + LINE)
    return out


def _grid(frame: Frame, numbers: Sequence[float], axis: str, foot: str) -> Iterator[str]:
    yield f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
    for tenth in range(round(10 * frame.low), 11):
        y = frame.y(tenth / 10)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        yield _text(LEFT - 8, y + 4, f"{10 * tenth}%", "tick end")
    for number in numbers:
        yield _text(frame.x(number), HEIGHT - BOTTOM + 18, f"{number:g}", "tick mid")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, foot, "tick mid")
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield f'<g transform="rotate(-90 16 {middle:.0f})">{_text(16, middle, axis, "tick mid")}</g>'


def _line(frame: Frame, number: int, aside: float, points: Sequence[Point], name: str) -> Iterator[str]:
    places = [(frame.x(p.number), frame.y(p.share)) for p in points]
    yield f'<polyline class="s{number}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
    for point, (x, y) in zip(points, places, strict=True):
        top, bottom = frame.y(point.most), frame.y(point.least)
        yield f'<line class="s{number} reach" x1="{x + aside:.1f}" y1="{top:.1f}" x2="{x + aside:.1f}" y2="{bottom:.1f}"/>'
        about = f"{name}, {point.number:g}: {point.share:.0%} ({point.least:.0%} to {point.most:.0%})"
        yield f'<circle class="m{number}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{html.escape(about)}</title></circle>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _style(count: int) -> str:
    def coloured(place: int) -> str:
        colours = [pair[place] for pair in COLOURS[:count]]
        return "".join(f".m{i},text.t{i}{{fill:{c}}}.s{i}{{stroke:{c}}}" for i, c in enumerate(colours))

    return (
        "text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#1b1f24}.title{font-size:15px;font-weight:600}"
        ".tick{fill:#4b5563}.mid{text-anchor:middle}.end{text-anchor:end}.page{fill:#fff}.grid{stroke:#e2e6eb}"
        f"polyline{{fill:none;stroke-width:2}}.reach{{stroke-width:1.2;opacity:.55}}{coloured(0)}"
        "@media(prefers-color-scheme:dark){text{fill:#e8eaed}.tick{fill:#a2abb8}.page{fill:#14171b}.grid{stroke:#2b3037}"
        f"{coloured(1)}}}"
    )
