"""What was measured of real vLLM workers, as the tables of docs/vllm.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """Of one way at one moment: tokens a second of all streams together, and the median of their seconds to the first token."""

    tokens_per_second: float
    first_token: float


@dataclass(frozen=True)
class Round:
    """Both ways side by side, with so many streams at once."""

    concurrent: int
    straight: Sample
    gateway: Sample


@dataclass(frozen=True)
class Start:
    """Seconds from `workers up` until so many workers were ready, each time that it was tried."""

    workers: int
    seconds: Sequence[float]


@dataclass(frozen=True)
class Architecture:
    """A tiny model that was launched by experts.yaml. `same`: its answers through the gateway were transformers' own."""

    name: str
    served_as: str
    same: bool
    seconds: float


def markdown(measured: Sequence[Round] | Sequence[Start] | Sequence[Architecture]) -> str:
    """The table of measurements of one kind. Raises ValueError where there are none."""
    rounds = [one for one in measured if isinstance(one, Round)]
    starts = [one for one in measured if isinstance(one, Start)]
    served = [one for one in measured if isinstance(one, Architecture)]
    if rounds:
        return _speed(rounds)
    if starts:
        return _table(("workers", "seconds to ready"), ((str(s.workers), _spread(s.seconds, ".1f")) for s in starts))
    if served:
        rows = ((a.name, f"`{a.served_as}`", "yes" if a.same else "**no**", f"{a.seconds:.0f}") for a in served)
        return _table(("model", "class in vLLM", "answers as transformers", "seconds to ready"), rows)
    raise ValueError("nothing was measured")


def _speed(rounds: Sequence[Round]) -> str:
    def row(concurrent: int, name: str, of: Callable[[Sample], float], form: str) -> tuple[str, ...]:
        those = [one for one in rounds if one.concurrent == concurrent]
        straight, gateway = [of(one.straight) for one in those], [of(one.gateway) for one in those]
        ratios = [g / s for g, s in zip(gateway, straight, strict=True)]
        return str(concurrent), name, *(_spread(values, form) for values in (straight, gateway)), _spread(ratios, ".2f")

    rows = []
    for concurrent in sorted({one.concurrent for one in rounds}):
        rows.append(row(concurrent, "tokens a second", lambda sample: sample.tokens_per_second, ".1f"))
        rows.append(row(concurrent, "TTFT, ms", lambda sample: 1000 * sample.first_token, ".0f"))
    return _table(("streams at once", "figure", "straight", "through the gateway", "ratio"), rows)


def _spread(values: Sequence[float], form: str) -> str:
    """The median, with the least and the most."""
    if len(values) == 1:
        return format(values[0], form)
    return f"{statistics.median(values):{form}} [{min(values):{form}}–{max(values):{form}}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def inserted(document: str, part: str, figures: str) -> str:
    """`document` with the figures of a part between its marks. Raises ValueError where it has none."""
    start, end = f"<!-- {part}: make bench-vllm writes this -->", f"<!-- end of {part} -->"
    before, begun, rest = document.partition(start)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"the document has no place for {part}")
    return f"{before}{start}\n\n{figures}\n\n{end}{after}"
