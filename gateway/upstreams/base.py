"""What an upstream is to the rest of the gateway: somewhere to post a body to, that answers in chunks or fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.exchange import Outcome
from router.experts import Timeouts


class UpstreamError(Exception):
    """A failure below us, before a usable answer. The message is safe to show: it holds no address."""

    def __init__(self, outcome: Outcome, message: str, *, reset: bool = False) -> None:
        super().__init__(message)
        self.outcome, self.reset = outcome, reset


class Address(Protocol):
    """Where a replica is at this moment. `url` is None while a worker that the gateway launched is not up."""

    @property
    def url(self) -> str | None: ...

    @property
    def api_key(self) -> str | None: ...


@dataclass(frozen=True)
class FixedAddress:
    """A replica that somebody else runs."""

    url: str
    api_key: str | None = None

    def __repr__(self) -> str:
        return "FixedAddress(…)"


class Reply(Protocol):
    """An answer whose headers have arrived. Header names are lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, decompressed. Raises UpstreamError."""

    async def read(self) -> bytes:
        """The whole body. Raises UpstreamError."""

    def close(self) -> None:
        """Close the connection at once unless the answer was read to its end. May be called twice."""


class PackagedUpstream(Protocol):
    """What a package's upstream has to be (custom.py). Everything is called in the event loop, which it must not block."""

    async def start(self) -> None: ...

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> Reply:
        """Send, on a `fresh` connection or a kept one, and wait for the answer's headers. Raises UpstreamError.

        A cancelled call leaves no connection behind.
        """

    async def healthy(self, address: Address) -> bool:
        """A cheap probe."""

    async def close(self) -> None: ...


class Upstream(PackagedUpstream, Protocol):
    async def fetch(self, address: Address, path: str) -> bytes | None:
        """What GET `path`, beside the server's /v1, answers; None where it fails in any way or is too much to be looked at."""
