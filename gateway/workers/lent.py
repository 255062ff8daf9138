"""A worker that the parent of several processes runs, as each of them sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class LentWorker:
    """As an Address, `url` is what the parent said last: None while the worker is not up. `on_hung` asks for its end."""

    def __init__(self, name: str, on_hung: Callable[[str, str], None]) -> None:
        self.name = name
        self.url: str | None = None
        self.api_key: str | None = None
        self._on_hung = on_hung
        self._told = asyncio.Event()

    def tell(self, url: str | None, api_key: str | None) -> None:
        """What the parent says; from the thread that serves."""
        self.url, self.api_key = url, api_key
        if url is not None:
            self._told.set()

    async def start(self) -> None:
        """Wait until it serves. That it never does is for the parent to notice."""
        await self._told.wait()

    def kill(self) -> None:
        """Say that it hangs. Others may say so too: the parent ends the one that had this URL."""
        if self.url is not None:
            self._on_hung(self.name, self.url)

    async def stop(self) -> None:
        """The parent's to do."""
