"""Inspection: what every upstream of an experts.yaml says when it is asked now, against what the file says of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway.discovery import PATHS, read_paths
from gateway.listing import Listing, base_of, differences, lacks, names, read_listing, shown
from gateway.lora import ROUTES_OFF
from gateway.pool import Pool
from gateway.probe import Probe
from gateway.replica import Replica, by_server
from gateway.upstreams.adapters import custom_for
from gateway.upstreams.base import Address, UpstreamError
from gateway.upstreams.custom import CustomUpstream
from gateway.upstreams.litellm.upstream import LiteLLMUpstream
from gateway.upstreams.openai import OpenAIUpstream
from gateway.workers import embedded
from gateway.workers.link import Link, LinkedAddress, launches
from gateway.workers.protocol import WorkerState
from router.experts import Expert, ExpertsFile

LOAD_PATH = "/v1/load_lora_adapter"


class Inspected(msgspec.Struct):
    """A replica. `milliseconds` is how long its server took to say that it is well, None where it was not asked or said
    nothing; `context` is the server's own window in tokens. `problems` are mismatches, `notes` the rest that is worth telling."""

    expert: str
    replica: str
    model: str
    served: bool | None = None
    milliseconds: float | None = None
    context: int | None = None
    context_in_file: int | None = None
    problems: list[str] = []
    notes: list[str] = []


async def inspect(file: ExpertsFile, state: Path, seconds: float = 5.0, ask: bool = False) -> list[Inspected]:
    """Ask every server at once, each question `seconds` long. Nothing is generated unless `ask` is set: then each replica is
    asked for one token. `state` is where the owner of launched workers is found."""
    async with AsyncExitStack() as stack:
        link = Link(state)
        if launches(file):
            stack.push_async_callback(link.close)
            addresses = link.addresses(file)
            await link.start()
        else:
            addresses = {}
        pool = Pool(file, {"smollm2": LinkedAddress("smollm2"), **addresses})
        openai, litellm = OpenAIUpstream(), LiteLLMUpstream()
        await openai.start()
        stack.push_async_callback(openai.close)
        if any(spec.upstream.litellm for spec in file.experts.values()):
            await litellm.start()
            stack.push_async_callback(litellm.close)
        custom = custom_for(file)
        for upstream in custom.values():
            await upstream.start()
            stack.push_async_callback(upstream.close)
        inspection = _Inspection(file, pool, openai, litellm, custom, seconds, ask)
        found = await asyncio.gather(*(inspection.server(group) for group in by_server(pool.all())))
    by_name = {inspected.replica: inspected for group in found for inspected in group}
    return [by_name[replica.name] for replica in pool.all()]


@dataclass
class _Said:
    """What a server said: its list of models, and the paths that it has, where it said so."""

    listing: Listing | None = None
    paths: frozenset[str] | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    milliseconds: float | None = None


