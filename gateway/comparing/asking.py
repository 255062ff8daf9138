"""Asks a running gateway, as an application does: over HTTP, streamed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.comparing.answers import Answer, Sampling, key_of
from gateway.comparing.prompts import Prompt
from gateway.events import EventSplitter, EventTooLargeError, payload_of
from gateway.upstreams.base import Address, Reply, Upstream, UpstreamError
from gateway.usage import Usage, read_usage
from router.experts import Expert, Timeouts

BUSY = frozenset({429, 503})
TRIES = 4  # while the gateway says that it is busy
LONGEST_PAUSE_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 1.0
PATH = "/chat/completions"


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Fault(msgspec.Struct):
    message: str = ""


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: _Fault | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_BODY = msgspec.json.Decoder(_Chunk)


class AnswerError(Exception):
    """There is no answer, or not the whole of it. The message says why."""


class Asker:
    """`experts` are those of the gateway's file, for what their answers cost; `seconds` is all the time that one has. `hear` is
    told each piece of an answer as it comes, and whether it is thought and not said."""

    def __init__(
        self,
        upstream: Upstream,
        gateway: Address,
        experts: Mapping[str, Expert],
        sampling: Sampling,
        seconds: float,
        hear: Callable[[str, bool], None] = lambda text, thought: None,
    ) -> None:
        self._upstream, self._gateway, self._experts = upstream, gateway, experts
        self._sampling, self._seconds, self._hear = sampling, seconds, hear

    async def ask(self, prompt: Prompt, target: str) -> Answer:
        """What came, be it an answer or an error: it is in the Answer."""
        answer = Answer(key=key_of(prompt, target, self._sampling), prompt=prompt.id, target=target)
        await self.put(answer, self._body(prompt, target))
        return answer

    async def put(self, answer: Answer, body: bytes) -> None:
        """The same for a streamed chat request that is made already."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._streamed(answer, body)
        except TimeoutError:
            answer.error = f"no whole answer within {self._seconds:g} s"
        except (UpstreamError, AnswerError) as error:
            answer.error = str(error)
        except EventTooLargeError:
            answer.error = "an event of the stream has no end"

    def _body(self, prompt: Prompt, target: str) -> bytes:
        body: dict[str, Any] = {"model": target, "messages": prompt.messages, "stream": True}
        body["stream_options"] = {"include_usage": True}
        sampling = msgspec.structs.asdict(self._sampling)
        return msgspec.json.encode(body | {name: value for name, value in sampling.items() if value is not None})

    async def _streamed(self, answer: Answer, body: bytes) -> None:
        began, reply = await self._reply(body)
        try:
            self._note(answer, reply.headers)
            usage = await self._read(answer, reply, began)
        finally:
            reply.close()
        answer.seconds = time.perf_counter() - began
        if usage is not None:
            answer.input_tokens, answer.output_tokens = usage.input + usage.cached_input, usage.output
            expert = self._experts.get(answer.expert)
            answer.cost_usd = usage.cost(expert.token_price) if expert and expert.token_price else None
            if answer.first_token is not None and usage.output > 1 and answer.seconds > answer.first_token:
                answer.tokens_per_second = (usage.output - 1) / (answer.seconds - answer.first_token)

    async def _reply(self, body: bytes) -> tuple[float, Reply]:
        """When the request that was answered began, and its answer. Raises AnswerError, UpstreamError."""
        pause = FIRST_PAUSE_SECONDS
        for last in (False,) * (TRIES - 1) + (True,):
            began = time.perf_counter()
            headers = {"accept": "text/event-stream"}
            reply = await self._upstream.post(self._gateway, PATH, body, headers, Timeouts(connect=10.0))
            if reply.status == 200:
                return began, reply
            message = _message(await reply.read(), reply.status)
            reply.close()
            if reply.status not in BUSY or last:
                raise AnswerError(message)
            await asyncio.sleep(_pause(reply.headers.get("retry-after"), pause))
            pause *= 2
        raise AssertionError

    def _note(self, answer: Answer, headers: Mapping[str, str]) -> None:
        answer.expert = headers.get("x-moe-expert", answer.expert)
        answer.model = headers.get("x-moe-model", answer.model)
        answer.domain, answer.reason = headers.get("x-moe-domain", ""), headers.get("x-moe-reason", "")

    async def _read(self, answer: Answer, reply: Reply, began: float) -> Usage | None:
        """Take in the stream; returns the usage that it told. Raises AnswerError, UpstreamError, EventTooLargeError."""
        splitter, usage, done = EventSplitter(), None, False
        async for data in reply.chunks():
            for event in splitter.feed(data):
                payload = payload_of(event)
                if payload == b"[DONE]":
                    done = True
                elif payload:
                    usage = read_usage(payload) or usage
                    self._take(answer, payload, began)
        if not done and not answer.finish:
            raise AnswerError("the answer broke off")
        return usage

    def _take(self, answer: Answer, payload: bytes, began: float) -> None:
        try:
            chunk = _CHUNK.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise AnswerError("an event of the stream cannot be read") from None
        if chunk.error is not None:
            raise AnswerError(chunk.error.message or "the expert failed")
        for choice in chunk.choices[:1]:
            delta = choice.delta or _Delta()
            thought = delta.reasoning_content or delta.reasoning or ""
            if (delta.content or thought) and answer.first_token is None:
                answer.first_token = time.perf_counter() - began
            answer.text += delta.content or ""
            answer.reasoning += thought
            for piece, is_thought in ((thought, True), (delta.content, False)):
                if piece:
                    self._hear(piece, is_thought)
            answer.finish = choice.finish_reason or answer.finish


def _message(content: bytes, status: int) -> str:
    try:
        fault = _BODY.decode(content).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fault = None
    return fault.message if fault is not None and fault.message else f"status {status}"


def _pause(retry_after: str | None, otherwise: float) -> float:
    try:
        seconds = float(retry_after) if retry_after is not None else otherwise
    except ValueError:
        seconds = otherwise
    return min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS) if seconds == seconds else otherwise
