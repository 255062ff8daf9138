from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.asgi import Message, Receive, Scope, Send
from gateway.guard import Guard
from gateway.settings import Settings

KEYS = {"team-a": "key-of-a"}


class Inside:
    """The application behind the guard: remembers what reached it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Scope, Receive, Send]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append((scope, receive, send))

    @property
    def callers(self) -> list[Any]:
        return [scope.get("state", {}).get("caller") for scope, _, _ in self.calls]


class Client:
    """One end of a connection: remembers what it was sent, and has nothing to say."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def receive(self) -> Message:
        raise AssertionError("the guard reads no body")

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


async def knock(settings: Settings, path: str, *headers: tuple[bytes, bytes]) -> tuple[Inside, Client]:
    inside, client = Inside(), Client()
    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    await Guard(inside, settings)(scope, client.receive, client.send)
    return inside, client


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/", "/v1/no/such/path"])
async def test_v1_asks_for_a_key(path: str) -> None:
    inside, client = await knock(Settings(keys=KEYS), path)
    assert inside.calls == []
    assert client.sent[0]["status"] == 401
    assert client.headers[b"www-authenticate"] == b"Bearer"
    assert json.loads(client.sent[1]["body"])["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/v1", "/v10/models", "/docs/v1/"])
async def test_what_is_not_under_v1_asks_for_none(path: str) -> None:
    inside, client = await knock(Settings(keys=KEYS), path)
    assert inside.callers == ["anonymous"]
    assert client.sent == []


async def test_metrics_asks_for_a_key_where_it_is_protected() -> None:
    settings = Settings(keys=KEYS, protect_metrics=True)
    inside, client = await knock(settings, "/metrics")
    assert (inside.calls, client.sent[0]["status"]) == ([], 401)
    inside, _ = await knock(settings, "/metrics", (b"x-api-key", b"key-of-a"))
    assert inside.callers == ["team-a"]
    inside, _ = await knock(settings, "/healthz")
    assert inside.callers == ["anonymous"]


async def test_the_name_of_the_caller_is_left_in_the_scope_and_the_rest_passes_untouched() -> None:
    inside, client = await knock(Settings(keys=KEYS), "/v1/models", (b"authorization", b"Bearer key-of-a"))
    assert inside.callers == ["team-a"]
    assert inside.calls[0][1:] == (client.receive, client.send)
    assert client.sent == []


async def test_state_that_was_there_before_is_kept() -> None:
    inside, client = Inside(), Client()
    scope = {"type": "http", "path": "/healthz", "headers": [], "state": {"pool": 7}}
    await Guard(inside, Settings(keys=KEYS))(scope, client.receive, client.send)
    state = inside.calls[0][0]["state"]
    assert (state["pool"], state["caller"]) == (7, "anonymous")


async def test_with_no_key_set_every_caller_of_v1_is_anonymous() -> None:
    inside, _ = await knock(Settings(), "/v1/models")
    assert inside.callers == ["anonymous"]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_not_http_passes(kind: str) -> None:
    inside, client = Inside(), Client()
    scope = {"type": kind}
    await Guard(inside, Settings(keys=KEYS))(scope, client.receive, client.send)
    assert inside.calls == [(scope, client.receive, client.send)]
    assert scope == {"type": kind}


async def test_a_refusal_carries_the_request_id_of_the_client() -> None:
    _, client = await knock(Settings(keys=KEYS), "/v1/models", (b"x-request-id", b"abc-1"))
    assert client.headers[b"x-request-id"] == b"abc-1"
    _, client = await knock(Settings(keys=KEYS), "/v1/models", (b"x-request-id", b"a b"))
    assert client.headers[b"x-request-id"].startswith(b"req-")


# /admin.

ADMIN = "key-of-admin"
HERE = (b"host", b"127.0.0.1:8080")


def bearer(key: str) -> tuple[bytes, bytes]:
    return (b"authorization", b"Bearer " + key.encode())


