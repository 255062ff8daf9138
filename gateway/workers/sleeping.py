"""vLLM's sleep mode, by its endpoints: the process stays, the GPU's memory is given back."""

from __future__ import annotations

import asyncio
import logging

from gateway.upstreams.base import Address, UpstreamError
from gateway.upstreams.openai import OpenAIUpstream
from router.experts import Timeouts

log = logging.getLogger("moe_gateway")

SLEEP_SECONDS = 120.0
WAKE_SECONDS = 600.0  # weights that were dropped are read from the disk again
# Level 2 drops the weights too: there must be room for them before they are read, and for the cache after that.
_WAKE = {
    1: (("/../wake_up", b""),),
    2: (
        ("/../wake_up?tags=weights", b""),
        ("/../collective_rpc", b'{"method": "reload_weights"}'),
        ("/../wake_up?tags=kv_cache", b""),
    ),
}


async def put_to_sleep(upstream: OpenAIUpstream, address: Address, level: int) -> bool:
    """Whether it sleeps now."""
    return await _posted(upstream, address, f"/../sleep?level={level}", b"", SLEEP_SECONDS)


async def woken(upstream: OpenAIUpstream, address: Address, level: int) -> bool:
    """Whether one that slept at that level is awake now."""
    for path, body in _WAKE[level]:
        if not await _posted(upstream, address, path, body, WAKE_SECONDS):
            return False
    return await upstream.healthy(address)


async def _posted(upstream: OpenAIUpstream, address: Address, path: str, body: bytes, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            reply = await upstream.post(address, path, body, {}, Timeouts(), fresh=True)
            try:
                await reply.read()
            finally:
                reply.close()
    except (UpstreamError, TimeoutError) as error:
        log.error("a worker did not do as it was told", extra={"path": path[3:], "why": str(error) or "time-out"})
        return False
    if reply.status != 200:
        log.error("a worker did not do as it was told", extra={"path": path[3:], "status": reply.status})
    return reply.status == 200
