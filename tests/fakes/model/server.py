"""The fake model's HTTP server, and the commands that a prompt may hold for it."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.model import chat, messages, responses, texts
from tests.fakes.upstream import PATIENCE

Whole = Callable[[Mapping[str, Any]], dict[str, Any]]
Stream = Callable[[Mapping[str, Any]], Iterable[bytes]]
# By the word of experts.yaml: each path beside /v1, how it answers whole and how streamed.
ENDPOINTS: Mapping[str, Mapping[str, tuple[Whole, Stream | None]]] = {
    "chat": {"/chat/completions": (chat.whole, chat.stream)},
    "completions": {"/completions": (texts.completion, texts.completion_stream)},
    "embeddings": {"/embeddings": (texts.embeddings, None)},
    "responses": {"/responses": (responses.whole, responses.stream)},
    "messages": {
        "/messages": (messages.whole, messages.stream),
        "/messages/count_tokens": (messages.counted, None),
    },
}
# In a prompt: "fail 429 2 times" refuses it twice, then answers; "please hang" never answers; "please stall" and "please
# break" stop in the middle, the connection kept or cut.
CONTENT = 6  # the number of an event by which every dialect's stream has brought content
FAIL = re.compile(r"fail (\d{3}) (\d+) times")


@dataclass
class FakeModel:
    """`requests` are the bodies that came, in order; `open` is how many are being answered now."""

    port: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def handler(self, whole: Whole, stream: Stream | None) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            self.requests.append(body)
            self.open += 1
            try:
                if (refusal := self._refusal(body)) is not None:
                    return refusal
                prompt = json.dumps(body)
                if "please hang" in prompt:
                    await asyncio.sleep(60)
                if stream is None or not body.get("stream"):
                    return web.json_response(whole(body))
                return await _streamed(request, stream(body), prompt)
            finally:
                self.open -= 1

        return answer

    def _refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        match = FAIL.search(prompt := json.dumps(body))
        if match is None or self.refused[prompt] >= int(match[2]):
            return None
        self.refused[prompt] += 1
        error = {
            "message": f"refused with {match[1]}",
            "type": "BadRequestError",
            "param": "top_p",
            "code": int(match[1]),
        }
        return web.json_response({"error": error}, status=int(match[1]), headers={"retry-after": "1"})

    async def tokenize(self, request: web.Request) -> web.Response:
        count = chat.prompt_tokens(await request.json())
        return web.json_response(
            {"count": count, "max_model_len": 32768, "tokens": list(range(count)), "token_strs": None}
        )

    async def state(self, request: web.Request) -> web.Response:
        """For the tests' own clients, which run in other processes."""
        return web.json_response({"open": self.open, "requests": self.requests})


async def _streamed(request: web.Request, events: Iterable[bytes], prompt: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for number, event in enumerate(events):
        await response.write(event)
        if number == CONTENT and "please stall" in prompt:
            await asyncio.sleep(60)
        if number == CONTENT and "please break" in prompt and request.transport is not None:
            request.transport.abort()
            break
    return response


def _documented(endpoints: Collection[str]) -> Callable[[web.Request], Any]:
    paths: dict[str, Any] = {f"/v1{path}": {} for name in endpoints for path in ENDPOINTS[name]}

    async def document(request: web.Request) -> web.Response:
        return web.json_response({"openapi": "3.1.0", "paths": paths})

    return document


async def _healthy(request: web.Request) -> web.Response:
    return web.Response()


def _application(model: FakeModel, endpoints: Collection[str]) -> web.Application:
    app = web.Application(client_max_size=64 * 1024 * 1024)
    for name in endpoints:
        for path, (whole, stream) in ENDPOINTS[name].items():
            app.router.add_post(f"/v1{path}", model.handler(whole, stream))
    app.router.add_post("/tokenize", model.tokenize)
    app.router.add_get("/health", _healthy)
    app.router.add_get("/openapi.json", _documented(endpoints))
    app.router.add_get("/state", model.state)
    return app


@contextmanager
def fake_model(*endpoints: str) -> Iterator[FakeModel]:
    """A FakeModel with these ENDPOINTS, all of them where none is named, in a thread of its own."""
    loop = asyncio.new_event_loop()
    model = FakeModel()

    async def begin() -> web.AppRunner:
        # A handler is to be cancelled when its client leaves, as a real server stops generating.
        app = _application(model, endpoints or ENDPOINTS)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        model.port = runner.addresses[0][1]
        return runner

    runner = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield model
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
