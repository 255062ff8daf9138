"""What is counted of the processes that serve: how late their event loops are, what they take of the machine, who connects."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LOOK_SECONDS = 0.1
LOOKS = 10  # at the loop for each at the rest
MOST_MISSED = 600  # looks: a process that was stopped for an hour was not late for an hour
REFUSALS = ("malformed_http", "request_header_too_large", "request_timeout", "shutting_down", "too_many_connections")
STATM = Path("/proc/self/statm")


class ProcessMetrics:
    """`watch` says who knows how many connections are open; of several processes each adds its own part."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._connections: Callable[[], int] = lambda: 0
        self._cpu_counted = 0.0
        self.lag = Histogram(
            "moe_event_loop_lag_seconds",
            "How much later than its time the event loop does what is due, looked at ten times a second.",
            buckets=LAG,
            registry=registry,
        )
        self.resident = Gauge(
            "moe_process_resident_memory_bytes",
            "Memory that the processes hold which serve; model servers are not among them.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.cpu = Counter(
            "moe_process_cpu_seconds",
            "Processor time that the processes took, the system's on their behalf included.",
            registry=registry,
        )
        self.connections = Gauge(
            "moe_open_connections",
            "Clients' connections that are open.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.refused = Counter(
            "moe_connections_refused",
            "Connections that were ended before a request on them was one, or as it was cut off.",
            ("reason",),
            registry=registry,
        )
        for reason in REFUSALS:
            self.refused.labels(reason)

    def watch(self, connections: Callable[[], int]) -> None:
        """`connections` says how many are open."""
        self._connections = connections

    def refuse(self, reason: str) -> None:
        """A connection was refused for one of REFUSALS."""
        self.refused.labels(reason).inc()

    def refresh(self) -> None:
        """Look at what the process takes."""
        used = time.process_time()
        self.cpu.inc(max(0.0, used - self._cpu_counted))
        self._cpu_counted = used
        self.resident.set(_resident_bytes())
        self.connections.set(self._connections())

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """For as long as it is entered the event loop is looked at."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait({looking})

    async def _look(self) -> None:
        """Where the loop hangs for a second, what was due at its beginning is a second late and what was due at its end is not:
        the looks that did not take place are counted as late as they would have been.
        """
        loop, looks = asyncio.get_running_loop(), 0
        while True:
            due = loop.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            late = max(0.0, loop.time() - due)
            for missed in range(min(int(late / LOOK_SECONDS), MOST_MISSED) + 1):
                self.lag.observe(late - missed * LOOK_SECONDS)
            looks += 1
            if looks % LOOKS == 0:
                self.refresh()


def _resident_bytes() -> int:
    """What this process holds now; where the system does not tell, the most that it ever held."""
    try:
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
