"""FleetWatch: how the experts do, as the router wants to know it."""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.costs import HOUR_SECONDS
from gateway.exchange import Exchange, Outcome
from gateway.pool import Pool
from router.fleet import EMPTY_FLEET, Fleet
from router.prices import PER_MILLION

SECONDS_KEPT = 1.0  # a snapshot is as good as new for so long
WEIGHT = 0.2  # of the newest time to first token in the mean
SECONDS_REMEMBERED = 600.0  # an expert that was slow once is tried again
LEAST_TOKENS = 1000.0  # of which the price per token of an expert that is paid by the hour can be told
HALF_LIFE_TOKENS = 1_000_000.0  # what was answered so many tokens ago counts half


class FleetWatch:
    """Learns each expert's time to first token from finished exchanges, and what the tokens of those come to that are paid by the
    hour; call it for a snapshot."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._clock = pool, clock
        self._latency: dict[str, tuple[float, float]] = {}  # the mean in seconds, and when it was last fed
        self._hourly: dict[str, tuple[float, float]] = {}  # USD and tokens, older ones counting less
        self._snapshot, self._good_until = EMPTY_FLEET, float("-inf")

    def observe(self, exchange: Exchange) -> None:
        """An answer that came as one piece says nothing of its first token."""
        self._observe_price(exchange)
        if not exchange.stream or exchange.first_token is None or exchange.outcome is not Outcome.OK:
            return
        attempt = exchange.attempts[-1]
        seconds = exchange.first_token - attempt.started
        mean, _ = self._latency.get(attempt.expert, (seconds, 0.0))
        self._latency[attempt.expert] = (mean + WEIGHT * (seconds - mean), self._clock())

    def _observe_price(self, exchange: Exchange) -> None:
        """A request's share of an hour, spread over its tokens: those that the cache gave took next to no time."""
        expert, usage = exchange.expert, exchange.usage
        if expert is None or expert.gpu_price is None or usage is None or exchange.expert_id is None:
            return
        seconds = sum(one.seconds for one in exchange.occupied if one.name == exchange.expert_id)
        tokens = usage.input + usage.output
        usd_before, tokens_before = self._hourly.get(exchange.expert_id, (0.0, 0.0))
        kept = 0.5 ** (tokens / HALF_LIFE_TOKENS)
        usd = usd_before * kept + expert.replica_hour * seconds / HOUR_SECONDS
        self._hourly[exchange.expert_id] = usd, tokens_before * kept + tokens

    def __call__(self) -> Fleet:
        """How the experts did at most SECONDS_KEPT ago. May be asked from any thread."""
        now = self._clock()
        if now >= self._good_until:
            self._snapshot = Fleet(
                latency={e: mean for e, (mean, fed) in dict(self._latency).items() if now - fed < SECONDS_REMEMBERED},
                down=frozenset(expert for expert in self._pool.file.experts if not self._pool.able(expert)),
                prices={
                    expert: usd / tokens * PER_MILLION
                    for expert, (usd, tokens) in dict(self._hourly).items()
                    if tokens >= LEAST_TOKENS
                },
            )
            self._good_until = now + SECONDS_KEPT
        return self._snapshot
