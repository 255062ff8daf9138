"""Which replicas are worth asking: a breaker that failures open, and one loop that probes them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.exchange import Outcome
from gateway.upstreams.base import Address, Upstream

FAILURES_TO_OPEN = 3
COOL_DOWN_SECONDS = 5.0
LONGEST_COOL_DOWN_SECONDS = 60.0
PROBES_TO_HANG = 4
# What is the replica's own fault. A client's 4xx, a 429 or a client that left says nothing about its health.
FAULTS = frozenset(
    {Outcome.CONNECT_ERROR, Outcome.TIMEOUT, Outcome.SERVER_ERROR, Outcome.STREAM_ERROR, Outcome.TRUNCATED}
)


@dataclass(eq=False)
class Replica:
    """One URL of an expert's upstream. `name` is what metrics and logs call it; `up` is None until it was probed."""

    name: str
    address: Address = field(repr=False)
    weight: float = 1.0
    in_flight: int = 0
    up: bool | None = None
    failures: int = 0
    open_until: float = 0.0
    turns: float = 0.0  # how often it came first, for its weight
    clock: Callable[[], float] = time.monotonic

    @property
    def available(self) -> bool:
        """Whether a request may be sent: it has an address, is not cooling down, and the last probe, if any, found it well."""
        return self.address.url is not None and self.clock() >= self.open_until and self.up is not False

    @property
    def retry_after(self) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self.open_until - self.clock())

    def note(self, outcome: Outcome) -> None:
        """Learn from an attempt. Each further failure while the breaker is open extends the deadline."""
        if outcome is Outcome.OK:
            self.failures, self.open_until = 0, 0.0
        elif outcome in FAULTS:
            self.failures += 1
            trips = self.failures - FAILURES_TO_OPEN
            if trips >= 0:
                seconds = COOL_DOWN_SECONDS * 2 ** min(trips, 10)  # bounded before it is no float any more
                self.open_until = self.clock() + min(seconds, LONGEST_COOL_DOWN_SECONDS)


class HealthLoop:
    """Probes every replica each `interval` seconds until stopped. Replicas that share an address share a probe.

    `on_hung` is told of an address that is there and did not answer PROBES_TO_HANG probes in a row.
    """

    def __init__(
        self,
        upstream: Upstream,
        replicas: Sequence[Replica],
        interval: float,
        on_hung: Callable[[Address], None] = lambda address: None,
    ) -> None:
        self._upstream, self._replicas, self._interval, self._on_hung = upstream, replicas, interval, on_hung
        self._missed: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def probe(self) -> None:
        """One round, every address at once."""
        groups: dict[int, list[Replica]] = {}
        for replica in self._replicas:
            groups.setdefault(id(replica.address), []).append(replica)
        await asyncio.gather(*(self._probe_one(group) for group in groups.values()))

    async def _probe_one(self, group: Sequence[Replica]) -> None:
        address = group[0].address
        up = await self._upstream.healthy(address)
        missed = 0 if up or address.url is None else self._missed.get(id(address), 0) + 1
        if missed >= PROBES_TO_HANG:
            missed = 0
            self._on_hung(address)
        self._missed[id(address)] = missed
        for replica in group:
            if up and replica.up is False:
                replica.failures, replica.open_until = 0, 0.0
            replica.up = up

    async def _run(self) -> None:
        while True:
            await self.probe()
            await asyncio.sleep(self._interval)
