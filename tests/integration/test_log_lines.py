"""What the running command says on its two streams while everything goes wrong, and what it leaves in its folder."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from gateway.exchange import Outcome
from tests.fakes.otlp import Receiver, receiver
from tests.fakes.upstream import PATIENCE, Behaviour, FakeServer, chunk, endless, silent, status, streams, well
from tests.integration.conftest import ROOT, STARTING

NEVER = "sent1nel"  # in everything that is a client's or a model server's
KEY, UP_KEY, ADMIN_KEY = f"{NEVER}-key", f"{NEVER}-up-key", f"{NEVER}-admin-key"
SMALL_PIPE = 4096  # bytes: full after a dozen lines
EVIL = f"\x1b[31m{NEVER}\r\n\u202e"


@dataclass
class Mute:
    """A command whose standard error nobody reads until `listen`."""

    url: str
    process: subprocess.Popen[bytes]
    stdout: list[bytes] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)
    _heard: threading.Event = field(default_factory=threading.Event)

    def listen(self) -> None:
        self._heard.set()

    def said(self, text: bytes) -> bool:
        """Whether a line with `text` comes."""
        until = time.monotonic() + PATIENCE
        while not any(text in line for line in self.stderr) and time.monotonic() < until:
            time.sleep(0.02)
        return any(text in line for line in self.stderr)


@contextmanager
def mute(*arguments: str, environment: dict[str, str]) -> Iterator[Mute]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "serve", "--port", "0", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=writer,
    )  # fmt: skip
    os.close(writer)
    command, ready = Mute("", process), threading.Event()

    def read_stdout() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            command.stdout.append(line)
            if b"curl" in line:
                ready.set()
        ready.set()

    def read_stderr() -> None:
        with open(reader, "rb") as stream:
            command._heard.wait()
            for line in stream:
                command.stderr.append(line)

    threads = [threading.Thread(target=work, daemon=True) for work in (read_stdout, read_stderr)]
    for thread in threads:
        thread.start()
    try:
        assert ready.wait(STARTING)
        found = re.search(rb"http://[^/\s]+", b"".join(command.stdout))
        assert found
        command.url = found[0].decode()
        yield command
    finally:
        command.listen()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STARTING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


@dataclass
class Asked:
    """What was asked of a gateway: each request by an id of its own."""

    url: str
    client: httpx.Client
    ids: list[str] = field(default_factory=list)

    def chat(self, key: str = KEY, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        self.ids.append(f"req-{len(self.ids)}")
        message = {"role": "user", "content": f"{NEVER} prompt {EVIL}"}
        said = {"authorization": f"Bearer {key}", "x-request-id": self.ids[-1], "cookie": NEVER, "user-agent": NEVER}
        return self.client.post(
            f"{self.url}/v1/chat/completions?{NEVER}=1",
            json={"model": "one", "messages": [message], "user": NEVER, "stop": [NEVER], NEVER: NEVER, **body},
            headers={**said, **(headers or {})},
        )


def broken(body: bytes, kind: str = "application/json") -> Behaviour:
    async def answer(server: FakeServer, request: web.Request, asked: Any) -> web.StreamResponse:
        return web.Response(body=body, content_type=kind, headers={"x-error": NEVER, "retry-after": NEVER})

    return answer


async def hangs_up(server: FakeServer, request: web.Request, asked: Any) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


ERROR = {"error": {"message": f"{EVIL} at http://{NEVER}.internal", "type": NEVER, "param": NEVER, "code": NEVER}}
BEHAVIOURS: dict[str, tuple[Behaviour, bool]] = {
    **{f"status {code}": (status(code, ERROR, {"x-why": NEVER}), False) for code in (400, 401, 404, 418, 429, 500, 503)},
    "too long": (status(400, {"error": {"message": f"maximum context length {NEVER}"}}), False),
    "no JSON": (broken(f"<html>{EVIL}".encode()), False),
    "half of JSON": (broken(b'{"choices": [{"message": {"content": "' + NEVER.encode()), False),
    "an error as an answer": (broken(json.dumps(ERROR).encode()), False),
    "whole where a stream was asked for": (well, True),
    "an error event": (streams(b"data: " + json.dumps(ERROR).encode() + b"\n\n"), True),
    "an error after words": (streams(chunk({"content": NEVER}), b"data: " + json.dumps(ERROR).encode() + b"\n\n"), True),
    "a stream that ends early": (streams(chunk({"content": NEVER})), True),
    "a stream that is cut": (streams(chunk({"content": NEVER}), then="cut"), True),
    "garbage events": (streams(f"data: {{{NEVER}\n\n: {EVIL}\n\n".encode()), True),
    "hangs up": (hangs_up, False),
    "well": (well, False),
    "well and streamed": (well, True),
}  # fmt: skip


async def by_model(server: FakeServer, request: web.Request, asked: Any) -> web.StreamResponse:
    """As the model's name says that the expert behaves."""
    return await BEHAVIOURS[asked["model"].replace("-", " ")][0](server, request, asked)


