"""Keeps one model server running: a child process of its own, restarted when it dies, gone when this process is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.workers.logfiles import appended, tail

log = logging.getLogger("moe_gateway")

READY_SECONDS = 120.0
STOP_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a worker that lived so long starts again without a pause
LOG_TAIL_LINES = 5
KEY_VARIABLE = "MOE_GATEWAY_WORKER_KEY"


class _Announcement(msgspec.Struct):
    url: str


class WorkerError(Exception):
    """A worker did not become ready. The message ends in the last lines of its log."""


@dataclass(frozen=True)
class Program:
    """What to run, and the whole environment and the folder to run it in; None is this process's."""

    command: Sequence[str]
    environment: Mapping[str, str] | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Patience:
    """Seconds that a child has to become ready, to end when asked, and the longest pause between two starts; None is what
    does for a small one."""

    ready: float | None = None
    stop: float | None = None
    longest_pause: float | None = None


class Worker:
    """A supervised child. As an Address, its `url` is None whenever the child is not up.

    The child gets a pipe as standard input that ends with this process, kill -9 included, and a key in the environment
    variable MOE_GATEWAY_WORKER_KEY. When it serves it writes {"url": …} as one line on standard output.
    """

    end_at_once = signal.SIGKILL  # to the child's process group
    tail_lines = LOG_TAIL_LINES

    def __init__(self, name: str, command: Sequence[str], log_file: Path) -> None:
        self.name, self.log_file = name, log_file
        self.url: str | None = None
        self.api_key: str | None = secrets.token_hex(16)
        self.restarts = 0
        self.patience = Patience()
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.log_begin = 0  # where the child's part of the log begins, bytes

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Launch and wait until it serves. Raises WorkerError; then it is not running."""
        try:
            await self.launch()
        except WorkerError:
            await self.stop()
            raise
        self._beside(self._watch())

    def begin(self) -> None:
        """Launch in the background, and go on trying until it serves."""
        self._beside(self._keep())

    def kill(self) -> None:
        """End a child that hangs; it is then started again as one that died."""
        if self.pid is not None:
            log.error("worker hangs and is killed", extra={"worker": self.name})
            self._signal(self.end_at_once)

    async def stop(self) -> None:
        """Stop the child and wait for it; kill it where it does not go."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self.end()

    def hurry(self) -> None:
        """Let a stop that is under way wait for nothing."""
        self._signal(self.end_at_once)

    def program(self) -> Program:
        """What to run this time."""
        return Program(self._command, {**os.environ, KEY_VARIABLE: self.api_key or "", "PYTHONUNBUFFERED": "1"})

    def on_launch(self) -> None:
        """A child is about to be launched."""

    def on_ready(self) -> None:
        """It serves."""

    def on_failure(self, error: WorkerError) -> None:
        """It did not start, and is launched again after a pause."""

    def on_death(self, status: int | None) -> bool:
        """It ended by itself. Whether to launch it again."""
        return True

    async def after_end(self) -> None:
        """A child is gone, however it went: the time to end what it left."""

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("worker is watched no more: a fault", extra={"worker": self.name}, exc_info=task.exception())

    async def _keep(self) -> None:
        await self._relaunch(0.0, FIRST_PAUSE_SECONDS)
        await self._watch()

    async def _watch(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            status = await self._running().wait()
            self.url = None
            wanted = self.on_death(status)
            await self.after_end()
            if not wanted:
                return
            log.error("worker died", extra={"worker": self.name, "exit": status})
            pause = FIRST_PAUSE_SECONDS if time.monotonic() - started > STEADY_SECONDS else pause
            pause = await self._relaunch(pause, self._longer(pause))
            self.restarts += 1
            log.info("worker restarted", extra={"worker": self.name, "restarts": self.restarts})

    async def _relaunch(self, pause: float, then: float) -> float:
        """Launch after a pause until it serves, each pause twice the last. What the next one would be."""
        while True:
            await asyncio.sleep(pause)
            pause = then
            then = self._longer(pause)
            try:
                await self.launch()
            except WorkerError as error:
                log.error("worker did not start", extra={"worker": self.name, "why": str(error).partition(";")[0]})
                await self.end()
                self.on_failure(error)
            else:
                return pause

    def _longer(self, pause: float) -> float:
        return min(2 * pause, self.patience.longest_pause or LONGEST_PAUSE_SECONDS)

    async def launch(self) -> None:
        """Once. Raises WorkerError; what was launched may still have to be ended then."""
        try:
            await self._spawn()
        except (OSError, ValueError) as error:  # of words, too, that no program can be given
            raise WorkerError(f"{self.name} cannot be launched: {error}") from None
        await self._await_ready()
        self.on_ready()

    async def _spawn(self) -> None:
        self.on_launch()
        program = self.program()
        with appended(self.log_file) as errors:
            self.log_begin = errors.tell()
            spawning = asyncio.ensure_future(
                asyncio.create_subprocess_exec(
                    *program.command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=errors,
                    env=program.environment,
                    cwd=program.folder,
                    start_new_session=True,  # Ctrl-C is for the gateway, which then stops its workers itself
                )
            )
            try:
                self._process = await asyncio.shield(spawning)
            except (
                asyncio.CancelledError
            ):  # it is ended as any other is, and not killed before it could end what it began
                self._process = await spawning
                raise

    async def _await_ready(self) -> None:
        stdout, seconds = self._running().stdout, self.patience.ready or READY_SECONDS
        assert stdout is not None  # noqa: S101 - asked for when it was spawned
        try:
            async with asyncio.timeout(seconds):
                line = await stdout.readline()
            self.url = msgspec.json.decode(line, type=_Announcement).url
        except TimeoutError:
            raise WorkerError(f"{self.name} was not ready within {seconds:.0f} s{self._log_tail()}") from None
        except (ValueError, RecursionError):  # not JSON of that shape, or a line without an end
            raise WorkerError(f"{self.name} did not start{self._log_tail()}") from None

    async def end(self) -> None:
        """End the child, if there is one; kill it where it does not go."""
        process, self.url = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(self.patience.stop or STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await process.wait()
        await self.after_end()

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the worker was never launched")
        return self._process

    def _log_tail(self) -> str:
        lines = tail(self.log_file, self.tail_lines, self.log_begin)
        return "; the last lines of its log:\n" + "\n".join(lines) if lines else ""


def embedded_worker(state: Path) -> Worker:
    """The embedded engine, one for all experts that stand in."""
    return Worker("smollm2", [sys.executable, "-m", "gateway.workers.embedded"], state / "logs" / "smollm2.log")
