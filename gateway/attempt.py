"""One attempt: a request put to one replica, and what its answer means."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from gateway.errors import ANTHROPIC, BadRequestError, PassedError
from gateway.exchange import Attempt as Record
from gateway.exchange import Exchange, Outcome
from gateway.pool import Place
from gateway.refusals import Refusal, refusal_of
from gateway.relay import Relay
from gateway.requests.base import ModelRequest, Wire
from gateway.upstreams.base import Reply, Upstream, UpstreamError
from router.experts import Expert

log = logging.getLogger("moe_gateway")

RETRY_AFTER = "5"
# Headers of an answer that its reader needs; everything else of the upstream's stays behind.
PASSED_HEADERS = ("content-type", "retry-after", "retry-after-ms", "x-should-retry")
# About our key, our account, our model or our path, or what a server cannot do at all: nothing that the client could mend.
OUR_FAULT = frozenset({401, 402, 403, 404, 405, 501})
BESIDE = "/.."  # how paths begin that are not under a server's /v1
# How servers say that a prompt is too long: vLLM, llama.cpp, SGLang, OpenAI, Anthropic, TGI.
TOO_LONG = (
    *("context length", "context size", "context window", "exceed_context_size", "context_length_exceeded"),
    *("maximum model length", "prompt is too long", "maximum number of tokens", "`inputs` tokens + `max_new_tokens`"),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is to be carried: the request, the headers that go up with it, and the session that it names, if any."""

    request: ModelRequest
    headers: Mapping[str, str] = field(default_factory=dict)
    session: str | None = None


