"""Providers as litellm meets them: servers that speak OpenAI's dialect or Anthropic's, and the library itself, loaded once."""

from __future__ import annotations

import asyncio
import json
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from gateway.upstreams.litellm.library import Library, library
from tests.fakes.upstream import PATIENCE, Behaviour, FakeServer, chunk, streams, usage_chunk, well

CLAUDE_USAGE = {"input_tokens": 8, "output_tokens": 4, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 0}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def loaded() -> Library:
    """litellm, imported once for all tests; its own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return library()


@dataclass
class FakeProvider(FakeServer):
    """Answers whatever path it is asked; `paths` are those that were."""

    paths: list[str] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)

    @property
    def root(self) -> str:
        """The address without /v1, as Anthropic's dialect wants it."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def fake_provider(behaviour: Behaviour = well) -> Iterator[FakeProvider]:
    """A FakeProvider in a thread of its own."""
    loop = asyncio.new_event_loop()
    provider = FakeProvider(0, behaviour)

    async def answer(request: web.Request) -> web.StreamResponse:
        body, behave = await request.json(), provider.behaviour
        provider.paths.append(request.path)
        provider.requests.append(body)
        provider.headers.append({name.lower(): value for name, value in request.headers.items()})
        provider.connections.add(request.transport)
        provider.open += 1
        try:
            return await behave(provider, request, body)
        finally:
            provider.open -= 1

    async def begin() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        provider.port = runner.addresses[0][1]
        return runner

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(begin(), loop).result(PATIENCE)
    try:
        yield provider
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


def answers(body: Mapping[str, Any]) -> Behaviour:
    """Answers with a JSON object, whatever is asked."""

    async def answer(server: FakeServer, request: web.Request, sent: Mapping[str, Any]) -> web.StreamResponse:
        return web.json_response(body)

    return answer


def tool_chunks() -> list[bytes]:
    """A stream in OpenAI's dialect that calls a tool."""

    def call(**function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "function": function}]}

    begun: dict[str, Any] = {"role": "assistant", "content": None, **call(name="weather", arguments="")}
    begun["tool_calls"][0] |= {"id": "call_1", "type": "function"}
    parts = [chunk(begun), chunk(call(arguments='{"city":')), chunk(call(arguments=' "Øl"}')), chunk({}, "tool_calls")]
    return [*parts, usage_chunk(), b"data: [DONE]\n\n"]


def _event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def claude_events(*words: str, tool: str | None = None) -> list[bytes]:
    """A stream in Anthropic's dialect: words, or the call of a tool with `tool` as its arguments."""
    block = (
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}} if tool else {"type": "text", "text": ""}
    )
    deltas = (
        [{"type": "input_json_delta", "partial_json": tool}]
        if tool
        else [{"type": "text_delta", "text": word} for word in words]
    )
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude",
        "stop_reason": None,
    }
    return [
        _event("message_start", message={**message, "usage": {**CLAUDE_USAGE, "output_tokens": 1}}),
        _event("content_block_start", index=0, content_block=block),
        *(_event("content_block_delta", index=0, delta=delta) for delta in deltas),
        _event("content_block_stop", index=0),
        _event("message_delta", delta={"stop_reason": "tool_use" if tool else "end_turn"}, usage={"output_tokens": 4}),
        _event("message_stop"),
    ]


async def claude(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
    """Answers as Anthropic's API does, with a call of a tool where tools are offered and none has answered yet."""
    calls = bool(body.get("tools")) and "tool_result" not in json.dumps(body["messages"])
    if body.get("stream"):
        events = claude_events(tool='{"city": "Øl"}') if calls else claude_events("Hel", "lo ", "wör", "ld")
        return await streams(*events)(server, request, body)
    tool = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Øl"}}
    content = [tool] if calls else [{"type": "text", "text": "Hello wörld"}]
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": content,
    }
    return web.json_response({**message, "stop_reason": "tool_use" if calls else "end_turn", "usage": CLAUDE_USAGE})
