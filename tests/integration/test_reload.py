"""Another experts.yaml takes the place of the one that runs: whole, at once, and for what is new alone."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.upstream import PATIENCE, WORDS, FakeServer, chunk, status, streams
from tests.integration.conftest import Start, experts_yaml, serve


def ask(url: str, **body: Any) -> httpx.Response:
    request = {"model": "one", "messages": [{"role": "user", "content": "hello"}], **body}
    return httpx.post(f"{url}/v1/chat/completions", json=request, timeout=PATIENCE)


def reloaded(url: str) -> httpx.Response:
    return httpx.post(f"{url}/admin/reload", timeout=PATIENCE)


def test_what_is_in_flight_ends_on_what_it_began_with(start: Start, servers: list[FakeServer], tmp_path: Path) -> None:
    servers[0].behaviour = streams(chunk({"content": "be"}), chunk({"content": "gun"}), chunk({}, "stop"), pause=0.4)
    config = tmp_path / "experts.yaml"
    config.write_text(experts_yaml(servers[0]), "utf-8")
    gateway = start(config.read_text("utf-8"), config=config)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        running = threads.submit(ask, gateway.url, stream=True)
        assert servers[0].wait_until_asked()
        config.write_text(experts_yaml(servers[1]), "utf-8")  # the same names, another server
        response = reloaded(gateway.url)
        assert response.status_code == 200, response.text
        assert ask(gateway.url).json()["choices"][0]["message"]["content"] == "".join(WORDS)
        assert len(servers[1].requests) == 1
        assert '"be"' in running.result().text
        assert '"gun"' in running.result().text
    assert len(servers[0].requests) == 1
    assert gateway.metric("moe_config_reloads_total", outcome="ok") == 1
    assert gateway.settled("moe_requests_in_flight", 0)


def test_a_bad_file_changes_nothing_and_says_what_is_wrong(
    start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    config = tmp_path / "experts.yaml"
    good = experts_yaml(servers[0])
    gateway = start(good, config=config)
    for bad, says in ((good.replace("domains:", "domians:"), "domians"), ("", "version"), ("\xff\x00", "UTF-8")):
        config.write_bytes(bad.encode("latin-1"))
        response = reloaded(gateway.url)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "invalid_config"
        assert says in response.json()["error"]["message"]
        assert ask(gateway.url).headers["x-moe-expert"] == "one"
    assert gateway.metric("moe_config_reloads_total", outcome="failed") == 3
    assert gateway.metric("moe_config_reloads_total", outcome="ok") == 0
    assert gateway.metric("moe_config_last_reload_successful") == 0
    config.write_text(good, "utf-8")
    assert reloaded(gateway.url).status_code == 200
    assert gateway.metric("moe_config_last_reload_successful") == 1


def test_experts_come_and_go(start: Start, servers: list[FakeServer], tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    gateway = start(experts_yaml(*servers[:2]), config=config)
    config.write_text(experts_yaml(servers[0]), "utf-8")
    assert reloaded(gateway.url).json()["experts"] == ["one"]
    assert "two" not in [model["id"] for model in httpx.get(f"{gateway.url}/v1/models").json()["data"]]
    assert ask(gateway.url, model="two").status_code == 404
    assert gateway.metric("moe_replica_up", expert="two") == 0
    config.write_text(experts_yaml(*servers), "utf-8")
    assert reloaded(gateway.url).status_code == 200
    assert ask(gateway.url, model="three").headers["x-moe-expert"] == "three"


def test_what_is_known_of_a_replica_that_stays_is_not_forgotten(
    start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    config = tmp_path / "experts.yaml"
    text = experts_yaml(*servers[:2])
    gateway = start(text, config=config)
    servers[0].behaviour = status(500)
    for _ in range(3):
        ask(gateway.url, model="one")
    assert len(servers[0].requests) == 3
    config.write_text(text + "\n# saved again\n", "utf-8")
    assert reloaded(gateway.url).status_code == 200
    (replica,) = httpx.get(f"{gateway.url}/admin/experts").json()["one"]["replicas"]
    assert replica["failures"] >= 3
    assert replica["state"] in ("ejected", "half_open")  # its cool-down may be over by now


def test_sighup_reloads_the_command(servers: list[FakeServer], tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    config.write_text(experts_yaml(servers[0]), "utf-8")
    with serve("--config", str(config), "--state", str(tmp_path / "state")) as command:
        assert ask(command.url).headers["x-moe-expert"] == "one"
        config.write_text(experts_yaml(*servers[:2]), "utf-8")
        command.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + PATIENCE
        while ask(command.url, model="two").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_a_request_whose_body_arrives_after_a_reload_is_served_by_the_new_file(
    start: Start, servers: list[FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.generation.SETTLE_SECONDS", 0.1)
    config = tmp_path / "experts.yaml"
    config.write_text(experts_yaml(servers[0]), "utf-8")
    gateway = start(config.read_text("utf-8"), config=config)
    body = json.dumps({"model": "one", "messages": [{"role": "user", "content": "hi"}]}).encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:10])
        config.write_text(experts_yaml(servers[1]), "utf-8")
        assert reloaded(gateway.url).status_code == 200
        time.sleep(0.5)  # what was before is closed by now
        client.sendall(body[10:])
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert (len(servers[0].requests), len(servers[1].requests)) == (0, 1)
