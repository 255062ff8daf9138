"""One client's HTTP connection: uvicorn's, with bounds on what a client may send before its request is one, and our errors.

What uvicorn leaves open and this closes: a request's head has no bound in size nor in time; what is no HTTP is answered as
plain text, even into the middle of an answer; after a request that asks for another protocol the connection is deaf.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.errors import error_body

KIB = 1024
HOPS = (b"upgrade", b"http2-settings")
LINGER_SECONDS = 2.0  # so long a client whose request was refused may take to read why


@dataclass
class Limits:
    """What a client may do. Sizes in bytes, times in seconds. Once `draining` is set every answer closes its connection.
    `refused` hears why a connection is ended that might have gone on."""

    header_bytes: int = 64 * KIB
    header_seconds: float = 10.0
    connections: int = 10_000
    draining: bool = False
    refused: Callable[[str], None] = lambda code: None


class Connection(HttpToolsProtocol):
    """To be made by `Connection.within(limits)`, which uvicorn takes as its HTTP protocol."""

    limits = Limits()

    @classmethod
    def within(cls, limits: Limits) -> type[Connection]:
        """A class of connections that share `limits`."""
        return type("Connection", (cls,), {"limits": limits})

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timer: asyncio.TimerHandle | None = None  # for a head that does not come, or a client that does not go
        self._deaf = False  # nothing that comes is read any more
        self._too_many = False
        self._in_head = False
        self._head_fed = 0  # bytes of the head that came in earlier chunks
        self._chunk = 0  # bytes of the chunk that is being read
        self._chunk_is_mixed = False  # it began with the end of another request
        self._keeps_alive = True
        self._asked: bytes | None = None  # the request line of one that asks for another protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._too_many = len(self.connections) > self.limits.connections
        if len(self.connections) > 2 * self.limits.connections:
            self.limits.refused("too_many_connections")
            transport.abort()
            return
        self._timer = self.loop.call_later(self.limits.header_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._chunk, self._chunk_is_mixed = len(data), False
        self._feed(data)
        if self._in_head and not self._chunk_is_mixed:
            self._head_fed += len(data)
            if self._head_fed > self.limits.header_bytes:
                self._refuse_head()
        # Whatever came, a connection with no request under way is closed by one timer or another.
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._timer is None and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.limits.header_seconds, self._head_is_late)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # No other protocol is spoken here: the request is read as if it had not asked, and so are those behind it. The parser
            # itself takes the body for the other protocol's.
            self.parser = httptools.HttpRequestParser(self)
            self._feed(self._plain_head() + data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "This is not HTTP as the gateway understands it.", "malformed_http")

    def _plain_head(self) -> bytes:
        """The head that was read last, without its wish for another protocol."""
        lines = [self._asked or b""]
        for name, value in self.headers:
            if name == b"connection":
                value = b",".join(token for token in value.split(b",") if token.strip().lower() not in HOPS)
            if name not in HOPS:
                lines.append(name + b": " + value)
        self._asked = None
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_fed = True, 0

    def on_headers_complete(self) -> None:
        if self._head_fed + self._chunk > self.limits.header_bytes:
            head = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if head > self.limits.header_bytes:
                self._refuse_head()
                raise ValueError("the head is too large")  # for the parser, which stops here
        if self._too_many:
            self._refuse(503, "Too many connections are open; try again soon.", "too_many_connections")
            raise ValueError("too many connections")
        if self.parser.should_upgrade():
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            if method == b"CONNECT":
                raise ValueError("this is no proxy")
            self._asked = method + b" " + self.url + b" HTTP/" + version
            return
        super().on_headers_complete()
        self._in_head = False
        self._stop_timer()
        # A client that waits for leave to send its body may send it or not where it is answered first. Then the next
        # request on this connection could not be told from that body.
        self._keeps_alive = self.cycle.keep_alive and not self.limits.draining
        self.cycle.keep_alive = self._keeps_alive and not self.expect_100_continue

    def on_message_complete(self) -> None:
        if self._asked is not None:
            return
        super().on_message_complete()
        self._chunk_is_mixed = True
        if self.expect_100_continue and not self.cycle.response_started:
            self.cycle.keep_alive = self._keeps_alive

    def shutdown(self) -> None:
        self._keeps_alive = False
        super().shutdown()

    def cut(self) -> None:
        """End it, whatever goes on. Who has had nothing of an answer yet is told to come back."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.response_started or self.pipeline:
            self.transport.abort()
        else:
            self.limits.refused("shutting_down")
            self._answer(503, "The gateway is going down; try again.", "shutting_down")

    def _refuse_head(self) -> None:
        kib = self.limits.header_bytes // KIB
        self._refuse(431, f"The request line and headers are larger than {kib} KiB.", "request_header_too_large")

    def _refuse(self, status: int, message: str, code: str) -> None:
        """What came cannot be taken, and what comes behind it cannot be told from it: the connection ends here."""
        if self._deaf:
            return
        self._deaf = True
        self.limits.refused(code)
        if self.cycle is None or self.cycle.response_complete:
            self._answer(status, message, code)
        elif self._in_head or not self.cycle.more_body:
            self.cycle.keep_alive = False  # what came stands behind a request that is whole: that one is answered
        elif self.cycle.response_started or self.pipeline:
            self.transport.close()
        else:
            self._answer(status, message, code)

    def _answer(self, status: int, message: str, code: str) -> None:
        """Answer in OpenAI's shape. Nothing that still comes is read."""
        self._deaf = True
        if self.cycle is not None:
            self.cycle.disconnected = not self.cycle.response_complete
            self.cycle.message_event.set()
        body = error_body(message, "api_error" if status >= 500 else "invalid_request_error", None, code)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *([(b"retry-after", b"1")] if status == 503 else []),
            (b"connection", b"close"),
        ]
        lines = [STATUS_LINE[status], *(name + b": " + value + b"\r\n" for name, value in headers), b"\r\n", body]
        self.transport.write(b"".join(lines))
        self._leave()

    def _leave(self) -> None:
        """Close, but let a client that is still sending read its answer first: the system would reset the connection."""
        self._stop_timer()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._timer = None
        if self._in_head:
            self._refuse(408, "The request's headers did not arrive in time.", "request_timeout")
        else:
            self.transport.close()
