"""Discovery: what each server has, asked of the server itself: endpoints where experts.yaml does not say, models and adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from gateway.replica import Replica
from gateway.served import Served
from gateway.serves import Serves
from gateway.upstreams.base import Address, Upstream
from router.experts import Expert

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


class _Document(msgspec.Struct):
    paths: dict[str, msgspec.Raw]


MAX_TRIES = 5  # a server may take longer over its first document than we wait for it


class Discovery:
    """Asks a server of each expert that declares no endpoints, when it is up, until it answers, and tells `serves`; what
    models they have is for `served` to ask.

    vLLM's /openapi.json lists its paths, as do others' that are built on FastAPI. Of a server without one the operator has
    to declare what it serves beside chat and completions: to try its paths would fill its log with faults of ours.
    """

    def __init__(self, upstream: Upstream, serves: Serves, served: Served) -> None:
        self._upstream, self._serves, self._served = upstream, serves, served
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._tries: dict[str, int] = {}
        self._asked: dict[str, tuple[Replica, int]] = {}  # which replica was asked, and in which of its lives

    def refresh(self, experts: Mapping[str, Expert], replicas: Mapping[str, Sequence[Replica]]) -> None:
        """Ask those that are up and were not asked yet, or are other servers than those that were."""
        self._served.refresh()
        for name, expert in experts.items():
            up = next((r for r in replicas[name] if r.up), None)
            before = self._asked.get(name)
            if before is not None and before[0].up and before[0].life != before[1]:
                self._tries[name] = 0
            wanted = expert.endpoints is None and expert.upstream.speaks_vllm and self._tries.get(name, 0) < MAX_TRIES
            if wanted and up is not None and name not in self._asking:
                self._tries[name] = self._tries.get(name, 0) + 1
                self._asked[name] = up, up.life
                self._asking[name] = asyncio.create_task(self._ask(name, up.address))

    async def settled(self) -> None:
        """Wait for the answers that are under way."""
        await asyncio.gather(self._served.settled(), *self._asking.values())

    def close(self) -> None:
        self._served.close()
        for task in self._asking.values():
            task.cancel()

    async def _ask(self, expert: str, address: Address) -> None:
        document = await self._upstream.fetch(address, "/openapi.json")
        del self._asking[expert]
        if document is None:
            return  # to be asked again
        self._tries[expert] = MAX_TRIES
        paths = read_paths(document) or ()
        if found := frozenset(name for name, path in PATHS.items() if path in paths):
            self._serves.found(expert, found)


def read_paths(document: bytes) -> frozenset[str] | None:
    """The paths of an OpenAPI document, None where it is none that can be read."""
    try:
        return frozenset(msgspec.json.decode(document, type=_Document).paths)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
