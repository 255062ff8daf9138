"""Running gateways: in a thread over fake servers, or as the command that users start."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from gateway.app import create_app
from gateway.serving import Server
from gateway.settings import Settings
from gateway.state import GatewayState
from router.artifact import PACKAGED, Artifact, load_artifact
from router.experts import parse_experts
from router.routing import Router
from tests.fakes.upstream import PATIENCE, FakeServer, fake_server

ROOT = Path(__file__).parents[2]
PATIENT = "{connect: 60s, first_byte: 60s, idle: 60s, total: 100s}"  # more than any test waits for anything
STARTING = 90.0  # seconds for a gateway to start, its engine included


@dataclass
class Running:
    """A gateway that answers at `url`."""

    url: str
    state: GatewayState
    server: Server

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the series of `name` that have `labels`, as /metrics tells it."""
        return metric(httpx.get(f"{self.url}/metrics", timeout=PATIENCE).text, name, **labels)

    def settled(self, name: str, value: float, **labels: str) -> bool:
        """Whether the metric comes to `value`: books are closed just after the last byte."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.metric(name, **labels) == value:
                return True
            time.sleep(0.02)
        return False


def metric(text: str, name: str, **labels: str) -> float:
    total = 0.0
    for line in text.splitlines():
        match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if match and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', match[1] or "")).items():
            total += float(match[2])
    return total


@pytest.fixture(scope="session")
def artifact() -> Artifact:
    return load_artifact(PACKAGED)


Start = Callable[..., Running]


@pytest.fixture
def start(artifact: Artifact, tmp_path: Path) -> Iterator[Start]:
    """start(experts_yaml, **settings) runs a gateway until the test ends."""
    with ExitStack() as stack:

        def begin(text: str, **settings: object) -> Running:
            options: dict[str, object] = {"health_interval": 3600.0, "state": tmp_path, **settings}
            router = Router(parse_experts(text), artifact)
            return stack.enter_context(_threaded(Settings(**options), router))  # type: ignore[arg-type]

        yield begin


@contextmanager
def _threaded(settings: Settings, router: Router) -> Iterator[Running]:
    app = create_app(settings, router)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(app, replace(settings, drain_seconds=min(settings.drain_seconds, 1.0)), None)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until = time.monotonic() + STARTING
            while not server.started and thread.is_alive() and time.monotonic() < until:
                time.sleep(0.01)
            assert server.started
            yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.gateway, server)
        finally:
            server.drain()
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def servers() -> Iterator[list[FakeServer]]:
    """Three fake model servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(fake_server()) for _ in range(3)]


def experts_yaml(*servers: FakeServer, extra: str = "", expert_extra: str = "", timeouts: str = PATIENT) -> str:
    """Experts one, two, three over the given servers; all of the same quality in every domain, tried in that order."""
    names = ("one", "two", "three")
    parts = ["version: 1", extra, "experts:"]
    for name, server in zip(names, servers, strict=False):
        parts.append(f"  {name}:")
        parts.append(f"    model: model-{name}")
        parts.append("    domains: {code: 0.5, math: 0.5, bio: 0.5, general: 0.5}")
        parts.append(f"    upstream: {{vllm: [{server.url}]}}")
        parts.append("    price: {input: 1.0, cached_input: 0.5, output: 2.0}")
        parts.append(f"    timeouts: {timeouts}")
        parts.append(expert_extra)
        others = [other for other in names[: len(servers)] if other != name]
        parts.append(f"    fallbacks: [{', '.join(others)}]")
    return "\n".join(parts)


@dataclass
class Command:
    """`moe-gateway serve` as a process."""

    process: subprocess.Popen[str]
    url: str
    screen: list[str]

    def worker_pids(self) -> list[int]:
        """The embedded engine's process ids. One that ends while it is looked at is none."""
        import psutil

        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "gateway.workers.embedded" in " ".join(child.cmdline()):
                    found.append(child.pid)
        return found


@contextmanager
def serve(
    *arguments: str, cwd: Path = ROOT, environment: dict[str, str] | None = None, patience: float = STARTING
) -> Iterator[Command]:
    """Start the command, wait until it says its address, within `patience` seconds, stop it at the end."""
    command = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    screen: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            screen.append(line)
            if "curl" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(patience), "".join(screen)
        found = re.search(r"http://[^/\s]+", "".join(screen))
        assert found, "".join(screen)
        yield Command(process, found[0], screen)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="session")
def default_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The project's own experts.yaml, served by the command, embedded engine and all."""
    state = tmp_path_factory.mktemp("state")
    with serve("--config", str(ROOT / "experts.yaml"), "--state", str(state)) as command:
        yield command
