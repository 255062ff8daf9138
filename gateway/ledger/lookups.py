"""Questions to the ledger from the event loop: in threads of their own, few at once, and none of them for long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.errors import BusyError
from gateway.ledger.asked import Asked
from gateway.ledger.errors import LedgerError
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
LATE_SECONDS = 2.0  # beyond what the database itself is given


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
    """So many threads at one reader, and a queue that ends. A database that never answers keeps nobody waiting, and no process
    from ending: an executor's threads would be waited for."""

    def __init__(self, url: str, threads: int, seconds: float, name: str) -> None:
        self._url, self._seconds = url, seconds
        self._asked: SimpleQueue[tuple[Future[Any], Callable[[Reader], Any]] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        self._reader: Reader | None = None
        self._making = threading.Lock()
        self._places = threading.Semaphore(WAITING)

    async def ask(self, work: Callable[[Reader], T]) -> T:
        """Raises BusyError where too many wait, LedgerError where no answer comes in time, and what `work` raises."""
        if not self._places.acquire(blocking=False):
            raise BusyError("Too many ask the ledger at once; ask again in a moment.", RETRY_SECONDS)
        asking: Future[T] = Future()
        # The thread's own end: it goes on where who asked has left.
        asking.add_done_callback(lambda _: self._places.release())
        self._asked.put((asking, work))
        if self._threads[0].ident is None:
            for thread in self._threads:
                thread.start()
        try:
            async with asyncio.timeout(self._seconds + LATE_SECONDS):
                return await asyncio.wrap_future(asking)
        except TimeoutError:
            raise LedgerError("the ledger does not answer") from None

    def close(self) -> None:
        with suppress(Empty):
            while (asked := self._asked.get_nowait()) is not None:
                asked[0].cancel()
        for _ in self._threads:
            self._asked.put(None)
        if self._reader is not None:
            self._reader.close()

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            asking, work = asked
            if not asking.set_running_or_notify_cancel():
                continue
            try:
                asking.set_result(work(self._made()))
            except Exception as error:  # noqa: BLE001 - for who asked
                asking.set_exception(error)

    def _made(self) -> Reader:
        from gateway.ledger.reader import Reader  # in the thread: it takes some tenths of a second

        with self._making:
            if self._reader is None:
                self._reader = Reader(self._url, self._seconds)
            return self._reader
