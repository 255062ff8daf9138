"""The endpoints whose requests are carried to an expert: plain ASGI applications, since they carry bytes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import closing

from gateway import logs
from gateway.asgi import (
    ClientGoneError,
    Receive,
    Scope,
    Send,
    header_value,
    headers_of,
    read_body,
    respond,
    respond_error,
    start,
    until_gone,
)
from gateway.attempt import Answer, Ask
from gateway.deciding import decision_headers
from gateway.errors import ANTHROPIC, GatewayError
from gateway.exchange import CLIENT_CLOSED_REQUEST, Exchange, Outcome, Phase
from gateway.patience import Patience
from gateway.relay import Relay
from gateway.requests.base import ModelRequest
from gateway.requests.chat import Chat
from gateway.requests.completion import Completion
from gateway.requests.embedding import Embedding
from gateway.requests.message import CountTokens, MessageRequest
from gateway.requests.response import ResponseRequest
from gateway.settings import Settings
from gateway.state import GatewayState

log = logging.getLogger("moe_gateway")
# Beyond this a body is read in a thread: a conversation is far smaller, and its few microseconds are not worth one.
LARGE_BODY_BYTES = 256 * 1024


# Of a client's headers those that mean something to a model server; its keys, cookies and addresses stay here.
HEADERS_UP = (b"anthropic-version", b"anthropic-beta")
TRACE_HEADERS_UP = (b"traceparent", b"tracestate")  # where the gateway has no spans of its own to name
MAX_HEADER_UP = 2_048  # bytes; a server refuses the request for one that is much longer, so that it is left out
SESSION = b"x-moe-session"
MAX_SESSION = 256  # characters; a longer name is cut


KINDS: Mapping[str, type[ModelRequest]] = {
    "/v1/chat/completions": Chat,
    "/v1/completions": Completion,
    "/v1/embeddings": Embedding,
    "/v1/responses": ResponseRequest,
    "/v1/messages": MessageRequest,
    "/v1/messages/count_tokens": CountTokens,
}


class Carried:
    """POST to one of KINDS. Each request ends on the generation that it was decided by."""

    def __init__(self, kind: type[ModelRequest], settings: Settings) -> None:
        self._kind = kind
        self._max_body_bytes, self._client_seconds = settings.max_body_bytes, settings.client_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        shape = self._kind.shape
        state: GatewayState = scope["app"].state.gateway
        guarded = scope["state"]
        exchange = Exchange(guarded["request_id"], self._kind.endpoint, state.observers, caller=guarded["caller"])
        if state.telemetry is not None:
            state.telemetry.begin(exchange, headers)
            logs.traced(exchange.trace_id)
        try:
            with exchange.waiting():
                body = await read_body(headers, receive, self._max_body_bytes)
            # What came while the body did is in force: a request belongs to the generation that decides it.
            state = scope["app"].state.gateway
            exchange.observers, exchange.tariff = state.observers, state.tariff
            await until_gone(receive, self._answer(state, exchange, headers, body, send))
        except (ClientGoneError, asyncio.CancelledError) as error:
            if exchange.phase is Phase.STREAMING and exchange.attempts[-1].outcome is Outcome.OK:
                exchange.finish(Outcome.OK, 200)  # it left with the whole answer, before the expert had hung up
            else:
                exchange.finish(Outcome.CANCELLED, CLIENT_CLOSED_REQUEST)
            if isinstance(error, asyncio.CancelledError):
                raise
        except GatewayError as error:
            exchange.error_code = error.code
            await respond_error(send, error, self._headers(exchange), shape)
            exchange.finish(_outcome(exchange, error), error.status)
        except Exception as error:  # the boundary: one request's fault must not end the others
            log.exception("the gateway failed")
            try:
                if exchange.phase is Phase.STREAMING:
                    event = shape.event("The gateway failed.", "internal_error")
                    await send({"type": "http.response.body", "body": event})
                else:
                    await respond_error(send, error, self._headers(exchange), shape)
            finally:
                exchange.finish(Outcome.SERVER_ERROR, 500)

    async def _answer(
        self, state: GatewayState, exchange: Exchange, headers: Mapping[bytes, bytes], body: bytes, send: Send
    ) -> None:
        overrides = state.decider.overrides(headers)
        parse = self._kind.parse
        request = await asyncio.to_thread(parse, body) if len(body) > LARGE_BODY_BYTES else parse(body)
        exchange.stream = request.stream
        exchange.decision = await state.decider.decide_for(request, overrides, exchange)
        exchange.decided = time.perf_counter()
        log.debug("decided", extra={"expert": exchange.decision.expert, "reason": exchange.decision.reason})
        names = HEADERS_UP if exchange.trace else HEADERS_UP + TRACE_HEADERS_UP
        ask = Ask(request, _headers_up(headers, names), _session(headers))
        with closing(await state.dispatcher.answer(exchange, ask, exchange.decision)) as answer:
            if answer.relay is None:
                await self._whole(exchange, answer, send)
            else:
                await self._streamed(exchange, answer, answer.relay, send)
        exchange.finish(answer.outcome, answer.status)

    async def _whole(self, exchange: Exchange, answer: Answer, send: Send) -> None:
        """A client that does not take it is gone; the time that a slow one takes is no overhead of ours."""
        try:
            with exchange.waiting():
                async with asyncio.timeout(self._client_seconds):
                    await respond(send, answer.status, answer.headers | self._headers(exchange), answer.body)
        except TimeoutError:
            raise ClientGoneError from None

    def _headers(self, exchange: Exchange) -> dict[str, str]:
        """Anthropic's clients look for the request's id under a name of their own."""
        headers = decision_headers(exchange)
        return headers if self._kind.shape is not ANTHROPIC else {**headers, "request-id": exchange.id}

    async def _streamed(self, exchange: Exchange, answer: Answer, relay: Relay, send: Send) -> None:
        # Proxies that buffer would turn a stream into one late answer.
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        await start(send, answer.status, answer.headers | headers | self._headers(exchange))
        exchange.phase = Phase.STREAMING
        with closing(Patience()) as patience:
            async for chunk in relay.rest():
                try:
                    with exchange.waiting(), patience(self._client_seconds):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                except TimeoutError:
                    raise ClientGoneError from None
        await send({"type": "http.response.body", "body": b""})


def _headers_up(headers: Mapping[bytes, bytes], names: Iterable[bytes]) -> dict[str, str]:
    return {
        name.decode(): header_value(headers[name].decode("latin-1"))
        for name in names
        if name in headers and len(headers[name]) <= MAX_HEADER_UP
    }


def _session(headers: Mapping[bytes, bytes]) -> str | None:
    """The name that the client gave the conversation."""
    given = headers.get(SESSION)
    return given.decode("latin-1")[:MAX_SESSION] if given else None


def _outcome(exchange: Exchange, error: GatewayError) -> Outcome:
    """How the exchange came out: as its last attempt did, or as a fault of the request where none was made."""
    if exchange.attempts and (outcome := exchange.attempts[-1].outcome):
        return outcome
    return Outcome.CLIENT_ERROR if error.status < 500 else Outcome.SERVER_ERROR