def _experts(servers: list[FakeServer]) -> str:
    """One expert for each behaviour, so that none is spared for what another did, and some that others stand in for."""
    one = "upstream: {{vllm: ['{}'], api_key: '${{UP_KEY}}'}}, domains: [general], fallbacks: [{}]"
    lines = [
        f"  e{i}: {{model: {name.replace(' ', '-')}, {one.format(servers[0].url, '')}}}"
        for i, name in enumerate(BEHAVIOURS)
    ]
    price = "price: {input: 1.0, cached_input: 0.5, output: 2.0}"
    lines += [
        f"  one: {{model: well, {one.format(servers[1].url, '')}, {price}}}",
        f"  first: {{model: status-500, {one.format(servers[0].url, 'one')}}}",
        f"  slow: {{model: well, {one.format(servers[2].url, '')}, timeouts: {{total: 300ms}}}}",
        f"  down: {{model: well, {one.format('http://127.0.0.1:1/v1', '')}}}",
    ]
    return "\n".join(["version: 1", "experts:", *lines])


def test_nothing_of_a_request_is_told_whatever_goes_wrong_though_nobody_reads_it(
    servers: list[FakeServer], tmp_path: Path
) -> None:
    config, state = tmp_path / "experts.yaml", tmp_path / "state"
    config.write_text(_experts(servers))
    servers[0].behaviour, servers[1].behaviour, servers[2].behaviour = by_model, well, silent
    with receiver() as seen:
        environment = {
            "MOE_GATEWAY_KEYS": f"team-a:{KEY}", "MOE_GATEWAY_ADMIN_KEY": ADMIN_KEY, "UP_KEY": UP_KEY,
            "OTEL_EXPORTER_OTLP_ENDPOINT": seen.url, "OTEL_BSP_SCHEDULE_DELAY": "50",
        }  # fmt: skip
        arguments = ("--config", str(config), "--state", str(state), "--log-level", "debug", "--log-format", "json")
        with mute(*arguments, environment=environment) as command, httpx.Client(timeout=PATIENCE) as client:
            asked = Asked(command.url, client)
            _everything(asked, servers)
            command.listen()
            assert command.said(b'"endpoint":"embeddings"')  # the last of them
        told = [json.loads(line) for line in b"".join(command.stderr).splitlines() if line.startswith(b"{")]
        _check_lines(told, asked, seen)
        _check_nothing_is_told(command, seen, state, [server.port for server in servers])
    assert command.process.returncode == 0


def _everything(asked: Asked, servers: list[FakeServer]) -> None:
    for i, (_, stream) in enumerate(BEHAVIOURS.values()):
        asked.chat(model=f"e{i}", stream=stream)
    assert asked.chat(model="first").headers["x-moe-expert"] == "one"
    assert asked.chat(model="slow").status_code == 504
    assert asked.chat(model="down").status_code in (502, 503)
    assert asked.chat(model=NEVER).status_code == 404
    assert asked.chat(messages=NEVER).status_code == 400
    assert asked.chat(tools=[{"type": "function", "function": {"name": NEVER, "parameters": {NEVER: 1}}}]).status_code
    for name in ("x-moe-domain", "x-moe-policy", "x-moe-max-cost-usd"):
        assert asked.chat(headers={name: NEVER}).status_code == 400
    assert (
        asked.chat(headers={"x-moe-session": NEVER, "traceparent": NEVER, "tracestate": f"{NEVER};="}).status_code
        == 200
    )
    servers[1].behaviour = endless
    _leave_in_mid_stream(asked)
    _refusals(asked.url, asked.client)


