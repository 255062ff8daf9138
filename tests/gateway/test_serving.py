"""The end of a process, over real sockets: what is in flight ends, what comes late is told so, nothing hangs."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from aiohttp import web

from gateway.app import create_app
from gateway.serving import Server
from gateway.settings import Settings
from gateway.sockets import bound, named
from gateway.tls import tls_context
from tests.fakes.memory import experts_file, router_of
from tests.fakes.upstream import PATIENCE, FakeServer, chunk, endless, fake_server, silent, streams, usage_chunk

WORDS = 12
STREAM = (*(chunk({"content": "word "}) for _ in range(WORDS)), chunk({}, "stop"), usage_chunk(), b"data: [DONE]\n\n")


@dataclass
class Running:
    server: Server
    thread: threading.Thread
    settings: Settings

    @property
    def url(self) -> str:
        return f"http://{self.settings.host}:{self.settings.port}"

    def ended(self, within: float = PATIENCE) -> bool:
        self.thread.join(within)
        return not self.thread.is_alive()

    def counted(self) -> str:
        text: bytes = self.server.config.app.state.gateway.metrics.exposition()[0]  # type: ignore[union-attr]
        return text.decode()


@pytest.fixture
def expert() -> Iterator[FakeServer]:
    with fake_server() as made:
        yield made


@contextmanager
def running(expert: FakeServer, settings: Settings) -> Iterator[Running]:
    """A server in a thread, which tells it to end as signals do."""
    router = router_of(experts_file({"general": {"upstream": {"vllm": [expert.url]}}}))
    with bound(settings) as sockets:
        settings = named(settings, sockets)
        tls = tls_context(settings.tls_cert, settings.tls_key)
        server = Server(create_app(settings, router), settings, tls)
        thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
        thread.start()
        until = time.monotonic() + PATIENCE
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        assert server.started
        try:
            yield Running(server, thread, settings)
        finally:
            server.drain()
            server.force_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def local(tmp_path: Path, **settings: float) -> Settings:
    return Settings(port=0, state=tmp_path, health_interval=3600.0, **settings)  # type: ignore[arg-type]


def ask(gateway: Running, stream: bool) -> socket.socket:
    """A chat request that was sent, and its connection."""
    body = json.dumps({"model": "general", "stream": stream, "messages": [{"role": "user", "content": "general"}]})
    connection = socket.create_connection((gateway.settings.host, gateway.settings.port), timeout=PATIENCE)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())
    return connection


def rest(connection: socket.socket) -> bytes:
    """What comes until it is closed."""
    with connection, connection.makefile("rb") as reader:
        try:
            return reader.read()
        except ConnectionError:
            return b""


def until(condition: object, within: float = PATIENCE) -> bool:
    end = time.monotonic() + within
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.01)
    return bool(condition())  # type: ignore[operator]


def refuses(gateway: Running) -> bool:
    try:
        socket.create_connection((gateway.settings.host, gateway.settings.port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_stream_in_flight_ends_whole_and_the_process_with_it(expert: FakeServer, tmp_path: Path) -> None:
    gate = threading.Event()

    async def behave(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        await asyncio.to_thread(gate.wait, PATIENCE)
        return await streams(*STREAM, pause=0.05)(server, request, body)

    expert.behaviour = behave
    with running(expert, local(tmp_path)) as gateway:
        connection = ask(gateway, stream=True)
        assert expert.wait_until_asked()
        gateway.server.drain()
        assert until(lambda: refuses(gateway))
        assert gateway.thread.is_alive()
        gate.set()
        answer = rest(connection)
        assert answer.count(b'"word "') == WORDS
        assert answer.endswith(b"0\r\n\r\n")
        assert gateway.ended()
    assert 'code="200"' in gateway.counted()


def test_before_it_listens_no_more_it_says_so_and_goes_on_answering(expert: FakeServer, tmp_path: Path) -> None:
    with running(expert, local(tmp_path, drain_delay=3)) as gateway, ExitStack() as clients:
        # Made beforehand: to make one takes a while.
        kept, *others = [clients.enter_context(httpx.Client(base_url=gateway.url, timeout=PATIENCE)) for _ in range(4)]
        ready = kept.get("/ready")
        assert (ready.status_code, "connection" in ready.headers) == (200, False)
        gateway.server.drain()
        for client in (kept, others[0]):
            draining = client.get("/ready")
            assert (draining.status_code, draining.json()["status"]) == (503, "draining")
            assert draining.headers["connection"] == "close"
        body = {"model": "general", "messages": [{"role": "user", "content": "general"}]}
        late = others[1].post("/v1/chat/completions", json=body)
        assert (late.status_code, late.headers["connection"]) == (200, "close")
        assert others[2].get("/health").json()["status"] == "ok"
        assert until(lambda: refuses(gateway))
        assert gateway.ended()


def test_connections_that_rest_hold_nothing_back(expert: FakeServer, tmp_path: Path) -> None:
    with (
        running(expert, local(tmp_path, drain_seconds=3600.0)) as gateway,
        httpx.Client(base_url=gateway.url, timeout=PATIENCE) as used,
    ):
        used.get("/health")
        with closing(socket.create_connection((gateway.settings.host, gateway.settings.port))):
            gateway.server.drain()
            assert gateway.ended()


@pytest.mark.parametrize("impatient", [False, True], ids=["its time is over", "a second signal comes"])
def test_what_does_not_end_is_cut_and_counted_as_cancelled(expert: FakeServer, tmp_path: Path, impatient: bool) -> None:
    settings = local(tmp_path, drain_seconds=60.0 if impatient else 0.3)
    with running(expert, settings) as gateway:
        expert.behaviour = silent
        waiting = ask(gateway, stream=False)
        assert expert.wait_until_asked()
        expert.behaviour = endless
        streaming = ask(gateway, stream=True)
        assert until(lambda: len(expert.requests) == 2)
        assert streaming.recv(100)
        gateway.server.handle_exit(signal.SIGTERM, None)
        if impatient:
            time.sleep(0.2)
            assert gateway.thread.is_alive()
            gateway.server.force_exit = True
        told = rest(waiting)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in told
        assert json.loads(told.rpartition(b"\r\n\r\n")[2])["error"]["code"] == "shutting_down"
        assert not rest(streaming).endswith(b"0\r\n\r\n")
        assert gateway.ended()
    counted = gateway.counted()
    for phase in ("waiting", "streaming"):
        assert f'moe_client_disconnects_total{{endpoint="chat.completions",phase="{phase}"}} 1.0' in counted
    assert expert.wait_until_idle()


def test_signals_lead_from_patience_to_the_systems_own_way(expert: FakeServer, tmp_path: Path) -> None:
    server = Server(create_app(local(tmp_path), router_of(experts_file({"general": {}}))), local(tmp_path), None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        server.handle_exit(signal.SIGTERM, None)
        assert (server.should_exit, server.force_exit) == (True, False)
        server.handle_exit(signal.SIGTERM, None)
        assert server.force_exit
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_unix_socket_is_served(expert: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with (
        running(expert, replace(local(tmp_path), uds=path)),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=PATIENCE) as client,
    ):
        body = {"model": "general", "messages": [{"role": "user", "content": "general"}]}
        assert client.post("http://gateway/v1/chat/completions", json=body).status_code == 200
    assert not path.exists()


def test_tls_is_served_from_two_files(expert: FakeServer, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for i, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(certificate), append=i > 0)
    issued.private_key_pem.write_to_path(str(key))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    expert.behaviour = streams(*STREAM, pause=0.01)
    with running(expert, replace(local(tmp_path), tls_cert=certificate, tls_key=key)) as gateway:
        url = gateway.url.replace("http:", "https:")
        body = {"model": "general", "stream": True, "messages": [{"role": "user", "content": "general"}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, verify=trusting, timeout=PATIENCE)
        assert answer.text.count('"word "') == WORDS
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{gateway.url}/health", timeout=PATIENCE)


def test_every_address_of_both_families_is_served(expert: FakeServer, tmp_path: Path) -> None:
    here = ["127.0.0.1", "[::1]"] if Path("/proc/net/if_inet6").exists() else ["127.0.0.1"]
    with running(expert, replace(local(tmp_path), host="::" if len(here) == 2 else "127.0.0.1")) as gateway:
        for host in here:
            assert httpx.get(f"http://{host}:{gateway.settings.port}/health", timeout=PATIENCE).status_code == 200
