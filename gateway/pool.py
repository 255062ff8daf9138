"""The replicas of every expert, the places at them, and those who wait for one."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from gateway.balancing import Balancer
from gateway.exchange import Outcome
from gateway.outliers import judge
from gateway.queueing import Line, NoPlaceError, Reason
from gateway.refusals import Refusal
from gateway.replica import Replica, Ticket, by_server
from gateway.sleepers import NoWants, Sleepers, Wants
from gateway.upstreams.base import Address, FixedAddress
from gateway.upstreams.custom import CustomAddress
from gateway.upstreams.litellm.upstream import ProviderAddress
from gateway.workers.link import LinkedAddress, launched, launcher_of
from router.experts import Expert, ExpertsFile

InFlight = Callable[[str, int], None]
NOTHING: frozenset[Replica] = frozenset()


class Books(Protocol):
    """Who counts what happens in a pool."""

    def on_queue(self, expert: str, length: int) -> None:
        """So many wait for the expert now."""

    def on_wait(self, expert: str, seconds: float) -> None:
        """One who waited no longer does, whether it got a place or not."""

    def on_refused(self, expert: str, reason: Reason) -> None:
        """The queue was full, or the wait expired."""

    def on_eject(self, expert: str, replica: str, cause: str) -> None:
        """A replica is out, or gets less, from now on."""


class NoBooks:
    """Counts nothing."""

    def on_queue(self, expert: str, length: int) -> None: ...

    def on_wait(self, expert: str, seconds: float) -> None: ...

    def on_refused(self, expert: str, reason: Reason) -> None: ...

    def on_eject(self, expert: str, replica: str, cause: str) -> None: ...


class Place:
    """One request in flight at a replica, held from the moment it was made until it is released, once. `seconds` are those of the
    server's time that it took, known from then on."""

    __slots__ = ("_noted", "_pool", "_released", "_ticket", "expert", "replica", "seconds")

    def __init__(self, pool: Pool, expert: str, replica: Replica, ticket: Ticket) -> None:
        self.expert, self.replica = expert, replica
        self._pool, self._ticket = pool, ticket
        self._noted = self._released = False
        self.seconds = 0.0

    def first_token(self, seconds: float) -> None:
        """Content arrived, `seconds` after the request was sent."""
        self.replica.first_token(self._ticket, seconds)
        if self._ticket.trial:
            self._pool.serve(self.expert)

    def note(self, outcome: Outcome, refusal: Refusal | None = None, retry_after: float | None = None) -> None:
        """How the attempt came out; the first word counts. `retry_after` in seconds, as the server asked."""
        if not self._noted:
            self._noted = True
            self._pool.noted(self.expert, self.replica, self.replica.note(outcome, self._ticket, refusal, retry_after))

    def release(self) -> None:
        """Give the place back, to the first who waits for it. May be called again."""
        if not self._released:
            self._released = True
            self.seconds = self._pool.ended(self.expert, self.replica, self._ticket)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Pool:
    """`replicas` by expert, named `coder-0`, `coder-1`, …; `on_change` hears of every change of an expert's requests in flight.

    `share` is (index, count) where several processes serve the same experts: each has its part of `max_in_flight`. Of a pool
    `before` it takes over the replicas whose address and model stay, and goes on counting what is in flight.
    """

    def __init__(
        self,
        file: ExpertsFile,
        workers: Mapping[str, Address],
        on_change: InFlight = lambda expert, count: None,
        books: Books | None = None,
        share: tuple[int, int] = (0, 1),
        clock: Callable[[], float] = time.monotonic,
        before: Pool | None = None,
        wants: Wants | None = None,
    ) -> None:
        self.file = file
        self._in_flight: dict[str, int] = before._in_flight if before else {}
        for expert in file.experts:
            self._in_flight.setdefault(expert, 0)
        self._on_change, self._books, self._clock = on_change, books or NoBooks(), clock
        self._balancer = Balancer()
        self._wakers: dict[str, asyncio.TimerHandle] = {}
        self._places = 0
        # Those whose replicas are ours too, while they may have something to do; oldest first, ourselves last.
        # One list for all of them: each with one of its own would lead to the next, and the first to all that ever were.
        self._pools: list[Pool] = before._pools if before else []
        self._pools[:] = [*(pool for pool in self._pools if pool is before or not pool.idle), self]
        self.replicas = {
            name: _replicas(name, spec, workers, share, clock, launcher_of(file, name))
            for name, spec in file.experts.items()
        }
        if before is not None:
            known = {(r.name, r.address, r.model): r for r in before.all()}
            for replicas in self.replicas.values():
                replicas[:] = [_taken_over(known.get((r.name, r.address, r.model)), r) for r in replicas]
        stayed = frozenset(before.all()) if before is not None else frozenset()
        for together in by_server(self.all()):
            meter = next((replica for replica in together if replica in stayed), together[0]).meter
            for replica in together:
                replica.beside = tuple(other for other in together if other is not replica)
                replica.meter = meter
        self.sleepers = Sleepers(file, self.replicas, wants or NoWants())
        self._urls = {replica: replica.address.url for replica in self.all()}  # as they were when they were heard of
        self._lines: dict[str, Line[Place]] = {
            name: Line(spec.queue, Place.release, partial(self._tell_queue, name))
            for name, spec in file.experts.items()
        }

    def all(self) -> list[Replica]:
        return [replica for replicas in self.replicas.values() for replica in replicas]

    def others(self) -> list[Replica]:
        """The replicas of the newest pool, and of those where something is in flight or waits, but not our own."""
        newest = self._pools[-1]
        serving = [pool for pool in self._pools if pool is not self and (pool is newest or not pool.idle)]
        return [replica for pool in serving for replica in pool.all()]

    @property
    def idle(self) -> bool:
        """Whether nothing that began here is in flight or waits."""
        return not self._places and not any(self._lines.values())

    def ready(self, expert: str) -> bool:
        """Whether a replica of the expert may be asked, or is on trial."""
        return any(replica.promising for replica in self.replicas[expert])

    def able(self, expert: str) -> bool:
        """Whether it is ready, or would be woken."""
        return self.ready(expert) or self.sleepers.asleep(expert)

    def queued(self, expert: str) -> int:
        """How many wait for the expert."""
        return sum(len(pool._lines.get(expert, ())) for pool in self._pools)

    def take(self, expert: str, key: bytes | None = None, tried: Collection[Replica] = NOTHING) -> Place | None:
        """A place at the best replica that has room and was not tried; None where there is none now.

        It overtakes nobody: what those who wait could use is theirs already.
        """
        if self._lines[expert] or len(self._pools) > 1:
            self.serve(expert)
        replica = self._balancer.choose(self.replicas[expert], key, tried)
        return None if replica is None else self._place(expert, replica)

    async def wait(self, chain: Sequence[str], key: bytes | None = None, tried: Collection[Replica] = NOTHING) -> Place:
        """A place at the first expert of `chain` that is up, as soon as there is one. Raises NoPlaceError."""
        promising = (e for e in chain if any(r.promising and r not in tried for r in self.replicas[e]))
        expert = next(promising, None)
        if expert is None:
            return await self._wait_for_sleeper(chain, key)
        place = self.take(expert, key, tried)
        if place is not None:
            return place
        self._wake_later(expert)
        try:
            return await self.wait_at(expert, key, tried)
        except NoPlaceError as error:
            self._books.on_refused(expert, error.reason)
            raise

    async def wait_at(
        self, expert: str, key: bytes | None, tried: Collection[Replica], seconds: float | None = None
    ) -> Place:
        """A place at the expert, whatever it does now, within `seconds`: those of its queue unless given. Raises NoPlaceError."""
        began, waited = self._clock(), True
        try:
            return await self._lines[expert].wait(key, tried, seconds)
        except NoPlaceError as error:
            waited = error.reason != "full"
            raise
        finally:
            if waited:
                self._books.on_wait(expert, self._clock() - began)

    async def _wait_for_sleeper(self, chain: Sequence[str], key: bytes | None) -> Place:
        """Nobody is up: a place at the first who sleeps, when it is awake; also where it was tried as it fell asleep. Raises
        NoPlaceError."""
        expert = next(filter(self.sleepers.asleep, chain), None)
        if expert is None:
            raise NoPlaceError("down", self.retry_after(chain))
        try:
            return await self.wait_at(expert, key, NOTHING, self.sleepers.patience(expert))
        except NoPlaceError as error:
            if error.reason == "expired" and self.sleepers.asleep(expert):
                error = NoPlaceError("asleep", max(1, math.ceil(self.sleepers.expected(expert))))
            self._books.on_refused(expert, error.reason)
            raise error from None

    def retry_after(self, chain: Sequence[str]) -> int:
        """Whole seconds, at least 1, until one of the experts may be asked again, as far as is known; 5 where nothing is."""
        waits = [r.retry_after for expert in chain for r in self.replicas[expert] if r.up is not False]
        return max(1, math.ceil(min(waits, default=0.0))) if any(waits) else 5

    def serve(self, expert: str) -> None:
        """Hand what room there is to those who wait, and first to those who did before the file was another."""
        for pool in self._pools:
            line = pool._lines.get(expert)
            if line:
                line.serve(partial(pool._pick, expert))
                pool._wake_later(expert)

    def refresh(self) -> None:
        """After a round of probes: judge who is slow, and let in those who wait for whoever came back."""
        for expert, replicas in self.replicas.items():
            for replica in judge(replicas, self._clock()):
                self.noted(expert, replica, "slow")
            self.serve(expert)

    def heard(self) -> None:
        """The owner of launched workers said how they do. One that has come up is another process than it was, and is asked at
        once: the next probe may be seconds away."""
        for expert, replicas in self.replicas.items():
            for replica in replicas:
                url = replica.address.url
                if isinstance(replica.address, LinkedAddress) and self._urls.get(replica) != url:
                    self._urls[replica] = url
                    if url is not None:
                        replica.up = False
                        replica.probe(True)
            if self.sleepers.lost(expert):
                self._lines[expert].dismiss()
            self.serve(expert)

    def noted(self, expert: str, replica: Replica, cause: str | None) -> None:
        """A replica was noted; it is out because of `cause`, if any."""
        if cause is not None:
            self._books.on_eject(expert, replica.name, cause)

    def ended(self, expert: str, replica: Replica, ticket: Ticket) -> float:
        """A place is given back. Returns the seconds of the server's time that the request took."""
        self._places -= 1
        seconds = replica.end(ticket)
        self._count(expert, -1)
        self.serve(expert)
        return seconds

    @contextmanager
    def holding(self, expert: str, replica: Replica) -> Iterator[Place]:
        """One request in flight at that very replica."""
        with self._place(expert, replica) as place:
            yield place

    def _pick(self, expert: str, key: bytes | None, tried: Collection[Replica]) -> Place | None:
        replica = self._balancer.choose(self.replicas[expert], key, tried)
        return None if replica is None else self._place(expert, replica)

    def _place(self, expert: str, replica: Replica) -> Place:
        self._places += 1
        place = Place(self, expert, replica, replica.begin())
        self._count(expert, 1)
        return place

    def _count(self, expert: str, change: int) -> None:
        self._in_flight[expert] += change
        self._on_change(expert, self._in_flight[expert])

    def _wake_later(self, expert: str) -> None:
        """Those who wait are looked at again when the first replica has cooled down: nobody else would tell them."""
        waits = [r.retry_after for r in self.replicas[expert] if r.up is not False and r.retry_after > 0]
        if not waits:
            return
        loop, waker = asyncio.get_running_loop(), self._wakers.get(expert)
        if waker is not None:
            if waker.when() <= loop.time() + min(waits):
                return
            waker.cancel()
        self._wakers[expert] = loop.call_later(min(waits), self._wake, expert)

    def _tell_queue(self, expert: str, length: int) -> None:
        self._books.on_queue(expert, self.queued(expert))
        if expert in self.sleepers:
            self.sleepers.waiting(expert, self.queued)

    def _wake(self, expert: str) -> None:
        del self._wakers[expert]
        self.serve(expert)


