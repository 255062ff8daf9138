"""A vLLM worker of experts.yaml: launched, watched, put to sleep, woken, drained, stopped."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Collection

from gateway.upstreams.openai import OpenAIUpstream
from gateway.workers import logfiles
from gateway.workers.diagnosis import PORT_TAKEN, Diagnosis, diagnose
from gateway.workers.figures import Figures
from gateway.workers.gate import Gate
from gateway.workers.launching import DRAIN_SECONDS, Place, Plan, command, environment
from gateway.workers.protocol import WorkerFacts, WorkerState
from gateway.workers.remains import KEEPER
from gateway.workers.sleeping import put_to_sleep, woken
from gateway.workers.supervisor import Patience, Program, Worker, WorkerError

log = logging.getLogger("moe_gateway")

MARGIN_SECONDS = 5.0  # that the keeper has beyond what it gives the server
LONGEST_PAUSE_SECONDS = 300.0  # each start of a vLLM costs half a minute of processors
TAIL_LINES = 12
PORT_TRIES = 4
SETTLE_SECONDS = 0.5  # until every gateway knows that nothing new is to be sent
IDLE_LOOKS = 2  # one after the other, before it counts as drained
BLIND_LOOKS = 8  # that tell nothing, before it is no longer waited for


class LaunchedWorker(Worker):
    """One worker by its plan. It is ASLEEP until it `begins` or is woken. `on_change` hears of every change of its state; `gate`
    says who may load now, `ports` tells those that others use, `clear` ends what its keeper left that was killed."""

    end_at_once = signal.SIGQUIT  # its keeper then waits for nothing
    tail_lines = TAIL_LINES

    def __init__(
        self,
        plan: Plan,
        place: Place,
        upstream: OpenAIUpstream,
        gate: Gate,
        on_change: Callable[[], None],
        ports: Callable[[], Collection[int]],
        clear: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(plan.name, (), place.state / "logs" / f"{plan.name}.log")
        self.follow(plan)
        self.state, self.since, self.why = WorkerState.ASLEEP, time.time(), ""
        self.port: int | None = None
        self.figures = Figures(time.monotonic())
        self.wakes, self.wake_seconds, self.asleep_seconds = 0, None, 0.0  # type: int, float | None, float
        self.diagnosis = Diagnosis("")
        self.failures = 0  # since it was ready last
        self._place, self._upstream, self._gate = place, upstream, gate
        self._on_change, self._ports, self._clear = on_change, ports, clear
        self._waking: float | None = None
        self._wanted = False
        self._settled = asyncio.Event()

    def follow(self, plan: Plan) -> None:
        """Another plan that is equal to its own."""
        self.plan = plan
        self.patience = Patience(plan.launch.ready_within, DRAIN_SECONDS + MARGIN_SECONDS, LONGEST_PAUSE_SECONDS)

    @property
    def facts(self) -> WorkerFacts:
        ready = self.state is WorkerState.READY
        return WorkerFacts(
            self.name, self.plan.expert, self.state, self.since,
            url=self.url if ready else None, api_key=self.api_key if ready else None, pid=self.pid,
            restarts=self.restarts, wakes=self.wakes, wake_seconds=self.wake_seconds,
            asleep_seconds=self.asleep_seconds, why=self.why,
        )  # fmt: skip

    def begin(self) -> None:
        """Launch in the background, and go on trying until it serves."""
        self._wanted = True
        self._enter(WorkerState.WAKING if self._waking is not None else WorkerState.STARTING)
        super().begin()

    async def settled(self) -> None:
        """Until it is ready, or failed once."""
        await self._settled.wait()

    async def sleep(self) -> None:
        """Finish what it runs, and cost no GPU any more."""
        up, self._wanted, self._waking = self.state is WorkerState.READY, False, None
        self._enter(WorkerState.STOPPING)
        if up:
            await self._drained()
        if not (
            up and self.plan.sleeps_awake and await put_to_sleep(self._upstream, self, self.plan.launch.sleep_level)
        ):
            self.hurry()  # nothing runs there
            await super().stop()
        self._enter(WorkerState.ASLEEP)

    async def wake(self) -> None:
        """Until it is ready, or failed once; it is tried again then."""
        self._waking, self._wanted = time.monotonic(), True
        if self.pid is not None:
            self._enter(WorkerState.WAKING)
            if await woken(self._upstream, self, self.plan.launch.sleep_level) and self.url is not None:
                self.on_ready()
                return
            self.hurry()
            await super().stop()
        self.begin()
        await self.settled()

    async def stop(self) -> None:
        """Finish what it runs, and end."""
        up, self._wanted = self.state is WorkerState.READY, False
        self._enter(WorkerState.STOPPING)
        if up:
            await self._drained()
        await super().stop()

    async def look(self) -> bool:
        """Read its figures. Whether it tells them."""
        exposition = await self._upstream.fetch(self, "/metrics")
        return exposition is not None and self.figures.read(exposition, time.monotonic())

    def program(self) -> Program:
        self.port = _free_port(self._ports())
        words = command(self.plan, self._place.vllm, self.port)
        keeper = [sys.executable, "-I", "-S", str(KEEPER), str(self.port), str(DRAIN_SECONDS)]
        given = environment(self.plan, self._place, self.api_key or "")
        return Program([*keeper, *words], given, self._place.folder)

    async def launch(self) -> None:
        """Once, or again at once where somebody took the port."""
        async with self._gate.loading(self.plan.gpus):
            for left in reversed(range(PORT_TRIES)):
                try:
                    await super().launch()
                    return
                except WorkerError as error:
                    if not left or not PORT_TAKEN.search(str(error)):
                        self.diagnosis = diagnose(logfiles.text(self.log_file, self.log_begin))
                        raise
                    await self.end()

    def on_launch(self) -> None:
        logfiles.bound(self.log_file)
        self.log_begin = logfiles.size(self.log_file)
        self._enter(WorkerState.WAKING if self._waking is not None else WorkerState.STARTING, self.why)

    def on_ready(self) -> None:
        if self._waking is not None:
            self.wakes, self.wake_seconds = self.wakes + 1, time.monotonic() - self._waking
            self._waking = None
        self.figures, self.failures = Figures(time.monotonic()), 0
        self._enter(WorkerState.READY)

    def on_failure(self, error: WorkerError) -> None:
        self.failures += 1
        what, found = str(error).partition(";")[0].removeprefix(f"{self.name} "), self.diagnosis.line
        self._enter(
            WorkerState.FAILED, found if found and what == "did not start" else ": ".join(filter(None, (what, found)))
        )

    def on_death(self, status: int | None) -> bool:
        if self._wanted:
            found = diagnose(logfiles.text(self.log_file, self.log_begin)).line
            self._enter(WorkerState.FAILED, f"it ended by itself{f': {found}' if found else ''}")
        return self._wanted

    async def after_end(self) -> None:
        self.port = None
        await self._clear()

    def _enter(self, state: WorkerState, why: str = "") -> None:
        now = time.time()
        if self.state is WorkerState.ASLEEP and state is not WorkerState.ASLEEP:
            self.asleep_seconds += max(0.0, now - self.since)
        if state is not self.state:
            self.since = now
        self.state, self.why = state, why
        if state in (WorkerState.READY, WorkerState.FAILED):
            self._settled.set()
        else:
            self._settled.clear()
        self._on_change()

    async def _drained(self) -> None:
        """Until nothing runs there, DRAIN_SECONDS at most."""
        end, idle, blind = time.monotonic() + DRAIN_SECONDS, 0, 0
        while time.monotonic() < end and self.pid is not None and idle < IDLE_LOOKS and blind < BLIND_LOOKS:
            await asyncio.sleep(SETTLE_SECONDS / IDLE_LOOKS)
            seen = await self.look()
            idle = idle + 1 if seen and not self.figures.busy else 0
            blind = 0 if seen else blind + 1


async def nothing_left() -> None:
    """Where keepers are not killed."""


def _free_port(taken: Collection[int]) -> int:
    """A port of loopback that nobody listens on now."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        if port not in taken:
            return port
