"""What is counted of launched workers: how long they sleep, what waking them takes, how often they had to be started again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway import metricfiles
from gateway.workers.link import LinkedAddress
from gateway.workers.protocol import WorkerFacts, WorkerState

WAKE = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0)
JITTER_SECONDS = 1.0  # a sum that is less by more than this is that of another owner, who began at 0


class WorkerMetrics:
    """The owner tells every gateway process the same: one of them has to `watch`, and it counts what changes from then on."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._addresses: Mapping[str, LinkedAddress] = {}
        self._known: dict[str, tuple[int, int, float]] = {}  # wakes, restarts, seconds asleep
        self.wake = Histogram(
            "moe_worker_wake_seconds",
            "From the order to wake until it can answer.",
            ("expert",),
            buckets=WAKE,
            registry=registry,
        )
        self.asleep = Counter(
            "moe_worker_asleep_seconds", "Worker-seconds asleep, which cost no GPU.", ("expert",), registry=registry
        )
        self.restarts = Counter(
            "moe_worker_restarts", "Workers that died and were started again.", ("expert",), registry=registry
        )
        self.state = Gauge(
            "moe_worker_state",
            "1 for the state that the launched worker is in.",
            ("expert", "replica", "state"),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def watch(self, addresses: Mapping[str, LinkedAddress]) -> None:
        """Count these from now on, and none else."""
        metricfiles.clear(self.state)
        self._addresses = addresses
        for name in addresses:
            for counter in (self.asleep, self.restarts):
                counter.labels(_expert(name)).inc(0)
        self.refresh()

    def refresh(self) -> None:
        """Count what the owner said since, and what those asleep have slept since."""
        for name, address in self._addresses.items():
            if address.facts is not None:
                self._count(name, address.facts)
            for state in WorkerState:
                self.state.labels(_expert(name), name, state).set(address.state is state)

    def _count(self, name: str, facts: WorkerFacts) -> None:
        slept = facts.asleep_seconds
        if facts.state is WorkerState.ASLEEP:
            slept += max(0.0, self._clock() - facts.since)
        wakes, restarts, before = self._known.get(name, (facts.wakes, facts.restarts, slept))
        expert = _expert(name)
        if facts.wake_seconds is not None:
            for _ in range(min(_more(wakes, facts.wakes), 1000)):
                self.wake.labels(expert).observe(max(0.0, facts.wake_seconds))
        self.restarts.labels(expert).inc(_more(restarts, facts.restarts))
        if slept < before - JITTER_SECONDS:
            before = 0.0
        self.asleep.labels(expert).inc(max(0.0, slept - before))
        self._known[name] = facts.wakes, facts.restarts, max(slept, before)


def _more(before: int, now: int) -> int:
    """By how much a count grew; one that is less began anew."""
    return max(0, now - before if now >= before else now)


def _expert(worker: str) -> str:
    return worker.rpartition("-")[0]
