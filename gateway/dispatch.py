"""Walks a decision and its fallbacks until an expert answers.

What an upstream's failure does before any content was sent:

    refused, reset, time-out, 5xx, error event   next replica, then next expert; at the end 502, 503 or 504
    401, 403, 404                                next; at the end 502 and a loud log: our configuration is wrong
    408, 429                                     next; at the end the same status with retry-after
    400 that says the context is too long        the next expert with a larger window; else passed on
    any other 4xx                                passed on
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from gateway.balancing import Balancer
from gateway.errors import UpstreamGatewayError, error_body
from gateway.exchange import Exchange, Outcome, Phase
from gateway.health import Replica
from gateway.pool import Pool
from gateway.relay import Relay
from gateway.schema import Chat
from gateway.upstreams.base import Reply, Upstream, UpstreamError
from gateway.usage import read_usage
from router.decision import Decision
from router.experts import Expert

log = logging.getLogger("moe_gateway")

MAX_ATTEMPTS = 8  # for one request over all experts: a failing fleet is not to be asked for ever
RETRY_AFTER = "5"
# Headers of an answer that its reader needs; everything else of the upstream's stays behind.
PASSED_HEADERS = ("content-type", "retry-after", "retry-after-ms", "x-should-retry")
TOO_LONG = ("context length", "context size", "context window", "exceed_context_size", "context_length_exceeded")


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

    `passed` is set where only an expert with a larger window can do better: the answer to give when there is none.
    """

    outcome: Outcome
    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)
    passed: Answer | None = None
    reset: bool = False


class Dispatcher:
    def __init__(self, pool: Pool, upstream: Upstream) -> None:
        self._pool, self._upstream, self._balancer = pool, upstream, Balancer()

    async def chat(self, exchange: Exchange, chat: Chat, decision: Decision) -> Answer:
        """The first usable answer. Raises UpstreamGatewayError where no expert gives one."""
        exchange.phase = Phase.WAITING
        last: Failed | None = None
        for expert_id in (decision.expert, *decision.fallbacks):
            if self._pool.full(expert_id) or (last and last.passed and not self._is_larger(expert_id, exchange)):
                continue
            for replica in self._balancer.order(self._pool.replicas[expert_id]):
                try:
                    return await self._attempt_and_again(exchange, chat, expert_id, replica)
                except Failed as failed:
                    last = failed
                if last.passed or len(exchange.attempts) >= MAX_ATTEMPTS:
                    break
            if len(exchange.attempts) >= MAX_ATTEMPTS:
                break
        if last is not None and last.passed is not None:
            return last.passed
        raise self._gave_up(last, decision)

    def _is_larger(self, expert_id: str, exchange: Exchange) -> bool:
        """Whether the expert's context window is larger than that of the expert tried last."""
        experts = self._pool.file.experts
        window, tried = (experts[e].context_window for e in (expert_id, exchange.attempts[-1].expert))
        return (window or math.inf) > (tried or math.inf)

    async def _attempt_and_again(self, exchange: Exchange, chat: Chat, expert_id: str, replica: Replica) -> Answer:
        try:
            return await self._attempt(exchange, chat, expert_id, replica)
        except Failed as failed:
            if not failed.reset or len(exchange.attempts) >= MAX_ATTEMPTS:
                raise
        # A server may close a kept connection in the moment in which we write to it. Nothing was answered: ask once more.
        return await self._attempt(exchange, chat, expert_id, replica, fresh=True)

    async def _attempt(
        self, exchange: Exchange, chat: Chat, expert_id: str, replica: Replica, fresh: bool = False
    ) -> Answer:
        expert = self._pool.file.experts[expert_id]
        exchange.begin(expert_id, expert)
        attempt = exchange.attempt(expert_id, replica.name)

        def end(outcome: Outcome) -> None:
            exchange.end_attempt(attempt, outcome)
            replica.note(outcome)

        with ExitStack() as held:
            held.enter_context(self._pool.holding(expert_id, replica))
            try:
                answer = await self._ask(exchange, chat, expert, replica, held, fresh)
            except UpstreamError as error:
                end(error.outcome)
                raise _failed(error, expert_id) from None
            except Failed as failed:
                end(failed.outcome)
                if failed.outcome is Outcome.REJECTED and failed.status == 502:
                    log.error(
                        "upstream refused our request: check its key, model and path", extra={"replica": replica.name}
                    )
                raise
            held.callback(lambda: end(answer.outcome))
            answer.held = held.pop_all()
        return answer

    async def _ask(
        self, exchange: Exchange, chat: Chat, expert: Expert, replica: Replica, held: ExitStack, fresh: bool
    ) -> Answer:
        body = chat.upstream_body(expert.model, expert.defaults)
        headers = {"x-request-id": exchange.id, "accept": "text/event-stream" if chat.stream else "application/json"}
        timeouts = expert.timeouts
        # The headers of an answer in one piece come when it is complete, so only the total bounds them.
        async with _waiting(exchange, timeouts.first_byte if chat.stream else timeouts.total):
            reply = await self._upstream.post(replica.address, "/chat/completions", body, headers, timeouts, fresh)
        held.callback(reply.close)
        passed = {name: reply.headers[name] for name in PASSED_HEADERS if name in reply.headers}
        events = passed.get("content-type", "").lower().startswith("text/event-stream")
        if reply.status < 300 and events and not chat.stream:
            raise UpstreamError(Outcome.SERVER_ERROR, "it streamed an answer that was to come in one piece")
        if reply.status < 300 and events:
            relay = Relay(reply, exchange, timeouts, hide_usage=not chat.wants_usage)
            await relay.first()
            return Answer(reply.status, passed, relay=relay)
        async with _waiting(exchange, timeouts.total):
            content = await reply.read()
        if reply.status >= 300:
            return _passed_or_failed(reply, content, passed)
        if b'"error"' in content[:200] and _error_message(content) is not None:
            raise UpstreamError(Outcome.SERVER_ERROR, "it reported an error as an answer")
        exchange.usage = read_usage(content)
        exchange.token()
        return Answer(reply.status, passed, content)

    def _gave_up(self, last: Failed | None, decision: Decision) -> UpstreamGatewayError:
        if last is not None:
            return UpstreamGatewayError(
                last.status, last.message, code=f"upstream_{last.outcome}", headers=last.headers
            )
        waits = (r.retry_after for e in (decision.expert, *decision.fallbacks) for r in self._pool.replicas[e])
        seconds = math.ceil(min(waits, default=0)) or RETRY_AFTER
        message = f"{decision.expert} and its fallbacks are down or full; retry in {seconds} s."
        return UpstreamGatewayError(503, message, code="no_expert_available", headers={"retry-after": str(seconds)})


