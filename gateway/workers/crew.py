"""The crew: all workers of one experts.yaml, started together, put to sleep and woken in turns, replaced when the file changes."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

import msgspec

from gateway.upstreams.openai import OpenAIUpstream
from gateway.workers import logfiles
from gateway.workers.gate import Gate
from gateway.workers.launched import LaunchedWorker, nothing_left
from gateway.workers.launching import Place, Plan, plans, threads_each
from gateway.workers.memory import memory_of
from gateway.workers.protocol import Board, Row, Want, WorkerState
from gateway.workers.protocol import Crew as Told
from gateway.workers.turns import Order, Seen, Turns, sleepers_of, state_of
from router.experts import ExpertsFile

log = logging.getLogger("moe_gateway")

LOOK_SECONDS = 1.0
LOAD_AT_ONCE = 8


class Crew:
    """`on_change` hears of every change of a worker's state, `clear` ends what a keeper left that was killed. Everything is
    called from the event loop."""

    def __init__(
        self,
        file: ExpertsFile,
        place: Place,
        on_change: Callable[[], None],
        clear: Callable[[], Awaitable[None]] = nothing_left,
    ) -> None:
        self._place, self._on_change, self._clear = place, on_change, clear
        self._upstream, self._gate = OpenAIUpstream(), Gate(LOAD_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._orders: dict[str, Order] = {}  # by expert, those that are being carried out
        self._wants: dict[object, dict[str, Want]] = {}
        self._waiting_since: dict[str, float] = {}
        self._leaving: set[LaunchedWorker] = set()  # stopped, or not yet there, for another that has their name
        self._stopping = False
        self._changing = asyncio.Lock()
        self.workers: dict[str, LaunchedWorker] = {}
        self._take(file)
        self._planned = plans(file)
        for plan in self._planned.values():
            self.workers[plan.name] = self._worker(plan)

    def _take(self, file: ExpertsFile) -> None:
        self.digest, self._turns, self._experts = file.digest, Turns(sleepers_of(file)), sleepers_of(file)
        self._place = replace(self._place, threads=threads_each(len(plans(file))))

    async def start(self) -> None:
        """Start those that are awake at the beginning, in the background."""
        await self._upstream.start()
        for worker in self.workers.values():
            if self._begins_awake(worker.plan):
                worker.begin()
        self._beside(self._tend())

    async def settled(self) -> None:
        """Until each that was started is ready, or failed once."""
        await asyncio.gather(*(w.settled() for w in self.workers.values() if w.state is not WorkerState.ASLEEP))

    async def stop(self) -> None:
        """Let each finish what it runs, and end."""
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._all()))
        await self._upstream.close()

    def hurry(self) -> None:
        """A stop that is under way waits for nothing any more."""
        for worker in self._all():
            worker.hurry()

    def told(self) -> Told:
        return Told(self.digest, [worker.facts for worker in self.workers.values()])

    async def board(self, config: str) -> Board:
        return Board(os.getpid(), config, self.digest, [await self._row(w) for w in list(self.workers.values())])

    def want(self, client: object, want: Want) -> None:
        """A client wants the expert from now on, so much."""
        self._wants.setdefault(client, {})[want.expert] = want
        self._take_turns()

    def forget(self, client: object) -> None:
        """A client is gone, and wants nothing."""
        if self._wants.pop(client, None):
            self._take_turns()

    def hung(self, name: str, url: str) -> None:
        """A worker answers no probes. Others may have said so before: it is the one that had this URL that is meant."""
        worker = self.workers.get(name)
        if worker is not None and worker.facts.url == url:
            worker.kill()

    async def change(self, file: ExpertsFile) -> None:
        """Follow another experts.yaml: returns when what is replaced or removed is on its way."""
        async with self._changing:
            new, old = plans(file), self.workers
            self._take(file)
            gone = [worker for name, worker in old.items() if name not in new]
            self.workers = {}
            for name, plan in new.items():
                worker = old.get(name)
                if worker is None:
                    self.workers[name] = self._worker(plan)
                    continue
                self.workers[name] = worker
                if worker.plan == plan:
                    worker.follow(plan)
                elif self._planned.get(name) != plan:
                    self._beside(self._replace(worker, plan))
            self._planned = new
            ended = [self._beside(self._end(worker)) for worker in gone]
            for worker in self.workers.values():
                if worker.name not in old and self._begins_awake(worker.plan):
                    self._beside(self._begin(worker, ended))
                elif worker.plan == new[worker.name] and worker.plan.expert not in self._experts:
                    self._beside(self._rouse(worker))
            self._on_change()

    async def _rouse(self, worker: LaunchedWorker) -> None:
        """Wake one that sleeps, or is about to, where by the file as it is now nothing else ever would."""
        name, expert = worker.name, worker.plan.expert
        while expert not in self._experts and self.workers.get(name) is worker:
            if worker.state is WorkerState.ASLEEP and expert not in self._orders:
                await worker.wake()
                return
            if worker.state not in (WorkerState.ASLEEP, WorkerState.STOPPING) and expert not in self._orders:
                return
            await asyncio.sleep(LOOK_SECONDS / 4)

    async def _begin(self, worker: LaunchedWorker, ended: list[asyncio.Task[None]]) -> None:
        """Where it takes the GPUs of one that ends, that one has to have ended."""
        if worker.plan.gpus and ended:
            await asyncio.wait(ended)
        if self.workers.get(worker.name) is worker and worker.state is WorkerState.ASLEEP:
            worker.begin()

    async def _replace(self, old: LaunchedWorker, plan: Plan) -> None:
        """By one that is launched otherwise: the old one serves until that is ready, unless both need the same GPUs."""
        asleep, new = old.state is WorkerState.ASLEEP, self._worker(plan)
        logfiles.set_aside(new.log_file)
        if asleep or self._needs_room(old, plan):
            await self._end(old)
        else:
            self._leaving.add(new)
            new.begin()
            await self._ready_in_place(old, new)
        if self._planned.get(plan.name) != plan:  # the file changed again meanwhile
            await self._end(new)
            return
        self.workers[plan.name] = new
        self._leaving.discard(new)
        self._on_change()
        if new.state is WorkerState.ASLEEP and not (asleep and plan.expert in self._experts):
            new.begin()
        await self._end(old)

    async def _ready_in_place(self, old: LaunchedWorker, new: LaunchedWorker) -> None:
        """Until `new` is ready, or no longer wanted. What keeps it from that is told of the old one, which goes on."""
        while new.state is not WorkerState.READY and self._planned.get(new.name) == new.plan:
            if new.why and new.why not in old.why:
                old.why = f"not replaced as the changed file says: {new.why}"
                log.error("worker is not replaced", extra={"worker": new.name, "why": new.why})
                self._on_change()
            await asyncio.sleep(LOOK_SECONDS / 4)

    def _needs_room(self, old: LaunchedWorker, plan: Plan) -> bool:
        others = {gpu for w in self._all() if w.state is not WorkerState.ASLEEP for gpu in w.plan.gpus}
        return bool(set(plan.gpus) & (others | set(old.plan.gpus)))

    async def _end(self, worker: LaunchedWorker) -> None:
        self._leaving.add(worker)
        try:
            await worker.stop()
        finally:
            if worker.pid is None:
                self._leaving.discard(worker)
        log.info("worker stopped", extra={"worker": worker.name})

    def _worker(self, plan: Plan) -> LaunchedWorker:
        return LaunchedWorker(plan, self._place, self._upstream, self._gate, self._changed, self._ports, self._clear)

    def _all(self) -> set[LaunchedWorker]:
        return {*self.workers.values(), *self._leaving}

    def _ports(self) -> set[int]:
        return {worker.port for worker in self._all() if worker.port is not None}

    def _begins_awake(self, plan: Plan) -> bool:
        return plan.expert not in self._experts or plan.expert in self._turns.first()

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _changed(self) -> None:
        self._on_change()
        if self._experts and not self._stopping:
            asyncio.get_running_loop().call_soon(self._take_turns)

    async def _tend(self) -> None:
        """Look at every worker that is up, again and again."""
        while True:
            ready = [worker for worker in self._all() if worker.state is WorkerState.READY]
            await asyncio.gather(*(worker.look() for worker in ready))
            for worker in self._all():
                logfiles.bound(worker.log_file)
            self._take_turns()
            await asyncio.sleep(LOOK_SECONDS)

    def _take_turns(self) -> None:
        if self._stopping or not self._experts:
            return
        now = time.monotonic()
        for order in self._turns.decide(now, {expert: self._seen(expert, now) for expert in self._experts}):
            if order.expert not in self._orders:
                self._orders[order.expert] = order
                self._beside(self._carry_out(order))

    async def _carry_out(self, order: Order) -> None:
        try:
            log.info("workers are to " + order.what, extra={"expert": order.expert})
            if order.what == "wake":
                sleeping = [w for w in self._of(order.expert) if w.state is WorkerState.ASLEEP]
                await asyncio.gather(*(worker.wake() for worker in sleeping))
            else:
                up = [w for w in self._of(order.expert) if w.state is not WorkerState.ASLEEP]
                await asyncio.gather(*(worker.sleep() for worker in up))
        finally:
            del self._orders[order.expert]

    def _of(self, expert: str) -> list[LaunchedWorker]:
        return [worker for worker in self.workers.values() if worker.plan.expert == expert]

    def _seen(self, expert: str, now: float) -> Seen:
        workers = self._of(expert)
        wants = [want for client in self._wants.values() if (want := client.get(expert)) is not None]
        waiting = sum(want.waiting for want in wants)
        since = self._waiting_since.setdefault(expert, now) if waiting else self._waiting_since.pop(expert, now)
        up = [w.figures for w in workers if w.state is WorkerState.READY]
        wakes = [w.wake_seconds for w in workers if w.wake_seconds is not None]
        return Seen(
            self._state_of(expert, workers),
            busy=any(figures.busy for figures in up),
            idle_since=max((figures.idle_since for figures in up), default=now),
            waiting=waiting,
            waiting_since=since,
            likely=sum(want.likely for want in wants),
            awake_since=max((figures.began for figures in up), default=now),
            wake_seconds=max(wakes, default=None),
        )

    def _state_of(self, expert: str, workers: Iterable[LaunchedWorker]) -> WorkerState:
        """As it will be where an order was given a moment ago and nothing has come of it yet: else a rival might get one too."""
        state, order = state_of(worker.state for worker in workers), self._orders.get(expert)
        if order is not None and order.what == "wake" and state is WorkerState.ASLEEP:
            return WorkerState.WAKING
        if order is not None and order.what == "sleep" and state is WorkerState.READY:
            return WorkerState.STOPPING
        return state

    async def _row(self, worker: LaunchedWorker) -> Row:
        plan, figures, up = worker.plan, worker.figures, worker.state is WorkerState.READY
        pid = worker.pid
        threads = f"{self._place.threads} thread{'s' if self._place.threads > 1 else ''}"
        return Row(
            msgspec.structs.replace(worker.facts, api_key=None),
            plan.model,
            f"GPU {','.join(map(str, plan.gpus))}" if plan.gpus else threads if self._place.vllm.cpu else "all GPUs",
            str(worker.log_file),
            memory=None if pid is None else await asyncio.to_thread(memory_of, pid),
            running=figures.running if up else 0,
            waiting=figures.waiting if up else 0,
            tokens_per_second=figures.tokens_per_second if up else 0.0,
        )
