"""Lets callers with a key in. Pure ASGI: it is in the way of every request and of no byte of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway import logs
from gateway.asgi import ASGIApp, Receive, Scope, Send, headers_of, request_id, respond_error
from gateway.auth import ANONYMOUS, Keyring
from gateway.errors import AuthenticationError, ForeignPageError, shape_of
from gateway.settings import Settings, is_loopback

ADMIN = "admin"
NO_ADMIN_KEY = (
    "/admin needs an admin key, and this gateway has none: start it with MOE_GATEWAY_ADMIN_KEY set "
    "(for example to $(openssl rand -hex 24)), and send that key."
)


class Guard:
    """/v1 asks for a key, /metrics where it is protected, and /admin for the admin's. Leaves the caller's name in
    scope["state"]["caller"], and the request's id in ["request_id"], which every log line has that is written meanwhile.

    With no admin key /admin is open where everything is, which is to this machine alone; else it is shut.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._keys = Keyring(settings.keys)
        self._admin = Keyring({ADMIN: settings.admin_key} if settings.admin_key else {})
        self._open = not settings.admin_key and not settings.keys and is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path = headers_of(scope), scope["path"]
        serving = logs.serve(request_id(headers))
        try:
            caller = self._caller(path, headers)
        except (AuthenticationError, ForeignPageError) as error:
            told = {"x-request-id": serving.request_id}
            if error.status == 401:
                told["www-authenticate"] = "Bearer"
            await respond_error(send, error, told, shape_of(path))
            return
        state = scope.setdefault("state", {})
        state["caller"], state["request_id"] = caller, serving.request_id
        try:
            await self._app(scope, receive, send)
        finally:
            serving.over = True

    def _caller(self, path: str, headers: Mapping[bytes, bytes]) -> str:
        """Raises AuthenticationError, ForeignPageError."""
        if (
            not self._settings.keys
            and path.startswith(("/v1/", "/admin"))
            and not _is_of_this_machine(headers.get(b"origin"))
        ):
            raise ForeignPageError(
                "A page of another site may not use this gateway, which asks for no key; set MOE_GATEWAY_KEYS."
            )
        if path.startswith("/v1/") or (path == "/metrics" and self._settings.protect_metrics):
            return self._keys.caller(headers)
        if path == "/admin" or path.startswith("/admin/"):
            return self._administrator(headers)
        return ANONYMOUS

    def _administrator(self, headers: Mapping[bytes, bytes]) -> str:
        if self._settings.admin_key:
            return self._admin.caller(headers)
        # A page in a browser here may have a name of its own resolve to 127.0.0.1; its requests tell that name.
        if self._open and is_loopback(_host(headers)):
            return ADMIN
        raise AuthenticationError(NO_ADMIN_KEY, code="no_admin_key")


def _is_of_this_machine(origin: bytes | None) -> bool:
    """Whether a page of this machine asks, or no page at all. Any page that a browser here shows can send requests here: it
    gets no answer to read, but would spend what is not its own."""
    if origin is None:
        return True
    return is_loopback(urlsplit(origin.decode("latin-1")).hostname or "")


def _host(headers: Mapping[bytes, bytes]) -> str:
    """The name that the request was sent to, without its port."""
    host = headers.get(b"host", b"").decode("latin-1")
    return host if host.endswith("]") else host.rpartition(":")[0] or host
