"""Upstreams of installed packages: each by the name of its entry point, and held to what an upstream may do.

    [project.entry-points."moe_gateway.upstreams"]
    NAME = "its_package.its_module:ItsUpstream"

What the entry point leads to is called with nothing, in the event loop, and returns a PackagedUpstream (base.py). A whole package
is in docs/extend/upstream.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gateway.exchange import Outcome
from gateway.upstreams.base import Address, PackagedUpstream, Reply, UpstreamError
from router.experts import Timeouts
from router.extensions import Registry
from router.upstream import UPSTREAM_GROUP

log = logging.getLogger("moe_gateway")

START_SECONDS = 30.0  # to connect; a gateway that starts waits for it
PROBE_SECONDS = 5.0
CLOSE_SECONDS = 5.0
CUSTOM_ENDPOINTS = frozenset({"chat"})  # where experts.yaml declares none
FAILED = "the package that asks it failed"

UPSTREAMS: Registry[Callable[[], PackagedUpstream]] = Registry(UPSTREAM_GROUP, {})


@dataclass(frozen=True)
class CustomAddress:
    """A model that the upstream `custom` of a package asks, at `base_url` where it was given one."""

    custom: str
    model: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """`base_url`, or else something that tells it from others."""
        return self.base_url or f"{self.custom}:{self.model}"

    def told(self, message: str) -> str:
        """The message without the key and the address."""
        parts = urlsplit(self.base_url or "")
        for secret in filter(None, (self.api_key, self.base_url, parts.netloc, parts.hostname)):
            message = message.replace(secret, "…")
        return message


class CustomUpstream:
    """The upstream `name`, for all experts that name it. Whatever its code raises is an UpstreamError here."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._upstream: PackagedUpstream | None = None
        self.failed = ""  # why there is none, where it could not be started

    async def start(self) -> None:
        """Import the package in a thread, make its upstream, and connect. A failure is told once, and its experts stay out."""
        try:
            make = await asyncio.to_thread(UPSTREAMS.__getitem__, self._name)
            upstream = make()
            async with asyncio.timeout(START_SECONDS):
                await upstream.start()
        except Exception as error:  # whatever it is, the other experts can answer without it
            self.failed = f"its package cannot be used: {type(error).__name__}"
            log.error("an upstream cannot be used: its experts are left out", exc_info=error, extra={"by": self._name})
        else:
            self._upstream = upstream

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> Reply:
        if self._upstream is None:
            raise UpstreamError(Outcome.CONNECT_ERROR, self.failed or "it was not started")
        try:
            reply = await self._upstream.post(address, path, body, headers, timeouts, fresh)
            return CustomReply(reply, lambda error, outcome: self._mapped(error, address, outcome))
        except Exception as error:  # noqa: BLE001 - a stranger's code: it may raise anything
            raise self._mapped(error, address, Outcome.SERVER_ERROR) from None

    async def healthy(self, address: Address) -> bool:
        """Whether it says so in time."""
        if self._upstream is None:
            return False
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return bool(await self._upstream.healthy(address))
        except Exception as error:  # a probe that fails is an answer
            log.warning("an upstream's probe failed", exc_info=error, extra={"by": self._name})
            return False

    async def fetch(self, address: Address, path: str) -> bytes | None:
        """Nothing: what is fetched are vLLM's metrics and lists."""
        return None

    async def close(self) -> None:
        if self._upstream is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._upstream.close()
        except Exception as error:  # it is gone, whatever it says
            log.warning("an upstream could not be closed", exc_info=error, extra={"by": self._name})

    def _mapped(self, error: Exception, address: Address, outcome: Outcome) -> UpstreamError:
        """What an UpstreamError says, without secrets; anything else is a fault of the package, and only the log has more."""
        if isinstance(error, UpstreamError):
            said = address.told(str(error)) if isinstance(address, CustomAddress) else FAILED
            return UpstreamError(error.outcome, said, reset=error.reset)
        log.error("an upstream failed", exc_info=error, extra={"by": self._name})
        return UpstreamError(outcome, FAILED)


class CustomReply:
    """A Reply of a package's upstream. Raises what `mapped` makes of its errors."""

    def __init__(self, reply: Any, mapped: Callable[[Exception, Outcome], UpstreamError]) -> None:
        self._reply, self._mapped = reply, mapped
        self.status = int(reply.status)
        self.headers = {str(name).lower(): str(value) for name, value in reply.headers.items()}

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._reply.chunks():
                yield bytes(memoryview(chunk))
        except Exception as error:  # noqa: BLE001 - a stranger's code: it may raise anything
            raise self._mapped(error, Outcome.STREAM_ERROR) from None

    async def read(self) -> bytes:
        try:
            return bytes(memoryview(await self._reply.read()))
        except Exception as error:  # noqa: BLE001 - a stranger's code: it may raise anything
            raise self._mapped(error, Outcome.TRUNCATED) from None

    def close(self) -> None:
        try:
            self._reply.close()
        except Exception as error:  # noqa: BLE001 - a stranger's code: it may raise anything
            self._mapped(error, Outcome.STREAM_ERROR)
