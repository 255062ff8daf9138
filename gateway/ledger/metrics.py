"""What is counted of the ledger."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class LedgerMetrics:
    """`watch` says who knows how many rows wait, and for how many seconds the oldest of them has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waiting: Callable[[], tuple[int, float]] = lambda: (0, 0.0)
        self.written = Counter("moe_ledger_written", "Requests written into the ledger.", registry=registry)
        self.dropped = Counter(
            "moe_ledger_dropped",
            "Requests that are missing from the ledger: it could not be written.",
            registry=registry,
        )
        self.queued = Gauge(
            "moe_ledger_queued", "Requests that wait to be written.", registry=registry, multiprocess_mode="livesum"
        )
        self.lag = Gauge(
            "moe_ledger_lag_seconds",
            "Age of the oldest request that is not yet written.",
            registry=registry,
            multiprocess_mode="livemax",
        )

    def watch(self, waiting: Callable[[], tuple[int, float]]) -> None:
        self._waiting = waiting
        self.refresh()

    def refresh(self) -> None:
        queued, lag = self._waiting()
        self.queued.set(queued)
        self.lag.set(lag)
