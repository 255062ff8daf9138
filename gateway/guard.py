"""Lets callers with a key in. Pure ASGI: it is in the way of every request and of no byte of an answer."""

from __future__ import annotations

from gateway.asgi import ASGIApp, Receive, Scope, Send, headers_of, request_id, respond_error
from gateway.auth import Keyring
from gateway.errors import AuthenticationError
from gateway.settings import Settings


class Guard:
    """/v1 asks for a key, and /metrics where it is protected. Leaves the caller's name in scope["state"]["caller"]."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._keys = Keyring(settings.keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        try:
            caller = self._keys.caller(headers) if self._protected(scope["path"]) else "anonymous"
        except AuthenticationError as error:
            await respond_error(send, error, {"x-request-id": request_id(headers), "www-authenticate": "Bearer"})
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    def _protected(self, path: str) -> bool:
        return path.startswith("/v1/") or (path == "/metrics" and self._settings.protect_metrics)
