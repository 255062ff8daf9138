"""Meter: when a server has something to do, and how much of that time each request took."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple


class _Reading(NamedTuple):
    """At the moment `at`: so many requests of ours run and, until `until`, so many of others. `busy` are the seconds in which any
    did; `shared` the seconds that a request of ours would have had, had it run all the while: of each second its share."""

    at: float
    ours: int = 0
    others: float = 0.0
    until: float = -math.inf
    busy: float = 0.0
    shared: float = 0.0


class Meter:
    """Of one server. While n requests run each is given an nth of the time, so that all together are given the time in which it was
    busy, and nothing is given for the time in which it was idle."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = _Reading(clock())

    def begin(self) -> float:
        """One more of ours runs; what this returns is for `end`."""
        now = self._now()
        self._last = now._replace(ours=now.ours + 1)
        return now.shared

    def end(self, began: float) -> float:
        """It ended. Returns the seconds that it is given."""
        now = self._now()
        self._last = now._replace(ours=now.ours - 1)
        return now.shared - began

    def others(self, count: float, good_for: float) -> None:
        """So many requests of others run there; nobody knows any more after so many seconds."""
        now = self._now()
        self._last = now._replace(others=count, until=now.at + good_for)

    @property
    def busy(self) -> float:
        """Seconds in which it had something to do, up to now."""
        return self._now().busy

    def _now(self) -> _Reading:
        last, now = self._last, self._clock()
        with_others = max(0.0, min(now, last.until) - last.at)
        alone = now - last.at - with_others
        busy = (with_others if last.ours or last.others else 0.0) + (alone if last.ours else 0.0)
        shared = with_others / (last.ours + last.others) + alone / last.ours if last.ours else 0.0
        return last._replace(at=now, busy=last.busy + busy, shared=last.shared + shared)
