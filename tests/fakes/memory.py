"""What lies below and beside a part under test, in memory: experts, a router, replies, an upstream, an event loop."""

from __future__ import annotations

import asyncio
import itertools
import json
import selectors
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.exchange import Outcome
from gateway.upstreams.base import Address, UpstreamError
from router.decision import Decision, Reason, Scores
from router.experts import ExpertsFile, Timeouts
from router.routing import Router
from tests.fakes.encoders import artifact_of, identity, router_with, stage_of

URL = "http://{}.test/v1"


def experts_file(
    experts: Mapping[str, Mapping[str, Any]], replicas: int = 1, aliases: Mapping[str, str] | None = None
) -> ExpertsFile:
    """The experts named, each with replicas at http://<id>-0.test/v1 and so on; their mappings replace what they hold."""
    entries = {
        name: {
            "model": f"model-of-{name}",
            "domains": {"general": 0.5},
            "upstream": {"vllm": [URL.format(f"{name}-{i}") for i in range(replicas)]},
            **changes,
        }
        for name, changes in experts.items()
    }
    return ExpertsFile.model_validate({"version": 1, "experts": entries, "aliases": aliases or {}, "digest": "d1"})


def decision(
    expert: str, *fallbacks: str, reason: Reason = "best", domains: Mapping[str, float] | None = None
) -> Decision:
    """A decision for `expert`; with `domains` empty nothing was classified."""
    by_domain = {"general": 0.9, "code": 0.1} if domains is None else domains
    scores = Scores(by_domain, "transformer") if by_domain else None
    return Decision(expert, reason, fallbacks, scores, candidates=(), artifact="a1", seconds=0.0012)


class WordEncoder:
    """Counts how often each domain's name stands in a text; remembers the threads that asked."""

    def __init__(self, domains: Sequence[str]) -> None:
        self.name, self.dimensions, self.domains = "words", len(domains), domains
        self.threads: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.threads.append(threading.current_thread().name)
        counts = [[float(text.split().count(domain)) for domain in self.domains] for text in texts]
        return np.asarray(counts, dtype=np.float32).reshape(len(texts), self.dimensions)


def router_of(file: ExpertsFile) -> Router:
    """A router that is sure of the domain whose name a text holds, and of none where it holds none."""
    domains = file.domain_names
    stage = stage_of(WordEncoder(domains), identity(len(domains), 9))
    return router_with(file, artifact_of(domains, stage, name="abc"))


class Hang:
    """A step of a reply: nothing comes any more."""


class Later:
    """A step of a reply: other tasks have their turn first."""


@dataclass(frozen=True)
class Pause:
    """A step of a reply: nothing comes for so long."""

    seconds: float


Step = bytes | Exception | Hang | Later | Pause


class FakeReply:
    """A Reply that takes its steps: bytes are sent, exceptions raised. `closed` counts the closings."""

    def __init__(self, *steps: Step, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.steps = status, steps
        self.headers = {"content-type": "text/event-stream"} if headers is None else dict(headers)
        self.closed = self.taken = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        for step in self.steps:
            self.taken += 1
            if isinstance(step, bytes):
                yield step
            elif isinstance(step, Exception):
                raise step
            elif isinstance(step, Hang):
                await asyncio.Event().wait()
            else:
                await asyncio.sleep(step.seconds if isinstance(step, Pause) else 0)

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    def close(self) -> None:
        self.closed += 1


@dataclass
class Call:
    """One request that an upstream was sent."""

    url: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    timeouts: Timeouts
    fresh: bool


Behaviour = Callable[[], Awaitable[FakeReply]]


@dataclass
class FakeUpstream:
    """Answers each replica, by its name, with the next of its behaviours; the last one lasts. It forgets no reply."""

    script: dict[str, list[Behaviour]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    replies: list[FakeReply] = field(default_factory=list)
    probes: list[str | None] = field(default_factory=list)
    well: bool = True
    metrics: bytes | None = None

    async def start(self) -> None:
        pass

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> FakeReply:
        assert address.url is not None
        self.calls.append(Call(address.url, path, json.loads(body), dict(headers), timeouts, fresh))
        behaviours = self.script[address.url.removeprefix("http://").partition(".")[0]]
        reply = await (behaviours.pop(0) if len(behaviours) > 1 else behaviours[0])()
        self.replies.append(reply)
        return reply

    async def healthy(self, address: Address) -> bool:
        self.probes.append(address.url)
        await asyncio.sleep(0)
        return self.well

    async def fetch(self, address: Address, path: str) -> bytes | None:
        return self.metrics

    async def close(self) -> None:
        pass

    @property
    def asked(self) -> list[str]:
        """The names of the replicas, in the order in which they were asked."""
        return [call.url.removeprefix("http://").partition(".")[0] for call in self.calls]


def answers(*steps: Step, status: int = 200, headers: Mapping[str, str] | None = None) -> Behaviour:
    """A whole answer in JSON unless `headers` say otherwise."""

    async def behave() -> FakeReply:
        return FakeReply(*steps, status=status, headers=headers or {"content-type": "application/json"})

    return behave


def streams(*steps: Step) -> Behaviour:
    """A stream of events."""

    async def behave() -> FakeReply:
        return FakeReply(*steps)

    return behave


def fails(outcome: Outcome, reset: bool = False) -> Behaviour:
    """No answer at all."""

    async def behave() -> FakeReply:
        raise UpstreamError(outcome, "it is broken", reset=reset)

    return behave


async def hangs() -> FakeReply:
    """Takes the request and never answers."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


def event(value: Any) -> bytes:
    """`value` as one server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: Any) -> bytes:
    """A chunk of a chat stream with one choice."""
    return event({"id": "c1", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


def split(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The stream cut into pieces at the given places; a place beyond its end counts on from its start."""
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in itertools.pairwise(places)]


USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}
ROLE = delta(role="assistant", content="")
STOP = delta("stop")
USAGE_CHUNK = event({"id": "c1", "choices": [], "usage": USAGE})
ERROR_EVENT = event({"error": {"message": "engine at 10.0.0.5 died", "type": "x", "code": 500}})
DONE = b"data: [DONE]\n\n"


class _SkippingSelector(selectors.DefaultSelector):
    """Never waits: what would have been waited is added to `skipped`."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        self.skipped += 0.0 if ready else max(0.0, timeout)
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop in which an hour passes at once as soon as nobody has anything to do."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return super().time() + self._skipping.skipped
