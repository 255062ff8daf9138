"""One gateway for every row: its experts stand over a server that does as the row says, over dead ends, and over a good server."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import trustme

from router.artifact import Artifact
from tests.fakes.dialects import DIALECTS
from tests.fakes.owner import FakeOwner
from tests.fakes.raw import END, Call, RawServer, Then, piece, raw_server, sends, stream_head, whole
from tests.fakes.upstream import PATIENCE
from tests.integration.conftest import PATIENT, Running
from tests.integration.failures.endpoints import ENDPOINTS
from tests.integration.failures.plays import HEARD

COUNTED = frozenset(
    {
        "moe_requests_total",
        "moe_requests_in_flight",
        "moe_upstream_attempts_total",
        "moe_fallbacks_total",
        "moe_tokens_total",
        "moe_cost_usd_total",
        "moe_client_disconnects_total",
        "moe_queue_refused_total",
    }
)
PRICE = {"input": 1.0, "cached_input": 0.5, "output": 2.0}
# Each limit short where the others are not, so that a row shows that it is this one that ends the wait.
QUICK_TO_CONNECT = PATIENT.replace("connect: 60s", "connect: 300ms")
BRISK = PATIENT.replace("first_byte: 60s", "first_byte: 400ms")
QUIET = PATIENT.replace("idle: 60s", "idle: 600ms")
BRIEF = PATIENT.replace("total: 100s", "total: 700ms")
BOUNDED = PATIENT.replace("total: 100s", "total: 2s")  # time enough for a word, on a busy machine as well
LONG_SECONDS = 40  # shorter than the limits that are to play no part


class Counts:
    """The series of /metrics that count something, read once."""

    def __init__(self, text: str) -> None:
        self._series: dict[str, list[tuple[dict[str, str], float]]] = {}
        for line in text.splitlines():
            name, _, rest = line.partition("{")
            if name in COUNTED:
                labels, _, value = rest.rpartition("} ")
                self._series.setdefault(name, []).append((dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)))

    def of(self, name: str, **labels: str) -> float:
        if name not in COUNTED:
            raise KeyError(name)
        return sum(value for found, value in self._series.get(name, ()) if labels.items() <= found.items())


@dataclass
class Books:
    """What a request changed in the metrics."""

    before: Counts
    after: Counts

    def change(self, name: str, **labels: str) -> float:
        return round(self.after.of(name, **labels) - self.before.of(name, **labels), 12)


@dataclass
class Stage:
    """`raw` answers for the experts `raw`, `brisk` and so on, `good` for `good`; an expert `X-then` has `good` as its fallback.
    `owner` says where the workers of `sleeper` and `dozer` are."""

    gateway: Running
    raw: RawServer
    good: RawServer
    client: httpx.Client
    artifact: Artifact
    owner: FakeOwner
    endpoint: str = "chat"  # where the clients ask that leave

    def ask(self, model: str, stream: bool, endpoint: str = "chat") -> httpx.Response:
        asked = ENDPOINTS[endpoint]
        request = asked.request(model, stream)
        HEARD.clear()
        return self.client.post(f"{self.gateway.url}{asked.path}", json=request)

    def metrics(self) -> Counts:
        return Counts(self.client.get(f"{self.gateway.url}/metrics").text)

    def books(self, before: Counts, requests: int = 1) -> Books:
        """The books since `before`, once those of so many requests are closed: they are just after the last byte."""
        until = time.monotonic() + PATIENCE
        while True:
            books = Books(before, self.metrics())
            if books.change("moe_requests_total") == requests and books.after.of("moe_requests_in_flight") == 0:
                return books
            assert time.monotonic() < until, "the books of a request were never closed, or its place never given back"
            time.sleep(0.01)

    def failures(self, expert: str) -> int:
        """Failures that stand against the expert's first replica."""
        return self.gateway.state.pool.replicas[expert][0].failures

    def available(self, expert: str) -> bool:
        return self.gateway.state.pool.replicas[expert][0].available

    def leave(self, expert: str, stream: bool) -> socket.socket:
        """Ask at `endpoint` and return the open socket, for the test to leave by."""
        asked = ENDPOINTS[self.endpoint]
        body = json.dumps(asked.request(expert, stream)).encode()
        client = self.connect()
        head = f"POST {asked.path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        return client

    def connect(self) -> socket.socket:
        host, port = self.gateway.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=PATIENCE)

    def forget(self) -> None:
        """Every replica starts afresh, and what the servers were asked is forgotten."""
        for replica in self.gateway.state.pool.all():
            replica.forgive()
            replica.up, replica.busy_until, replica.slow = None, 0.0, False
        self.raw.calls.clear()
        self.good.calls.clear()


