"""A scatter plot as SVG: how right against how quick, every point named, no name upon another."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 1080, 760
LEFT, RIGHT, TOP, BOTTOM = 62, 30, 76, 52
TEXT, BOLD, LINE = 6.2, 7.0, 13.0  # how wide a character and how high a line of 11 pixels is taken to be
POINT = 6.0  # half of the room that a point takes
REACH = (11, 14, 18, 23, 29, 36, 44, 54, 66, 80, 96, 115, 140)  # how far from its point a name may stand
STEPS = tuple(float(f"{figure}e{power}") for power in range(-1, 8) for figure in (1, 2, 5))  # in microseconds
SHARES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
ROOM = 24  # between two lines across
LEAST_WRONG = 0.002
LINED = 14  # from here on a line leads from the name to its point
CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
    "triangle": ((0, -6), (5.5, 4.5), (-5.5, 4.5)),
    "diamond": ((0, -6), (6, 0), (0, 6), (-6, 0)),
    "star": tuple(
        ((7, 3)[i % 2] * math.sin(math.pi * i / 5), -(7, 3)[i % 2] * math.cos(math.pi * i / 5)) for i in range(10)
    ),
}

Place = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """`mark` is a key of CORNERS or `circle`; the colours are for a light and for a dark page."""

    mark: str
    light: str
    dark: str


@dataclass(frozen=True)
class Point:
    """`microseconds` above 0; `right` 0 to 1. Points of one family look alike; `joined` ones have a line through them."""

    microseconds: float
    right: float
    label: str
    family: str
    joined: bool = False
    best: bool = False


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def nearest(self, place: Place) -> Place:
        """The place in the box that is nearest to `place`."""
        return min(max(place[0], self.left), self.right), min(max(place[1], self.top), self.bottom)


@dataclass(frozen=True)
class Scale:
    """From figures to places in the picture: `quick` to `slow` in microseconds, `low` to `high` in what is right."""

    quick: float
    slow: float
    low: float
    high: float

    @staticmethod
    def of(points: Sequence[Point]) -> Scale:
        quick = max(step for step in STEPS if step <= min(p.microseconds for p in points))
        slow = min(step for step in STEPS if step > max(p.microseconds for p in points) * 1.3)
        low = min(p.right for p in points)
        most = min(max(p.right for p in points), 1 - 2 * LEAST_WRONG)
        high = 1 - (1 - most) * 0.85
        return Scale(quick, slow, 1 - min(1.0, (1 - low) * 1.06 + 0.001), high)

    def x(self, microseconds: float) -> float:
        share = math.log(microseconds / self.quick) / math.log(self.slow / self.quick)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, right: float) -> float:
        """Logarithmic in what is wrong: from 90 % to 95 % is as far as from 80 % to 90 %."""
        share = math.log((1 - self.high) / max(1 - right, LEAST_WRONG)) / math.log((1 - self.high) / (1 - self.low))
        return TOP + share * (HEIGHT - TOP - BOTTOM)

    def shares(self) -> Iterator[float]:
        """Those of SHARES at which a line is drawn across, none too near to the one below."""
        last = math.inf
        for share in SHARES:
            if self.low <= share <= self.high and last - self.y(share) >= ROOM:
                last = self.y(share)
                yield share


def placed(points: Sequence[Point], scale: Scale) -> list[Box]:
    """Where each point's name stands: as near as there is room, upon no other name and no point, and on a line only in need."""
    at = [(scale.x(p.microseconds), scale.y(p.right)) for p in points]
    taken = [_around(x, y, POINT) for x, y in at]
    lines = [_around(x, y, 2) for line in _lines(points, scale).values() for x, y in _along(line)]
    found: dict[int, Box] = {}
    for i in sorted(range(len(points)), key=lambda i: (not points[i].best, -points[i].right)):
        others = [box for k, box in enumerate(taken) if k != i]
        spots = list(_spots(points[i], at[i]))
        free = [spot for spot in spots if _inside(spot) and not any(spot.meets(box) for box in (*others, taken[i]))]
        led = [spot for spot in free if not any(dot.meets(box) for dot in _lead(at[i], spot) for box in others)]
        clear = [spot for spot in led if not any(spot.meets(dot) for dot in lines)]
        found[i] = (clear or led or free or spots)[0]
        taken.append(found[i])
        lines += _lead(at[i], found[i])
    return [found[i] for i in range(len(points))]


def _lead(place: Place, box: Box) -> list[Box]:
    """What the line from a point to its name lies on; nothing where the name stands beside it."""
    end = box.nearest(place)
    return [_around(x, y, 1) for x, y in _along((place, end))] if math.dist(place, end) > LINED else []


def _lines(points: Sequence[Point], scale: Scale) -> dict[str, list[Place]]:
    """The lines through points: `front`, through those that nothing beats at once in quickness and in being right, and one
    through the joined points of each family."""
    groups = {"front": sorted((p for p in points if p.best), key=lambda p: p.microseconds)}
    for point in points:
        if point.joined:
            groups.setdefault(f"join {point.family}", []).append(point)
    return {
        name: [(scale.x(p.microseconds), scale.y(p.right)) for p in group]
        for name, group in groups.items()
        if len(group) > 1
    }


def _along(line: Sequence[Place]) -> Iterator[Place]:
    """Places all along a line, near to one another."""
    for (x1, y1), (x2, y2) in pairwise(line):
        steps = max(1, round(math.dist((x1, y1), (x2, y2)) / 3))
        yield from ((x1 + (x2 - x1) * k / steps, y1 + (y2 - y1) * k / steps) for k in range(steps + 1))