class _Inspection:
    def __init__(
        self,
        file: ExpertsFile,
        pool: Pool,
        openai: OpenAIUpstream,
        litellm: LiteLLMUpstream,
        custom: Mapping[str, CustomUpstream],
        seconds: float,
        ask: bool,
    ) -> None:
        self._file, self._openai, self._litellm, self._custom = file, openai, litellm, custom
        self._seconds, self._ask = seconds, ask
        self._experts = {replica: name for name, replicas in pool.replicas.items() for replica in replicas}

    async def server(self, group: Sequence[Replica]) -> list[Inspected]:
        """All experts at one address."""
        spec = self._file.experts[self._experts[group[0]]]
        if spec.upstream.litellm is not None:
            return [await self._provider(replica) for replica in group]
        if spec.upstream.custom is not None:
            return [await self._packaged(replica, self._custom[spec.upstream.custom]) for replica in group]
        if spec.upstream.embedded is not None:
            return [self._stand_in(replica) for replica in group]
        said = await self._said(group[0].address)
        return list(await asyncio.gather(*(self._replica(replica, said) for replica in group)))

    def _new(self, replica: Replica) -> Inspected:
        expert = self._experts[replica]
        window = self._file.experts[expert].context_window
        return Inspected(expert, replica.name, replica.model, context_in_file=window)

    async def _said(self, address: Address) -> _Said:
        said = _Said()
        if isinstance(address, LinkedAddress) and address.url is None:
            _say_state(address, said)
            return said
        began = time.perf_counter()
        try:
            status, _ = await self._openai.get(address, "/health", self._seconds)
        except UpstreamError as error:
            said.problems.append(str(error))
            return said
        said.milliseconds = round((time.perf_counter() - began) * 1000, 1)
        if status >= 500:
            said.problems.append(f"its health is status {status}")
        models, document = await asyncio.gather(
            self._got(address, "/v1/models"), self._got(address, "/openapi.json")
        )  # fmt: skip
        if models[0] in (401, 403):
            said.problems.append("it refuses the api_key" if address.api_key else "it asks for a key: set api_key")
        said.listing = read_listing(models[1]) if models[0] == 200 else None
        if said.listing is None and models[0] not in (401, 403):
            said.notes.append("it has no list of models: whether it serves this one cannot be told")
        said.paths = read_paths(document[1]) if document[0] == 200 else None
        return said

    async def _got(self, address: Address, path: str) -> tuple[int, bytes]:
        try:
            return await self._openai.get(address, path, self._seconds)
        except UpstreamError:
            return 0, b""

    async def _replica(self, replica: Replica, said: _Said) -> Inspected:
        found, spec = self._new(replica), self._file.experts[self._experts[replica]]
        found.milliseconds, found.problems, found.notes = said.milliseconds, [*said.problems], [*said.notes]
        if said.listing is not None:
            self._compare(found, spec, said.listing, said.paths)
        if spec.endpoints is not None and said.paths is not None:
            absent = sorted(name for name in spec.endpoints if PATHS[name] not in said.paths)
            found.problems += [f"endpoint {name} is declared, and its server has no {PATHS[name]}" for name in absent]
        if found.milliseconds is None or found.served is False:
            return found
        asked = Probe(self._openai, replica.address, spec, self._seconds)
        if said.listing is not None and said.listing.final and found.context is not None:
            found.problems += await asked.without_generating(found.context, said.paths or frozenset())
        if self._ask:
            await asked.generate(found.problems, found.notes)
        return found

    def _compare(self, found: Inspected, spec: Expert, listing: Listing, paths: frozenset[str] | None) -> None:
        lacking, adapter = lacks(spec, listing), spec.upstream.adapter
        found.served, found.context = lacking is None, listing.window(spec.upstream_model)
        if lacking is None:
            found.problems += differences(spec, base_of(self._file, found.expert), listing)
        elif adapter is None or adapter.path is None:
            found.problems.append(f"{lacking}; its server has {names(listing)}")
        elif paths is None or LOAD_PATH in paths:
            found.notes.append(f"the adapter {adapter.name} is not loaded; a gateway that serves this file loads it")
        else:
            found.problems.append(f"{lacking}; {ROUTES_OFF}")

    async def _provider(self, replica: Replica) -> Inspected:
        found, spec = self._new(replica), self._file.experts[self._experts[replica]]
        why = await asyncio.to_thread(_unknown, spec)
        if why is not None:
            found.problems.append(why)
        elif self._ask:
            await Probe(self._litellm, replica.address, spec, self._seconds).generate(found.problems, found.notes)
        else:
            found.notes.append("a provider is not asked, since any answer has its price: --ask does")
        return found

    async def _packaged(self, replica: Replica, upstream: CustomUpstream) -> Inspected:
        found, spec = self._new(replica), self._file.experts[self._experts[replica]]
        began = time.perf_counter()
        if await upstream.healthy(replica.address):
            found.milliseconds = round((time.perf_counter() - began) * 1000, 1)
        else:
            found.problems.append(upstream.failed or f"the upstream {spec.upstream.custom} says that it is not well")
        if self._ask and found.milliseconds is not None:
            await Probe(upstream, replica.address, spec, self._seconds).generate(found.problems, found.notes)
        return found

    def _stand_in(self, replica: Replica) -> Inspected:
        found = self._new(replica)
        lacking = embedded.missing()
        found.served, found.context = not lacking, embedded.CONTEXT_TOKENS
        if lacking:
            found.problems.append(lacking)
        else:
            found.notes.append("a stand-in, which the gateway starts itself")
        return found


def _say_state(address: LinkedAddress, said: _Said) -> None:
    """How a launched worker does that cannot be asked."""
    facts = address.facts
    if facts is None:
        said.problems.append("nobody runs its worker: start moe-gateway workers up, or serve --with-workers")
    elif facts.failing:
        said.problems.append(f"its worker failed: {shown(facts.why, 200)}")
    elif facts.state is WorkerState.ASLEEP:
        said.notes.append("its worker sleeps")
    else:
        said.notes.append(f"its worker is {facts.state}")


def _unknown(spec: Expert) -> str | None:
    """Why litellm cannot ask an expert's provider, as far as it is known without asking."""
    from gateway.upstreams.litellm.arguments import CLOUDS
    from gateway.upstreams.litellm.library import UnknownProviderError, library

    model = str(spec.upstream.litellm)
    try:
        known = library()
        provider = known.provider(model)
    except UnknownProviderError:
        return f"litellm knows no provider {shown(model.partition('/')[0])!r}"
    except Exception as error:  # noqa: BLE001 - whatever its import raises
        return f"litellm cannot be imported: {type(error).__name__}"
    lacks_key = spec.upstream.api_key is None and spec.upstream.base_url is None and provider.name not in CLOUDS
    if lacks_key and known.needs_key(model):
        return "its provider asks for a key: set api_key"
    return None
