"""HealthLoop: probes every replica again and again, and reads what the servers say of their load."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from gateway.load import read_load
from gateway.replica import Replica, by_server
from gateway.upstreams.base import Address, Upstream

T = TypeVar("T")
log = logging.getLogger("moe_gateway")

PROBES_TO_HANG = 4
PROBE_SECONDS = 5.0  # for whatever the upstream's own limit forgets
JITTER = 0.2  # of the interval, more or less: gateways that were started together are not to probe in step
STALE_INTERVALS = 3  # after so many without a new reading the old one is not believed any more


class HealthLoop:
    """Probes each address every `interval` seconds until stopped, each in its own time: one that hangs delays no other.

    Replicas that share an address share a probe. `on_hung` is told of an address that is there and did not answer
    PROBES_TO_HANG probes in a row; `on_round` is called after every probe.
    """

    def __init__(
        self,
        upstream: Upstream,
        replicas: Sequence[Replica],
        interval: float,
        on_hung: Callable[[Address], None] = lambda address: None,
        on_round: Callable[[], None] = lambda: None,
        chance: random.Random | None = None,
    ) -> None:
        self._upstream, self._interval, self._on_hung, self._on_round = upstream, interval, on_hung, on_round
        self._chance = chance or random.Random()  # noqa: S311 - no secret
        self._groups = by_server(replicas)
        self._missed: dict[int, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(group)) for group in self._groups]

    async def stop(self) -> None:
        """Returns when no probe is under way any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def probe(self) -> None:
        """One round, every address at once."""
        await asyncio.gather(*(self._look_at(group) for group in self._groups))

    async def _run(self, group: Sequence[Replica]) -> None:
        while True:
            await asyncio.sleep(self._interval * self._chance.uniform(1 - JITTER, 1 + JITTER))
            try:
                await self._look_at(group)
            except Exception:  # a round that fails must not be the last
                log.exception("a probe failed", extra={"replica": group[0].name})

    async def _look_at(self, group: Sequence[Replica]) -> None:
        up = await _in_time(self._upstream.healthy(group[0].address), False)
        self._note(group, up)
        if up and any(replica.metered for replica in group):
            exposition = await _in_time(self._upstream.fetch(group[0].address, "/metrics"), None)
            load = read_load(exposition) if exposition else None
            if load is not None:
                for replica in group:
                    replica.weigh(load, STALE_INTERVALS * self._interval)
        self._on_round()

    def _note(self, group: Sequence[Replica], up: bool) -> None:
        address = group[0].address
        missed = 0 if up or address.url is None else self._missed.get(id(address), 0) + 1
        if missed >= PROBES_TO_HANG:
            missed = 0
            self._on_hung(address)
        self._missed[id(address)] = missed
        for replica in group:
            replica.probe(up)


async def _in_time(answer: Coroutine[Any, Any, T], otherwise: T) -> T:
    """The answer, or `otherwise` where it takes too long or fails: it is for the upstream's adapter to fail, not for the loop."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await answer
    except TimeoutError:
        return otherwise
    except Exception:
        log.exception("a probe failed")
        return otherwise
