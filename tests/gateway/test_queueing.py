from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import pytest

from gateway.queueing import Line, NoPlaceError
from gateway.replica import Replica
from gateway.upstreams.base import FixedAddress
from router.experts import Queue
from tests.fakes.memory import SkippingLoop

ONE, TWO = (Replica(f"coder-{i}", FixedAddress(f"http://coder-{i}.test/v1")) for i in range(2))


class Desk:
    """A line, and the places there are: each is good for whoever has not tried its replica."""

    def __init__(self, length: int = 10, wait: float = 10.0) -> None:
        self.free: list[Replica] = []
        self.lengths: list[int] = []
        self.line: Line[Replica] = Line(Queue(length=length, wait=wait), self.free.append, self.lengths.append)

    def join(self, *tried: Replica) -> asyncio.Task[Replica]:
        return asyncio.ensure_future(self.line.wait(None, tried))

    def serve(self, *free: Replica) -> None:
        self.free += free
        self.line.serve(self._pick)

    def _pick(self, key: bytes | None, tried: Collection[Replica]) -> Replica | None:
        for replica in self.free:
            if replica not in tried:
                self.free.remove(replica)
                return replica
        return None


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def in_skipping_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(test())


async def test_who_came_first_is_served_first() -> None:
    desk = Desk()
    waiting = [desk.join() for _ in range(4)]
    await settle()
    for served in range(4):
        desk.serve(ONE)
        await settle()
        assert [task.done() for task in waiting] == [True] * (served + 1) + [False] * (3 - served)
    assert desk.lengths == [1, 2, 3, 4, 3, 2, 1, 0]
    assert len(desk.line) == 0


async def test_a_queue_that_is_full_refuses_at_once() -> None:
    desk = Desk(length=2)
    waiting = [desk.join() for _ in range(2)]
    await settle()
    with pytest.raises(NoPlaceError) as caught:
        await desk.line.wait(None, ())
    assert caught.value.reason == "full"
    assert caught.value.retry_after >= 1
    desk.serve(ONE, ONE)
    assert await asyncio.gather(*waiting) == [ONE, ONE]


async def test_a_queue_of_no_length_refuses_everybody() -> None:
    with pytest.raises(NoPlaceError):
        await Desk(length=0).line.wait(None, ())


def test_who_waited_too_long_is_told_so_and_leaves_the_queue() -> None:
    async def test() -> None:
        desk = Desk(wait=10.0)
        began = asyncio.get_running_loop().time()
        with pytest.raises(NoPlaceError) as caught:
            await desk.line.wait(None, ())
        assert caught.value.reason == "expired"
        assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=1)
        assert len(desk.line) == 0
        desk.serve(ONE)
        assert desk.free == [ONE]

    in_skipping_loop(test)


async def test_who_is_cancelled_is_passed_over() -> None:
    desk = Desk()
    first, second = desk.join(), desk.join()
    await settle()
    first.cancel()
    desk.serve(ONE)  # before the cancelled one has had its turn
    assert await second is ONE or desk.free == [ONE]
    await asyncio.gather(first, return_exceptions=True)
    desk.serve()
    assert await second is ONE
    assert len(desk.line) == 0


async def test_who_waits_in_vain_is_told_and_who_is_cancelled_in_that_moment_is_cancelled() -> None:
    desk = Desk()
    told, left = desk.join(), desk.join()
    await settle()
    desk.line.dismiss()
    left.cancel()
    results = await asyncio.gather(told, left, return_exceptions=True)
    assert [type(result) for result in results] == [NoPlaceError, asyncio.CancelledError]
    assert getattr(results[0], "reason", None) == "down"
    assert desk.lengths == [1, 2, 1, 0]
    assert desk.free == []


async def test_a_place_handed_to_one_who_was_cancelled_in_that_moment_is_given_back() -> None:
    desk = Desk()
    task = desk.join()
    await settle()
    desk.serve(ONE)
    assert desk.free == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert desk.free == [ONE]
    assert len(desk.line) == 0
    assert desk.lengths == [1, 0]


async def test_a_place_that_comes_in_the_moment_in_which_the_wait_expires_is_taken() -> None:
    desk = Desk(wait=0.3)
    task = desk.join()
    await settle()
    asyncio.get_running_loop().call_later(0.001, desk.serve, ONE)
    time.sleep(0.4)  # noqa: ASYNC251 - so that the loop finds both due at once
    assert await task is ONE
    assert desk.free == []
    assert desk.lengths == [1, 0]


async def test_who_tried_the_only_replica_with_room_lets_those_behind_pass_and_keeps_the_turn() -> None:
    desk = Desk()
    picky, behind = desk.join(ONE), desk.join()
    await settle()
    desk.serve(ONE)
    await settle()
    assert (picky.done(), behind.done()) == (False, True)
    later = desk.join()
    await settle()
    desk.serve(TWO)
    await settle()
    assert (picky.done(), later.done()) == (True, False)
    later.cancel()
    await asyncio.gather(later, return_exceptions=True)


def test_how_long_others_waited_is_when_to_come_again_and_never_more_than_the_longest_wait() -> None:
    async def test() -> None:
        desk = Desk(length=1, wait=10.0)
        assert desk.line.retry_after == 1
        for _ in range(60):
            task = desk.join()
            await asyncio.sleep(6)
            desk.serve(ONE)
            await task
        assert desk.line.retry_after in (6, 7)
        desk.line._mean_wait = 1000.0
        assert desk.line.retry_after == 10

    in_skipping_loop(test)
