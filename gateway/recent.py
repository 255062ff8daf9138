"""The receipts of what this process finished last: there at once, where the ledger takes up to a second."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from gateway.exchange import Exchange
from gateway.ledger.row import Row, row_of
from gateway.receipt import Receipt

MOST = 4096  # some 10 MB of them
SECONDS = 600.0

Kept = tuple[float, Row]  # when, and the row


class Recent:
    """What the receipts of `most` requests are made of, none older than `seconds`. Of two with one id of one caller it has the
    later."""

    def __init__(self, most: int = MOST, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()  # by caller and id, oldest first

    def observe(self, exchange: Exchange) -> None:
        """Keep what the receipt of a finished exchange is made of."""
        now, key = self._clock(), (exchange.caller, exchange.id)
        self._kept[key] = now, row_of(exchange, 0, 0)
        self._kept.move_to_end(key)
        while len(self._kept) > self._most or next(iter(self._kept.values()))[0] <= now - self._seconds:
            self._kept.popitem(last=False)

    def of(self, caller: str | None, request_id: str) -> Receipt | None:
        """The caller's own; where `caller` is None the latest with that id, whoever's it is."""
        if caller is None:
            kept = next((kept for (_, its), kept in reversed(self._kept.items()) if its == request_id), None)
        else:
            kept = self._kept.get((caller, request_id))
        if kept is None or kept[0] <= self._clock() - self._seconds:
            return None
        return Receipt.of(kept[1])