@dataclass
class Answer:
    """What goes to the client: `body`, or `relay` where it is streamed. To be closed, whatever happens."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    relay: Relay | None = None
    held: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def outcome(self) -> Outcome:
        """How the attempt came out; a stream that was not relayed to the end of its answer was given up by the client."""
        if self.relay is not None:
            return self.relay.outcome or (Outcome.OK if self.relay.complete else Outcome.CANCELLED)
        return Outcome.OK if self.status < 400 else Outcome.CLIENT_ERROR

    def close(self) -> None:
        """Give back the connection and the place in flight. May be called twice."""
        self.held.close()


@dataclass
class Failed(Exception):  # noqa: N818 - not an error yet: another attempt may do better
    """An attempt after which another may be made; status, message and headers are the client's if none is.

    `passed` is set where only an expert with a larger window can do better, or where it is `foreign` one that speaks the
    request's own dialect: the answer to give when there is none.
    `reset` says that a kept connection was closed before anything was answered, `refusal` what a server said of itself.
    """

    outcome: Outcome
    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)
    passed: Answer | None = None
    reset: bool = False
    refusal: Refusal | None = None
    foreign: bool = False

    @property
    def retry_after(self) -> float | None:
        """The seconds that the server asked to be left alone, None where it did not say."""
        return seconds_of(self.headers.get("retry-after", ""))


class Attempt:
    """A request at a place, put as `wire` says. The place is the caller's to hold and to give back."""

    def __init__(
        self, upstream: Upstream, exchange: Exchange, ask: Ask, wire: Wire, expert: Expert, place: Place
    ) -> None:
        self._upstream, self._exchange, self._ask = upstream, exchange, ask
        self._wire, self._expert, self._place = wire, expert, place
        self.record: Record | None = None

    async def make(self, fresh: bool = False) -> Answer:
        """On a kept connection or a `fresh` one. Raises Failed."""
        exchange, place = self._exchange, self._place
        exchange.begin(place.expert, self._expert)
        record = self.record = exchange.attempt(place.expert, place.replica.name)
        with ExitStack() as held:
            try:
                answer = await self._asked(record, held, fresh)
            except asyncio.CancelledError:  # another answered first, or the client left
                exchange.end_attempt(record, Outcome.CANCELLED)
                raise
            except UpstreamError as error:
                exchange.end_attempt(record, error.outcome)
                status = 504 if error.outcome is Outcome.TIMEOUT else 502
                message = f"The expert {place.expert} failed: {error}."
                raise Failed(error.outcome, status, message, reset=error.reset) from None
            except Failed as failed:
                exchange.end_attempt(record, failed.outcome)
                if failed.outcome is Outcome.REJECTED and failed.status == 502:
                    what = "upstream refused our request: check its key, model and path"
                    log.error(what, extra={"replica": place.replica.name})
                raise
            held.callback(lambda: exchange.end_attempt(record, answer.outcome))
            answer.held = held.pop_all()
        return answer

    async def _asked(self, record: Record, held: ExitStack, fresh: bool) -> Answer:
        stream, timeouts, heartbeat = self._wire.stream, self._expert.timeouts, self._expert.heartbeat
        until = time.perf_counter() + timeouts.total
        opening = Opening(self._post(record, fresh))
        held.callback(opening.close)
        with self._exchange.waiting():
            # The headers of an answer in one piece come when it is complete, so only the total bounds them.
            limit = timeouts.first_byte if stream else timeouts.total
            reply = await opening.within(limit, heartbeat if stream else None)
        if reply is None:
            return await self._relayed(record, self._awaited(opening), {"content-type": "text/event-stream"}, held)
        passed = {name: reply.headers[name] for name in PASSED_HEADERS if name in reply.headers}
        if "retry-after" in passed and seconds_of(passed["retry-after"]) is None:
            del passed["retry-after"]
        events = is_event_stream(reply)
        if reply.status < 300 and events and not stream:
            raise UpstreamError(Outcome.SERVER_ERROR, "it streamed an answer that was to come in one piece")
        if reply.status < 300 and stream and not events:
            raise UpstreamError(Outcome.SERVER_ERROR, "it answered in one piece where a stream was asked for")
        if reply.status < 300 and events:
            return await self._relayed(record, reply.chunks(), passed, held)
        async with _waiting(self._exchange, until - time.perf_counter()):
            content = await reply.read()
        if reply.status >= 300:
            if self._wire.path.startswith(BESIDE) and reply.status in OUR_FAULT:
                raise self._cannot("The expert's server cannot count tokens.")
            return _passed_or_failed(self._ask.request, reply.status, content, passed)
        return self._whole(reply.status, passed, content)

    def _whole(self, status: int, headers: dict[str, str], content: bytes) -> Answer:
        if not (content.lstrip()[:1] == b"{" and content.rstrip()[-1:] == b"}"):
            raise UpstreamError(Outcome.SERVER_ERROR, "its answer is no JSON object")
        if b'"error"' in content[:200] and _error_message(content) is not None:
            raise UpstreamError(Outcome.SERVER_ERROR, "it reported an error as an answer")
        try:
            body = self._wire.whole(content)
        except ValueError:
            raise UpstreamError(Outcome.SERVER_ERROR, "its answer cannot be read") from None
        self._exchange.usage = self._wire.usage(content)
        self._exchange.token()
        return Answer(status, headers, body)

    async def _relayed(
        self, record: Record, chunks: AsyncIterator[bytes], headers: dict[str, str], held: ExitStack
    ) -> Answer:
        def first() -> None:
            self._place.first_token(time.perf_counter() - record.started)

        relay = Relay(chunks, self._exchange, self._wire, self._ask.request.shape, self._expert, first, record.started)
        held.callback(relay.close)
        await relay.first()
        return Answer(200, headers, relay=relay)

    async def _awaited(self, opening: Opening) -> AsyncIterator[bytes]:
        """What an answer brings that was waited for when the client was told so: another expert cannot be asked any more.
        Raises UpstreamError."""
        reply = await opening.reply()
        if reply.status >= 300:
            content = await reply.read()
            try:
                _passed_or_failed(self._ask.request, reply.status, content, {})
            except Failed as failed:
                raise UpstreamError(failed.outcome, failed.message) from None
            raise UpstreamError(
                Outcome.CLIENT_ERROR, _error_message(content) or f"It answered with status {reply.status}."
            )
        if not is_event_stream(reply):
            raise UpstreamError(Outcome.SERVER_ERROR, "it answered in one piece where a stream was asked for")
        async for chunk in reply.chunks():
            yield chunk

    async def _post(self, record: Record, fresh: bool) -> Reply:
        headers = {
            **self._ask.headers,
            **(record.traced or {}),
            "x-request-id": self._exchange.id,
            "accept": "text/event-stream" if self._wire.stream else "application/json",
        }
        address = self._place.replica.address
        try:
            body = self._wire.body(self._expert)
        except BadRequestError as error:  # what cannot be put into this expert's words
            raise self._cannot(error.message, error.param) from None
        return await self._upstream.post(address, self._wire.path, body, headers, self._expert.timeouts, fresh)

    def _cannot(self, message: str, param: str | None = None) -> Failed:
        """The failure of an expert that speaks other words than the request's; one that speaks the same can do better."""
        body = self._ask.request.shape.body(BadRequestError(message, param=param))
        passed = Answer(BadRequestError.status, {"content-type": "application/json"}, body)
        return Failed(Outcome.CLIENT_ERROR, passed.status, message, passed=passed, foreign=True)


