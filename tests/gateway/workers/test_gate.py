"""Who may load at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.workers.gate import Gate


async def together(gate: Gate, loads: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Which loaded at once, at each beginning."""
    now: list[tuple[int, ...]] = []
    seen: list[list[tuple[int, ...]]] = []

    async def load(gpus: tuple[int, ...]) -> None:
        async with gate.loading(gpus):
            now.append(gpus)
            seen.append(list(now))
            for _ in range(4):
                await asyncio.sleep(0)
            now.remove(gpus)

    async with asyncio.timeout(10):
        await asyncio.gather(*(load(gpus) for gpus in loads))
    return seen


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), unique=True, max_size=4).map(tuple), max_size=12),
    st.integers(1, 4),
)
def test_all_load_once_no_more_than_so_many_and_no_two_on_one_gpu(loads: list[tuple[int, ...]], most: int) -> None:
    seen = asyncio.run(together(Gate(most), loads))
    assert len(seen) == len(loads)
    for at_once in seen:
        assert len(at_once) <= most
        gpus = [gpu for each in at_once for gpu in each]
        assert len(gpus) == len(set(gpus))


async def test_those_that_share_nothing_do_not_wait() -> None:
    seen = await together(Gate(3), [(0,), (1,), ()])
    assert max(map(len, seen)) == 3


async def test_who_waits_for_a_gpu_keeps_nobody_else_out_and_may_give_up() -> None:
    gate = Gate(2)
    async with gate.loading([0]):
        waiting = asyncio.create_task(together(gate, [(0,)]))
        await asyncio.sleep(0)
        async with asyncio.timeout(5), gate.loading([1]):
            pass
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(5), gate.loading([0]):
        pass
