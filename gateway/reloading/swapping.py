"""Swapper: in a process that serves, another generation takes the place of the one before it, at once."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from gateway.generation import Generation
from gateway.reloading.errors import ReloadError
from gateway.reloading.preparing import Candidate
from router.artifact import load_artifact
from router.errors import RouterError
from router.routing import Router

log = logging.getLogger("moe_gateway")


class Build(Protocol):
    def __call__(self, *, router: Router, before: Generation) -> Generation: ...


class Serve(Protocol):
    def __call__(self, generation: Generation, /) -> None: ...


class Swapper:
    """Makes generations with `build` and hands them to `serve`, one at a time; what they replace ends when it is idle."""

    def __init__(self, first: Generation, build: Build, serve: Serve) -> None:
        self._current, self._build, self._serve = first, build, serve
        self._lock = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> Candidate:
        router = self._current.state.decider.router
        return Candidate(router.file, router.artifact.name, router.artifact.folder)

    @property
    def retiring(self) -> int:
        """How many generations still end."""
        return len(self._retiring)

    async def swap(self, candidate: Candidate) -> None:
        """Serve by it. Raises ReloadError, and then nothing has changed."""
        async with self._lock:
            new = await self._made(candidate)
            old, self._current = self._current, new
            self._serve(new)
            task = asyncio.create_task(old.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """End what runs, and what still ends."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._current.close()

    async def _made(self, candidate: Candidate) -> Generation:
        try:
            router = await asyncio.to_thread(self._router, candidate)
        except RouterError as error:
            raise ReloadError("not_started", str(error).splitlines()) from None
        new = self._build(router=router, before=self._current)
        try:
            await new.start()
        except Exception as error:
            await new.close()
            raise ReloadError("not_started", [f"an upstream does not start: {type(error).__name__}"]) from error
        return new

    def _router(self, candidate: Candidate) -> Router:
        artifact = self._current.state.decider.router.artifact
        if artifact.name == candidate.artifact:  # its encoders are loaded and warm
            return Router(candidate.file, artifact)
        router = Router(candidate.file, load_artifact(candidate.folder, artifact))
        router.warm()
        return router
