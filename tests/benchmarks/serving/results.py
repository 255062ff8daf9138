"""What a run came to: medians with their reach, and ratios within a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import median
from typing import Any

from tests.benchmarks.serving.measuring import Run, Sample, of
from tests.benchmarks.serving.ways import AUTO, PASS_THROUGH, STRAIGHT, VLLM_ROUTER


@dataclass(frozen=True)
class Figure:
    """A median, and the least and the most of the rounds."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Figure:
        return Figure(median(values), min(values), max(values))


@dataclass(frozen=True)
class Cell:
    """One way with one kind of request and one number of clients.

    `rate` is in requests a second, `cpu` in seconds a request, `added50` and `added99` in seconds over the same round's way
    straight to the upstream, `resident` in megabytes. `to_straight` and `to_router` are the rate's ratios within a round to
    the way straight to the upstream and to vllm-router, `cpu_to_router` that of the CPU seconds; None where that way was
    not measured.
    """

    way: str
    kind: str
    clients: int
    rate: Figure
    cpu: Figure
    p50: Figure
    p99: Figure
    added50: Figure | None
    added99: Figure | None
    resident: float
    failed: int
    to_straight: Figure | None
    to_router: Figure | None
    cpu_to_router: Figure | None


@dataclass(frozen=True)
class Results:
    """`cells` in the order in which they were measured, `stages` the decisions for `auto` by the router's stage.

    `auto_to_pass` is the ratio of the rates of `auto` and of an expert asked by name within a round, by kind and clients.
    `others` is the share of the machine's CPU time that went to others than the servers and the load.
    """

    cells: list[Cell]
    stages: dict[str, int]
    auto_to_pass: dict[str, Figure]
    others: Figure

    def cell(self, way: str, kind: str, clients: int) -> Cell | None:
        return next((c for c in self.cells if (c.way, c.kind, c.clients) == (way, kind, clients)), None)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def results(run: Run) -> Results:
    """`run` has one sample at the least."""
    keys = list(dict.fromkeys((s.way, s.kind, s.clients) for s in run.samples))
    against = {
        f"{kind}, {clients}": compared
        for kind, clients in dict.fromkeys((kind, clients) for _, kind, clients in keys)
        if (compared := _ratio(run.samples, AUTO, PASS_THROUGH, kind, clients, "rate"))
    }
    others = Figure.of([s.others for s in run.samples])
    return Results([_cell(run.samples, *key) for key in keys], dict(run.stages), against, others)


def _cell(samples: Sequence[Sample], way: str, kind: str, clients: int) -> Cell:
    own = list(of(samples, way, kind, clients))
    straight = list(of(samples, STRAIGHT, kind, clients))
    pairs = list(zip(own, straight, strict=False))
    added50, added99 = (
        Figure.of([getattr(a, name) - getattr(b, name) for a, b in pairs]) if pairs and way != STRAIGHT else None
        for name in ("p50", "p99")
    )
    rate, cpu, p50, p99 = (Figure.of([getattr(s, name) for s in own]) for name in ("rate", "cpu", "p50", "p99"))
    to_straight, to_router, cpu_to_router = (
        _ratio(samples, way, other, kind, clients, name)
        for other, name in ((STRAIGHT, "rate"), (VLLM_ROUTER, "rate"), (VLLM_ROUTER, "cpu"))
    )
    return Cell(
        way, kind, clients, rate, cpu, p50, p99, added50, added99,
        max(s.resident for s in own), sum(s.failed for s in own), to_straight, to_router, cpu_to_router,
    )  # fmt: skip


def _ratio(samples: Sequence[Sample], way: str, other: str, kind: str, clients: int, name: str) -> Figure | None:
    """Of two ways' samples of the same round: what slows a whole round down changes it little."""
    pairs = zip(of(samples, way, kind, clients), of(samples, other, kind, clients), strict=False)
    ratios = [getattr(a, name) / max(getattr(b, name), 1e-9) for a, b in pairs]
    return Figure.of(ratios) if ratios else None


def kinds_and_clients(found: Results) -> list[tuple[str, int]]:
    """What was measured, in the order in which it was."""
    kinds, clients = (list(dict.fromkeys(getattr(c, name) for c in found.cells)) for name in ("kind", "clients"))
    return [(kind, number) for kind, number in product(kinds, clients)]