def _refusals(url: str, client: httpx.Client) -> None:
    wrong = {"authorization": f"Bearer {NEVER}-wrong", "x-request-id": f"{NEVER} {NEVER}"}
    assert client.post(f"{url}/v1/chat/completions", headers=wrong, content=NEVER).status_code == 401
    assert client.get(f"{url}/admin/config", headers=wrong).status_code == 401
    right = {"authorization": f"Bearer {KEY}"}
    assert client.get(f"{url}/{NEVER}?{NEVER}", headers=right).status_code == 404
    assert client.delete(f"{url}/v1/models/{NEVER}", headers=right).status_code == 405
    assert client.get(f"{url}/v1/models/{NEVER}", headers=right).status_code == 404
    assert client.post(f"{url}/v1/route", headers=right, json={"input": NEVER, "model": NEVER}).status_code < 500
    assert client.post(f"{url}/v1/chat/completions", headers=right, content=f'{{"model": "{NEVER}').status_code == 400
    assert client.post(f"{url}/v1/embeddings", headers=right, json={"model": "one", "input": NEVER}).status_code
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as raw:
        raw.sendall(f"GET /{NEVER} {NEVER}\r\n{EVIL}: {NEVER}\r\n\r\n".encode())
        raw.recv(65536)


def _leave_in_mid_stream(asked: Asked) -> None:
    asked.ids.append("req-gone")
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": "req-gone"}
    body = {"model": "one", "messages": [{"role": "user", "content": NEVER}], "stream": True}
    with asked.client.stream("POST", f"{asked.url}/v1/chat/completions", json=body, headers=headers) as reply:
        next(reply.iter_raw())


def _check_lines(told: list[dict[str, Any]], asked: Asked, seen: Receiver) -> None:
    """A line for every request, and none without its ids."""
    requests = {line["request_id"]: line for line in told if line["event"] == "request"}
    assert requests.keys() >= set(asked.ids)
    for line in told:
        if line["event"] in ("decided", "attempt ended"):
            assert line["request_id"]
            assert re.fullmatch(r"[0-9a-f]{32}", line["trace_id"])
    assert {requests[name]["trace_id"] for name in asked.ids} <= {span.trace for span in seen.spans}
    tried = [line["outcome"] for line in told if line["event"] == "attempt ended"]
    assert set(tried) == {outcome.value for outcome in Outcome}
    assert {line["level"] for line in told} >= {"debug", "info", "warning"}
    well_done = requests[asked.ids[len(BEHAVIOURS)]]
    assert (well_done["caller"], well_done["outcome"], well_done["expert"]) == ("team-a", "ok", "one")
    assert well_done["cost_usd"] == pytest.approx((8 * 1.0 + 3 * 0.5 + 4 * 2.0) / 1e6)


def _check_nothing_is_told(command: Mute, seen: Receiver, state: Path, ports: list[int]) -> None:
    files = {str(path.relative_to(state)): path.read_bytes() for path in state.rglob("*") if path.is_file()}
    places = {**files, "standard output": b"".join(command.stdout), "standard error": b"".join(command.stderr)}
    places |= {f"export {i}": body for i, body in enumerate(seen.sent)}
    assert [name for name, text in places.items() if NEVER.encode() in text] == []
    kept = {
        name for name in places if name.startswith("history/")
    }  # what was served, as it was written, for its owner alone
    assert {(state / name).stat().st_mode & 0o777 for name in kept} == {0o600}
    for port in ports:
        assert [name for name in places.keys() - kept if f":{port}".encode() in places[name]] == []
    assert b"\x1b" not in places["standard error"]
