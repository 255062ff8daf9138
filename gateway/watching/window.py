"""The last seconds of a gateway: what grew between one look and the next."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.watching.scrape import Scrape, Series, total


@dataclass(frozen=True)
class Step:
    """From one look to the next."""

    seconds: float
    grown: Series


class Window:
    """Keeps the steps of the last `seconds`, and the newest scrape."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._steps: deque[Step] = deque()
        self._grown: Series = {}  # of all steps
        self.newest: Scrape | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)

    @property
    def seconds(self) -> float:
        """How long the steps are together; 0 before the second scrape."""
        return sum(step.seconds for step in self._steps)

    def add(self, scrape: Scrape) -> None:
        before, self.newest = self.newest, scrape
        if before is None or scrape.at <= before.at:
            return
        self._steps.append(Step(scrape.at - before.at, _grown(before.counters, scrape.counters)))
        while len(self._steps) > 1 and self.seconds - self._steps[0].seconds >= self._seconds:
            self._steps.popleft()
        self._grown = _sum(self._steps)

    def increase(self, name: str, **labels: str) -> float:
        """By how much the series of that name with these labels grew."""
        return total(self._grown, name, **labels)

    def rate(self, name: str, **labels: str) -> float:
        """The same a second."""
        return self.increase(name, **labels) / self.seconds if self._steps else 0.0

    def quantile(self, q: float, name: str, **labels: str) -> float | None:
        """Of the histogram of that name, among what it observed in the window; None where it observed nothing."""
        buckets: dict[float, float] = {}
        wanted = frozenset(labels.items())
        for of, value in self._grown.get(f"{name}_bucket", {}).items():
            if wanted <= of:
                bound = float(dict(of)["le"])
                buckets[bound] = buckets.get(bound, 0.0) + value
        return quantile(q, buckets)


def quantile(q: float, buckets: Mapping[float, float]) -> float | None:
    """As PromQL's histogram_quantile: `buckets` has counts by upper bound, each with those below it; linear within a bucket,
    from 0 in the first, and the highest finite bound where it lies beyond. None where there is nothing."""
    bounds = sorted(buckets)
    if len(bounds) < 2 or not math.isinf(bounds[-1]) or buckets[bounds[-1]] <= 0:
        return None
    rank = q * buckets[bounds[-1]]
    place = next(i for i, bound in enumerate(bounds) if buckets[bound] >= rank or math.isinf(bound))
    if math.isinf(bounds[place]):
        return bounds[-2]
    if place == 0 and bounds[0] <= 0:
        return bounds[0]
    start, below = (bounds[place - 1], buckets[bounds[place - 1]]) if place else (0.0, 0.0)
    inside = buckets[bounds[place]] - below
    return start + (bounds[place] - start) * ((rank - below) / inside if inside > 0 else 0.0)


def _grown(before: Series, now: Series) -> Series:
    """By how much each series grew. One that is less than before was begun anew, and one that was not there began at 0."""
    grown: Series = {}
    for name, series in now.items():
        had = before.get(name, {})
        grown[name] = {of: value - was if value >= (was := had.get(of, 0.0)) else value for of, value in series.items()}
    return grown


def _sum(steps: Iterable[Step]) -> Series:
    whole: Series = {}
    for step in steps:
        for name, series in step.grown.items():
            into = whole.setdefault(name, {})
            for of, value in series.items():
                into[of] = into.get(of, 0.0) + value
    return whole
