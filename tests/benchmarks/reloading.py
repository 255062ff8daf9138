"""What reloads cost: seconds from saving ten examples of a new domain to the first request that is routed to it, how long requests
take meanwhile, and a thousand reloads under load.

python -m tests.benchmarks.reloading [--rate 40] [--seconds 20] [--reloads 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil

from tests.benchmarks.domain_prompts import draws, prompts_of
from tests.fakes.upstream import FakeServer, fake_server
from tests.integration.conftest import Command, experts_yaml, serve

PATIENCE = 600.0
SETTLED = 8.0  # seconds after which a generation that was replaced is gone
PROMPTS = (
    "Fix the loop in my Python function",
    "Prove that there are infinitely many primes",
    "What do mitochondria do with oxygen?",
    "Write a cheerful birthday poem about trains",
)


@dataclass
class Load:
    """Requests at a constant rate: when each began, in seconds of the monotonic clock, and how long it took; `failed` counts those
    that were not answered whole."""

    began: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    failed: int = 0

    def between(self, start: float, end: float) -> np.ndarray[Any, Any]:
        """Milliseconds of those that began then."""
        return np.array([1000 * t for b, t in zip(self.began, self.took, strict=True) if start <= b < end])

    async def ask(self, session: aiohttp.ClientSession, url: str, number: int) -> None:
        content = f"{PROMPTS[number % len(PROMPTS)]}, {number}"  # none that was scored before
        body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": content}]}
        start = time.monotonic()
        try:
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                whole = await response.read()
                self.failed += response.status != 200 or b"[DONE]" not in whole
        except aiohttp.ClientError:
            self.failed += 1
        self.began.append(start)
        self.took.append(time.monotonic() - start)


@asynccontextmanager
async def loaded(url: str, rate: float) -> AsyncIterator[Load]:
    """So many requests a second, from now on."""
    load, tasks = Load(), set[asyncio.Task[None]]()

    async def run() -> None:
        begin = time.monotonic()
        for number in range(10**9):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            task = asyncio.create_task(load.ask(session, url, number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        running = asyncio.create_task(run())
        try:
            yield load
        finally:
            running.cancel()
            await asyncio.gather(*tasks, running, return_exceptions=True)


Up = tuple[Command, Path, list[FakeServer]]


@contextmanager
def gateway(watch: str) -> Iterator[Up]:
    with tempfile.TemporaryDirectory() as folder, fake_server() as one, fake_server() as two:
        config = Path(folder) / "experts.yaml"
        config.write_text(experts_yaml(one, two), "utf-8")
        arguments = ("--config", str(config), "--state", folder + "/state", "--watch", watch, "--log-level", "error")
        with serve(*arguments, patience=PATIENCE) as command:
            yield command, config, [one, two]


def save(path: Path, text: str) -> None:
    """As editors do."""
    path.with_suffix(".new").write_text(text, "utf-8")
    path.with_suffix(".new").replace(path)


async def learning(up: Up, rate: float, seconds: float) -> dict[str, Any]:
    """Ten examples of a new domain are saved while requests come."""
    examples = next(iter(draws("legal", 10, 1)))
    listed = "domains:\n  legal:\n    examples:\n" + "".join(f"      - {json.dumps(text)}\n" for text in examples)
    command, config, servers = up
    two = "model-two\n    domains: {"
    wanted = experts_yaml(*servers, extra=listed).replace(two, f"{two}legal: 0.95, ")
    prompt = {"input": prompts_of("legal", "test")[0]}
    async with loaded(command.url, rate) as load, httpx.AsyncClient(timeout=60) as http:
        await asyncio.sleep(3)  # for what is loaded when it is first needed
        start = time.monotonic()
        await asyncio.sleep(seconds)
        saved = time.monotonic()
        save(config, wanted)
        while True:
            answer = (await http.post(f"{command.url}/v1/route", json=prompt)).json()
            if (answer["domain"], answer["expert"]) == ("legal", "two"):
                break
            if time.monotonic() - saved > PATIENCE:
                raise TimeoutError((await http.get(f"{command.url}/admin/config")).text)
            await asyncio.sleep(0.1)
        routed = time.monotonic()
        figures = (await http.get(f"{command.url}/admin/config")).json()
    before, during = load.between(start, saved), load.between(saved, routed)
    p99 = [float(np.percentile(part, 99)) for part in (before, during)]
    return {
        "seconds from saving to the first request routed": round(routed - saved, 1),
        "requests before, during": [len(before), len(during)],
        "p50 before, during (ms)": [round(float(np.median(part)), 1) for part in (before, during)],
        "p99 before, during (ms)": [round(figure, 1) for figure in p99],
        "p99 during / before": round(p99[1] / p99[0], 2),
        "failed": load.failed,
        "changes": figures["changes"],
    }


async def soak(up: Up, rate: float, reloads: int) -> dict[str, Any]:
    """So many reloads while requests come; what is open, and how much memory there is, after a tenth of them and at the end."""
    command, config, servers = up
    process = psutil.Process(command.process.pid)
    texts = [
        experts_yaml(*servers[:count], expert_extra=f"    max_in_flight: {n}")
        for n, count in ((90, 1), (91, 2), (92, 2))
    ]
    seen: list[tuple[int, float, int, int]] = []
    began = time.monotonic()
    async with loaded(command.url, rate) as load, httpx.AsyncClient(timeout=60) as http:
        for i in range(reloads):
            save(config, texts[(i + 1) % 3] + f"\n# {i}\n")
            answer = await http.post(f"{command.url}/admin/reload")
            if answer.json().get("status") != "reloaded":
                raise RuntimeError(answer.text)
            if (i + 1) % max(1, reloads // 10) == 0:
                await asyncio.sleep(SETTLED)
                memory = process.memory_info().rss / 2**20
                seen.append((i + 1, round(memory, 1), process.num_fds(), process.num_threads()))
    return {
        "reloads": reloads,
        "seconds": round(time.monotonic() - began, 1),
        "requests": len(load.took),
        "failed": load.failed,
        "p99 (ms)": round(float(np.percentile(1000 * np.array(load.took), 99)), 1),
        "after reloads: MiB, files, threads": seen,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of requests before anything is saved")
    parser.add_argument("--reloads", type=int, default=1000)
    asked = parser.parse_args()
    print(f"load average {os.getloadavg()}, {os.cpu_count()} cores")
    if asked.seconds:
        with gateway("auto") as up:
            print(json.dumps(asyncio.run(learning(up, asked.rate, asked.seconds)), indent=2))
    if asked.reloads:
        with gateway("off") as up:
            print(json.dumps(asyncio.run(soak(up, asked.rate, asked.reloads)), indent=2))


if __name__ == "__main__":
    main()
