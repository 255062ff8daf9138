"""How long a request waits for its decision: its body read, its conversation surveyed, and the router asked on an event loop,
with the queue before the encoder and the hop to its thread, as in serving."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence

from gateway.deciding import Decider
from gateway.requests.chat import Chat
from router.measuring.timing import is_typical, one_core, percentiles
from router.routing import Router

Progress = Callable[[str, int, int], None]


def request_latency(router: Router, texts: Sequence[str], progress: Progress) -> dict[str, dict[str, float]]:
    """`request` and `typical_request`, as timing.latency has `all` and `typical`: one request at a time, on one core.

    `router` remembers none of the texts, and every text can be decided."""
    with one_core():
        seconds = asyncio.run(_timed(router, [_body(text) for text in texts], progress))
    typical = [s for s, text in zip(seconds, texts, strict=True) if is_typical(text)]
    found = {"request": percentiles(seconds), "typical_request": percentiles(typical)}
    return {name: figures for name, figures in found.items() if figures}


async def _timed(router: Router, bodies: Sequence[bytes], progress: Progress) -> list[float]:
    decider = Decider(router)
    seconds: list[float] = []
    try:
        for body in bodies:
            started = time.perf_counter()
            await decider.decide(Chat.parse(body).query())
            seconds.append(time.perf_counter() - started)
            progress("timing requests", len(seconds), len(bodies))
    finally:
        decider.close()
    return seconds


def _body(text: str) -> bytes:
    """Half a character, which no client can send, becomes a question mark."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return json.dumps({"model": "auto", "messages": [{"role": "user", "content": whole}]}, ensure_ascii=False).encode()
