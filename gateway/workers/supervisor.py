"""Keeps one model server running: a child process of its own, restarted when it dies, gone when the gateway is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

log = logging.getLogger("moe_gateway")

READY_SECONDS = 120.0
STOP_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a worker that lived so long starts again without a pause
LOG_TAIL_LINES = 5


class _Announcement(msgspec.Struct):
    url: str


class WorkerError(Exception):
    """A worker did not become ready. The message ends in the last lines of its log."""


class Worker:
    """A supervised child. As an Address, its `url` is None whenever the child is not up.

    The child gets a pipe as standard input that ends with this process, kill -9 included, and a key in the environment
    variable MOE_GATEWAY_WORKER_KEY. When it serves it writes {"url": …} as one line on standard output.
    """

    def __init__(self, name: str, command: Sequence[str], log_file: Path) -> None:
        self.name, self.log_file = name, log_file
        self.url: str | None = None
        self.api_key: str | None = secrets.token_hex(16)
        self.restarts = 0
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Launch and wait until it serves. Raises WorkerError; then it is not running."""
        try:
            await self._launch()
        except WorkerError:
            await self.stop()
            raise
        self._task = asyncio.create_task(self._watch())

    def kill(self) -> None:
        """End a child that hangs; it is then started again as one that died."""
        if self.pid is not None:
            log.error("worker hangs and is killed", extra={"worker": self.name})
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Stop the child and wait for it; kill it where it does not go."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._end()

    async def _watch(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            await self._running().wait()
            self.url = None
            log.error("worker died", extra={"worker": self.name, "exit": self._running().returncode})
            pause = FIRST_PAUSE_SECONDS if time.monotonic() - started > STEADY_SECONDS else pause
            while self.url is None:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                try:
                    await self._launch()
                except WorkerError as error:
                    log.error("worker did not start", extra={"worker": self.name, "why": str(error).partition(";")[0]})
                    await self._end()
            self.restarts += 1
            log.info("worker restarted", extra={"worker": self.name, "restarts": self.restarts})

    async def _launch(self) -> None:
        try:
            await self._spawn()
        except OSError as error:
            raise WorkerError(f"{self.name} cannot be launched: {error}") from None
        await self._await_ready()

    async def _spawn(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "MOE_GATEWAY_WORKER_KEY": self.api_key or "", "PYTHONUNBUFFERED": "1"}
        with self.log_file.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the gateway, which then stops its workers itself
            )

    async def _await_ready(self) -> None:
        stdout = self._running().stdout
        assert stdout is not None  # noqa: S101 - asked for when it was spawned
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = await stdout.readline()
            self.url = msgspec.json.decode(line, type=_Announcement).url
        except TimeoutError:
            raise WorkerError(f"{self.name} was not ready within {READY_SECONDS:.0f} s{self._log_tail()}") from None
        except (ValueError, RecursionError):  # not JSON of that shape, or a line without an end
            raise WorkerError(f"{self.name} did not start{self._log_tail()}") from None

    async def _end(self) -> None:
        process, self.url = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the worker was never launched")
        return self._process

    def _log_tail(self) -> str:
        try:
            lines = self.log_file.read_text("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
        except OSError:
            return ""
        return "; the last lines of its log:\n" + "\n".join(lines) if lines else ""


def embedded_worker(state: Path) -> Worker:
    """The embedded engine, one for all experts that stand in."""
    return Worker("smollm2", [sys.executable, "-m", "gateway.workers.embedded"], state / "logs" / "smollm2.log")
