"""Meter: when a server has something to do, and how much of that time each request took."""

from __future__ import annotations

import math
from collections.abc import Callable


class Meter:
    """Of one server. While n requests run each is given an nth of the time, so that all together are given the time in which it was
    busy, and nothing is given for the time in which it was idle.

    `_shared` is what a request of ours would have been given, had it run all the while: the difference of two readings is what one
    was given in between.
    """

    __slots__ = ("_at", "_busy", "_clock", "_others", "_ours", "_shared", "_until")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._at = clock, clock()
        self._ours, self._others, self._until = 0, 0.0, -math.inf
        self._busy = self._shared = 0.0

    def begin(self) -> float:
        """One more of ours runs; what this returns is for `end`."""
        self._read()
        self._ours += 1
        return self._shared

    def end(self, began: float) -> float:
        """It ended. Returns the seconds that it is given."""
        self._read()
        self._ours -= 1
        return self._shared - began

    def others(self, count: float, good_for: float) -> None:
        """So many requests of others run there; nobody knows any more after so many seconds."""
        self._read()
        self._others, self._until = count, self._at + good_for

    @property
    def busy(self) -> float:
        """Seconds in which it had something to do, up to now."""
        self._read()
        return self._busy

    def _read(self) -> None:
        now = self._clock()
        if self._others:
            self._pass(max(0.0, min(now, self._until) - self._at), self._others)
            if now < self._until:
                return
            self._others = 0.0
        self._pass(now - self._at, 0.0)

    def _pass(self, seconds: float, others: float) -> None:
        self._at += seconds
        if self._ours:
            self._busy += seconds
            self._shared += seconds / (self._ours + others)
        elif others:
            self._busy += seconds
