"""Walks a decision and its fallbacks until an expert answers.

What an upstream's failure does before any content was sent (all of it: docs/failures.md):

    refused, reset, time-out, 5xx, error event   next replica, then next expert; at the end 502, 503 or 504
    401, 403, 404                                next; at the end 502 and a loud log: our configuration is wrong
    408, 429                                     next; at the end the same status with retry-after
    400 that says the context is too long        the next expert with a larger window; else passed on
    any other 4xx                                passed on
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from gateway.affinity import affinity_key
from gateway.attempt import Answer, Ask, Attempt, Failed, seconds_of
from gateway.budget import RetryBudget
from gateway.errors import UpstreamGatewayError
from gateway.exchange import Exchange, Phase
from gateway.hedging import Hedges
from gateway.pool import Place, Pool
from gateway.queueing import NoPlaceError
from gateway.replica import Replica
from gateway.requests.base import Wire
from gateway.serves import Serves
from gateway.upstreams.base import Upstream
from router.decision import Decision

MAX_ATTEMPTS = 8  # for one request over all experts: a failing fleet is not to be asked for ever


@dataclass(slots=True)
class Walk:
    """One request's way along the experts that may answer it, and what was learnt on it."""

    exchange: Exchange
    ask: Ask
    chain: tuple[str, ...]
    wires: Mapping[str, Wire]
    tried: set[Replica] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)  # experts, which have had their first attempt
    last: Failed | None = None
    retry_after: str | None = None  # the soonest that a server asked for

    def fail(self, failed: Failed) -> None:
        """Remember how an attempt failed."""
        self.last = failed
        asked = failed.headers.get("retry-after")
        if asked is not None and _seconds(asked) < _seconds(self.retry_after):
            self.retry_after = asked

    @property
    def over(self) -> bool:
        return len(self.exchange.attempts) >= MAX_ATTEMPTS