@asynccontextmanager
async def _waiting(exchange: Exchange, seconds: float) -> AsyncIterator[None]:
    """Wait for the upstream, so long and no longer. Raises UpstreamError."""
    try:
        with exchange.waiting():
            async with asyncio.timeout(seconds):
                yield
    except TimeoutError:
        raise UpstreamError(Outcome.TIMEOUT, "it did not answer in time") from None


def _failed(error: UpstreamError, expert_id: str) -> Failed:
    status = 504 if error.outcome is Outcome.TIMEOUT else 502
    return Failed(error.outcome, status, f"The expert {expert_id} failed: {error}.", reset=error.reset)


def _passed_or_failed(reply: Reply, content: bytes, headers: dict[str, str]) -> Answer:
    """An answer that is no success: passed on where it is about the request. Raises Failed where another may do better."""
    status = reply.status
    if status in (401, 403, 404) or status < 400:
        raise Failed(
            Outcome.REJECTED, 502, "The expert refused the gateway's own request; its operator has to look into it."
        )
    if status in (408, 429):
        raise Failed(
            Outcome.REJECTED, status, "The expert is busy.", {"retry-after": RETRY_AFTER, **_without_type(headers)}
        )
    if status >= 500:
        final = status if status in (503, 504) else 502
        retry = {"retry-after": RETRY_AFTER} if final == 503 else {}
        raise Failed(
            Outcome.SERVER_ERROR, final, f"The expert answered with status {status}.", retry | _without_type(headers)
        )
    answer = Answer(status, headers, content)
    message = _error_message(content)
    if message is None:
        text = content.decode("utf-8", "replace").strip()[:500] or f"The expert answered with status {status}."
        answer.body = error_body(text, "invalid_request_error", None, None)
        answer.headers["content-type"] = "application/json"
    if status == 400 and any(words in content.decode("utf-8", "replace").lower() for words in TOO_LONG):
        raise Failed(Outcome.CLIENT_ERROR, status, "The prompt is too long.", passed=answer)
    return answer


def _without_type(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "content-type"}


class _Error(msgspec.Struct):
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


def _error_message(content: bytes) -> str | None:
    """The message of an error in OpenAI's shape, None where it is in another."""
    try:
        return msgspec.json.decode(content, type=_ErrorBody).error.message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
