"""A scatter plot as SVG: every point named, no name upon another where there is room. It follows light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from router.measuring.plots import cleaned

TEXT, BOLD, LINE = 6.2, 7.0, 13.0  # how wide a character and how high a line of 11 pixels is taken to be
POINT = 6.0  # half of the room that a point takes
REACH = (11, 14, 18, 23, 29, 36, 44, 54, 66, 80, 96, 115, 140)  # how far from its point a name may stand
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
class Frame:
    """A picture's size and its margins, in pixels."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    def holds(self, box: Box) -> bool:
        return (
            box.left >= self.left
            and box.right <= self.width - self.right
            and box.top >= self.top
            and box.bottom <= self.height - self.bottom
        )


@dataclass(frozen=True)
class Dot:
    """A point at its place in the picture. Dots of one family look alike; `about` is what a reader who rests on it is told.
    A strong one's name is bold, and placed first; a faint one's is grey."""

    x: float
    y: float
    label: str
    family: str
    about: str
    strong: bool = False
    faint: bool = False

    @property
    def place(self) -> Place:
        return self.x, self.y


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


def placed(dots: Sequence[Dot], frame: Frame, lines: Iterable[Sequence[Place]] = ()) -> list[Box]:
    """Where each dot's name stands: as near as there is room, upon no other name and no dot, and on a line only in need."""
    taken = [_around(dot.x, dot.y, POINT) for dot in dots]
    drawn = [_around(x, y, 2) for line in lines for x, y in _along(line)]
    found: dict[int, Box] = {}
    for i in sorted(range(len(dots)), key=lambda i: (not dots[i].strong, dots[i].y)):
        others = [box for k, box in enumerate(taken) if k != i]
        spots = list(_spots(dots[i]))
        free = [spot for spot in spots if frame.holds(spot) and not any(spot.meets(box) for box in (*others, taken[i]))]
        led = [spot for spot in free if not any(dot.meets(box) for dot in lead(dots[i].place, spot) for box in others)]
        clear = [spot for spot in led if not any(spot.meets(dot) for dot in drawn)]
        found[i] = (clear or led or free or spots)[0]
        taken.append(found[i])
        drawn += lead(dots[i].place, found[i])
    return [found[i] for i in range(len(dots))]


def lead(place: Place, box: Box) -> list[Box]:
    """What the line from a point to its name lies on; nothing where the name stands beside it."""
    end = box.nearest(place)
    return [_around(x, y, 1) for x, y in _along((place, end))] if math.dist(place, end) > LINED else []


def _along(line: Sequence[Place]) -> Iterator[Place]:
    """Places all along a line, near to one another."""
    for (x1, y1), (x2, y2) in pairwise(line):
        steps = max(1, round(math.dist((x1, y1), (x2, y2)) / 3))
        yield from ((x1 + (x2 - x1) * k / steps, y1 + (y2 - y1) * k / steps) for k in range(steps + 1))


def _around(x: float, y: float, room: float) -> Box:
    return Box(x - room, y - room, x + room, y + room)


def _spots(dot: Dot) -> Iterator[Box]:
    wide = (BOLD if dot.strong else TEXT) * len(dot.label) + 2
    for reach in REACH:
        for angle in (0, 180, 90, 270, *(a + turn for a in (20, 40, 60) for turn in (0, 90, 180, 270))):
            dx, dy = reach * math.cos(math.radians(angle)), -reach * math.sin(math.radians(angle))
            left = dot.x + dx if dx > 1 else dot.x + dx - wide if dx < -1 else dot.x - wide / 2
            yield Box(left, dot.y + dy - LINE / 2, left + wide, dot.y + dy + LINE / 2)


