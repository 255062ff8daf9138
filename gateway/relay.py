"""Carries one stream from an expert to the client: the expert's bytes, and one error event where it fails half-way."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from enum import Enum

from gateway.errors import Shape
from gateway.events import MAX_EVENT_BYTES, EventSplitter, EventTooLargeError
from gateway.exchange import Exchange, Outcome
from gateway.patience import Patience
from gateway.requests.base import Translator, Wire
from gateway.upstreams.base import UpstreamError
from router.experts import Expert

HEARTBEAT = b": the expert is still at work\n\n"  # a comment: clients pass over it, proxies see that the line is in use

CLOSE_SECONDS = 0.5  # for a server to end its stream behind [DONE], so that its connection can be kept


class _Silence(Enum):
    """What `_next` answers where the expert said nothing for a heartbeat."""

    BEAT = 0


class Relay:
    """One stream.

    `outcome` is None until `rest` ended; `spoke` says that the expert has said something, `complete` that the client has had
    all of the answer. `on_first` is called once, when the expert has said something; time-outs count from `began`, else from
    now. To be closed, whatever happens.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        exchange: Exchange,
        wire: Wire,
        shape: Shape,
        expert: Expert,
        on_first: Callable[[], None] = lambda: None,
        began: float | None = None,
    ) -> None:
        self.outcome: Outcome | None = None
        self.complete = False
        self._chunks, self._exchange, self._shape, self._on_first = chunks, exchange, shape, on_first
        self._timeouts, self._heartbeat = expert.timeouts, expert.heartbeat
        self._hide_usage = wire.hide_usage
        self._splitter, self._reader, self._translator = EventSplitter(), wire.reader(), wire.translator()
        self._held = bytearray()
        self.spoke = False
        started = time.perf_counter() if began is None else began
        self._first_by, self._deadline = started + self._timeouts.first_byte, started + self._timeouts.total
        self._pending: asyncio.Task[bytes | None] | None = None
        self._patience = Patience()
        self._close_by = math.inf
        self._why = "The expert failed while it was answering; what came before this is incomplete."

    async def first(self) -> None:
        """Read until the expert has said something, and hold it. Raises UpstreamError: another may still be asked.

        An expert that is silent for a heartbeat is committed to, and its client gets a comment.
        """
        while not self.spoke:
            chunk = await self._next()
            if chunk is _Silence.BEAT:
                self._held += HEARTBEAT
                return
            if chunk is None:
                raise UpstreamError(Outcome.TRUNCATED, "its stream ended before it said anything")
            self._held += self._digest(chunk)
            if len(self._held) > MAX_EVENT_BYTES:
                raise UpstreamError(Outcome.STREAM_ERROR, "it sends on and on and says nothing")
            if self._reader.failed and not self._reader.ended:
                raise UpstreamError(Outcome.STREAM_ERROR, "it reported an error in its stream")
            if self._reader.ended and not self.spoke:
                raise UpstreamError(Outcome.TRUNCATED, "it ended its stream before it said anything")

    async def rest(self) -> AsyncIterator[bytes]:
        """What goes to the client, from the first held byte on. Never raises for a fault of the expert's: it tells the client."""
        held_back = time.perf_counter()
        self._exchange.usage = self._reader.usage
        yield bytes(self._held)
        self._taken(held_back)
        try:
            while not self._reader.failed and (chunk := await self._next()) is not None:
                passed = HEARTBEAT if chunk is _Silence.BEAT else self._digest(chunk)
                self._exchange.usage = self._reader.usage
                if passed:
                    held_back = time.perf_counter()
                    yield passed
                    self._taken(held_back)
        except UpstreamError as error:
            # What breaks off behind the end of the answer took nothing from the client.
            unreadable = self._translator is not None and self._translator.failed
            self.outcome = Outcome.OK if self._reader.ended and not unreadable else error.outcome
            if error.outcome is Outcome.CLIENT_ERROR:
                self._why = str(error)
        else:
            self.outcome = self._verdict()
        yield self._last()

    def close(self) -> None:
        """Stop waiting for the expert. May be called twice."""
        self._patience.close()
        if self._pending is not None:
            self._pending.cancel()
            self._pending.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _taken(self, held_back: float) -> None:
        """The client took what it was sent; while a slow one does the expert is not to blame."""
        self.complete = self._reader.ended
        self._deadline += time.perf_counter() - held_back

    def _verdict(self) -> Outcome:
        if self._reader.ended:
            return Outcome.OK  # whatever came behind it
        return Outcome.STREAM_ERROR if self._reader.failed else Outcome.TRUNCATED

    def _last(self) -> bytes:
        """How the stream ends for the client."""
        if self.outcome is Outcome.OK:
            if self._translator:
                return self._translator.end()
            return self._leftover()
        return self._shape.event(self._why, f"upstream_{self.outcome}")

    def _leftover(self) -> bytes:
        """What came behind the last whole event, which a server that ends without a blank line may have meant as one. Not
        an error behind the end of the answer, nor what followed it."""
        rest = self._splitter.rest()
        final_usage = self._reader.read(rest)
        self._exchange.usage = self._reader.usage
        return b"" if self._reader.failed or (final_usage and self._hide_usage) else rest

    def _digest(self, chunk: bytes) -> bytes:
        """Read the events that `chunk` completes; returns those to pass on, none from a failure on."""
        reader, translator = self._reader, self._translator
        if translator is None and self._splitter.empty and reader.is_plain(chunk):
            self._exchange.token()
            return chunk
        passed = []
        try:
            for event in self._splitter.feed(chunk):
                final_usage = reader.read(event)
                if reader.failed:
                    break
                if translator is not None:
                    passed.append(self._translated(translator, event))
                elif not (final_usage and self._hide_usage):
                    passed.append(event)
        except EventTooLargeError:
            raise UpstreamError(Outcome.STREAM_ERROR, "it sent an event that has no end") from None
        if reader.over and self._close_by == math.inf:
            self._close_by = time.perf_counter() + CLOSE_SECONDS
        if reader.content and (reader.ended or not reader.failed):
            self._exchange.token()
            if not self.spoke:
                self.spoke = True
                self._on_first()
        return b"".join(passed)

    def _translated(self, translator: Translator, event: bytes) -> bytes:
        told = translator.feed(event)
        if translator.failed:  # what it says of that is said by us, as of every failure
            raise UpstreamError(Outcome.STREAM_ERROR, "it sent an event that cannot be read")
        return told

    async def _next(self) -> bytes | _Silence | None:
        """The next chunk, None at the end. Raises UpstreamError where it does not come in time."""
        now = time.perf_counter()
        seconds = min(
            self._timeouts.idle if self.spoke else self._first_by - now, min(self._deadline, self._close_by) - now
        )
        with self._exchange.waiting():
            if self._heartbeat is not None:
                return await self._next_or_beat(max(0.0, seconds), self._heartbeat)
            try:
                with self._patience(seconds):
                    return await anext(self._chunks, None)
            except TimeoutError:
                raise _late() from None

    async def _next_or_beat(self, seconds: float, heartbeat: float) -> bytes | _Silence | None:
        """The same, or the news that nothing came for a heartbeat; what was waited for then is waited for still."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(_one(self._chunks))
        await asyncio.wait({self._pending}, timeout=min(seconds, heartbeat))
        if not self._pending.done():
            if seconds <= heartbeat:
                raise _late()
            return _Silence.BEAT
        pending, self._pending = self._pending, None
        return pending.result()


async def _one(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


def _late() -> UpstreamError:
    return UpstreamError(Outcome.TIMEOUT, "it did not answer in time")
