"""With keys set, /v1 is for those who have one; no key of anyone's travels on."""

from __future__ import annotations

import httpx
import pytest

from tests.fakes.upstream import PATIENCE, FakeServer
from tests.integration.conftest import Start, experts_yaml

BODY = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
KEYS = {"team-a": "key-of-team-a", "team-b": "key-of-team-b"}


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "key-of-team-a"}, {"x-api-key": ""}]
)
def test_without_a_known_key_every_v1_path_is_401(
    start: Start, servers: list[FakeServer], headers: dict[str, str]
) -> None:
    gateway = start(experts_yaml(servers[0]), keys=KEYS)
    for method, path in (
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("POST", "/v1/route"),
        ("GET", "/v1/x"),
    ):
        response = httpx.request(
            method, f"{gateway.url}{path}", headers=headers, json=BODY if method == "POST" else None, timeout=PATIENCE
        )
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert "wrong" not in response.text
    assert servers[0].requests == []


@pytest.mark.parametrize("headers", [{"authorization": "Bearer key-of-team-b"}, {"x-api-key": "key-of-team-a"}])
def test_a_known_key_opens_v1_and_goes_no_further(
    start: Start, servers: list[FakeServer], headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_KEY", "key-of-the-worker")
    text = experts_yaml(servers[0]).replace(f"[{servers[0].url}]", f"[{servers[0].url}], api_key: ${{WORKER_KEY}}")
    gateway = start(text, keys=KEYS)
    response = httpx.post(
        f"{gateway.url}/v1/chat/completions",
        json=BODY,
        headers={**headers, "cookie": "session=1", "x-secret": "2"},
        timeout=PATIENCE,
    )
    assert response.status_code == 200
    sent = servers[0].headers[0]
    assert sent["authorization"] == "Bearer key-of-the-worker"
    assert not {"cookie", "x-api-key", "x-secret"} & set(sent)
    assert "key-of" not in str(response.headers) + response.text


def test_health_ready_and_metrics_are_open_unless_metrics_are_protected(
    start: Start, servers: list[FakeServer]
) -> None:
    gateway = start(experts_yaml(servers[0]), keys=KEYS)
    assert [
        httpx.get(f"{gateway.url}{path}", timeout=PATIENCE).status_code for path in ("/health", "/ready", "/metrics")
    ] == [200] * 3
    guarded = start(experts_yaml(servers[1]), keys=KEYS, protect_metrics=True)
    assert httpx.get(f"{guarded.url}/metrics", timeout=PATIENCE).status_code == 401
    assert (
        httpx.get(f"{guarded.url}/metrics", headers={"x-api-key": "key-of-team-a"}, timeout=PATIENCE).status_code == 200
    )
