"""Who may load now: so many workers at once, and of those on one GPU one after the other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager


class Gate:
    """At most `most` load at once: each reads its weights, and keeps a processor busy for half a minute. Two vLLMs that measured
    the free memory of one GPU while the other takes it would both be wrong about it."""

    def __init__(self, most: int) -> None:
        self._places = asyncio.Semaphore(most)
        self._gpus: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def loading(self, gpus: Collection[int]) -> AsyncIterator[None]:
        """From when there is room, for as long as this lasts."""
        async with AsyncExitStack() as held:
            for gpu in sorted(gpus):  # in one order, so that no two wait for each other
                await held.enter_async_context(self._gpus[gpu])
            await held.enter_async_context(self._places)
            yield
