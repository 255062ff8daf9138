"""Carries one stream from an expert to the client: the expert's bytes, and one error event where it fails half-way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from gateway.errors import error_event
from gateway.events import ChunkReader, EventSplitter, EventTooLargeError
from gateway.exchange import Exchange, Outcome
from gateway.upstreams.base import Reply, UpstreamError
from router.experts import Timeouts


class Relay:
    """One stream.

    `outcome` is None until `rest` ended; `complete` says that the client has had all of the answer. `hide_usage` drops the
    usage chunk that the client did not ask for.
    """

    def __init__(self, reply: Reply, exchange: Exchange, timeouts: Timeouts, hide_usage: bool) -> None:
        self.outcome: Outcome | None = None
        self.complete = False
        self._exchange, self._timeouts, self._hide_usage = exchange, timeouts, hide_usage
        self._chunks = reply.chunks()
        self._splitter, self._reader = EventSplitter(), ChunkReader()
        self._held = b""
        self._deadline = time.perf_counter() + timeouts.total

    async def first(self) -> None:
        """Read until the expert has said something, and hold it. Raises UpstreamError: another may still be asked."""
        limit = time.perf_counter() + self._timeouts.first_byte
        while not (self._reader.content or self._reader.ended):
            chunk = await self._next(limit - time.perf_counter())
            if chunk is None:
                raise UpstreamError(Outcome.TRUNCATED, "its stream ended before it said anything")
            self._held += self._digest(chunk)
            if self._reader.failed:
                raise UpstreamError(Outcome.STREAM_ERROR, "it reported an error in its stream")
        self._exchange.token()

    async def rest(self) -> AsyncIterator[bytes]:
        """What goes to the client, from the first held byte on. Never raises for a fault of the expert's: it tells the client."""
        held_back = time.perf_counter()
        yield self._held
        self.complete = self._reader.ended
        self._deadline += time.perf_counter() - held_back
        try:
            while not self._reader.failed and (chunk := await self._next(self._timeouts.idle)) is not None:
                if passed := self._digest(chunk):
                    self._exchange.token()
                    held_back = time.perf_counter()
                    yield passed
                    self.complete = self._reader.ended
                    # While a slow client takes it the expert is not to blame.
                    self._deadline += time.perf_counter() - held_back
        except UpstreamError as error:
            # What breaks off behind the end of the answer took nothing from the client.
            self.outcome = Outcome.OK if self._reader.ended else error.outcome
        else:
            self.outcome = self._verdict()
        if self.outcome is Outcome.OK:
            yield self._splitter.rest()
        else:
            message = "The expert failed while it was answering; what came before this is incomplete."
            yield error_event(message, f"upstream_{self.outcome}")

    def _verdict(self) -> Outcome:
        if self._reader.failed:
            return Outcome.STREAM_ERROR
        return Outcome.OK if self._reader.ended else Outcome.TRUNCATED

    def _digest(self, chunk: bytes) -> bytes:
        """Read the events that `chunk` completes; returns those to pass on, none from a failure on."""
        passed = []
        try:
            for event in self._splitter.feed(chunk):
                final_usage = self._reader.read(event)
                if self._reader.failed:
                    break
                if not (final_usage and self._hide_usage):
                    passed.append(event)
        except EventTooLargeError:
            raise UpstreamError(Outcome.STREAM_ERROR, "it sent an event that has no end") from None
        self._exchange.usage = self._reader.usage
        return b"".join(passed)

    async def _next(self, seconds: float) -> bytes | None:
        remaining = self._deadline - time.perf_counter()
        try:
            with self._exchange.waiting():
                async with asyncio.timeout(max(0.0, min(seconds, remaining))):
                    return await anext(self._chunks, None)
        except TimeoutError:
            raise UpstreamError(Outcome.TIMEOUT, "it did not answer in time") from None
