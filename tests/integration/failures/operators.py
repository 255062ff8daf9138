"""What operators do while requests run: reload the configuration, end the gateway."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from gateway.settings import Settings
from router.experts import parse_experts
from router.routing import Router
from tests.fakes.dialects import CHAT, TEXT, TOKENS
from tests.fakes.raw import END, Call, RawServer, Then, piece, sends, stream_head, whole
from tests.fakes.upstream import PATIENCE
from tests.integration.conftest import PATIENT, Command, Running, _threaded, serve
from tests.integration.failures.endpoints import HELLO
from tests.integration.failures.stage import Stage, expert_lines
from tests.integration.failures.table import Row


def config_of(raw: RawServer, expert: str) -> str:
    return "\n".join(["version: 1", "experts:", *expert_lines(expert, raw.url, PATIENT)])


@contextmanager
def served(raw: RawServer) -> Iterator[Command]:
    """The command, with one expert `before` over the server."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "experts.yaml"
        config.write_text(config_of(raw, "before"), "utf-8")
        with serve("--config", str(config), "--state", f"{folder}/state") as command:
            yield command


@contextmanager
def held_answer(raw: RawServer) -> Iterator[threading.Event]:
    """The server holds its answers, a stream in the middle, until the event is set."""
    going = threading.Event()

    async def holds(call: Call) -> Then:
        if call.body["stream"]:
            await sends(stream_head(), piece(CHAT.begin), *map(piece, CHAT.words))(call)
        await asyncio.to_thread(going.wait, PATIENCE)
        if call.body["stream"]:
            await sends(piece(CHAT.finish), piece(CHAT.usage), piece(CHAT.done), END)(call)
        else:
            await call.send(whole(CHAT.whole))
        return "close"

    raw.behaviour = holds
    try:
        yield going
    finally:
        going.set()


def begin(url: str, stream: bool) -> socket.socket:
    """Ask the expert `before`, and return the open socket."""
    host, port = url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=PATIENCE)
    body = json.dumps({"model": "before", "stream": stream, "messages": HELLO}).encode()
    head = f"POST {CHAT.path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


def rest(client: socket.socket) -> str:
    return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def check_answer(received: str, stream: bool) -> None:
    assert received.startswith("HTTP/1.1 200")
    assert re.search(r"(?i)x-moe-expert: before\b", received)
    assert '"error"' not in received
    if stream:
        assert "[DONE]" in received
        assert received.endswith("0\r\n\r\n")
    else:
        assert TEXT in received


def check_log(command: Command, row: Row, requests: int) -> None:
    """That the log tells one attempt for each request, its outcome as the row has it."""
    assert "".join(command.screen).count(f'"attempts":["before-0:{row.outcome}"]') == requests


def gateway_drain(stage: Stage, row: Row, stream: bool) -> None:
    """Streamed and whole at once: a process takes seconds to start."""
    with served(stage.raw) as command, held_answer(stage.raw) as going:
        with begin(command.url, True) as streamed, begin(command.url, False) as whole_one:
            assert stage.raw.until(lambda raw: len(raw.calls) == 2)
            command.process.send_signal(signal.SIGTERM)
            assert _refuses(command.url)
            assert command.process.poll() is None
            going.set()
            check_answer(rest(streamed), True)
            check_answer(rest(whole_one), False)
        assert command.process.wait(PATIENCE) == 0
    check_log(command, row, 2)


def _refuses(url: str) -> bool:
    """Whether the gateway comes to say that it is not ready, or to listen no more."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/ready", timeout=PATIENCE).status_code == 503:
                return True
        except httpx.TransportError:
            return True
        time.sleep(0.05)
    return False


def reload(stage: Stage, row: Row, stream: bool) -> None:
    """The reload is done before the request that began before it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        reloadable(stage, Path(folder)) as (gateway, config),
        held_answer(stage.raw) as going,
        begin(gateway.url, stream) as client,
    ):
        assert stage.raw.until(lambda raw: bool(raw.calls))
        config.write_text(config_of(stage.raw, "after"), "utf-8")
        assert httpx.post(f"{gateway.url}/admin/reload", timeout=PATIENCE).status_code == 200
        models = [model["id"] for model in httpx.get(f"{gateway.url}/v1/models", timeout=PATIENCE).json()["data"]]
        assert "after" in models
        assert "before" not in models
        going.set()
        check_answer(rest(client), stream)
        assert gateway.settled("moe_upstream_attempts_total", 1, expert="before", outcome=str(row.outcome))
        assert gateway.metric("moe_upstream_attempts_total") == 1
        assert gateway.metric("moe_tokens_total", expert="before", kind="output") == TOKENS["output"]


@contextmanager
def reloadable(stage: Stage, folder: Path) -> Iterator[tuple[Running, Path]]:
    """A gateway with one expert `before` over the stage's server, and its experts.yaml."""
    config = folder / "experts.yaml"
    config.write_text(config_of(stage.raw, "before"), "utf-8")
    router = Router(parse_experts(config.read_text("utf-8")), stage.artifact)
    with _threaded(Settings(config=config, health_interval=3600.0, state=folder / "state"), router) as gateway:
        yield gateway, config
