"""The parent of several data-plane processes: owns what must exist once, starts them, replaces those that die, ends them.

Each process listens with a socket of its own on a port that this one holds without listening: see gateway/sockets.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from gateway import logs, metricfiles
from gateway.jsonlines import line, read
from gateway.messages import Answer, Asked, Kept, Ready, Serve, Served, Setup, Told, Workers, lent
from gateway.reloading.errors import ReloadError
from gateway.reloading.keeper import Keeper, Outcome
from gateway.reloading.preparing import Candidate
from gateway.reloading.status import Status
from gateway.settings import Settings
from gateway.sockets import named
from gateway.workers.supervisor import Worker, embedded_worker
from router.experts import ExpertsFile
from router.sources import Sources

log = logging.getLogger("moe_gateway")

READY_SECONDS = 300.0  # the first one may have to train a router
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a process that lived so long is replaced without a pause
LOOK_SECONDS = 0.1
MARGIN_SECONDS = 10.0  # beyond its time to drain, until a process is killed
LONGEST_LINE = 16 * 1024 * 1024  # bytes; a process tells of every expert whose server is not as the file says
SERVE_SECONDS = 120.0  # for a process to serve by another file

Announce = Callable[[Settings, ExpertsFile, float, Sequence[str]], None]


def supervise(settings: Settings, file: ExpertsFile, sockets: Sequence[socket.socket], announce: Announce) -> None:
    """Serve with `settings.processes` processes until a signal ends them. `announce` is told when all are ready.

    Raises WorkerError; leaves with the status of the first process that does not start, which has said why.
    """
    logs.configure(settings.log_level, settings.log_format, "parent")
    with metricfiles.fresh_folder(settings.state) as folder:
        family = Family(named(settings, sockets), file, sockets, folder, _workers(file))
        try:
            asyncio.run(family.run(lambda *said: announce(family.settings, file, *said)))
        except ProcessError as error:
            sys.exit(error.status if error.status in (1, 2) else 1)


def _workers(file: ExpertsFile) -> set[str]:
    return {expert.upstream.embedded for expert in file.experts.values() if expert.upstream.embedded is not None}


class ProcessError(Exception):
    """A process did not start. It has said why, where it could; `status` is the one that it left with."""

    def __init__(self, number: int, status: int) -> None:
        super().__init__(f"process {number} did not start (status {status})")
        self.status = status


class Child:
    """One process. `ready` is set once it serves."""

    def __init__(self, number: int, process: asyncio.subprocess.Process) -> None:
        self.number, self.process = number, process
        self.started = time.monotonic()
        self.ready = asyncio.Event()
        self.router: tuple[str, Path] = ("", Path())  # the one that it began with, and its folder
        self._served: asyncio.Future[list[str]] | None = None
        self._wanted = ""  # the digest of the file that it was told last to serve by
        self.stuck = False  # whether it came to no end with that
        self._turn = asyncio.Lock()

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def send(self, text: bytes) -> None:
        stdin = self.process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(text)

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def serve(self, experts: Serve) -> list[str]:
        """Let it serve by another file; what kept it from that, nothing where it does."""
        async with self._turn:
            served = self._served = asyncio.get_running_loop().create_future()
            self._wanted = experts.experts.digest
            ended = asyncio.ensure_future(self.process.wait())
            self.send(line(experts))
            try:
                await asyncio.wait({served, ended}, timeout=SERVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not served.done():
                    self.stuck = not ended.done()
                    how = "died of it" if ended.done() else "does not come to an end with it"
                    return [f"process {self.number} {how}"]
                problems: list[str] = served.result()
                return problems
            finally:
                ended.cancel()

    def heard(self, served: Served) -> None:
        """Its answer, unless that comes too late and is to another file."""
        if self._served is not None and not self._served.done() and served.digest == self._wanted:
            self._served.set_result(served.problems)

    async def until_ready(self) -> None:
        """Raises ProcessError where it ends first, or takes too long; then it is killed."""
        ready, ended = asyncio.ensure_future(self.ready.wait()), asyncio.ensure_future(self.process.wait())
        try:
            await asyncio.wait({ready, ended}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                self.signal(signal.SIGKILL)
                raise ProcessError(self.number, await self.process.wait())
        finally:
            ready.cancel()
            ended.cancel()


class Family:
    """The processes and what they share. `folder` is that of their metrics. A process serves by what it is told, and by nothing
    that it reads itself, so that all come to the same."""

    def __init__(
        self, settings: Settings, file: ExpertsFile, sockets: Sequence[socket.socket], folder: Path, workers: set[str]
    ) -> None:
        self.settings = settings
        self._serving = Candidate(file, "", Path())  # what a process that is started from now on serves by
        self._keeper: Keeper | None = None
        self._sockets, self._folder = sockets, folder
        self._workers: dict[str, Worker] = {name: embedded_worker(settings.state) for name in workers}
        self._children: dict[int, Child] = {}
        self._warnings: dict[str, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._signals = 0
        self._signalled = asyncio.Event()

    async def run(self, on_ready: Callable[[float, Sequence[str]], None]) -> None:
        """Until a signal. `on_ready` is told the seconds that it took, and how the experts' servers are not as the file says.
        Raises WorkerError, ProcessError."""
        began = time.perf_counter()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)
        signalled = asyncio.ensure_future(self._signalled.wait())
        starting = asyncio.ensure_future(self._start())
        try:
            await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                on_ready(time.perf_counter() - began, list(self._warnings))
                await signalled
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self._stop()

    def _on_signal(self) -> None:
        self._signals += 1
        self._signalled.set()

    def _on_hangup(self) -> None:
        """SIGHUP: how it went says the log."""
        self._beside(self._reload())

    async def _reload(self) -> None:
        if self._keeper is not None:
            with contextlib.suppress(ReloadError):
                await self._keeper.reload()

    async def _answer(self, child: Child, asked: Asked) -> None:
        """One process was asked to reload: all do."""
        answer = Answer(asked.number, problems=["the gateway is still starting"])
        if self._keeper is not None:
            try:
                answer = Answer(asked.number, await self._keeper.reload(asked.force))
            except ReloadError as error:
                answer = Answer(asked.number, None, error.code, list(error.problems))
        child.send(line(answer))

    async def _serve(self, candidate: Candidate) -> None:
        """What one process does not take up none does; one that does not though another did is replaced, and so is one that may
        still come to do it. Raises ReloadError."""
        told = _told(candidate)
        first = next(iter(self._ready()), None)
        if first is not None and (problems := await first.serve(told)):
            if first.stuck:
                self._replace(first, problems)
            raise ReloadError("not_started", problems)
        self._serving = candidate
        others = [child for child in self._ready() if child is not first]  # one may have become ready meanwhile
        for child, problems in zip(others, await asyncio.gather(*(c.serve(told) for c in others)), strict=True):
            self._replace(child, problems)

    def _replace(self, child: Child, problems: Sequence[str]) -> None:
        """Where there are problems: by a process that begins with the file that all serve by."""
        if problems and child.running:
            log.error("a process is replaced that does not serve as the others do", extra={"why": list(problems)})
            child.signal(signal.SIGTERM)

    def _tell(self, status: Status, outcome: Outcome | None) -> None:
        for i, child in enumerate(self._ready()):
            child.send(line(Kept(status, outcome if i == 0 else None)))

    def _ready(self) -> list[Child]:
        return [child for child in self._children.values() if child.ready.is_set() and child.running]

    async def _start(self) -> None:
        """The first process is there before the others begin: where a router has to be trained, it is the one that trains."""
        self._beside(self._tell_of_workers())
        await asyncio.gather(self._launch(0), *(worker.start() for worker in self._workers.values()))
        artifact, folder = self._children[0].router
        self._serving = Candidate(self._serving.file, artifact, folder)
        others = range(1, self.settings.processes)
        await asyncio.gather(*(self._launch(number) for number in others))
        self._keeper = Keeper(self.settings, self._serving, self._serve, self._workers, self._tell)
        self._keeper.start()
        self._tell(self._keeper.status, None)
        for number in range(self.settings.processes):
            self._beside(self._keep(number))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _launch(self, number: int) -> None:
        """A process of that number that serves. Raises ProcessError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.dataplane",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, metricfiles.VARIABLE: str(self._folder)},
            limit=LONGEST_LINE,
            pass_fds=[listener.fileno() for listener in self._sockets],
            start_new_session=True,  # Ctrl-C is for this process, which then ends the others itself
        )
        child = self._children[number] = Child(number, process)
        numbers = [listener.fileno() for listener in self._sockets]
        serving, status = self._serving, self._keeper.status if self._keeper else None
        child.send(line(Setup(number, self.settings, _sources(serving.file), numbers, lent(self._workers), status)))
        self._beside(self._listen(child))
        await child.until_ready()
        if self._serving.file is not serving.file:
            self._replace(child, await child.serve(_told(self._serving)))
        if self._keeper is not None:
            child.send(line(Kept(self._keeper.status)))

    async def _listen(self, child: Child) -> None:
        assert child.process.stdout is not None  # noqa: S101 - asked for when it was spawned
        async for text in child.process.stdout:
            told = read(text, Told)
            if isinstance(told, Ready):
                self._warnings |= dict.fromkeys(told.warnings)
                child.router = told.artifact, told.folder
                child.ready.set()
            elif isinstance(told, Asked):
                self._beside(self._answer(child, told))
            elif isinstance(told, Served):
                child.heard(told)
            elif self._workers[told.worker].url == told.url:  # else it was replaced since
                self._workers[told.worker].kill()

    async def _tell_of_workers(self) -> None:
        """Where a worker is changes when it is replaced."""
        known = lent(self._workers)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if (now := lent(self._workers)) != known:
                known = now
                for child in self._children.values():
                    child.send(line(Workers(now)))

    async def _keep(self, number: int) -> None:
        """Replace the process of that number whenever it ends."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            child = self._children[number]
            status = await child.process.wait()
            metricfiles.forget(self._folder, number)
            log.error("process died", extra={"number": number, "exit": status})
            if time.monotonic() - child.started > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            try:
                await self._launch(number)
            except (ProcessError, OSError) as error:
                log.error("process did not start", extra={"number": number, "why": str(error)})
            else:
                log.info("process replaced", extra={"number": number})

    async def _stop(self) -> None:
        """Let the processes drain, then end what they leave behind."""
        for task in list(self._tasks):
            task.cancel()
        if self._keeper is not None:
            await self._keeper.close()
        children = [child for child in self._children.values() if child.running]
        _signal_all(children, signal.SIGTERM)
        await self._wait(self.settings.drain_delay, children)
        for listener in self._sockets:
            listener.close()  # a Unix socket is listened on until the last process has closed it, this one among them
        await self._wait(self.settings.drain_seconds + MARGIN_SECONDS, children)
        _signal_all(children, signal.SIGTERM)
        self._signals = min(self._signals, 1)
        await self._wait(MARGIN_SECONDS, children)
        _signal_all(children, signal.SIGKILL)
        await asyncio.gather(*(child.process.wait() for child in children))
        await asyncio.gather(*(worker.stop() for worker in self._workers.values()))

    async def _wait(self, seconds: float, children: Sequence[Child]) -> None:
        """So long at most, no longer than until they have ended or the second signal came."""
        end = time.monotonic() + seconds
        while any(child.running for child in children) and self._signals < 2 and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS / 2)


def _told(candidate: Candidate) -> Serve:
    return Serve(_sources(candidate.file), candidate.artifact, candidate.folder)


def _sources(file: ExpertsFile) -> Sources:
    assert file.sources is not None  # noqa: S101 - it was read from somewhere
    return file.sources


def _signal_all(children: Sequence[Child], number: signal.Signals) -> None:
    for child in children:
        child.signal(number)
