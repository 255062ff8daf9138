"""The adapter for every provider that litellm knows: OpenAI's bodies in, OpenAI's answers out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.exchange import Outcome
from gateway.upstreams.base import Address, Reply, UpstreamError
from gateway.upstreams.litellm.answers import event_of, whole_of
from gateway.upstreams.litellm.arguments import KNOWN, arguments_for
from gateway.upstreams.litellm.failures import UNAVAILABLE, UNREADABLE, Refusal, Stage, failure
from gateway.upstreams.litellm.library import Library, UnknownProviderError, library
from router.experts import Timeouts

log = logging.getLogger("moe_gateway")

# What such an expert is asked where experts.yaml says nothing, for a provider does not tell what it serves; embeddings are to be
# declared. Others cannot be asked at all (see library.py).
LITELLM_ENDPOINTS = frozenset({"chat"})


@dataclass(frozen=True)
class ProviderAddress:
    """A model of a provider: `provider/model`, at `base_url` where that is not the provider's own."""

    model: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it is, always somewhere; what to ask for metrics or health is not told by it."""
        return self.base_url or f"litellm:{self.model}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may hold."""
        host = urlsplit(self.base_url).netloc if self.base_url else ""
        return tuple(secret for secret in (self.api_key, self.base_url, host) if secret)


class LiteLLMUpstream:
    """All experts of one experts.yaml that are a provider's. `load` gives the library; it is called once, whatever comes of it."""

    def __init__(self, load: Callable[[], Library] = library) -> None:
        self._load = load
        self._started = False
        self._library: Library | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Import litellm, in a thread. A failure is told once, and its experts stay out until the process starts anew."""
        if self._started:
            return
        self._started = True
        try:
            self._library = await asyncio.to_thread(self._load)
            self._library.join()
        except Exception as error:  # whatever it is, the other experts can answer without it
            log.error("litellm cannot be imported: its experts are left out", exc_info=error)

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> Reply:
        """As every upstream's, but for `headers`, of which a provider gets none. A stream is there when its first event is."""
        if self._library is None or not isinstance(address, ProviderAddress):
            raise UpstreamError(Outcome.CONNECT_ERROR, "litellm could not be imported")
        call = Call(self._library, self._leave)
        try:
            return await call.answer(address, path, msgspec.json.decode(body), timeouts)
        except Exception as error:
            failed = failure(error, call.stage, address.secrets)
            if isinstance(failed, UpstreamError):
                raise failed from None
            if failed.code == UNAVAILABLE:
                log.error("a provider cannot be asked", extra={"model": address.model, "why": failed.message})
            elif failed.message == UNREADABLE:  # a wrong request most often, but it may be a fault of litellm's
                log.warning("a request cannot be translated", exc_info=error, extra={"model": address.model})
            return failed

    def _leave(self, stream: Any) -> None:
        """Close a stream's connection, in the loop's next turn."""
        if self._library is None:
            return
        task = asyncio.ensure_future(self._library.disconnect(stream))
        self._leaving.add(task)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a provider's stream could not be closed", exc_info=error)

    async def healthy(self, address: Address) -> bool:
        """Whether it can be asked at all. A provider has no probe that costs nothing: it is well until requests fail."""
        if self._library is None or not isinstance(address, ProviderAddress):
            return False
        try:
            self._library.provider(address.model)
        except UnknownProviderError:
            return False
        return True

    async def fetch(self, address: Address, path: str) -> bytes | None:
        """Nothing: a provider has neither metrics nor models of ours to tell."""
        return None

    async def close(self) -> None:
        await asyncio.gather(*self._leaving, return_exceptions=True)
        if self._library is not None:
            await self._library.leave()


class Call:
    """One request to a provider. `stage` says how far it came."""

    def __init__(self, library: Library, leave: Callable[[Any], None]) -> None:
        self._library, self._leave = library, leave
        self.stage = Stage.PREPARING

    async def answer(self, address: ProviderAddress, path: str, body: Mapping[str, Any], timeouts: Timeouts) -> Reply:
        """Raises whatever litellm raises."""
        if path not in KNOWN:
            return Refusal(404, f"{path} is not asked of litellm.", UNAVAILABLE)
        provider = self._library.provider(address.model)
        arguments = arguments_for(path, body, provider, address.model, address.base_url, address.api_key)
        arguments["logger_fn"] = self._heard
        answer = await self._library.call(path, arguments, timeouts.connect, timeouts.total)
        if not body.get("stream"):
            return WholeReply(whole_of(answer))
        self.stage = Stage.READING
        try:
            # Some providers are asked only now: a refusal of theirs is still an answer with a status.
            return StreamReply(answer, await anext(answer, None), self._leave)
        except BaseException:
            self._leave(answer)
            raise

    def _heard(self, details: Mapping[str, Any]) -> None:
        """litellm tells this what it is about to send, and what came back."""
        if self.stage is Stage.PREPARING and details.get("log_event_type") == "pre_api_call":
            self.stage = Stage.ASKING


class WholeReply:
    """A Reply in one piece."""

    status = 200

    def __init__(self, body: bytes) -> None:
        self.headers = {"content-type": "application/json"}
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def read(self) -> bytes:
        return self._body

    def close(self) -> None:
        pass


class StreamReply:
    """A Reply in events. `first` was read already; `leave` closes the connection of a stream that is not read to its end."""

    status = 200

    def __init__(self, stream: Any, first: Any, leave: Callable[[Any], None]) -> None:
        self.headers = {"content-type": "text/event-stream"}
        self._stream, self._first, self._leave = stream, first, leave
        self._open = True

    async def chunks(self) -> AsyncIterator[bytes]:
        chunk = self._first
        while chunk is not None:
            if _invented_end(self._stream, chunk):
                raise UpstreamError(Outcome.TRUNCATED, "its answer broke off")
            event, last = event_of(chunk)
            if event:
                yield event
            if last:
                break
            try:
                chunk = await anext(self._stream, None)
            except Exception as error:  # noqa: BLE001 - as in post
                failed = failure(error, Stage.READING, ())
                if isinstance(failed, Refusal):
                    failed = UpstreamError(Outcome.STREAM_ERROR, "it refused to go on")
                raise failed from None
        self._open = False
        yield b"data: [DONE]\n\n"

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    def close(self) -> None:
        if self._open:
            self._open = False
            self._leave(self._stream)


def _invented_end(stream: Any, chunk: Any) -> bool:
    """Whether a finish_reason is litellm's own: it says stop where the provider's stream just ended."""
    if not any(getattr(choice, "finish_reason", None) for choice in chunk.choices):
        return False
    inner = stream if hasattr(stream, "received_finish_reason") else getattr(stream, "completion_stream", None)
    told = (getattr(inner, name, "") for name in ("received_finish_reason", "intermittent_finish_reason"))
    return all(reason is None for reason in told)
