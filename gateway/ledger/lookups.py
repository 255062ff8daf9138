"""Questions to the ledger from the event loop: in threads of their own, few at once, and none of them for long."""

from __future__ import annotations

import asyncio
import threading
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
# Looked up at once, and seconds for an answer of the database. A report that takes long holds no receipt back.
RECEIPTS, RECEIPT_SECONDS = 2, 5.0
REPORTS, REPORT_SECONDS = 1, 30.0
WAITING = 32  # or being looked up, of each kind
RETRY_SECONDS = 1


class Lookups:
    """Nothing is opened before something is asked. `url` is where the ledger is."""

    def __init__(self, url: str) -> None:
        self._receipts = Desk(url, RECEIPTS, RECEIPT_SECONDS, "receipts")
        self._reports = Desk(url, REPORTS, REPORT_SECONDS, "reports")

    async def row(self, request_id: str, caller: str | None) -> Row | None:
        """As Reader.row. Raises BusyError, LedgerError."""
        return await self._receipts.ask(lambda reader: reader.row(request_id, caller))

    async def usage(self, asked: Asked, most: int) -> Report:
        """As Reader.usage. Raises BusyError, AskedError, LedgerError."""
        return await self._reports.ask(lambda reader: reader.usage(asked, most))

    def close(self) -> None:
        """What is being looked up is given up."""
        self._receipts.close()
        self._reports.close()


class Desk:
    """So many threads at one reader, and a queue that ends."""

    def __init__(self, url: str, threads: int, seconds: float, name: str) -> None:
        self._url, self._seconds = url, seconds
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threading.Semaphore(WAITING)

    async def ask(self, work: Callable[[Reader], T]) -> T:
        """Raises BusyError where too many wait, and what `work` raises."""
        if not self._places.acquire(blocking=False):
            raise BusyError("Too many ask the ledger at once; ask again in a moment.", RETRY_SECONDS)
        asking = self._threads.submit(lambda: work(self._reader))
        # The thread's own end: it goes on where who asked has left.
        asking.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(asking)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if "_reader" in vars(self):
            self._reader.close()

    @cached_property
    def _reader(self) -> Reader:
        from gateway.ledger.reader import Reader  # in the thread: it takes some tenths of a second

        return Reader(self._url, self._seconds)