@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/experts", "/admin/no/such/path"])
@pytest.mark.parametrize("keys", [KEYS, {}])
async def test_admin_asks_for_the_admins_key_and_takes_no_other(path: str, keys: dict[str, str]) -> None:
    settings = Settings(keys=keys, admin_key=ADMIN)
    for headers in ([HERE], [HERE, bearer("key-of-a")], [HERE, bearer("wrong")]):
        inside, client = await knock(settings, path, *headers)
        assert (inside.calls, client.sent[0]["status"]) == ([], 401)
    for header in (bearer(ADMIN), (b"x-api-key", ADMIN.encode())):
        inside, _ = await knock(settings, path, header)
        assert inside.callers == ["admin"]


async def test_the_admins_key_opens_admin_alone() -> None:
    inside, client = await knock(Settings(keys=KEYS, admin_key=ADMIN), "/v1/models", bearer(ADMIN))
    assert (inside.calls, client.sent[0]["status"]) == ([], 401)


@pytest.mark.parametrize("settings", [
    Settings(keys=KEYS), Settings(host="10.0.0.5"), Settings(host="gateway.test"), Settings(admin_key="", keys=KEYS)
])  # fmt: skip
@pytest.mark.parametrize("header", [HERE, bearer("key-of-a"), bearer("")])
async def test_without_an_admin_key_admin_is_shut_and_says_how_to_open_it(
    settings: Settings, header: tuple[bytes, bytes]
) -> None:
    inside, client = await knock(settings, "/admin/experts", HERE, header)
    assert (inside.calls, client.sent[0]["status"]) == ([], 401)
    error = json.loads(client.sent[1]["body"])["error"]
    assert "MOE_GATEWAY_ADMIN_KEY" in error["message"]
    assert error["code"] == "no_admin_key"


@pytest.mark.parametrize(
    "host", [b"127.0.0.1:8080", b"localhost:8080", b"localhost", b"127.0.0.1", b"[::1]:80", b"[::1]"]
)
async def test_with_no_key_at_all_admin_is_open_to_this_machine(host: bytes) -> None:
    inside, _ = await knock(Settings(), "/admin/experts", (b"host", host))
    assert inside.callers == ["admin"]


@pytest.mark.parametrize(
    "host", [b"evil.test", b"evil.test:8080", b"127.0.0.1.evil.test", b"", b"10.0.0.5:8080", b"\xff"]
)
async def test_a_page_that_has_its_own_name_point_here_is_not_let_in(host: bytes) -> None:
    inside, client = await knock(Settings(), "/admin/experts", (b"host", host))
    assert (inside.calls, client.sent[0]["status"]) == ([], 401)


@pytest.mark.parametrize("path", ["/administrator", "/v1admin", "/x/admin"])
async def test_what_only_looks_like_admin_is_not(path: str) -> None:
    inside, _ = await knock(Settings(keys=KEYS, admin_key=ADMIN), path)
    assert inside.callers == ["anonymous"]


@pytest.mark.parametrize(
    "origin",
    [b"https://evil.example", b"null", b"http://192.168.1.5:3000", b"", b"nonsense", b"http://127.0.0.1.evil.example"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/admin/reload"])
async def test_without_keys_a_page_of_another_site_may_not_ask(path: str, origin: bytes) -> None:
    inside, client = await knock(Settings(), path, (b"host", b"127.0.0.1:8080"), (b"origin", origin))
    assert inside.calls == []
    assert client.sent[0]["status"] == 403
    assert b"www-authenticate" not in client.headers


@pytest.mark.parametrize("origin", [b"http://127.0.0.1:3000", b"http://localhost:8080", b"http://[::1]:5173"])
async def test_without_keys_a_page_of_this_machine_may_ask(origin: bytes) -> None:
    inside, _ = await knock(Settings(), "/v1/chat/completions", (b"origin", origin))
    assert inside.callers == ["anonymous"]


async def test_who_has_a_key_may_ask_from_any_page() -> None:
    headers = ((b"origin", b"https://app.example"), (b"authorization", b"Bearer key-of-a"))
    inside, _ = await knock(Settings(keys=KEYS), "/v1/chat/completions", *headers)
    assert inside.callers == ["team-a"]
