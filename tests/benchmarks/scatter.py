"""How right against how quick, as a picture (see router/measuring/scatter.py)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from router.measuring.scatter import Box, Dot, Frame, Look, Place, line, picture, text, upright
from router.measuring.scatter import placed as placed_dots

__all__ = ["HEIGHT", "WIDTH", "Look", "Point", "Scale", "placed", "scatter"]

WIDTH, HEIGHT = 1080, 760
LEFT, RIGHT, TOP, BOTTOM = 62, 30, 76, 52
FRAME = Frame(WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM)
STEPS = tuple(float(f"{figure}e{power}") for power in range(-1, 8) for figure in (1, 2, 5))  # in microseconds
SHARES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
ROOM = 24  # between two lines across
LEAST_WRONG = 0.002


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

    def dot(self, point: Point) -> Dot:
        about = f"{point.family}, {point.label}: {point.right:.1%} at {point.microseconds:,.0f} µs"
        x, y = self.x(point.microseconds), self.y(point.right)
        return Dot(x, y, point.label, point.family, about, strong=point.best)


def placed(points: Sequence[Point], scale: Scale) -> list[Box]:
    """Where each point's name stands."""
    lines = _lines(points, scale, list(dict.fromkeys(point.family for point in points)))
    return placed_dots([scale.dot(point) for point in points], FRAME, lines.values())


def scatter(points: Sequence[Point], looks: Mapping[str, Look], title: str, axis: str, foot: str) -> str:
    """The picture. `looks` are those of the families, `axis` says what `right` is and `foot` whose time was taken."""
    scale = Scale.of(points)
    families = [family for family in looks if any(point.family == family for point in points)]
    dots = [scale.dot(point) for point in points]
    return picture(dots, FRAME, looks, title, _grid(scale, axis, foot), _lines(points, scale, families))


def _lines(points: Sequence[Point], scale: Scale, families: Sequence[str]) -> dict[str, list[Place]]:
    """The lines through points by their class: `front`, through those that nothing beats at once in quickness and in being
    right, and one through the joined points of each family."""
    groups = {"front": sorted((p for p in points if p.best), key=lambda p: p.microseconds)}
    for point in points:
        if point.joined:
            groups.setdefault(f"join s{families.index(point.family)}", []).append(point)
    return {
        name: [(scale.x(p.microseconds), scale.y(p.right)) for p in group]
        for name, group in groups.items()
        if len(group) > 1
    }


def _grid(scale: Scale, axis: str, foot: str) -> Iterator[str]:
    for value in (step for step in STEPS if scale.quick <= step <= scale.slow):
        x = scale.x(value)
        yield line(x, TOP, x, HEIGHT - BOTTOM, "grid")
        label = f"{value:,.0f} µs" if value < 1000 else f"{value / 1000:,.0f} ms"
        yield text(x, HEIGHT - BOTTOM + 18, label, "tick mid")
    for share in scale.shares():
        y = scale.y(share)
        yield line(LEFT, y, WIDTH - RIGHT, y, "grid")
        yield text(LEFT - 8, y + 4, f"{100 * share:g}%", "tick end")
    yield text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, foot, "tick mid")
    yield upright(16, (TOP + HEIGHT - BOTTOM) / 2, axis, "tick mid")
