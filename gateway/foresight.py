"""Foresight: whether recent traffic turns to what an expert that sleeps is best at, so that it is woken before it is asked.

Of each decision it looks at one figure p: the probability that the classifier gave to the domains that the expert serves best,
whoever was chosen; less than a fifth counts as nothing, for such a request is far from being sent there. No text is kept, and
no more than five sums for each expert, whatever the traffic. With weights w = exp(-age/60 s) of the requests up to now:

    F = Σ w·p                      about how many such requests the last minute brought, and the next one will
    q, v                           mean and variance of p over the last 500 requests or so, beginning with 20 of p = 0
    likely = F - q·Σw - 3·√(v·Σw²)   and 0 where that is less

so that likely is what came beyond the usual share and beyond chance: three standard deviations of F, were each p drawn anew
from the usual ones. A domain that always has its part, however much traffic there is, is expected by nobody, nor is it when
traffic begins again in the morning. Four requests in a row with p = 0.4, where that is unusual, come to 1.2; each of them may
have been answered by another. When the expert falls asleep F begins anew: what kept it awake is no reason to wake it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.exchange import Exchange
from gateway.sleepers import Sleepers
from router.experts import ExpertsFile

FAST_SECONDS = 60.0
USUAL_REQUESTS, FIRST_REQUESTS = 500, 20
LEAST_PROBABILITY = 0.2
DEVIATIONS = 3.0


@dataclass(slots=True)
class _Sums:
    """Decayed to `at`: Σw·p, Σw and Σw²; `mean` and `square` are the usual p and p², of so many `requests`."""

    at: float
    fast: float = 0.0
    weight: float = 0.0
    weight_squared: float = 0.0
    mean: float = 0.0
    square: float = 0.0
    requests: int = FIRST_REQUESTS

    def decay(self, now: float) -> None:
        factor = math.exp((self.at - now) / FAST_SECONDS)
        self.at = now
        self.fast *= factor
        self.weight *= factor
        self.weight_squared *= factor * factor

    def add(self, probability: float) -> None:
        if probability < LEAST_PROBABILITY:
            probability = 0.0
        self.fast += probability
        self.weight += 1.0
        self.weight_squared += 1.0
        self.requests = min(self.requests + 1, USUAL_REQUESTS)
        self.mean += (probability - self.mean) / self.requests
        self.square += (probability * probability - self.square) / self.requests

    def begin(self) -> None:
        """Forget the last minute, not what is usual."""
        self.fast = self.weight = self.weight_squared = 0.0

    @property
    def likely(self) -> float:
        variance = max(0.0, self.square - self.mean * self.mean) * self.weight_squared
        return max(0.0, self.fast - self.mean * self.weight - DEVIATIONS * math.sqrt(variance))


class Foresight:
    """An observer of exchanges. `refresh` is to be called now and then: what was likely is so less and less."""

    def __init__(self, file: ExpertsFile, sleepers: Sleepers, clock: Callable[[], float] = time.monotonic) -> None:
        self._sleepers, self._clock = sleepers, clock
        now = clock()
        self._domains = {name: _best_at(file, sleepers.served_by(name)) for name in sleepers.launchers}
        self._sums = {name: _Sums(now) for name in sleepers.launchers}
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
                sums.begin()
            self._slept[name] = asleep
            self._sleepers.expect(name, round(sums.likely, 1) if asleep else 0.0)


def _best_at(file: ExpertsFile, experts: Sequence[str]) -> tuple[str, ...]:
    """The domains in which nobody of the file is better than one of `experts`."""
    return tuple(
        domain
        for domain in file.domain_names
        if max(file.quality(e, domain) for e in experts) >= max(file.quality(e, domain) for e in file.experts)
    )
