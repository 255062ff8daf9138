"""Observers of installed packages: each is told of finished requests in a thread of its own, and can hold up none of them.

    [project.entry-points."moe_gateway.observers"]
    NAME = "its_package.its_module:ItsObserver"

What the entry point leads to is called with nothing, in that thread, and returns an Observer. `serve --observer NAME` names those
that are to be told. docs/extend/observer.md has a whole package.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Protocol

from prometheus_client import Counter

from gateway.exchange import Exchange
from gateway.ledger.row import Row, row_of
from gateway.receipt import Receipt
from router.errors import ExtensionError
from router.extensions import Registry
from router.validation import nearest

log = logging.getLogger("moe_gateway")

QUEUED = 1_000  # receipts that wait for one observer at most; those that come then are dropped
END_SECONDS = 3.0  # to take what is left when the gateway ends


class Observer(Protocol):
    """What a package's observer is. Both are called in one thread, which is no other observer's."""

    def observe(self, receipt: Receipt) -> None:
        """A request is finished: what its caller may know of it, so no prompt, answer, key or address."""

    def close(self) -> None:
        """Nothing comes any more."""


OBSERVERS: Registry[Callable[[], Observer]] = Registry("moe_gateway.observers", {})
Waiting = Row | None  # None is the end


def check_observers(names: Iterable[str]) -> None:
    """Raises ExtensionError where a name is not added by an installed package, or its package cannot be imported."""
    for name in names:
        if name not in OBSERVERS:
            hint = nearest(name, OBSERVERS) if OBSERVERS else "; install the package that adds it"
            raise ExtensionError(f"no observer {name!r} is installed{hint}", name)
        OBSERVERS[name]


class Observing:
    """The observer `name` at work. `observe` is called by one thread, the event loop's, and never waits.

    `told` counts receipts by observer and outcome: ok, failed, dropped. A receipt is dropped where QUEUED others wait, where the
    observer could not be made, or where the gateway ends before its turn.
    """

    def __init__(self, name: str, told: Counter, queued: int = QUEUED) -> None:
        self._name, self._queued = name, queued
        self._ok, self._failed, self._dropped = (told.labels(name, outcome) for outcome in ("ok", "failed", "dropped"))
        self._queue: SimpleQueue[Waiting] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"observer {name}", daemon=True)
        self._down = self._full = False

    def start(self) -> None:
        self._thread.start()

    def observe(self, exchange: Exchange) -> None:
        """Have it told of the exchange."""
        if self._queue.qsize() >= self._queued:
            self._dropped.inc()
            if not self._full:
                log.error("an observer is behind: receipts are dropped", extra={"by": self._name})
            self._full = True
            return
        self._full = False
        self._queue.put(row_of(exchange, 0, 0))

    def close(self) -> None:
        """Let it take what waits, for END_SECONDS at most; what is left then is dropped. Blocks."""
        waiting = self._queue.qsize()
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS)
        if self._thread.is_alive() and (left := min(waiting, self._queue.qsize())):
            self._dropped.inc(left)
            log.error("requests were not told to an observer", extra={"by": self._name, "requests": left})

    def _run(self) -> None:
        try:
            observer = OBSERVERS[self._name]()
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything, and the gateway serves on
            log.error("an observer cannot be used, it is told of nothing", exc_info=error, extra={"by": self._name})
            while self._queue.get() is not None:
                self._dropped.inc()
            return
        while (waiting := self._queue.get()) is not None:
            self._tell(observer, Receipt.of(waiting))
        try:
            observer.close()
        except (Exception, SystemExit) as error:  # it is gone, whatever it says
            log.error("an observer could not be closed", exc_info=error, extra={"by": self._name})

    def _tell(self, observer: Observer, receipt: Receipt) -> None:
        """A failure is said once for each time that it begins to fail."""
        try:
            observer.observe(receipt)
        except (Exception, SystemExit) as error:  # as above
            self._failed.inc()
            if not self._down:
                log.error("an observer failed", exc_info=error, extra={"by": self._name})
            self._down = True
        else:
            self._ok.inc()
            if self._down:
                log.info("an observer works again", extra={"by": self._name})
            self._down = False
