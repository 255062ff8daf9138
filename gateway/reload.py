"""Reloader: another experts.yaml takes the place of the one that runs, whole or not at all."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Protocol

from gateway.generation import Generation
from gateway.settings import Settings
from router.errors import ConfigError, RouterError
from router.experts import ExpertsFile, parse_experts
from router.routing import Router
from router.training.provision import load_or_train

log = logging.getLogger("moe_gateway")


class Build(Protocol):
    def __call__(self, *, router: Router, before: Generation) -> Generation: ...


class Serve(Protocol):
    def __call__(self, generation: Generation, /) -> None: ...


class ReloadError(Exception):
    """The file that runs goes on running. The message says what is wrong with the other, one line a problem."""


class Reloader:
    """Makes generations with `build` and hands them to `serve`, one at a time; what they replace ends when it is idle."""

    def __init__(self, first: Generation, build: Build, serve: Serve) -> None:
        self._current, self._build, self._serve = first, build, serve
        self._lock = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    async def reload(self) -> ExpertsFile:
        """Serve by the file as it is now. Raises ReloadError, and then nothing has changed."""
        async with self._lock:
            settings = self._current.state.settings
            metrics = self._current.state.metrics
            try:
                new = await self._made(settings)
            except ReloadError as error:
                metrics.reloads.labels("failed").inc()
                metrics.reloaded.set(0)
                log.error("reload failed", extra={"why": str(error)})
                raise
            old, self._current = self._current, new
            self._serve(new)
            metrics.reloads.labels("ok").inc()
            log.info("reloaded", extra={"config": new.state.file.digest, "experts": len(new.state.file.experts)})
            task = asyncio.create_task(old.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            return new.state.file

    async def close(self) -> None:
        """End what runs, and what still ends."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._current.close()

    async def _made(self, settings: Settings) -> Generation:
        try:
            text = await asyncio.to_thread(settings.config.read_text, "utf-8")
            file = parse_experts(text, settings.config.name)
            router = await asyncio.to_thread(_router, file, settings.state)
        except (OSError, UnicodeDecodeError) as error:
            raise ReloadError(f"{settings.config.name} cannot be read: {type(error).__name__}") from None
        except (ConfigError, RouterError) as error:
            raise ReloadError(str(error)) from None
        lacking = {e.upstream.embedded for e in file.experts.values()} - {None, *self._current.state.workers}
        if lacking:
            raise ReloadError(
                f"{', '.join(sorted(map(str, lacking)))} is not running: it is launched at start-up alone"
            )
        new = self._build(router=router, before=self._current)
        try:
            await new.start()
        except Exception as error:
            await new.close()
            raise ReloadError(f"an upstream does not start: {type(error).__name__}") from error
        return new


def _router(file: ExpertsFile, state: Path) -> Router:
    router = load_or_train(file, state, lambda what, done, total: None)
    router.warm()
    return router