def _replicas(
    name: str,
    spec: Expert,
    workers: Mapping[str, Address],
    share: tuple[int, int],
    clock: Callable[[], float],
    launcher: tuple[str, Expert] | None,
) -> list[Replica]:
    """`launcher` is the expert whose workers it has, which may be another one; None where somebody else runs its servers."""
    upstream = spec.upstream
    addresses: list[tuple[Address, float, int | None]]
    if launcher is not None:
        addresses = [(workers[worker], 1.0, None) for worker in launched(*launcher)]
    elif upstream.embedded is not None:
        addresses = [(workers[upstream.embedded], 1.0, None)]
    elif upstream.litellm is not None:
        addresses = [(ProviderAddress(upstream.litellm, upstream.base_url, upstream.api_key), 1.0, None)]
    elif upstream.custom is not None:
        addresses = [(CustomAddress(upstream.custom, spec.model, upstream.base_url, upstream.api_key), 1.0, None)]
    else:
        addresses = [(FixedAddress(r.url, upstream.api_key), r.weight, r.max_in_flight) for r in upstream.vllm]
    return [
        Replica(
            f"{name}-{i}",
            address,
            weight,
            cap=part(cap or spec.max_in_flight, share),
            metered=upstream.speaks_vllm,
            clock=clock,
            model=spec.upstream_model,
        )
        for i, (address, weight, cap) in enumerate(addresses)
    ]


def _taken_over(known: Replica | None, replica: Replica) -> Replica:
    """The replica as it is known, with what the file says of it now."""
    if known is None:
        return replica
    known.weight, known.cap = replica.weight, replica.cap
    return known


def part(cap: int | None, share: tuple[int, int]) -> int | None:
    """This process's part of a cap: the parts add up to it, but none is less than 1."""
    if cap is None:
        return None
    index, count = share
    return max(1, cap * (index + 1) // count - cap * index // count)
