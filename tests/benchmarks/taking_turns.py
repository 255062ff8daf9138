"""Two experts that share a GPU: what taking turns saves, in made-up time.

Run: python -m tests.benchmarks.taking_turns docs/taking-turns.svg
The table and the picture are those of docs/workers.md.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from gateway.workers.turns import Seen, Sleeper, Turns
from tests.fakes.shared_gpu import READY, Request, World, state_spans

HOUR = 3600.0
NAMES = ("coder", "math")
HEAD = ("load", "waking", "policy", "switches an hour", "time spent switching", "answered", "mean wait")


class AtOnce(Turns):
    """Makes room as soon as somebody else waits, once what runs has ended."""

    def _turn_is_over(self, name: str, now: float, one: Seen) -> bool:
        return one.state is READY


POLICIES: dict[str, type[Turns]] = {"at once": AtOnce, "in turns": Turns}


def by_turns() -> list[Request]:
    return [Request(5.0 * i, NAMES[i % 2], 2.0) for i in range(int(HOUR / 5))]


def by_chance() -> list[Request]:
    chances = random.Random(1)  # noqa: S311 - no secret
    requests = []
    for name in NAMES:
        at = chances.expovariate(1 / 20)
        while at < HOUR:
            requests.append(Request(at, name, 5.0))
            at += chances.expovariate(1 / 20)
    return requests


def agents() -> list[Request]:
    return [Request(0.1 * i, NAMES[i % 2], 3.0, again=10**6, think=2.0) for i in range(4)]


@dataclass(frozen=True)
class Load:
    what: str
    requests: Callable[[], list[Request]]


LOADS = (
    Load("a request every 5 s, for one and the other in turn, 2 s each", by_turns),
    Load("3 a minute for each, as chance has it, 5 s each", by_chance),
    Load("2 agents at each, who ask again 2 s after each answer of 3 s", agents),
)


def played(load: Load, waking: float, policy: type[Turns], seconds: float = HOUR) -> World:
    sleepers = {name: Sleeper(600.0, frozenset({0})) for name in NAMES}
    world = World(sleepers, policy(sleepers), {name: [waking] for name in NAMES})
    return world.play(load.requests(), seconds)


def table() -> str:
    """Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for load in LOADS:
        for waking in (30.0, 3.0):
            for name, policy in POLICIES.items():
                world = played(load, waking, policy)
                waits = [request.wait for request in world.requests if request.began is not None]
                switching = sum(one.switching for one in world.experts.values()) / HOUR
                figures = (str(world.count("wake")), f"{switching:.0%}", str(len(waits)), f"{mean(waits):.1f} s")
                cells = (load.what, f"{waking:.0f} s", name, *figures)
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


WIDE, LANE, LEFT, SHOWN = 900, 16, 130, 600.0
COLOURS = {"ready": "#4c9f70", "waking": "#e0a030", "stopping": "#b8b8b8"}


def timeline() -> str:
    """Ten minutes of the agents under both policies, as SVG."""
    parts, y = [], 26
    for policy_name, policy in POLICIES.items():
        world = played(LOADS[2], 30.0, policy, SHOWN)
        answered = sum(request.began is not None for request in world.requests)
        parts.append(f'<text x="4" y="{y}" font-weight="bold">{policy_name}: {answered} answers in 10 minutes</text>')
        for name in NAMES:
            y += LANE + 6
            parts.append(f'<text x="{LEFT - 8}" y="{y}" text-anchor="end">{name}</text>')
            for state, begin, end in state_spans(world, name):
                if (colour := COLOURS.get(str(state))) is not None and end > begin:
                    x, width = LEFT + begin / SHOWN * (WIDE - LEFT - 10), (end - begin) / SHOWN * (WIDE - LEFT - 10)
                    parts.append(
                        f'<rect x="{x:.1f}" y="{y - LANE + 4}" width="{width:.1f}" height="{LANE}" fill="{colour}"/>'
                    )
        y += LANE + 22
    for i, (shown, colour) in enumerate(COLOURS.items()):
        parts.append(f'<rect x="{LEFT + 130 * i}" y="{y - 12}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 130 * i + 18}" y="{y - 2}">{shown}</text>')
    body = "\n".join(parts)
    style = 'font-family="sans-serif" font-size="13" fill="#333"'
    back = f'<rect width="{WIDE}" height="{y + 8}" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {y + 8}" {style}>\n{back}\n{body}\n</svg>\n'


if __name__ == "__main__":
    print(table())
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(timeline(), "utf-8")