def _around(x: float, y: float, room: float) -> Box:
    return Box(x - room, y - room, x + room, y + room)


def _spots(point: Point, place: Place) -> Iterator[Box]:
    x, y = place
    wide = (BOLD if point.best else TEXT) * len(point.label) + 2
    for reach in REACH:
        for angle in (0, 180, 90, 270, *(a + turn for a in (20, 40, 60) for turn in (0, 90, 180, 270))):
            dx, dy = reach * math.cos(math.radians(angle)), -reach * math.sin(math.radians(angle))
            left = x + dx if dx > 1 else x + dx - wide if dx < -1 else x - wide / 2
            yield Box(left, y + dy - LINE / 2, left + wide, y + dy + LINE / 2)


def _inside(box: Box) -> bool:
    return box.left >= LEFT and box.right <= WIDTH - RIGHT and box.top >= TOP and box.bottom <= HEIGHT - BOTTOM


def scatter(points: Sequence[Point], looks: Mapping[str, Look], title: str, axis: str, foot: str) -> str:
    """The picture, which follows light and dark.

    `looks` are those of the families, `axis` says what `right` is and `foot` whose time was taken.
    """
    scale = Scale.of(points)
    families = [family for family in looks if any(point.family == family for point in points)]
    parts = [*_grid(scale, axis, foot), *_drawn(points, scale, families)]
    boxes = placed(points, scale)
    at = [(scale.x(point.microseconds), scale.y(point.right)) for point in points]
    for place, box in zip(at, boxes, strict=True):
        if _lead(place, box):
            (x1, y1), (x2, y2) = place, box.nearest(place)
            parts.append(f'<line class="lead" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    named = sorted(zip(points, at, boxes, strict=True), key=lambda one: not one[0].joined)
    for point, place, box in named:
        about = f"{point.family}, {point.label}: {point.right:.1%} at {point.microseconds:,.0f} µs"
        number = families.index(point.family)
        parts.append(_mark(looks[point.family], number, *place, about))
        parts.append(_text(box.left + 1, box.bottom - 3.5, point.label, f"t{number}{' best' if point.best else ''}"))
    parts += [_text(LEFT, 20, title, "title"), *_legend(families, looks)]
    frame = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}"'
    style = _style([looks[family] for family in families])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>\n<style>{style}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _grid(scale: Scale, axis: str, foot: str) -> Iterator[str]:
    yield f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
    for value in (step for step in STEPS if scale.quick <= step <= scale.slow):
        x = scale.x(value)
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>'
        yield _text(
            x, HEIGHT - BOTTOM + 18, f"{value:,.0f} µs" if value < 1000 else f"{value / 1000:,.0f} ms", "tick mid"
        )
    for share in scale.shares():
        y = scale.y(share)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        yield _text(LEFT - 8, y + 4, f"{100 * share:g}%", "tick end")
    yield _text(
        (LEFT + WIDTH - RIGHT) / 2,
        HEIGHT - 12,
        foot,
        "tick mid",
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield f'<g transform="rotate(-90 16 {middle:.0f})">{_text(16, middle, axis, "tick mid")}</g>'


def _drawn(points: Sequence[Point], scale: Scale, families: Sequence[str]) -> Iterator[str]:
    for name, line in _lines(points, scale).items():
        kind = "front" if name == "front" else f"join s{families.index(name.removeprefix('join '))}"
        yield f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in line)}"/>'


def _legend(families: Sequence[str], looks: Mapping[str, Look]) -> Iterator[str]:
    x, y = float(LEFT), 44.0
    for number, family in enumerate(families):
        wide = 20 + TEXT * len(family) + 14
        if x + wide > WIDTH - RIGHT:
            x, y = float(LEFT), y + 18
        yield _mark(looks[family], number, x + 6, y - 4, family)
        yield _text(x + 17, y, family, "key")
        x += wide


def _mark(look: Look, number: int, x: float, y: float, about: str) -> str:
    title = f"<title>{html.escape(about)}</title>"
    if look.mark == "circle":
        return f'<circle class="m{number}" cx="{x:.1f}" cy="{y:.1f}" r="5">{title}</circle>'
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in CORNERS[look.mark])
    return f'<polygon class="m{number}" points="{path}">{title}</polygon>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _style(looks: Sequence[Look]) -> str:
    def coloured(colours: Sequence[str]) -> str:
        return "".join(f".m{i},text.t{i}{{fill:{colour}}}.s{i}{{stroke:{colour}}}" for i, colour in enumerate(colours))

    return (
        "text{font:11px system-ui,'DejaVu Sans',sans-serif;fill:#1b1f24}.title{font-size:15px;font-weight:600}"
        ".tick,.key{fill:#4b5563}.mid{text-anchor:middle}.end{text-anchor:end}.best{font-weight:700}"
        ".page{fill:#fff}.grid{stroke:#e2e6eb}.lead{stroke:#9aa4b2;stroke-width:.8}polyline{fill:none}"
        ".front{stroke:#1b1f24;stroke-width:1.3;stroke-dasharray:5 4;opacity:.55}.join{stroke-width:1.6;opacity:.7}"
        f"polygon,circle{{stroke:#fff;stroke-width:.8}}{coloured([look.light for look in looks])}"
        "@media(prefers-color-scheme:dark){text{fill:#e8eaed}.tick,.key{fill:#a2abb8}.page{fill:#14171b}.grid{stroke:#2b3037}"
        f".front{{stroke:#e8eaed}}polygon,circle{{stroke:#14171b}}{coloured([look.dark for look in looks])}}}"
    )
