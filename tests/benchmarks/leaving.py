"""How long after a client has left its upstream's connection is closed, and what a slow reader costs in memory.

    python -m tests.benchmarks.leaving [--metrics http://127.0.0.1:8101 --url http://127.0.0.1:8080 --model coder]

Without arguments a gateway of its own with a fake model server; with `--url` a running gateway and with `--metrics` the vLLM
worker behind it, whose count of running requests is read until it is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

TIMES = 20
CHUNKS = 10_000
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(text: str) -> bytes:
    data = json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
    line = f"data: {data}\n\n".encode()
    return f"{len(line):x}\r\n".encode() + line + b"\r\n"


class Server:
    """Answers every request with one word and then silence, or with silence alone; notes when its client is gone."""

    def __init__(self) -> None:
        self.speaks = True
        self.flood = 0
        self.asked, self.gone = asyncio.Event(), asyncio.Event()
        self.gone_at = 0.0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()
            return
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(size)
        if self.speaks:
            writer.write(HEAD + event("word"))
        self.asked.set()
        try:
            for _ in range(self.flood):
                writer.write(event("x" * 1000))
                await writer.drain()
            while await reader.read(4096):
                pass
        except (OSError, asyncio.CancelledError):
            pass
        self.gone_at = time.perf_counter()
        self.gone.set()
        writer.close()


def request(stream: bool, model: str = "one") -> bytes:
    body = {"model": model, "stream": stream, "max_tokens": 1500, "ignore_eos": True}
    text = json.dumps({**body, "messages": [{"role": "user", "content": "Tell me a story"}]}).encode()
    return f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text


@contextmanager
def gateway(port: int) -> Iterator[tuple[int, int]]:
    """A gateway over the server at `port`; its own port and process id."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
        free.close()
        config = Path(folder) / "experts.yaml"
        config.write_text(
            "version: 1\nexperts:\n  one:\n    model: m\n    domains: [code]\n    timeouts: {first_byte: 1h, idle: 1h}\n"
            f"    upstream: {{vllm: [http://127.0.0.1:{port}/v1]}}\n"
        )
        command = [sys.executable, "-m", "gateway.cli", "serve", "--port", str(own), "--config", str(config)]
        process = subprocess.Popen(
            [*command, "--state", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
        )
        try:
            yield own, process.pid
        finally:
            process.terminate()
            process.wait(20)


async def ready(port: int) -> None:
    async with httpx.AsyncClient() as http:
        for _ in range(600):
            try:
                if (await http.get(f"http://127.0.0.1:{port}/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError("the gateway did not come up")


async def released(server: Server, port: int, stream: bool, speaks: bool) -> float:
    """Seconds from the client's leaving to the close of the upstream's connection."""
    server.speaks = speaks
    server.asked.clear()
    server.gone.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(stream))
    await server.asked.wait()
    if speaks:
        await reader.readuntil(b"word")
    await asyncio.sleep(0.05)
    left = time.perf_counter()
    writer.transport.abort() if speaks else writer.close()
    await server.gone.wait()
    return server.gone_at - left


async def slow_reader(server: Server, port: int, pid: int) -> tuple[float, float]:
    """MB of memory that a gateway grows by while a client reads CHUNKS chunks slowly, and MB that it read."""
    server.speaks, server.flood = True, CHUNKS
    server.gone.clear()
    process = psutil.Process(pid)
    before = peak = process.memory_info().rss
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**14)
    writer.write(request(stream=True))
    read = 0
    while read < CHUNKS * 1000 and (part := await reader.read(16384)):
        read += len(part)
        peak = max(peak, process.memory_info().rss)
        await asyncio.sleep(0.01)
    writer.transport.abort()
    server.flood = 0
    await server.gone.wait()
    return (peak - before) / 1e6, read / 1e6


def told(name: str, seconds: list[float]) -> None:
    ms = sorted(1000 * s for s in seconds)
    print(f"{name}: median {statistics.median(ms):.1f} ms, slowest of {len(ms)} {ms[-1]:.1f} ms")


async def of_its_own() -> None:
    server = Server()
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    with gateway(listener.sockets[0].getsockname()[1]) as (port, pid):
        await ready(port)
        for name, stream, speaks in (
            ("waiting for a whole answer", False, False),
            ("waiting for the first token", True, False),
            ("in mid-stream", True, True),
        ):
            told(f"left {name}, upstream closed", [await released(server, port, stream, speaks) for _ in range(TIMES)])
        grown, read = await slow_reader(server, port, pid)
        print(f"a slow reader of {CHUNKS} chunks, {read:.1f} MB: the gateway grew by {grown:.1f} MB")
    listener.close()


def of_vllm(url: str, metrics: str, model: str) -> None:
    """Seconds from the client's leaving until vLLM runs nothing, in each phase."""

    def running() -> float:
        text = httpx.get(f"{metrics}/metrics").text
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith("vllm:num_requests_running{")
        )

    host, port = url.removeprefix("http://").split(":")
    for name, stream in (("waiting for a whole answer", False), ("in mid-stream", True)):
        seconds = []
        for _ in range(5):
            client = socket.create_connection((host, int(port)))
            client.sendall(request(stream, model))
            while running() == 0:
                time.sleep(0.02)
            time.sleep(0.3)
            left = time.perf_counter()
            client.close()
            while running():
                time.sleep(0.01)
            seconds.append(time.perf_counter() - left)
        told(f"left {name}, vLLM runs nothing", seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--metrics")
    parser.add_argument("--model", default="coder")
    given = parser.parse_args()
    if given.url:
        of_vllm(given.url, given.metrics, given.model)
    else:
        asyncio.run(of_its_own())


if __name__ == "__main__":
    main()