class Opening:
    """A reply that is being waited for, or has come. To be closed, whatever happens."""

    def __init__(self, post: Coroutine[Any, Any, Reply]) -> None:
        self._post = post
        self._task: asyncio.Task[Reply] | None = None
        self._reply: Reply | None = None

    async def within(self, seconds: float, heartbeat: float | None) -> Reply | None:
        """The reply; None where it is silent for a `heartbeat`, and goes on being waited for. Raises UpstreamError."""
        try:
            if heartbeat is None:
                async with asyncio.timeout(seconds):
                    self._reply = await self._post
                    return self._reply
            self._task = asyncio.ensure_future(self._post)
            await asyncio.wait({self._task}, timeout=min(seconds, heartbeat))
            if self._task.done():
                return self._task.result()
        except TimeoutError:
            raise UpstreamError(Outcome.TIMEOUT, "it did not answer in time") from None
        if seconds <= heartbeat:
            raise UpstreamError(Outcome.TIMEOUT, "it did not answer in time")
        return None

    async def reply(self) -> Reply:
        """The reply that is still waited for. Raises UpstreamError."""
        if self._task is None:
            raise RuntimeError("nothing is being waited for")
        return await self._task

    def close(self) -> None:
        """Give up what is still being waited for, close what came."""
        if self._reply is not None:
            self._reply.close()
        if self._task is not None:
            self._task.cancel()
            self._task.add_done_callback(_close_reply)


def _close_reply(task: asyncio.Task[Reply]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def seconds_of(retry_after: str) -> float | None:
    """What a Retry-After asks for, in seconds or as a date; None where it is neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
        return max(0.0, seconds)
    return seconds if 0 <= seconds < math.inf else None


def is_event_stream(reply: Reply) -> bool:
    return reply.headers.get("content-type", "").lower().startswith("text/event-stream")


@asynccontextmanager
async def _waiting(exchange: Exchange, seconds: float) -> AsyncIterator[None]:
    """Wait for the upstream, so long and no longer. Raises UpstreamError."""
    try:
        with exchange.waiting():
            async with asyncio.timeout(seconds):
                yield
    except TimeoutError:
        raise UpstreamError(Outcome.TIMEOUT, "it did not answer in time") from None


def _passed_or_failed(request: ModelRequest, status: int, content: bytes, headers: dict[str, str]) -> Answer:
    """An answer that is no success: passed on where it is about the request. Raises Failed where another may do better."""
    shape = request.shape
    kept = {name: value for name, value in headers.items() if name != "content-type"}
    refusal = refusal_of(status, content)
    if (status in OUR_FAULT and not (status == 404 and request.continues_kept)) or status < 400:
        message = "The expert refused the gateway's own request; its operator has to look into it."
        raise Failed(Outcome.REJECTED, 502, message)
    if status in (408, 429) or refusal is Refusal.FULL:
        retry = {"retry-after": RETRY_AFTER, **kept}
        raise Failed(Outcome.REJECTED, status, "The expert is busy.", retry, refusal=refusal)
    if status >= 500:
        away = refusal is not None or status in (503, 529)  # and back before long
        final = 503 if away else status if status == 504 else 502
        retry = {"retry-after": RETRY_AFTER} if away else {}
        message = f"The expert answered with status {status}."
        raise Failed(Outcome.SERVER_ERROR, final, message, retry | kept, refusal=refusal)
    answer = Answer(status, headers, content)
    told = _error_body(content)
    if told is None or (shape is ANTHROPIC and told.type != "error"):
        text = told.error.message if told else content.decode("utf-8", "replace").strip()[:500]
        answer.body = shape.body(
            PassedError(
                status, text or f"The expert answered with status {status}.", told.error.param if told else None
            )
        )
        answer.headers["content-type"] = "application/json"
    if status in (400, 413, 422) and any(words in content.decode("utf-8", "replace").lower() for words in TOO_LONG):
        raise Failed(Outcome.CLIENT_ERROR, status, "The prompt is too long.", passed=answer)
    return answer


class _Error(msgspec.Struct):
    message: str
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error
    type: str = ""


def _error_body(content: bytes) -> _ErrorBody | None:
    """An error in OpenAI's shape or Anthropic's, None where it is in another."""
    try:
        return msgspec.json.decode(content, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _error_message(content: bytes) -> str | None:
    body = _error_body(content)
    return body.error.message if body else None