def experts_yaml(raw: RawServer, good: RawServer, strange: RawServer, refused: int, deaf: int) -> str:
    """Each way of failing as an expert that stands alone and as one that has `good` behind it."""
    ways = {
        "raw": (raw.url, PATIENT),
        "brisk": (raw.url, BRISK),
        "quiet": (raw.url, QUIET),
        "brief": (raw.url, BRIEF),
        "bounded": (raw.url, BOUNDED),
        "refused": (f"http://127.0.0.1:{refused}/v1", PATIENT),
        "dns": ("http://worker.invalid:80/v1", PATIENT),
        "tls": (raw.url.replace("http:", "https:"), PATIENT),
        "strange": (strange.url.replace("http:", "https:"), PATIENT),
        "deaf": (f"http://127.0.0.1:{deaf}/v1", QUICK_TO_CONNECT),
        "beating": (raw.url, f"{PATIENT}\n    heartbeat: 100ms"),
        "beating-briefly": (
            raw.url,
            PATIENT.replace("first_byte: 60s", "first_byte: 900ms") + "\n    heartbeat: 100ms",
        ),
    }
    text = ["version: 1", "experts:", *expert_lines("good", good.url, PATIENT)]
    for name, (url, timeouts) in ways.items():
        text += expert_lines(name, url, timeouts) + expert_lines(f"{name}-then", url, timeouts, "good")
    for name, queue in (("full", "{length: 0}"), ("queued", "{length: 1, wait: 300ms}")):
        for fallback in ((), ("good",)):
            text += expert_lines("-".join([name, *("then" for _ in fallback)]), raw.url, PATIENT, *fallback)
            text += ["    max_in_flight: 1", f"    queue: {queue}"]
    for name, replicas in (("many-whole", 10), ("many-stream", 10), ("storm-whole", 3), ("storm-stream", 3)):
        text += expert_lines(name, ", ".join(f"{raw.url}/{i}" for i in range(replicas)), PATIENT, "good")
    text += [*expert_lines("hedged", f"{raw.url}, {good.url}", PATIENT), "    affinity: none", "    hedge: 200ms"]
    text += [*expert_lines("pair", f"{raw.url}, {good.url}", PATIENT), "    affinity: none"]
    for name, wait in (("sleeper", "300ms"), ("dozer", "60s")):
        for fallback in ((), ("good",)):
            text += _sleeping("-".join([name, *("then" for _ in fallback)]), wait, *fallback)
    text += _windowed("middle", 2048, raw.url, "small", "large") + _windowed("small", 1024, good.url)
    return "\n".join(text + _windowed("large", 8192, good.url))


def _windowed(name: str, window: int, url: str, *fallbacks: str) -> list[str]:
    return [*expert_lines(name, url, PATIENT, *fallbacks), f"    context_window: {window}"]


def _sleeping(name: str, wait: str, *fallbacks: str) -> list[str]:
    lines = [line for line in expert_lines(name, "", PATIENT, *fallbacks) if "upstream:" not in line]
    launch = "    upstream: {launch: {engine: vllm}}"
    return [*lines, launch, "    sleep_after: 10m", f"    wake_within: {wait}", f"    queue: {{wait: {wait}}}"]


def expert_lines(name: str, urls: str, timeouts: str, *fallbacks: str) -> list[str]:
    return [
        f"  {name}:",
        f"    model: model-{name}",
        "    domains: {code: 0.5, math: 0.5, bio: 0.5, general: 0.5}",
        f"    upstream: {{vllm: [{urls}]}}",
        f"    price: {json.dumps(PRICE)}",
        "    endpoints: [chat, completions, embeddings, responses]",
        f"    timeouts: {timeouts}",
        f"    fallbacks: [{', '.join(fallbacks)}]",
    ]


@contextmanager
def dead_ends() -> Iterator[tuple[int, int]]:
    """Two ports: one refuses every connection, the other lets it wait."""
    with ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))  # bound, so that nobody else gets it, and not listening
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # fill its queue: the kernel drops what comes after
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        yield taken.getsockname()[1], deaf.getsockname()[1]


@contextmanager
def servers() -> Iterator[tuple[RawServer, RawServer, RawServer]]:
    """One that is told what to do, one that answers well, and one that does so behind a certificate that nobody knows."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with raw_server(well) as raw, raw_server(well) as good, raw_server(well, tls) as strange:
        yield raw, good, strange


async def well(call: Call) -> Then:
    """Answers at any endpoint, streamed or whole."""
    dialect = DIALECTS[call.path]
    if call.body.get("stream"):
        return await sends(stream_head(), *map(piece, dialect.events), END, then="keep")(call)
    return await sends(whole(dialect.whole), then="keep")(call)
