"""Foresight: whether recent traffic turns to what an expert that sleeps is best at, so that it is woken before it is asked.

Of each decision it looks at one figure p: the probability that the classifier gave to the domains that the expert serves best,
whoever was chosen. No text is kept, and no more than three sums for each expert, whatever the traffic. With ages in seconds:

    F = Σ p·exp(-age/60)           about how many such requests the last minute brought
    B = F's mean, were traffic as it was over the last quarter of an hour: r·60·(1 - exp(-T/60)), where T is how long we
        have looked and r = Σ p·exp(-age/900) / (900·(1 - exp(-T/900))) requests a second
    V = F's variance then, by Campbell's theorem for requests that come independently: r2·30·(1 - exp(-2T/60)), r2 as r, of p²

    likely = F - B - 3·√V, and 0 where that is less

so that a domain that always has its few per cent, however much traffic there is, is expected by nobody: it is in B, and its
chances are within three standard deviations. Four requests in a row with p = 0.4 where there was nothing before come to 1.05.
When the expert falls asleep F begins anew: what kept it awake is no reason to wake it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.exchange import Exchange
from gateway.sleepers import Sleepers
from router.experts import ExpertsFile

FAST_SECONDS, SLOW_SECONDS = 60.0, 900.0
DEVIATIONS = 3.0


@dataclass(slots=True)
class _Sums:
    """Decayed to `at`; `since` is when the looking began."""

    since: float
    at: float
    fast: float = 0.0
    slow: float = 0.0
    squares: float = 0.0

    def decay(self, now: float) -> None:
        age, self.at = max(0.0, now - self.at), now
        self.fast *= math.exp(-age / FAST_SECONDS)
        slower = math.exp(-age / SLOW_SECONDS)
        self.slow *= slower
        self.squares *= slower

    def add(self, probability: float) -> None:
        self.fast += probability
        self.slow += probability
        self.squares += probability * probability

    @property
    def likely(self) -> float:
        looked = self.at - self.since
        if looked <= 0:
            return 0.0
        weight = SLOW_SECONDS * -math.expm1(-looked / SLOW_SECONDS)
        mean = self.slow / weight * FAST_SECONDS * -math.expm1(-looked / FAST_SECONDS)
        variance = self.squares / weight * FAST_SECONDS / 2 * -math.expm1(-2 * looked / FAST_SECONDS)
        return max(0.0, self.fast - mean - DEVIATIONS * math.sqrt(variance))


class Foresight:
    """An observer of exchanges. `refresh` is to be called now and then: what was likely is so less and less."""

    def __init__(self, file: ExpertsFile, sleepers: Sleepers, clock: Callable[[], float] = time.monotonic) -> None:
        self._sleepers, self._clock = sleepers, clock
        now = clock()
        self._domains = {name: _best_at(file, sleepers.served_by(name)) for name in sleepers.launchers}
        self._sums = {name: _Sums(now, now) for name in sleepers.launchers}
        self._slept = dict.fromkeys(sleepers.launchers, False)

    def observe(self, exchange: Exchange) -> None:
        decision = exchange.decision
        if decision is None or decision.scores is None:
            return
        now, chances = self._clock(), decision.scores.by_domain
        for name, sums in self._sums.items():
            sums.decay(now)
            sums.add(sum(chances.get(domain, 0.0) for domain in self._domains[name]))
        self._tell()

    def refresh(self) -> None:
        now = self._clock()
        for sums in self._sums.values():
            sums.decay(now)
        self._tell()

    def _tell(self) -> None:
        for name, sums in self._sums.items():
            asleep = self._sleepers.asleep(name)
            if asleep and not self._slept[name]:
                sums.fast = 0.0
            self._slept[name] = asleep
            self._sleepers.expect(name, round(sums.likely, 1) if asleep else 0.0)


def _best_at(file: ExpertsFile, experts: Sequence[str]) -> tuple[str, ...]:
    """The domains in which nobody of the file is better than one of `experts`."""
    return tuple(
        domain
        for domain in file.domain_names
        if max(file.quality(e, domain) for e in experts) >= max(file.quality(e, domain) for e in file.experts)
    )
