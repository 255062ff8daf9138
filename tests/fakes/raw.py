"""A model server that speaks bytes: it sends what no library for HTTP would let a fake send, and breaks off where it is told to."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.fakes.upstream import PATIENCE

Then = Literal["keep", "close", "cut", "hang"]
END = b"0\r\n\r\n"  # of a chunked body
TLS_HELLO = b"\x16"


@dataclass
class Call:
    """One request, read to its end. `number` counts those of its connection, from 1; it is answered through `send`."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    number: int
    _reader: asyncio.StreamReader = field(repr=False)
    _writer: asyncio.StreamWriter = field(repr=False)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the other side leaves."""
        while await self._reader.read(65536):
            pass

    def cut(self) -> None:
        """Reset the connection: what was written last may be lost."""
        self._writer.transport.abort()


RawBehaviour = Callable[[Call], Awaitable[Then]]


@dataclass
class RawServer:
    """`behaviour` answers the next requests; `calls` are those that came, `held` how many now hang.

    `probes` are the paths that were asked with GET, `open` is how many connections stand.
    """

    port: int
    behaviour: RawBehaviour
    calls: list[Call] = field(default_factory=list)
    probes: list[str] = field(default_factory=list)
    held: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def until(self, state: Callable[[RawServer], bool], seconds: float = PATIENCE) -> bool:
        """Whether it comes to that within `seconds`."""
        end = time.monotonic() + seconds
        while not state(self) and time.monotonic() < end:
            time.sleep(0.005)
        return state(self)


Wait = Callable[[], Awaitable[None]]


def sends(*pieces: bytes | float | Wait, then: Then = "close") -> RawBehaviour:
    """Sends the pieces, a number being a pause in seconds, and then keeps, closes, cuts or holds the connection open."""

    async def behave(call: Call) -> Then:
        for piece in pieces:
            if isinstance(piece, bytes):
                await call.send(piece)
            elif isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                await piece()
        return then

    return behave


def whole(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """An answer in one piece, JSON unless `headers` say otherwise. Its server header is nobody's business."""
    given = {"content-type": "application/json", "server": "secret-host-7", "content-length": str(len(body))}
    return _head(status, given | dict(headers or {})) + body


def stream_head(headers: Mapping[str, str] | None = None) -> bytes:
    """What begins a stream; pieces and END follow."""
    given = {"content-type": "text/event-stream", "server": "secret-host-7", "transfer-encoding": "chunked"}
    return _head(200, given | dict(headers or {}))


def piece(data: bytes) -> bytes:
    """A chunk of a chunked body; nothing for no data, since an empty chunk would end it."""
    return b"" if not data else b"%x\r\n%b\r\n" % (len(data), data)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def raw_server(behaviour: RawBehaviour, tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """A RawServer in a thread of its own, behind TLS where there is a context for it."""
    loop = asyncio.new_event_loop()
    server = RawServer(0, behaviour)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await _converse(server, reader, writer)
        finally:
            server.open -= 1
            writer.close()

    listener = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls))
    server.port = listener.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_end(listener), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


async def _converse(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    number = 0
    then: Then = "keep"
    while then == "keep":
        method, path, headers, body = await _request(reader)
        number += 1
        if method == "GET":
            server.probes.append(path)
            writer.write(whole(b"") if path == "/health" else whole(b"{}", 404))
            continue
        call = Call(path, headers, body, number, reader, writer)
        server.calls.append(call)
        then = await server.behaviour(call)
    if then == "hang":
        server.held += 1
        try:
            await call.gone()
        finally:
            server.held -= 1
    if then == "cut":
        call.cut()


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, Mapping[str, str], Mapping[str, Any]]:
    """Method, path, headers and JSON body. Raises IncompleteReadError at the end of the connection, and for what is no HTTP."""
    first = await reader.readexactly(1)
    if first == TLS_HELLO:
        raise asyncio.IncompleteReadError(first, None)
    first_line, *lines = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = first_line.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return method, path, headers, json.loads(body or b"{}")


async def _end(listener: asyncio.Server) -> None:
    listener.close()
    mine = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not mine]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
