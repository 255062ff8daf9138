"""Hedges: when a second replica is asked as well because the first is late."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from router.experts import Expert

SAMPLES = 256  # times to first token that are remembered of an expert
LEAST_SAMPLES = 20  # fewer have no 95th percentile
QUANTILE = 0.95
Kind = tuple[
    str, bool
]  # the endpoint, and whether it is streamed: the time to a first token is not that to an embedding


class Hedges:
    """Remembers the time to first token, or to a whole answer, of the experts that hedge by their 95th percentile."""

    def __init__(self, experts: Mapping[str, Expert]) -> None:
        self._experts = experts
        self._seen: dict[tuple[str, Kind], deque[float]] = {}

    def learn(self, expert: str, kind: Kind, seconds: float) -> None:
        """A good answer came, its first token or all of it after `seconds`."""
        if self._experts[expert].hedge == "p95":
            self._seen.setdefault((expert, kind), deque(maxlen=SAMPLES)).append(seconds)

    def delay(self, expert: str, kind: Kind) -> float | None:
        """Seconds after which a second replica is asked; None where it never is."""
        hedge = self._experts[expert].hedge
        if hedge != "p95":
            return hedge
        seen = self._seen.get((expert, kind), ())
        if len(seen) < LEAST_SAMPLES:
            return None
        return sorted(seen)[int(QUANTILE * len(seen))]
