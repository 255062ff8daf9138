"""Ledger: takes finished exchanges at once, and writes them into a database in a thread of its own."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

from gateway.exchange import Exchange
from gateway.ledger.metrics import LedgerMetrics
from gateway.ledger.row import Row, row_of

if TYPE_CHECKING:
    from gateway.ledger.store import Store

log = logging.getLogger("moe_gateway")

PROMPTS_QUEUED = (
    1_000  # beyond so many rows that wait those that come keep no prompt, which is far larger than they are
)
QUEUED = 10_000  # rows that wait at most; those that come then are dropped
BATCH = 100  # rows written at once: while they are made ready for the database the event loop stands still
WRITE_SECONDS = 0.5  # between two looks at what waits
ROLL_UP_SECONDS = 60.0  # between two looks for rows that are too old
AGAIN_SECONDS = 0.1
END_SECONDS = 8.0  # to write what is left when the gateway ends


class Ledger:
    """`observe` is called by one thread, the event loop's, and never waits. What it took is written within WRITE_SECONDS and
    the time that the database takes; while that is not there up to `queued` rows wait for it.

    Rows older than `keep` become totals of their day, unless it is None: where several processes write one does that. Prompts are
    kept with `prompts` alone.
    """

    def __init__(
        self,
        url: str,
        metrics: LedgerMetrics,
        prompts: bool = False,
        keep: timedelta | None = None,
        queued: int = QUEUED,
    ) -> None:
        self._url, self._metrics, self._prompts = url, metrics, prompts
        self._keep, self._queued = keep, queued
        self._queue: deque[Row] = deque()  # only the thread takes from it, and only what is written
        self._writer, self._numbers = secrets.randbits(63), count()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._down, self._lost = False, 0
        self._roll_up_at = 0.0
        metrics.watch(self.waiting)

    def start(self) -> None:
        self._thread.start()

    def observe(self, exchange: Exchange) -> None:
        """Have the exchange written."""
        if len(self._queue) >= self._queued:
            self._metrics.dropped.inc()
            self._lost += 1
            return
        prompts = self._prompts and len(self._queue) < PROMPTS_QUEUED
        self._queue.append(row_of(exchange, self._writer, next(self._numbers), prompts))

    def waiting(self) -> tuple[int, float]:
        """How many rows wait, and the age of the oldest in seconds."""
        try:
            oldest: datetime = self._queue[0]["at"]
        except IndexError:
            return 0, 0.0
        return len(self._queue), max(0.0, (datetime.now(UTC) - oldest).total_seconds())

    def close(self) -> None:
        """Write what waits, for END_SECONDS at most; what is left then is dropped. Blocks."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS)
        if left := len(self._queue):
            self._metrics.dropped.inc(left)
            log.error("requests are missing from the ledger", extra={"requests": left})

    def _run(self) -> None:
        from gateway.ledger.store import Store  # SQLAlchemy takes longer to import than the gateway takes to be ready

        store = Store(self._url)
        while not self._ending.wait(WRITE_SECONDS):
            self._turn(store)
        end = time.monotonic() + END_SECONDS
        while not self._turn(store) and time.monotonic() < end:
            time.sleep(AGAIN_SECONDS)
        store.close()

    def _turn(self, store: Store) -> bool:
        """Write what waits; whether nothing does any more. What cannot be written waits for the next turn."""
        try:
            store.open()
            while self._queue:
                self._write(store)
            self._roll_up(store)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever a database does, the gateway serves on
            self._failed(error)
        else:
            self._worked()
        self._metrics.refresh()
        return not self._queue

    def _write(self, store: Store) -> None:
        rows = [self._queue[i] for i in range(min(len(self._queue), BATCH))]
        refused = store.write(rows)
        # Nobody may know whether a commit that failed did arrive: rows leave the queue afterwards, and keep their numbers.
        for _ in rows:
            self._queue.popleft()
        self._metrics.written.inc(len(rows) - refused)
        if refused:
            self._metrics.dropped.inc(refused)
            log.error("the ledger takes no such row", extra={"requests": refused})
        self._metrics.refresh()

    def _roll_up(self, store: Store) -> None:
        if self._keep is None or self._ending.is_set() or time.monotonic() < self._roll_up_at:
            return
        if not store.roll_up(datetime.now(UTC) - self._keep):
            self._roll_up_at = time.monotonic() + ROLL_UP_SECONDS

    def _failed(self, error: Exception) -> None:
        """Said once for each time that it is away."""
        if not self._down:
            from gateway.ledger.store import why

            log.error("the ledger cannot be written, requests wait for it", extra={"why": why(error)})
        self._down = True

    def _worked(self) -> None:
        if self._down:
            log.info("the ledger is written again", extra={"missing": self._lost})
        self._down, self._lost = False, 0
