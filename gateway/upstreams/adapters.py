"""Adapters: every upstream that experts.yaml needs, as one; each address is asked by the adapter of its kind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gateway.upstreams.base import Address, Reply, Upstream
from gateway.upstreams.custom import CustomAddress, CustomUpstream
from gateway.upstreams.litellm.upstream import LiteLLMUpstream, ProviderAddress
from gateway.upstreams.openai import OpenAIUpstream
from router.experts import ExpertsFile, Timeouts


class Adapters:
    """An Upstream. `litellm` is None where no expert needs it: importing it takes seconds. `custom` has those of packages."""

    def __init__(
        self, openai: Upstream, litellm: Upstream | None = None, custom: Mapping[str, Upstream] | None = None
    ) -> None:
        self._openai, self._litellm, self._custom = openai, litellm, custom or {}
        self._all = [openai, *([litellm] if litellm else ()), *self._custom.values()]

    def _of(self, address: Address) -> Upstream:
        if isinstance(address, CustomAddress):
            return self._custom[address.custom]
        if self._litellm is not None and isinstance(address, ProviderAddress):
            return self._litellm
        return self._openai

    async def start(self) -> None:
        await asyncio.gather(*(upstream.start() for upstream in self._all))

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> Reply:
        return await self._of(address).post(address, path, body, headers, timeouts, fresh)

    async def healthy(self, address: Address) -> bool:
        return await self._of(address).healthy(address)

    async def fetch(self, address: Address, path: str) -> bytes | None:
        return await self._of(address).fetch(address, path)

    async def close(self) -> None:
        await asyncio.gather(*(upstream.close() for upstream in self._all))


def adapters_for(file: ExpertsFile) -> Adapters:
    """The adapters that the experts of `file` need."""
    upstreams = [expert.upstream for expert in file.experts.values()]
    litellm = LiteLLMUpstream() if any(upstream.litellm for upstream in upstreams) else None
    return Adapters(OpenAIUpstream(), litellm, custom_for(file))


def custom_for(file: ExpertsFile) -> dict[str, CustomUpstream]:
    """The upstreams of packages that the experts of `file` name."""
    named = dict.fromkeys(expert.upstream.custom for expert in file.experts.values())
    return {name: CustomUpstream(name) for name in named if name is not None}
