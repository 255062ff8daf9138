"""Line: those who wait for room at an expert's replicas, first come first served."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from gateway.replica import Replica
from router.experts import Queue

P = TypeVar("P")
Reason = Literal["full", "expired", "down", "asleep"]
WEIGHT = 0.2  # of the newest wait in the mean


class NoPlaceError(Exception):
    """No replica had room. `reason`: the queue is full, the wait expired, every expert that could be asked is down, or was not
    awake in time."""

    def __init__(self, reason: Reason, retry_after: int) -> None:
        """`retry_after` in whole seconds, 1 or more."""
        super().__init__(f"{reason}; retry in {retry_after} s")
        self.reason, self.retry_after = reason, retry_after


@dataclass(eq=False)
class Waiter(Generic[P]):
    """`place` is what it is handed; `key` and `tried` say which replica suits it."""

    key: bytes | None
    tried: Collection[Replica]
    place: asyncio.Future[P] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Line(Generic[P]):
    """The waiters of one expert. `give_back` takes a place that came too late for who waited; `on_length` hears of every change."""

    def __init__(
        self, limits: Queue, give_back: Callable[[P], None], on_length: Callable[[int], None] = lambda length: None
    ) -> None:
        self._limits, self._give_back, self._on_length = limits, give_back, on_length
        self._waiters: dict[Waiter[P], None] = {}  # in order of arrival
        self._mean_wait = 1.0

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, key: bytes | None, tried: Collection[Replica], seconds: float | None = None) -> P:
        """A place, when one is handed over within `seconds`, those of the limits unless given. Raises NoPlaceError. One who is
        cancelled leaves no place behind."""
        if len(self._waiters) >= self._limits.length:
            raise NoPlaceError("full", self.retry_after)
        waiter: Waiter[P] = Waiter(key, tried)
        self._waiters[waiter] = None
        self._on_length(len(self._waiters))
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._limits.wait if seconds is None else seconds):
                place = await waiter.place
        except BaseException as error:
            handed = waiter.place.done() and not waiter.place.cancelled() and waiter.place.exception() is None
            if isinstance(error, TimeoutError):
                if not handed:
                    raise NoPlaceError("expired", self.retry_after) from None
                place = waiter.place.result()  # it came in the last moment
            else:
                if handed:
                    self._give_back(waiter.place.result())
                raise
        finally:
            self._leave(waiter)
        self._mean_wait += WEIGHT * (loop.time() - began - self._mean_wait)
        return place

    def serve(self, pick: Callable[[bytes | None, Collection[Replica]], P | None]) -> None:
        """Hand out what there is, in order; who has tried the only replicas with room lets those behind pass."""
        for waiter in list(self._waiters):
            if waiter.place.done():
                continue
            place = pick(waiter.key, waiter.tried)
            if place is not None:
                waiter.place.set_result(place)
                self._leave(waiter)
            elif not waiter.tried:
                return  # no room at all

    def dismiss(self) -> None:
        """Nobody will come: those who wait get NoPlaceError."""
        for waiter in list(self._waiters):
            if not waiter.place.done():
                waiter.place.set_exception(NoPlaceError("down", self.retry_after))

    @property
    def retry_after(self) -> int:
        """Whole seconds after which it is worth coming again: about as long as others waited."""
        return max(1, math.ceil(min(self._mean_wait, self._limits.wait)))

    def _leave(self, waiter: Waiter[P]) -> None:
        if self._waiters.pop(waiter, waiter) is None:
            self._on_length(len(self._waiters))
