"""What is counted of money and energy. What each figure means, and how they go together: docs/cost.md."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter

from gateway.children import Children
from gateway.costs import HOUR_SECONDS, KILO
from gateway.exchange import Exchange, Outcome
from gateway.replica import Replica, by_server
from gateway.workers.link import LinkedAddress
from gateway.workers.protocol import WorkerState
from router.experts import Expert
from router.prices import DEAREST

NONE = "none"  # the label where nothing was classified
ANONYMOUS, OTHER = "anonymous", "other"
MAX_KEYS = 50  # that have a series of their own
RUNNING = (WorkerState.READY, WorkerState.STOPPING)


@dataclass
class _Server:
    """A server that costs `hour` USD an hour, busy or idle, and draws `idle_watts` while it is idle; what was counted of it up to
    `at`. Power for what it does is counted with its requests."""

    expert: str
    spec: Expert
    hour: float
    idle_watts: float
    replica: Replica
    at: float
    busy: float
    runs: bool


class CostMetrics:
    """Of several processes one has to `watch` servers. `clock` is in seconds and jumps never."""

    def __init__(self, registry: CollectorRegistry, of: Children, clock: Callable[[], float] = time.monotonic) -> None:
        self._of, self._clock = of, clock
        self._servers: list[_Server] = []
        self._keys = frozenset((ANONYMOUS,))
        counter = partial(Counter, registry=registry)
        self.cost = counter("moe_cost_usd", "Token prices of answers, in USD.", ("expert", "domain"))
        self.by_key = counter(
            "moe_key_cost_usd", "Token prices, and estimated shares of GPU hours, by caller.", ("key",)
        )
        self.capacity = counter(
            "moe_capacity_cost_usd", "GPU hours of replicas that run, busy or idle, in USD.", ("expert",)
        )
        self.idle = counter("moe_capacity_idle_cost_usd", "The part of it in which nothing was in flight.", ("expert",))
        self.baseline = counter(
            "moe_baseline_cost_usd",
            "What the tokens of compared requests would have cost at the baseline, in USD.",
            ("baseline",),
        )
        self.compared_cost = counter(
            "moe_compared_cost_usd", "What those requests cost by token prices, in USD.", ("baseline",)
        )
        self.compared = counter("moe_compared_requests", "Requests that are compared with the baseline.", ("baseline",))
        self.comparable = counter("moe_comparable_requests", "Answered requests, compared or not, stand-ins too.")
        self.routing = counter("moe_routing_cost_usd", "What routing costs, in USD.", ("part",))
        for part in ("classifier", "lost_cache"):
            self.routing.labels(part)
        self.energy = counter("moe_energy_wh", "Energy of experts that declare watts, in watt-hours.", ("expert",))
        self.emissions = counter("moe_emissions_gco2e", "Emissions of that energy, in grams of CO2e.", ("expert",))
        self.unpriced = counter(
            "moe_unpriced_requests",
            "Answers of unknown cost: no price in experts.yaml, or no usage told.",
            ("expert",),
        )

    def watch(self, experts: Mapping[str, Expert], replicas: Iterable[Replica], callers: Iterable[str] = ()) -> None:
        """Count the hours of these from now on, those of the ones before up to now; `callers` are the names of keys.

        A server counts once, whoever answers there: for who launches it, or the first that is paid by the hour or draws power.
        """
        self.refresh()
        self._keys = frozenset((ANONYMOUS, *list(callers)[:MAX_KEYS]))
        self._servers = []
        for together in by_server(replicas):
            there = [(replica, replica.name.rpartition("-")[0]) for replica in together]
            there.sort(key=lambda one: experts[one[1]].upstream.worker is not None)
            paid = next((one for one in there if experts[one[1]].gpu_price), None)
            powered = next((one for one in there if experts[one[1]].energy), None)
            for found in dict.fromkeys((paid, powered)):
                if found is not None:
                    self._watch(*found, experts[found[1]], found is paid, found is powered)

    def _watch(self, replica: Replica, expert: str, spec: Expert, paid: bool, powered: bool) -> None:
        watts = spec.energy.idle_watts if powered and spec.energy else 0.0
        hour = spec.replica_hour if paid else 0.0
        server = _Server(expert, spec, hour, watts, replica, self._clock(), replica.meter.busy, _runs(replica))
        self._servers.append(server)
        if paid:
            self._of(self.capacity, expert).inc(0)
            self._of(self.idle, expert).inc(0)

    def refresh(self) -> None:
        """Count the time since the last look. A worker that slept, or was not ready, then cost nothing meanwhile."""
        now = self._clock()
        for server in self._servers:
            busy = server.replica.meter.busy
            if server.runs:
                self._count(server, now - server.at, busy - server.busy)
            server.at, server.busy, server.runs = now, busy, _runs(server.replica)

    def _count(self, server: _Server, seconds: float, busy: float) -> None:
        idle = min(seconds, max(0.0, seconds - busy))
        if server.hour:
            self._of(self.capacity, server.expert).inc(seconds * server.hour / HOUR_SECONDS)
            self._of(self.idle, server.expert).inc(idle * server.hour / HOUR_SECONDS)
        if server.idle_watts:
            self._count_energy(server.expert, server.spec, idle * server.idle_watts / HOUR_SECONDS)

    def _count_energy(self, expert: str, spec: Expert, hours: float) -> None:
        """Watt-hours, and what they emit."""
        if spec.energy is None:
            return
        self._of(self.energy, expert).inc(hours)
        if spec.energy.gco2e_per_kwh is not None:
            self._of(self.emissions, expert).inc(hours / KILO * spec.energy.gco2e_per_kwh)

    def observe(self, exchange: Exchange) -> None:
        """Count one finished exchange."""
        charge, expert = exchange.charge, exchange.expert_id
        if exchange.decision is not None:
            self._of(self.routing, "classifier").inc(charge.classifier)
            if charge.lost_cache:
                self._of(self.routing, "lost_cache").inc(charge.lost_cache)
        for name, spec, seconds in exchange.occupied:
            if spec.energy:
                self._count_energy(name, spec, spec.energy.watts * seconds / HOUR_SECONDS)
        if charge.spent is not None:
            self._of(self.by_key, exchange.caller if exchange.caller in self._keys else OTHER).inc(charge.spent)
        if expert is None or exchange.expert is None:
            return
        if charge.cost is not None:
            scores = exchange.decision.scores if exchange.decision else None
            self._of(self.cost, expert, scores.domain if scores else NONE).inc(charge.cost)
        if _answered(exchange):
            self._observe_answer(exchange, expert, exchange.expert)

    def _observe_answer(self, exchange: Exchange, expert: str, spec: Expert) -> None:
        charge, usage = exchange.charge, exchange.usage
        if charge.cost is None and spec.gpu_price is None:
            self._of(self.unpriced, expert).inc()
        if usage is None or usage.total:  # a count of tokens, say, is nothing that anybody asks money for
            self.comparable.inc()
        named = exchange.tariff.baseline
        for name, elsewhere in ((named[0] if named else "", charge.baseline), (DEAREST, charge.dearest)):
            if elsewhere is not None:
                self._of(self.baseline, name).inc(elsewhere)
                self._of(self.compared_cost, name).inc(charge.cost or 0.0)
                self._of(self.compared, name).inc()


def _answered(exchange: Exchange) -> bool:
    """Whether there was an answer. A client that left before the last chunk, which tells the usage, had something that somebody
    computed."""
    said = exchange.outcome is Outcome.OK or exchange.first_token is not None
    return exchange.usage is not None or bool(exchange.attempts and said)


def _runs(replica: Replica) -> bool:
    """Whether it costs money now: what somebody else runs always does, a worker of ours while it is up."""
    address = replica.address
    return address.state in RUNNING if isinstance(address, LinkedAddress) else True
