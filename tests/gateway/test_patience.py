from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import pytest
import uvloop

from gateway.patience import Patience
from tests.fakes.memory import SkippingLoop

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """In a loop in which time passes at once."""
    loop = SkippingLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def test_what_takes_longer_is_ended_and_what_does_not_is_left_alone() -> None:
    async def waits() -> list[str]:
        patience = Patience()
        said: list[str] = []
        loop = asyncio.get_running_loop()
        for seconds, within in ((1, 2), (5, 2), (1, 2), (9, 10), (3, 1), (0, 1)):
            began = loop.time()
            try:
                with patience(within):
                    await asyncio.sleep(seconds)
                said.append("done")
            except TimeoutError:
                said.append("late")
                assert within <= loop.time() - began < within + 0.5
        patience.close()
        return said

    assert run(waits()) == ["done", "late", "done", "done", "late", "done"]


def test_a_timer_of_a_longer_wait_does_not_end_a_later_one() -> None:
    async def waits() -> None:
        patience = Patience()
        with patience(1):
            await asyncio.sleep(0.9)
        with patience(1):
            await asyncio.sleep(0.9)  # the first wait's timer fires in here
        await asyncio.sleep(5)  # and this one's outside of any
        with patience(1):
            await asyncio.sleep(0.9)
        patience.close()

    run(waits())


def test_many_short_waits_arm_few_timers() -> None:
    async def waits() -> int:
        patience, armed = Patience(), 0
        loop = asyncio.get_running_loop()
        real = loop.call_at

        def call_at(*args: Any, **kwargs: Any) -> Any:
            nonlocal armed
            armed += 1
            return real(*args, **kwargs)

        loop.call_at = call_at  # type: ignore[method-assign,assignment]
        for _ in range(1000):
            with patience(60):
                pass
        patience.close()
        return armed

    assert run(waits()) == 1


def test_a_cancellation_from_outside_stays_one() -> None:
    async def waits() -> None:
        patience = Patience()

        async def work() -> None:
            with patience(60):
                await asyncio.sleep(30)

        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        patience.close()

    run(waits())


def test_an_error_inside_is_its_own() -> None:
    async def waits() -> None:
        patience = Patience()
        with pytest.raises(KeyError), patience(1):
            raise KeyError
        with suppress(TimeoutError), patience(-5):
            await asyncio.sleep(1)
        with patience(1):
            await asyncio.sleep(0)
        patience.close()

    run(waits())


def test_a_closed_one_leaves_nothing_behind() -> None:
    async def waits() -> None:
        patience = Patience()
        with patience(3600):
            await asyncio.sleep(0)
        patience.close()
        patience.close()
        assert not [h for h in asyncio.get_running_loop()._scheduled if not h.cancelled()]  # type: ignore[attr-defined]

    run(waits())


def test_a_cancellation_that_comes_with_the_time_out_stays_one() -> None:
    async def waits() -> None:
        patience = Patience()

        async def work() -> None:
            with patience(1):
                try:
                    await asyncio.sleep(30)
                finally:
                    task.cancel()  # somebody else ends the task while it cleans up after its time is over

        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await task
        patience.close()

    run(waits())


def test_a_wait_that_is_over_at_once_spoils_no_later_one_in_the_loop_that_serves() -> None:
    async def waits() -> None:
        patience = Patience()
        with patience(0):
            pass  # done before the timer, which is due at once
        with patience(5):
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError), patience(0):
            await asyncio.sleep(5)
        with patience(-1):
            pass
        with patience(5):
            await asyncio.sleep(0.01)
        patience.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(waits())
