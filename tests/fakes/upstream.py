"""A model server that does as it is told: real HTTP on loopback, scripted answers, a memory of what it was sent."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Behaviour = Callable[["FakeServer", web.Request, Mapping[str, Any]], Awaitable[web.StreamResponse]]
WORDS = ["Hel", "lo ", "wör", "ld"]
PATIENCE = 30.0  # seconds for what comes at once, on whatever machine
USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 3}}


@dataclass
class FakeServer:
    """`behaviour` answers the next requests; `requests` are those that came, `open` how many are being answered now."""

    port: int
    behaviour: Behaviour
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    open: int = 0
    healthy: bool = True
    hang_health: bool = False
    hanging: int = 0  # probes that hang
    metrics: str | None = None  # what GET /metrics tells; 404 where it is None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def wait_until_idle(self, seconds: float = PATIENCE) -> bool:
        """Whether every answer was ended within `seconds`."""
        until = time.monotonic() + seconds
        while self.open and time.monotonic() < until:
            time.sleep(0.01)
        return self.open == 0

    def wait_until_asked(self, seconds: float = PATIENCE) -> bool:
        until = time.monotonic() + seconds
        while not self.open and time.monotonic() < until:
            time.sleep(0.01)
        return self.open > 0


def chunk(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": [choice]}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def usage_chunk() -> bytes:
    return b"data: " + json.dumps({"id": "chatcmpl-1", "choices": [], "usage": USAGE}).encode() + b"\n\n"


async def well(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
    """Answers as a good server does, streamed or whole."""
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(WORDS)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"id": "chatcmpl-1", "model": "fake", "choices": [choice], "usage": USAGE})
    response = await _begin(request)
    await response.write(chunk({"role": "assistant", "content": ""}))
    for word in WORDS:
        await response.write(chunk({"content": word}))
    await response.write(chunk({}, "stop"))
    if (body.get("stream_options") or {}).get("include_usage"):
        await response.write(usage_chunk())
    await response.write(b"data: [DONE]\n\n")
    return response


def status(code: int, error: Any = None, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Refuses with a status and an error object in OpenAI's shape, or with the given body."""

    async def refuse(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        shaped = {"error": {"message": f"refused with {code}", "type": "x", "param": None, "code": code}}
        return web.json_response(shaped if error is None else error, status=code, headers=headers)

    return refuse


def streams(*events: bytes, then: str = "end", pause: float = 0.0) -> Behaviour:
    """Sends `events`, then ends (`end`), breaks the connection (`cut`) or says nothing more (`hang`)."""

    async def stream(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        response = await _begin(request)
        for event in events:
            await response.write(event)
            await asyncio.sleep(pause)
        if then == "cut":
            assert request.transport is not None
            request.transport.abort()
        if then == "hang":
            await asyncio.sleep(60)
        return response

    return stream


async def endless(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
    """Says a word every few milliseconds for as long as anyone listens."""
    response = await _begin(request)
    while True:
        await response.write(chunk({"content": "on and on "}))
        await asyncio.sleep(0.005)


async def silent(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
    """Takes the request and never answers."""
    await asyncio.sleep(60)
    return web.Response()


async def _begin(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "server": "secret-host-7"})
    await response.prepare(request)
    return response


@contextmanager
def fake_server(behaviour: Behaviour = well) -> Iterator[FakeServer]:
    """A FakeServer in a thread of its own."""
    loop = asyncio.new_event_loop()
    server = FakeServer(0, behaviour)

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        behave = server.behaviour  # what is set once this request is known of is for the next ones
        server.requests.append(body)
        server.headers.append({name.lower(): value for name, value in request.headers.items()})
        server.open += 1
        try:
            return await behave(server, request, body)
        finally:
            server.open -= 1

    async def health(request: web.Request) -> web.StreamResponse:
        if server.hang_health:
            server.hanging += 1
            await asyncio.sleep(60)
        return web.Response(status=200 if server.healthy else 503)

    async def metrics(request: web.Request) -> web.StreamResponse:
        return web.Response(status=404) if server.metrics is None else web.Response(text=server.metrics)

    async def begin() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        app.router.add_get("/health", health)
        app.router.add_get("/metrics", metrics)
        # A handler is to be cancelled when its client leaves, as a real server stops generating.
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.port = runner.addresses[0][1]
        return runner

    runner = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
