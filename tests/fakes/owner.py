"""An owner of launched workers that does as it is told: a real Unix socket, and a memory of what gateways asked."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from gateway.workers.protocol import (
    Asked,
    Crew,
    OwnerFile,
    WorkerFacts,
    WorkerState,
    line,
    owner_file,
    read_asked,
)
from tests.fakes.upstream import PATIENCE


def facts(name: str, state: WorkerState | str, url: str | None = None, **more: Any) -> WorkerFacts:
    """A worker of the expert that its name begins with; a READY one has a url and a key."""
    expert = name.rpartition("-")[0]
    return WorkerFacts(name, expert, WorkerState(state), more.pop("since", 0.0), url, **more)


class FakeOwner:
    """`asked` is what gateways said, oldest first; `connections` how many are there now."""

    def __init__(self, state: Path) -> None:
        self.asked: list[Asked] = []
        self._state = state
        self._workers: dict[str, WorkerFacts] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="owner-")
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        return len(self._writers)

    def tell(self, *workers: WorkerFacts) -> None:
        """These are so now; the others as before."""
        self._workers |= {worker.name: worker for worker in workers}
        self.say(line(self._crew()))

    def say(self, text: bytes) -> None:
        """Write whatever it is to every gateway."""
        self._run(self._say(text))

    def wants(self, expert: str) -> list[int]:
        """How many were said to wait for the expert, oldest first."""
        return [a.waiting for a in self.asked if getattr(a, "expert", None) == expert and hasattr(a, "waiting")]

    def open(self) -> None:
        """Listen, and say where."""
        self._run(self._open())

    def leave(self) -> None:
        """Hang up on everybody and listen no more; the file stays, as that of one that was killed does."""
        self._run(self._leave())

    def close(self) -> None:
        self.leave()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        self._folder.cleanup()

    async def _open(self) -> None:
        path = os.path.join(self._folder.name, "s")
        self._server = await asyncio.start_unix_server(self._serve, path)
        place = owner_file(self._state)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(msgspec.json.encode(OwnerFile(path, os.getpid())))
        place.chmod(0o600)

    async def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:  # noqa: ASYNC110 - who hangs up tells nobody
            await asyncio.sleep(0.005)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        writer.write(line(self._crew()))
        try:
            while text := await reader.readline():
                self.asked.append(read_asked(text))
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _say(self, text: bytes) -> None:
        for writer in self._writers:
            writer.write(text)

    def _crew(self) -> Crew:
        return Crew("d1", list(self._workers.values()))

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


@contextmanager
def fake_owner(state: Path, *workers: WorkerFacts) -> Iterator[FakeOwner]:
    """One that has these workers and listens."""
    owner = FakeOwner(state)
    try:
        owner.tell(*workers)
        owner.open()
        yield owner
    finally:
        owner.close()


def until(holds: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Whether it holds within so long."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(holds())
