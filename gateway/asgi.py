"""What plain ASGI endpoints share: reading a body, answering, noticing that the client left."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any

from gateway.errors import (
    OPENAI,
    BodyTooLargeError,
    EncodingError,
    GatewayError,
    InternalError,
    RequestTimeoutError,
    Shape,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 60.0
_SAFE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


class ClientGoneError(Exception):
    """The client closed its connection before its answer was complete."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's x-request-id where it is at most 128 safe characters, else a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _SAFE_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The whole body. Raises EncodingError, BodyTooLargeError, RequestTimeoutError, ClientGoneError."""
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"", b"identity"):
        what = "The header content-encoding says that the body is compressed; send it as it is."
        raise EncodingError(what, param="content-encoding", headers={"accept-encoding": "identity"})
    too_large = f"The body is larger than the {limit} bytes that this gateway takes."
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise BodyTooLargeError(too_large)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                body += message.get("body", b"")
                if len(body) > limit:
                    raise BodyTooLargeError(too_large)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise RequestTimeoutError(f"The body did not arrive within {BODY_SECONDS:.0f} s.") from None


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`; cancel it, wait until it has cleaned up, and raise ClientGoneError as soon as the client leaves."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("there is no task to end")
    before, ours, over = task.cancelling(), False, False
    gone = asyncio.ensure_future(_gone(receive))

    def leave(done: asyncio.Future[None]) -> None:
        nonlocal ours
        # What goes wrong in listening is no reason to end the work; the connection's own end will be.
        if not over and not done.cancelled() and done.exception() is None:
            ours = True
            task.cancel()

    gone.add_done_callback(leave)
    try:
        await work
    except asyncio.CancelledError:
        if ours and task.uncancel() <= before:
            raise ClientGoneError from None
        raise
    finally:
        over = True  # it may have been called for already
        gone.cancel()
        await asyncio.wait({gone})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Send the status line and headers; header values are kept to what HTTP can carry."""
    encoded = [(name.encode("ascii"), header_value(value).encode("ascii")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def respond(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """A whole answer."""
    await start(send, status, {"content-type": "application/json", **headers, "content-length": str(len(body))})
    await send({"type": "http.response.body", "body": body})


async def respond_error(send: Send, error: Exception, headers: Mapping[str, str], shape: Shape = OPENAI) -> None:
    """An error. What is not a GatewayError is a fault of ours, of which the client learns nothing."""
    if not isinstance(error, GatewayError):
        error = InternalError("The gateway failed; its log has more under this request id.")
    await respond(send, error.status, {**headers, **error.headers}, shape.body(error))


def header_value(value: str) -> str:
    """`value` as a header can carry it: what is not printable ASCII becomes a question mark."""
    if value.isascii() and value.isprintable():
        return value
    return re.sub(r"[^\x20-\x7e]", "?", value)
