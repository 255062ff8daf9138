"""vLLM servers that only pretend, but count as a real one does: what their /metrics says is what they were asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tests.fakes.upstream import PATIENCE, chunk

TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
LENGTH = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
CACHE_TOKENS = 4000  # that fit into its cache: little, so that a few requests show
ENDLESS = 1_000_000  # tokens
REASONING = 2  # tokens of an answer that are thought, where it is asked to think


@dataclass(frozen=True)
class Pace:
    """Seconds until the first token, and from each to the next; `tokens` in an answer."""

    first: float = 0.02
    each: float = 0.002
    tokens: int = 8


@dataclass
class Worker:
    """`pace` is that of the next requests. A request may order it to fail: see `_answer`."""

    model: str
    pace: Pace = Pace()
    port: int = 0
    healthy: bool = True
    broken: bool = False  # every request fails
    held: int = 0  # tokens of the requests that run
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        labels, values = ("model_name", "engine"), (self.model, "0")

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"vllm:{name}", text, labels, registry=self.registry).labels(*values)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"vllm:{name}", text, labels, registry=self.registry).labels(*values)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"vllm:{name}", text, labels, buckets=buckets, registry=self.registry).labels(*values)

        self.running = gauge("num_requests_running", "Number of requests in model execution batches.")
        self.waiting = gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self.cache = gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        self.prompt = counter("prompt_tokens", "Number of prefill tokens processed.")
        self.generated = counter("generation_tokens", "Number of generation tokens processed.")
        self.preemptions = counter("num_preemptions", "Cumulative number of preemption from the engine.")
        self.queries = counter("prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.")
        self.hits = counter("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.")
        self.first_token = histogram("time_to_first_token_seconds", "Histogram of time to first token.", TTFT)
        self.between = histogram("inter_token_latency_seconds", "Histogram of inter-token latency.", TTFT)
        self.whole = histogram("e2e_request_latency_seconds", "Histogram of e2e request latency.", TTFT)
        self.queueing = histogram("request_queue_time_seconds", "Histogram of time spent in WAITING phase.", TTFT)
        self.lengths = histogram("request_generation_tokens", "Number of generation tokens processed.", LENGTH)
        ended = Counter(
            "vllm:request_success", "Requests by why they ended.", (*labels, "finished_reason"), registry=self.registry
        )
        self.ended = {reason: ended.labels(*values, reason) for reason in ("stop", "length", "abort")}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def target(self) -> str:
        """As Prometheus names it."""
        return f"127.0.0.1:{self.port}"

    def counted(self, name: str) -> float:
        """The value of a series of /metrics, by the name that a query uses."""
        labels = {"model_name": self.model, "engine": "0"}
        value = self.registry.get_sample_value(name, labels)
        assert value is not None, name
        return value


def usage(prompt: str, tokens: int, think: bool = False) -> dict[str, Any]:
    """What a worker says of an answer: a token a word of the prompt and nine of a template, of which eight are in its cache."""
    told: dict[str, Any] = {
        "prompt_tokens": len(prompt.split()) + 9,
        "completion_tokens": tokens,
        "total_tokens": len(prompt.split()) + 9 + tokens,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    return told | ({"completion_tokens_details": {"reasoning_tokens": REASONING}} if think else {})


@contextmanager
def workers(*all_of_them: Worker) -> Iterator[None]:
    """They answer, in a thread of their own, each at a port that the system chose."""
    loop = asyncio.new_event_loop()

    async def begin() -> list[web.AppRunner]:
        return [await _serve(worker) for worker in all_of_them]

    runners = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def end() -> None:
        await asyncio.gather(*(runner.cleanup() for runner in runners))

    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


async def _serve(worker: Worker) -> web.AppRunner:
    async def chat(request: web.Request) -> web.StreamResponse:
        return await _chat(worker, request)

    async def embed(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        data = [{"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}]
        told = {"prompt_tokens": len(str(body["input"]).split()), "total_tokens": len(str(body["input"]).split())}
        worker.prompt.inc(told["prompt_tokens"])
        return web.json_response({"object": "list", "model": worker.model, "data": data, "usage": told})

    async def tokenize(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return web.json_response({"count": len(str(body["messages"]).split()), "max_model_len": 4096, "tokens": []})

    async def health(request: web.Request) -> web.StreamResponse:
        return web.Response(status=200 if worker.healthy else 503)

    async def models(request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": worker.model, "object": "model"}]})

    async def metrics(request: web.Request) -> web.StreamResponse:
        worker.cache.set(min(1.0, worker.held / CACHE_TOKENS))
        return web.Response(body=generate_latest(worker.registry), content_type="text/plain")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/embeddings", embed)
    app.router.add_post("/tokenize", tokenize)
    for path, handler in (("/health", health), ("/v1/models", models), ("/metrics", metrics)):
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", worker.port)
    await site.start()
    worker.port = runner.addresses[0][1]
    return runner


async def _chat(worker: Worker, request: web.Request) -> web.StreamResponse:
    """Answers; or does as vllm_xargs, which are for extensions of the server, say: `status` refuses with it, `hang` says nothing,
    `cut` breaks off after so many tokens, `hold` is seconds that it takes longer, in the server's queue where it `waits`, `endless`
    says a word after another."""
    body = await request.json()
    orders: Mapping[str, Any] = body.get("vllm_xargs") or {}
    if orders.get("at", worker.model) != worker.model:
        orders = {}
    status = 500 if worker.broken else orders.get("status")
    if status is not None:
        error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": status}
        return web.json_response({"error": error}, status=status)
    loop = asyncio.get_running_loop()
    began = loop.time()
    prompt = " ".join(str(message.get("content")) for message in body["messages"])
    tokens = ENDLESS if orders.get("endless") else min(body.get("max_tokens") or worker.pace.tokens, worker.pace.tokens)
    told = usage(prompt, tokens, think=bool(orders.get("think")))
    held = told["prompt_tokens"] + tokens
    state = worker.waiting if orders.get("waits") else worker.running
    state.inc()
    worker.held += held
    try:
        await asyncio.sleep(60 if orders.get("hang") else worker.pace.first + orders.get("hold", 0.0))
        worker.first_token.observe(loop.time() - began)
        worker.queueing.observe(0.0)
        return await _say(worker, request, body, told, orders.get("cut"))
    finally:
        state.dec()
        worker.held -= held
        worker.whole.observe(loop.time() - began)


async def _say(
    worker: Worker, request: web.Request, body: Mapping[str, Any], told: Mapping[str, Any], cut: int | None
) -> web.StreamResponse:
    tokens = told["completion_tokens"]
    stream = web.StreamResponse(headers={"content-type": "text/event-stream"}) if body.get("stream") else None
    if stream is not None:
        await stream.prepare(request)
    for number in range(tokens):
        if number == cut:
            assert request.transport is not None
            request.transport.abort()
            return stream or web.Response()
        if stream is not None:
            await stream.write(chunk({"content": "word "}))
        worker.generated.inc()
        worker.between.observe(worker.pace.each)
        await asyncio.sleep(worker.pace.each)
    worker.prompt.inc(told["prompt_tokens"])
    worker.queries.inc(told["prompt_tokens"])
    worker.hits.inc(told["prompt_tokens_details"]["cached_tokens"])
    worker.ended["stop"].inc()
    worker.lengths.observe(tokens)
    if stream is None:
        message = {"role": "assistant", "content": "word " * tokens}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": worker.model,
                                  "choices": [choice], "usage": told})  # fmt: skip
    await stream.write(chunk({}, "stop"))
    if (body.get("stream_options") or {}).get("include_usage"):
        event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": worker.model, "choices": [],
                 "usage": told}  # fmt: skip
        await stream.write(b"data: " + json.dumps(event).encode() + b"\n\n")
    await stream.write(b"data: [DONE]\n\n")
    return stream