def picture(
    dots: Sequence[Dot],
    frame: Frame,
    looks: Mapping[str, Look],
    title: str,
    under: Iterable[str] = (),
    lines: Mapping[str, Sequence[Place]] | None = None,
) -> str:
    """The whole SVG. `under` is markup that is drawn first, such as a grid; `lines` are drawn by their class."""
    families = [family for family in looks if any(dot.family == family for dot in dots)]
    parts = [f'<rect class="page" width="{frame.width}" height="{frame.height}" rx="8"/>', *under]
    for kind, through in (lines or {}).items():
        parts.append(f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in through)}"/>')
    boxes = placed(dots, frame, (lines or {}).values())
    for dot, box in zip(dots, boxes, strict=True):
        if lead(dot.place, box):
            x, y = box.nearest(dot.place)
            parts.append(f'<line class="lead" x1="{dot.x:.1f}" y1="{dot.y:.1f}" x2="{x:.1f}" y2="{y:.1f}"/>')
    for dot, box in sorted(zip(dots, boxes, strict=True), key=lambda one: one[0].strong):
        number = families.index(dot.family)
        parts.append(mark(looks[dot.family], f"m{number}{' pale' if dot.faint else ''}", *dot.place, dot.about))
        kind = f"t{number}{' best' if dot.strong else ''}{' dim' if dot.faint else ''}"
        parts.append(text(box.left + 1, box.bottom - 3.5, dot.label, kind))
    parts += [text(frame.left, 20, title, "title"), *_legend(families, looks, frame)]
    size = f'viewBox="0 0 {frame.width} {frame.height}" role="img" aria-label="{cleaned(title)}"'
    style = _style([looks[family] for family in families])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{style}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _legend(families: Sequence[str], looks: Mapping[str, Look], frame: Frame) -> Iterator[str]:
    x, y = float(frame.left), 44.0
    for number, family in enumerate(families):
        wide = 20 + TEXT * len(family) + 14
        if x + wide > frame.width - frame.right:
            x, y = float(frame.left), y + 18
        yield mark(looks[family], f"m{number}", x + 6, y - 4, family)
        yield text(x + 17, y, family, "key")
        x += wide


def mark(look: Look, kind: str, x: float, y: float, about: str) -> str:
    title = f"<title>{cleaned(about)}</title>"
    if look.mark == "circle":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5">{title}</circle>'
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in CORNERS[look.mark])
    return f'<polygon class="{kind}" points="{path}">{title}</polygon>'


def text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{cleaned(words)}</text>'


def upright(x: float, y: float, words: str, kind: str) -> str:
    """Text that is read from below."""
    return f'<g transform="rotate(-90 {x:.0f} {y:.0f})">{text(x, y, words, kind)}</g>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _style(looks: Sequence[Look]) -> str:
    def coloured(colours: Sequence[str]) -> str:
        return "".join(f".m{i},text.t{i}{{fill:{colour}}}.s{i}{{stroke:{colour}}}" for i, colour in enumerate(colours))

    return (
        "text{font:11px system-ui,'DejaVu Sans',sans-serif;fill:#1b1f24}.title{font-size:15px;font-weight:600}"
        ".tick,.key{fill:#4b5563}.mid{text-anchor:middle}.end{text-anchor:end}.best{font-weight:700}"
        ".page{fill:#fff}.grid{stroke:#e2e6eb}.lead{stroke:#9aa4b2;stroke-width:.8}polyline{fill:none}"
        ".front{stroke:#1b1f24;stroke-width:1.3;stroke-dasharray:5 4;opacity:.55}.join{stroke-width:1.6;opacity:.7}"
        f"polygon,circle{{stroke:#fff;stroke-width:.8}}{coloured([look.light for look in looks])}"
        "text.dim{fill:#6b7280}.pale{opacity:.5}"
        "@media(prefers-color-scheme:dark){text{fill:#e8eaed}.tick,.key{fill:#a2abb8}.page{fill:#14171b}.grid{stroke:#2b3037}"
        f".front{{stroke:#e8eaed}}polygon,circle{{stroke:#14171b}}{coloured([look.dark for look in looks])}"
        "text.dim{fill:#98a1ae}}"
    )
