"""A fake vLLM to launch, and a crew in this process that does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.workers.crew import Crew
from gateway.workers.launched import LaunchedWorker
from gateway.workers.launching import Place, Vllm
from gateway.workers.protocol import WorkerFacts, WorkerState
from router.experts import load_experts
from tests.fakes.vllm_environment import PATIENCE, alive, make_environment, write_experts


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a fake vLLM."""
    return make_environment(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(autouse=True)
def _at_a_faster_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes come and go as in earnest, but are looked at more often and tried again sooner."""
    monkeypatch.setattr("gateway.workers.crew.LOOK_SECONDS", 0.1)
    monkeypatch.setattr("gateway.workers.launched.SETTLE_SECONDS", 0.1)
    monkeypatch.setattr("gateway.workers.supervisor.FIRST_PAUSE_SECONDS", 0.1)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder, whose workers are all gone at the end."""
    folder = tmp_path / "state"
    yield folder
    left = alive(folder)
    for process in left:
        process.kill()
    assert left == []


@pytest.fixture
def place(environment: Path, state: Path, tmp_path: Path) -> Place:
    return Place(Vllm(environment / "bin" / "vllm", cpu=True), tmp_path, state, 1, os.environ)


@dataclass
class Running:
    """A crew that runs in this process. `seen` are the facts that it told, each once, as they came."""

    crew: Crew
    config: Path
    seen: list[WorkerFacts] = field(default_factory=list)

    def worker(self, name: str) -> LaunchedWorker:
        return self.crew.workers[name]

    def states(self, name: str) -> list[WorkerState]:
        """The states that a worker was in, one after the other."""
        states: list[WorkerState] = []
        for facts in self.seen:
            if facts.name == name and states[-1:] != [facts.state]:
                states.append(facts.state)
        return states

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - of processes, which set no event
                await asyncio.sleep(0.02)

    async def become(self, name: str, state: WorkerState) -> LaunchedWorker:
        await self.until(lambda: self.worker(name).state is state)
        return self.worker(name)

    async def change(self, experts: Mapping[str, Mapping[str, Any]]) -> None:
        await self.crew.change(load_experts(write_experts(self.config, experts)))


Start = Callable[[Mapping[str, Mapping[str, Any]]], Running]


@pytest.fixture
async def start(place: Place, tmp_path: Path) -> AsyncIterator[Any]:
    """await start(experts) runs a crew until the test ends."""
    async with AsyncExitStack() as stack:

        async def begin(experts: Mapping[str, Mapping[str, Any]]) -> Running:
            config = write_experts(tmp_path / "experts.yaml", experts)

            def changed() -> None:
                for facts in crew.told().workers:
                    if facts not in running.seen[-len(crew.workers) :]:
                        running.seen.append(facts)

            crew = Crew(load_experts(config), place, lambda: changed())
            running = Running(crew, config)
            await crew.start()
            stack.push_async_callback(crew.stop)
            stack.callback(crew.hurry)
            return running

        yield begin
