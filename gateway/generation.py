"""Generation: everything that follows from one experts.yaml, made together, swapped together, closed together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gateway import logs, lora
from gateway.costs import Tariff, baseline_of
from gateway.deciding import Decider
from gateway.discovery import Discovery
from gateway.dispatch import Dispatcher
from gateway.exchange import Observer
from gateway.fleet import FleetWatch
from gateway.foresight import Foresight
from gateway.health import HealthLoop
from gateway.metrics import Metrics
from gateway.pool import Pool
from gateway.served import Served
from gateway.serves import Serves
from gateway.settings import Settings
from gateway.state import GatewayState
from gateway.upstreams.adapters import adapters_for
from gateway.upstreams.base import Address
from gateway.workers.lent import LentWorker
from gateway.workers.link import Link, LinkedAddress
from gateway.workers.supervisor import Worker
from router.errors import ConfigError
from router.experts import load_experts
from router.routing import Router

if TYPE_CHECKING:
    from gateway.tracing.telemetry import Telemetry

log = logging.getLogger("moe_gateway")

LOOK_SECONDS = 0.2
SETTLE_SECONDS = 5.0  # for a request that was just about to be decided


class Generation:
    """`state` is what requests look at. What is the same in the generation `before` is taken over: replicas whose address
    stays keep their health, and requests in flight there are counted on. `share` is as in Pool; `observers` are told of finished
    requests beside its own, and outlive it."""

    def __init__(
        self,
        settings: Settings,
        router: Router,
        metrics: Metrics,
        workers: Mapping[str, Worker | LentWorker],
        link: Link,
        share: tuple[int, int] = (0, 1),
        before: Generation | None = None,
        telemetry: Telemetry | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        file = router.file
        self._metrics, self._upstream, self._link, self._share = metrics, adapters_for(file), link, share
        self._unlisten: Callable[[], None] = lambda: None
        addresses = {**workers, **link.addresses(file)}
        known = before.state.pool if before else None
        pool = Pool(file, addresses, metrics.hold, metrics, share, before=known, wants=link)
        self._serves: Serves = Serves(file.experts, before._serves if before else None)
        serves, fleet = self._serves, FleetWatch(pool)
        file_before = before.state.file if before else None
        served = Served(self._upstream, file, pool.replicas, file_before, on_change=pool.refresh)
        self._counted = link.addresses(file) if share[0] == 0 else {}  # what their owner says is counted by one process
        self._foresight = Foresight(file, pool.sleepers) if pool.sleepers else None
        foreseeing = [self._foresight.observe] if self._foresight else []
        tracing = [telemetry.observe] if telemetry else []
        self.state: GatewayState = GatewayState(
            settings,
            file,
            Decider(router, fleet, serves=serves),
            pool,
            metrics,
            workers,
            (metrics.observe, fleet.observe, logs.write, *foreseeing, *tracing, *observers),
            Dispatcher(pool, self._upstream, serves),
            served,
            Tariff(file.experts, file.router.cpu_hour),
            telemetry,
        )
        self._discovery = Discovery(self._upstream, serves, served)
        interval = settings.health_interval
        self._health = HealthLoop(self._upstream, pool.all(), interval, on_hung=_replace, on_round=self._looked)

    async def start(self) -> None:
        """Connect, and look once at every replica. Raises what an upstream's own start raises."""
        await self._upstream.start()
        await self._health.probe()
        await self._discovery.settled()
        self._health.start()
        self._unlisten = self._link.listen(self._heard)
        self._heard()
        file = self.state.file
        self.state.tariff.baseline = await asyncio.to_thread(baseline_of, file)
        router, replicas = self.state.decider.router, self.state.pool.all()
        self._metrics.describe(router, replicas, tuple(file.experts), self.state.served)
        watched = replicas if self._share[0] == 0 else ()  # hours pass once, for however many processes
        self._metrics.costs.watch(file.experts, watched, self.state.settings.keys)
        self._metrics.workers.watch(self._counted)

    async def close(self) -> None:
        """At once: what is in flight fails."""
        self._unlisten()
        await self._health.stop()
        self._discovery.close()
        self.state.decider.close()
        await self._upstream.close()

    async def retire(self) -> None:
        """Close when nothing is in flight any more; another generation takes what is new meanwhile."""
        await self._health.stop()
        try:
            await asyncio.sleep(SETTLE_SECONDS)
            while not (self.state.pool.idle and self.state.decider.idle):  # noqa: ASYNC110 - who ends last tells nobody
                await asyncio.sleep(LOOK_SECONDS)
            self._unlisten()
            self._discovery.close()
            await self._unload()
        finally:
            await self.close()
            self._metrics.retire(self.state.decider.router)

    async def _unload(self) -> None:
        """The adapters that no file has any more, which is not known while the newest cannot be read."""
        config, experts = self.state.settings.config, self.state.file.experts.values()
        if not any(spec.upstream.adapter for spec in experts):
            return
        try:
            newest = await asyncio.to_thread(load_experts, config)
        except (OSError, UnicodeDecodeError, ConfigError):
            log.warning("adapters stay loaded: the newest experts.yaml cannot be read")
        else:
            await lora.unload_leftovers(self._upstream, self.state.pool, newest)

    def _looked(self) -> None:
        pool = self.state.pool
        pool.refresh()
        self._metrics.refresh()
        if self._foresight is not None:
            self._foresight.refresh()
        self._discovery.refresh(pool.file.experts, pool.replicas)

    def _heard(self) -> None:
        """The owner of the launched workers said how they do."""
        pool = self.state.pool
        pool.heard()
        self._metrics.costs.refresh()
        self._metrics.workers.refresh()
        self._discovery.refresh(pool.file.experts, pool.replicas)


def _replace(address: Address) -> None:
    """A worker of ours that hangs is killed, and so restarted; what somebody else runs is only left out."""
    if isinstance(address, Worker | LentWorker | LinkedAddress):
        address.kill()
