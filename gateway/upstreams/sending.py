"""Sending: a small request of the gateway's own, and what its answer says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.exchange import Outcome
from gateway.upstreams.base import Address, Upstream, UpstreamError
from router.experts import Timeouts

ANSWER_BYTES = 64 * 1024
SHOWN_CHARACTERS = 300


class _Error(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Error | str


async def send(
    upstream: Upstream, address: Address, path: str, body: Mapping[str, Any], seconds: float
) -> tuple[int, bytes]:
    """Status and the beginning of what POST `path` answers within `seconds`. Raises UpstreamError."""
    try:
        async with asyncio.timeout(seconds):
            reply = await upstream.post(address, path, msgspec.json.encode(body), {}, Timeouts())
            try:
                content = bytearray()
                async for chunk in reply.chunks():
                    content += chunk
                    if len(content) > ANSWER_BYTES:
                        break
                return reply.status, bytes(content[:ANSWER_BYTES])
            finally:
                reply.close()
    except TimeoutError:
        raise UpstreamError(Outcome.TIMEOUT, "it did not answer in time") from None


def refusal(content: bytes) -> str | None:
    """The message of an error in OpenAI's shape, or of vLLM's that has but a text; None where it is neither."""
    try:
        error = msgspec.json.decode(content, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return error if isinstance(error, str) else error.message


def plain(text: str, address: Address) -> str:
    """What a server wrote, fit for a log or a terminal: short, printable, and without the key and the address that it has."""
    parts = urlsplit(address.url or "")
    for secret in (address.api_key, parts.netloc, parts.hostname):
        if secret:
            text = text.replace(secret, "…")
    text = "".join(c if c.isprintable() else "\ufffd" for c in text[: SHOWN_CHARACTERS + 1])
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
