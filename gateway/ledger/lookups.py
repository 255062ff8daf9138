"""Questions to the ledger from the event loop: in threads of their own, few at once, and none of them for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from gateway.errors import BusyError
from gateway.ledger.asked import Asked
from gateway.ledger.row import Row

if TYPE_CHECKING:
    from gateway.ledger.reader import Reader
    from gateway.ledger.report import Report

T = TypeVar("T")
SECONDS = 10.0  # for an answer of the database
RECEIPTS, REPORTS = 2, 1  # looked up at once: a report that takes long holds no receipt back
WAITING = 32  # or being looked up, of each kind
RETRY_SECONDS = 1


class Lookups:
    """Nothing is opened before something is asked. `url` is where the ledger is."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._receipts, self._reports = _Desk(RECEIPTS, "receipts"), _Desk(REPORTS, "reports")

    async def row(self, request_id: str, caller: str | None) -> Row | None:
        """As Reader.row. Raises BusyError, LedgerError."""
        return await self._receipts.ask(lambda: self._reader.row(request_id, caller))

    async def usage(self, asked: Asked, most: int) -> Report:
        """As Reader.usage. Raises BusyError, AskedError, LedgerError."""
        return await self._reports.ask(lambda: self._reader.usage(asked, most))

    def close(self) -> None:
        """What is being looked up is given up."""
        self._receipts.close()
        self._reports.close()
        if "_reader" in vars(self):
            self._reader.close()

    @cached_property
    def _reader(self) -> Reader:
        from gateway.ledger.reader import Reader  # in the thread: it takes some tenths of a second

        return Reader(self._url, SECONDS)


class _Desk:
    """So many threads, and a queue that ends."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._asked = 0

    async def ask(self, work: Callable[[], T]) -> T:
        """Raises BusyError where too many wait, and what `work` raises."""
        if self._asked >= WAITING:
            raise BusyError("Too many ask the ledger at once; ask again in a moment.", RETRY_SECONDS)
        self._asked += 1
        asking = asyncio.get_running_loop().run_in_executor(self._threads, work)
        asking.add_done_callback(self._answered)
        return await asking

    def _answered(self, asking: asyncio.Future[T]) -> None:
        """Counted down when the thread is free again, which it is not where who asked has left."""
        self._asked -= 1
        if not asking.cancelled():
            asking.exception()  # seen, whoever has left

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