class Dispatcher:
    def __init__(self, pool: Pool, upstream: Upstream, serves: Serves, budget: RetryBudget | None = None) -> None:
        self._pool, self._upstream, self._serves = pool, upstream, serves
        self._experts = pool.file.experts
        self._budget, self._hedges = budget or RetryBudget(), Hedges(self._experts)

    async def answer(self, exchange: Exchange, ask: Ask, decision: Decision) -> Answer:
        """The first usable answer. Raises UpstreamGatewayError where no expert gives one."""
        exchange.phase = Phase.WAITING
        walk = self._begin(exchange, ask, decision)
        answer = await self._along(walk) or await self._later(walk)
        if answer is not None:
            return answer
        if walk.last is not None and walk.last.passed is not None:
            return walk.last.passed
        raise self._gave_up(walk)

    def _begin(self, exchange: Exchange, ask: Ask, decision: Decision) -> Walk:
        """The experts that serve the endpoint; of other models none where their answers would be of no use."""
        wires, model = {}, self._experts[decision.expert].upstream_model
        for expert in (decision.expert, *decision.fallbacks):
            wire = self._serves.wire(expert, ask.request)
            if wire is not None and (ask.request.interchangeable or self._experts[expert].upstream_model == model):
                wires[expert] = wire
        if not wires:  # its server said otherwise just now
            message = f"{decision.expert} does not serve this at the moment; retry in a moment."
            raise UpstreamGatewayError(503, message, code="no_expert_available", headers={"retry-after": "1"})
        return Walk(exchange, ask, tuple(wires), wires)

    async def _along(self, walk: Walk) -> Answer | None:
        """Every replica that has room, of one expert after the other; None where none answers."""
        for expert in walk.chain:
            if self._cannot_do_better(walk, expert):
                continue
            while not walk.over:
                place = self._place(walk, expert)
                if place is None and self._may_be_woken(walk, expert):
                    place = await self._woken(walk, expert)
                if place is None:
                    break
                if (answer := await self._at(walk, place)) is not None:
                    return answer
                if walk.last is not None and walk.last.passed is not None:
                    break
        return None

    def _may_be_woken(self, walk: Walk, expert: str) -> bool:
        """Whether it is the chosen one, sleeps, and could be waited for though a fallback is awake."""
        sleepers, others = self._pool.sleepers, walk.chain[1:]
        return (
            expert is walk.chain[0]
            and not walk.asked
            and walk.exchange.passed_over is None
            and sleepers.asleep(expert)
            and any(map(self._pool.ready, others))
        )

    async def _woken(self, walk: Walk, expert: str) -> Place | None:
        """A place at an expert that sleeps, where it is awake in time; None where a fallback is to answer while it wakes."""
        sleepers = self._pool.sleepers
        if sleepers.in_time(expert):
            try:
                with walk.exchange.waiting():
                    seconds = self._experts[expert].wake_within
                    place = await self._pool.wait_at(expert, self._key(walk, expert), walk.tried, seconds)
            except NoPlaceError as error:
                walk.exchange.passed_over = expert, "woke_late" if error.reason == "expired" else error.reason
            else:
                return self._allowed(walk, place)
        else:
            walk.exchange.passed_over = expert, "asleep"
        if sleepers.asleep(expert):
            sleepers.wish(expert)
        return None

    async def _later(self, walk: Walk) -> Answer | None:
        """The answer of who had no room until now; None where nobody else may do better. Raises UpstreamGatewayError where nobody
        was asked at all."""
        if walk.over or (walk.last is not None and walk.last.passed is not None):
            return None
        place = self._allowed(walk, await self._wait(walk))
        if place is None:
            return None
        return await self._at(walk, place) or await self._along(walk)

    def _place(self, walk: Walk, expert: str) -> Place | None:
        """A place at a replica that was not tried yet, held."""
        return self._allowed(walk, self._pool.take(expert, self._key(walk, expert), walk.tried))

    def _allowed(self, walk: Walk, place: Place | None) -> Place | None:
        """The place where the budget has it, else none; a first attempt at an expert is always allowed."""
        if place is None:
            return None
        if place.expert not in walk.asked:
            walk.asked.add(place.expert)
            self._budget.request(place.expert)
        elif not self._budget.spend(place.expert):
            place.release()
            return None
        return place

    async def _wait(self, walk: Walk) -> Place | None:
        """A place as soon as there is one; None where there is none and another failed already. Raises UpstreamGatewayError."""
        try:
            with walk.exchange.waiting():
                return await self._pool.wait(walk.chain, self._key(walk, walk.chain[0]), walk.tried)
        except NoPlaceError as error:
            if walk.last is not None:
                return None
            what = "being woken" if error.reason == "asleep" else "full or down"
            message = f"{walk.chain[0]} and its fallbacks are {what}; retry in {error.retry_after} s."
            headers = {"retry-after": str(error.retry_after)}
            raise UpstreamGatewayError(503, message, code="no_expert_available", headers=headers) from None

    def _key(self, walk: Walk, expert: str) -> bytes | None:
        return affinity_key(self._experts[expert].affinity, walk.ask.session, walk.ask.request.affinity)

    def _cannot_do_better(self, walk: Walk, expert: str) -> bool:
        """Whether what kept another from answering keeps this one too: a window as small, or words as foreign."""
        last = walk.last
        if last is None or last.passed is None:
            return False
        tried = walk.exchange.attempts[-1].expert
        if last.foreign:
            return walk.wires[expert].path == walk.wires[tried].path
        window, smaller = (self._experts[e].context_window for e in (expert, tried))
        return (window or math.inf) <= (smaller or math.inf)

    async def _at(self, walk: Walk, place: Place) -> Answer | None:
        """The answer at a place, or at a second one where the first is late and the expert hedges."""
        delay = self._hedges.delay(place.expert, (walk.ask.request.endpoint, walk.ask.request.stream))
        if delay is None:
            return await self._tried(walk, place)
        first = asyncio.ensure_future(self._tried(walk, place))
        running = {first}
        answer: Answer | None = None
        try:
            await asyncio.wait(running, timeout=delay)
            if not first.done() and (second := self._place(walk, place.expert)) is not None:
                running.add(asyncio.ensure_future(self._second(first, walk, second)))
            answer = await _first_answer(running)
        finally:
            try:
                await _give_up(running)
            except BaseException:  # the client left while the loser was cleaned up
                if answer is not None:
                    answer.close()
                raise
        return answer

    async def _second(self, first: asyncio.Future[Answer | None], walk: Walk, place: Place) -> Answer | None:
        """As _tried, unless the first one ended as this one was about to begin: it would forget what that one used."""
        if first.done():
            place.release()
            return None
        return await self._tried(walk, place)

    async def _tried(self, walk: Walk, place: Place) -> Answer | None:
        """An attempt at a place, and a second one there where a kept connection was closed as we wrote to it."""
        walk.tried.add(place.replica)
        attempt = Attempt(
            self._upstream, walk.exchange, walk.ask, walk.wires[place.expert], self._experts[place.expert], place
        )
        started = time.perf_counter()
        with ExitStack() as held:
            held.callback(lambda: walk.exchange.took(place.expert, self._experts[place.expert], place.seconds))
            held.enter_context(place)
            try:
                try:
                    answer = await attempt.make()
                except Failed as failed:
                    if not failed.reset or walk.over or not self._budget.spend(place.expert):
                        raise
                    answer = await attempt.make(fresh=True)  # nothing was answered: ask once more
            except Failed as failed:
                walk.fail(failed)
                place.note(failed.outcome, failed.refusal, failed.retry_after)
                return None
            walk.exchange.answered_by(attempt.record)
            if answer.status < 300 and (answer.relay is None or answer.relay.spoke):
                kind = (walk.ask.request.endpoint, walk.ask.request.stream)
                self._hedges.learn(place.expert, kind, time.perf_counter() - started)
            held.callback(lambda: place.note(answer.outcome))
            held.enter_context(answer.held)
            answer.held = held.pop_all()
        return answer

    def _gave_up(self, walk: Walk) -> UpstreamGatewayError:
        last = walk.last
        if last is None:
            raise RuntimeError("gave up without a failure")
        headers = {} if walk.retry_after is None else {"retry-after": walk.retry_after}
        return UpstreamGatewayError(
            last.status, last.message, code=f"upstream_{last.outcome}", headers=last.headers | headers
        )


def _seconds(retry_after: str | None) -> float:
    seconds = None if retry_after is None else seconds_of(retry_after)
    return math.inf if seconds is None else seconds


async def _first_answer(running: set[asyncio.Task[Answer | None]]) -> Answer | None:
    """The first answer, whose task is no longer among the running ones; None where all end without one."""
    while running:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            running.discard(task)
            if (answer := task.result()) is not None:
                return answer
    return None


async def _give_up(running: set[asyncio.Task[Answer | None]]) -> None:
    """Cancel what lost and wait until it has cleaned up. What it may have got meanwhile is closed, whoever waits."""
    for task in running:
        task.cancel()
        task.add_done_callback(_close_answer)
    if running:
        await asyncio.wait(running)


def _close_answer(task: asyncio.Task[Answer | None]) -> None:
    if not task.cancelled() and task.exception() is None and (answer := task.result()) is not None:
        answer.close()
