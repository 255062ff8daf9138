"""acme_upstream: experts on servers that know POST /generate alone.

{"prompt", "limit"} goes up; {"text", "read", "written"} comes down, the last two in tokens.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from gateway.exchange import Outcome
from gateway.upstreams.base import Address, UpstreamError
from router.experts import Timeouts


class GenerateUpstream:
    """All experts whose upstream is `custom: acme-generate`."""

    async def start(self) -> None:
        self._session = aiohttp.ClientSession()

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> Said:
        request = json.loads(body)
        prompt = "\n".join(map(text_of, request["messages"]))
        asked = {"prompt": prompt, "limit": request.get("max_tokens", 256)}
        try:
            async with self._session.post(
                f"{address.url}/generate",
                json=asked,
                headers={"authorization": f"Bearer {address.api_key}"} if address.api_key else {},
                timeout=aiohttp.ClientTimeout(total=timeouts.total, sock_connect=timeouts.connect),
            ) as response:
                if response.status != 200:
                    return Said(response.status, "application/json", b'{"error": {"message": "it refused"}}')
                said = await response.json()
        except TimeoutError:
            raise UpstreamError(Outcome.TIMEOUT, "it did not answer in time") from None
        except aiohttp.ClientError:
            raise UpstreamError(Outcome.CONNECT_ERROR, "it could not be reached") from None
        return streamed(request["model"], said) if request.get("stream") else whole(request["model"], said)

    async def healthy(self, address: Address) -> bool:
        async with self._session.get(f"{address.url}/health") as response:
            return response.status == 200

    async def close(self) -> None:
        await self._session.close()


class Said:
    """An answer that is there already. `pieces` are the events of one that is streamed."""

    def __init__(self, status: int, kind: str, *pieces: bytes) -> None:
        self.status, self.headers, self._pieces = status, {"content-type": kind}, pieces

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def read(self) -> bytes:
        return b"".join(self._pieces)

    def close(self) -> None:
        """Nothing is open any more."""


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, whose content may be a list of parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def whole(model: str, said: Mapping[str, Any]) -> Said:
    """OpenAI's chat completion."""
    message = {"role": "assistant", "content": said["text"]}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "acme", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage(said)}
    return Said(200, "application/json", json.dumps(body).encode())


def streamed(model: str, said: Mapping[str, Any]) -> Said:
    """The same as a stream: what is said in one event, how it ended, the usage, and [DONE]."""
    about = {"id": "acme", "object": "chat.completion.chunk", "model": model}
    delta = {"role": "assistant", "content": said["text"]}
    events = [
        {**about, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**about, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**about, "choices": [], "usage": usage(said)},
    ]
    pieces = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return Said(200, "text/event-stream", *pieces, b"data: [DONE]\n\n")


def usage(said: Mapping[str, Any]) -> dict[str, int]:
    read, written = int(said["read"]), int(said["written"])
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
