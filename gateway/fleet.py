"""FleetWatch: how the experts do, as the router wants to know it."""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.exchange import Exchange, Outcome
from gateway.pool import Pool
from router.fleet import EMPTY_FLEET, Fleet

SECONDS_KEPT = 1.0  # a snapshot is as good as new for so long
WEIGHT = 0.2  # of the newest time to first token in the mean
SECONDS_REMEMBERED = 600.0  # an expert that was slow once is tried again


class FleetWatch:
    """Learns each expert's time to first token from finished exchanges; call it for a snapshot."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._clock = pool, clock
        self._latency: dict[str, tuple[float, float]] = {}  # the mean in seconds, and when it was last fed
        self._snapshot, self._good_until = EMPTY_FLEET, float("-inf")

    def observe(self, exchange: Exchange) -> None:
        """An answer that came as one piece says nothing of its first token."""
        if not exchange.stream or exchange.first_token is None or exchange.outcome is not Outcome.OK:
            return
        attempt = exchange.attempts[-1]
        seconds = exchange.first_token - attempt.started
        mean, _ = self._latency.get(attempt.expert, (seconds, 0.0))
        self._latency[attempt.expert] = (mean + WEIGHT * (seconds - mean), self._clock())

    def __call__(self) -> Fleet:
        """How the experts did at most SECONDS_KEPT ago. May be asked from any thread."""
        now = self._clock()
        if now >= self._good_until:
            self._snapshot = Fleet(
                latency={e: mean for e, (mean, fed) in dict(self._latency).items() if now - fed < SECONDS_REMEMBERED},
                down=frozenset(expert for expert in self._pool.file.experts if not self._pool.able(expert)),
            )
            self._good_until = now + SECONDS_KEPT
        return self._snapshot
