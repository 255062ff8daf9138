"""The adapter for vLLM and every other server that speaks OpenAI's HTTP: bytes through. Alone imports the HTTP client."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping

import aiohttp

from gateway.exchange import Outcome
from gateway.upstreams.base import Address, UpstreamError
from router.experts import Timeouts

# vLLM closes a connection that was idle for 5 s; ours go earlier, so that a request rarely meets one that is closing.
KEEP_ALIVE_SECONDS = 3.0
PROBE_SECONDS = 2.0
READ_BYTES = 65536
LARGE_BODY_BYTES = 512 * 1024
MAX_ANSWER_BYTES = 256 * 1024 * 1024  # of an answer in one piece: thousands of long embeddings are less
FETCHED_BYTES = 4 * 1024 * 1024


class OpenAIUpstream:
    """One pooled client for every replica."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession
        self._fresh: aiohttp.ClientSession
        self._sessions: tuple[aiohttp.ClientSession, ...] = ()  # none before it was started

    async def start(self) -> None:
        """Open the pool, in the event loop that will use it."""
        # Limits on traffic belong to the experts (max_in_flight), not to a pool where one slow replica would starve another.
        self._session = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=30))
        self._fresh = _session(aiohttp.TCPConnector(limit=0, force_close=True, ttl_dns_cache=30))
        self._sessions = (self._session, self._fresh)

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> OpenAIReply:
        url = address.url
        if url is None:
            raise UpstreamError(Outcome.CONNECT_ERROR, "the worker is not up")
        sent = {
            "content-type": "application/json",
            "user-agent": "moe-gateway",
            "accept-encoding": "identity",
            **headers,
        }
        if address.api_key:
            sent["authorization"] = f"Bearer {address.api_key}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect)
        payload = body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body)  # aiohttp warns of large ones in one piece
        try:
            session = self._fresh if fresh else self._session
            response = await session.post(
                placed(url, path), data=payload, headers=sent, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            raise mapped(error) from None
        except ValueError:  # what HTTP cannot carry; its message may quote a header
            raise UpstreamError(Outcome.REJECTED, "the request to it cannot be written as HTTP") from None
        return OpenAIReply(response)

    async def healthy(self, address: Address) -> bool:
        """Whether the server answers GET /health, beside its /v1, with anything but a fault of its own."""
        if address.url is None:
            return False
        timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
        try:
            url = f"{address.url.removesuffix('/v1')}/health"
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
                return response.status < 500
        except (aiohttp.ClientError, OSError, ValueError):
            return False

    async def get(self, address: Address, path: str, seconds: float = PROBE_SECONDS) -> tuple[int, bytes]:
        """Status and body of GET `path` beside /v1. Raises UpstreamError, also where it has more than FETCHED_BYTES."""
        if address.url is None:
            raise UpstreamError(Outcome.CONNECT_ERROR, "the worker is not up")
        timeout = aiohttp.ClientTimeout(total=seconds)
        headers = {"authorization": f"Bearer {address.api_key}"} if address.api_key else {}
        try:
            url = f"{address.url.removesuffix('/v1')}{path}"
            async with self._session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > FETCHED_BYTES:
                        raise UpstreamError(Outcome.SERVER_ERROR, "its answer has no end")
                return response.status, bytes(body)
        except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError) as error:
            raise mapped(error) from None
        except ValueError:  # what HTTP cannot carry
            raise UpstreamError(Outcome.REJECTED, "the request to it cannot be written as HTTP") from None

    async def fetch(self, address: Address, path: str) -> bytes | None:
        """What GET `path` beside /v1 answers with 200, at most FETCHED_BYTES of it; else None."""
        try:
            status, body = await self.get(address, path)
        except UpstreamError:
            return None
        return body if status == 200 else None

    async def close(self) -> None:
        for session in self._sessions:
            await session.close()


def placed(url: str, path: str) -> str:
    """The whole address; a path that begins with /.. is beside the server's /v1."""
    return f"{url.removesuffix('/v1')}{path[3:]}" if path.startswith("/..") else f"{url}{path}"


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BYTES,
        trust_env=False,
    )


class OpenAIReply:
    """A Reply over aiohttp."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError) as error:
            raise mapped(error, reading=True) from None

    async def read(self) -> bytes:
        body = bytearray()
        try:
            async for chunk in self._response.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise UpstreamError(Outcome.SERVER_ERROR, "its answer has no end")
        except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError) as error:
            self._response.close()
            raise mapped(error, reading=True) from None
        return bytes(body)

    def close(self) -> None:
        self._response.close()


def mapped(error: Exception, reading: bool = False) -> UpstreamError:
    """The one place where the client's errors become ours. aiohttp's messages hold addresses, so none is passed on."""
    if isinstance(error, (aiohttp.ServerTimeoutError, TimeoutError)):
        return UpstreamError(Outcome.TIMEOUT, "it did not answer in time")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamError(Outcome.CONNECT_ERROR, "it could not be reached")
    if isinstance(
        error.__cause__, aiohttp.http_exceptions.ContentEncodingError
    ):  # says that it is compressed, and is not
        return UpstreamError(Outcome.SERVER_ERROR, "its answer cannot be read")
    if reading:
        return UpstreamError(Outcome.TRUNCATED, "its answer broke off")
    if isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError)):
        return UpstreamError(Outcome.CONNECT_ERROR, "it closed the connection", reset=True)
    if isinstance(error, aiohttp.ClientOSError):
        return UpstreamError(Outcome.CONNECT_ERROR, "the connection failed", reset=True)
    return UpstreamError(Outcome.SERVER_ERROR, "its answer is not HTTP that can be read")
