"""How fast a real vLLM answers through the gateway and straight, how soon workers are ready, and which architectures are served.

make bench-vllm [BENCH='--rounds 5 --only speed --write']
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from gateway.workers.protocol import Crew, WorkerState
from gateway.workers.reaching import reached
from tests.benchmarks.vllm_tables import Architecture, Round, Sample, Start, inserted, markdown
from tests.integration.conftest import ROOT
from tests.vllm.launching import SMOLLM2, VLLM, Launched, ask, launch, launched
from tests.vllm.tiny_models import TinyModel, tiny_models

DOCUMENT = ROOT / "docs" / "vllm.md"
PARTS = ("speed", "starts", "architectures")
CONCURRENT = (1, 8)
TOKENS = 48
TOPICS = (
    "rivers",
    "bridges",
    "bread",
    "clocks",
    "whales",
    "maps",
    "violins",
    "glass",
    "bees",
    "kites",
    "salt",
    "trains",
)
STOP_SECONDS = 90


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="make bench-vllm", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, action="append", help="of the tables; as a rule all")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/vllm.md")
    args = parser.parse_args(arguments)
    if not (VLLM / "bin" / "vllm").exists():
        sys.exit("error: there is no vLLM; make one with: make vllm")
    document = DOCUMENT.read_text("utf-8")
    with tempfile.TemporaryDirectory(prefix="bench-vllm-") as folder:
        for part in args.only or PARTS:
            figures = f"{markdown(_MEASURE[part](Path(folder), args.rounds))}\n{_machine()}"
            sys.stdout.write(f"{figures}\n\n")
            document = inserted(document, part, figures)
            if args.write:
                DOCUMENT.write_text(document, "utf-8")


def _speed(folder: Path, rounds: int) -> list[Round]:
    """Straight to the worker and through the gateway, one after the other, the first changing from round to round."""
    text = f"version: 1\nexperts:\n  coder:\n    model: smollm2\n    domains: [code]\n    upstream: {{launch: {launch(SMOLLM2)}}}\n"
    made = []
    with launched(text, _folder(folder, "speed")) as gateway:
        worker = gateway.worker("coder-0")
        ways = {
            "straight": (f"{worker.url}/chat/completions", "smollm2", worker.headers),
            "gateway": (f"{gateway.url}/v1/chat/completions", "coder", {}),
        }
        for url, model, headers in ways.values():
            asyncio.run(_load(url, model, headers, 2, 0))  # the first answers of a worker are slow ones
        for number in range(1, rounds + 1):
            for concurrent in CONCURRENT:
                order = list(ways) if number % 2 else list(reversed(ways))
                samples = {way: asyncio.run(_load(*ways[way], concurrent, number)) for way in order}
                made.append(Round(concurrent, samples["straight"], samples["gateway"]))
    return made


async def _load(url: str, model: str, headers: Mapping[str, str], concurrent: int, number: int) -> Sample:
    """So many streams at once, each of TOKENS tokens; no prompt is asked twice of the same way."""
    async with httpx.AsyncClient(timeout=600, headers=dict(headers)) as client:
        began = time.perf_counter()
        prompts = (f"Round {number}, {i}: tell me about {TOPICS[i % len(TOPICS)]}." for i in range(concurrent))
        firsts = await asyncio.gather(*(_stream(client, url, model, prompt) for prompt in prompts))
    return Sample(concurrent * TOKENS / (time.perf_counter() - began), statistics.median(firsts))


async def _stream(client: httpx.AsyncClient, url: str, model: str, prompt: str) -> float:
    """Seconds to the first content. Raises where the answer is not whole."""
    messages = [{"role": "user", "content": prompt}]
    body = {"model": model, "messages": messages, "stream": True, "max_tokens": TOKENS, "ignore_eos": True}
    began, first, text = time.perf_counter(), None, ""
    async with client.stream("POST", url, json=body) as response:
        response.raise_for_status()
        async for text in response.aiter_lines():
            if first is None and '"content":"' in text and '"content":""' not in text:
                first = time.perf_counter() - began
            if text == "data: [DONE]":
                break
    if first is None or text != "data: [DONE]":
        raise ValueError(f"the answer broke off: {text[:200]}")
    return first


def _starts(folder: Path, rounds: int) -> list[Start]:
    """From the start of `moe-gateway workers up` to the last of its workers being ready."""
    made = []
    for replicas in (1, 2):
        seconds = []
        for number in range(min(rounds, 3)):
            place = launch(SMOLLM2, replicas=replicas)
            text = f"version: 1\nexperts:\n  coder:\n    model: smollm2\n    domains: [code]\n    upstream: {{launch: {place}}}\n"
            with _up(text, _folder(folder, f"up-{replicas}-{number}")) as took:
                seconds.append(took)
        made.append(Start(replicas, seconds))
    return made


@contextmanager
def _up(text: str, folder: Path) -> Iterator[float]:
    """`workers up` with that experts.yaml; seconds until all workers were ready."""
    config, state = folder / "experts.yaml", folder / "state"
    config.write_text(text, "utf-8")
    command = [sys.executable, "-m", "gateway.cli", "workers", "up", "--config", str(config), "--state", str(state)]
    began = time.time()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        while (crew := _told(state)) is None or any(w.state is not WorkerState.READY for w in crew.workers):
            if process.poll() is not None or (crew and any(w.state is WorkerState.FAILED for w in crew.workers)):
                raise RuntimeError(f"a worker did not start\n{(folder / 'log').read_text('utf-8', 'replace')}")
            time.sleep(0.1)
        yield max(worker.since for worker in crew.workers) - began
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _told(state: Path) -> Crew | None:
    with reached(state.resolve()) as owner:
        told = owner.hear() if owner is not None else None
    return told if isinstance(told, Crew) else None


def _architectures(folder: Path, rounds: int) -> list[Architecture]:
    """Each of the tiny models alone, through a gateway."""
    del rounds
    return [_served(model, folder) for model in tiny_models(VLLM / "bin" / "python").values()]


def _served(model: TinyModel, folder: Path) -> Architecture:
    text = (
        f"version: 1\nexperts:\n  {model.name}:\n    model: tiny\n    domains: [general]\n"
        f"    upstream: {{launch: {launch(model.folder)}}}\n"
    )
    began = time.time()
    with launched(text, _folder(folder, model.name)) as gateway:
        seconds = _ready_at(gateway) - began
        given = [ask(gateway, model.name, answer).json()["choices"][0]["token_ids"] for answer in model.answers]
    return Architecture(model.name, model.architecture, given == [answer.tokens for answer in model.answers], seconds)


def _ready_at(gateway: Launched) -> float:
    (facts,) = gateway.crew().values()
    return facts.since


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def _machine() -> str:
    version = subprocess.run([VLLM / "bin" / "vllm", "--version"], capture_output=True, text=True, check=True).stdout
    load = os.getloadavg()[1]
    return (
        f"\nvLLM {version.split()[-1]} on {os.cpu_count()} cores ({platform.machine()}), shared by all; the "
        f"machine's load average over five minutes was {load:.1f} at the end."
    )


_MEASURE: Mapping[str, Callable[[Path, int], list[Round] | list[Start] | list[Architecture]]] = {
    "speed": _speed,
    "starts": _starts,
    "architectures": _architectures,
}

if __name__ == "__main__":
    main(sys.argv[1:])
