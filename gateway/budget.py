"""RetryBudget: how much more than its own requests an expert may be asked for, so that retries cannot storm."""

from __future__ import annotations

import time
from collections.abc import Callable

SHARE = 0.2  # further attempts for each request
RESERVE = 30.0  # attempts that may be made at once where there was no traffic
PER_SECOND = 3.0  # what comes back of the reserve without traffic


class RetryBudget:
    """A bucket for each expert. A request's first attempt there puts SHARE of an attempt in; every further one, at another
    replica, on a fresh connection or as a hedge, takes one out. Asking another expert is that one's first attempt.

    The scheme is that of Finagle's retry budgets; the share is Envoy's default.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # attempts, and when that was reckoned

    def request(self, expert: str) -> None:
        """A request came to the expert."""
        self._left[expert] = (min(self._now(expert) + SHARE, 4 * RESERVE), self._clock())

    def spend(self, expert: str) -> bool:
        """Take one further attempt; False where none is left."""
        left = self._now(expert)
        allowed = left >= 1
        self._left[expert] = (left - 1 if allowed else left, self._clock())
        return allowed

    def _now(self, expert: str) -> float:
        left, reckoned = self._left.get(expert, (RESERVE, self._clock()))
        return left if left >= RESERVE else min(RESERVE, left + (self._clock() - reckoned) * PER_SECOND)
