"""The owner of a state folder's workers: alone of its kind, reached over a Unix socket by gateways and commands."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gateway.errors import SettingsError
from gateway.workers.crew import Crew
from gateway.workers.launched import nothing_left
from gateway.workers.launching import DRAIN_SECONDS, Place
from gateway.workers.protocol import (
    Asked,
    Board,
    Down,
    HungWorker,
    Look,
    OwnerFile,
    Reread,
    Want,
    line,
    owner_file,
    read_asked,
    read_owner,
)
from gateway.workers.protocol import Crew as Told
from gateway.workers.remains import end_marked
from router.errors import RouterError
from router.experts import ExpertsFile, load_experts

log = logging.getLogger("moe_gateway")

SOCKET = "owner"
FOLDER_PREFIX = "moe-workers-"
LONGEST_SOCKET = 100  # bytes; the system takes a few more
LEFT_SECONDS = DRAIN_SECONDS + 10.0  # that the keepers of an owner that was killed have to end what they keep
GATHER_SECONDS = 0.02  # changes that come together are told once
MOST_LINE = 64 * 1024
MOST_UNSENT = 4 * 1024 * 1024  # to one who does not listen, before it is left


class OwnedError(SettingsError):
    """The state folder has an owner already."""


@contextmanager
def owned(state: Path) -> Iterator[None]:
    """This process owns the workers of the state folder meanwhile. Raises OwnedError, OSError."""
    folder = owner_file(state).parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OwnedError(
                f"the workers of {state} are up already; see them with: moe-gateway workers status"
            ) from None
        yield
    finally:
        os.close(lock)


class Owner:
    """Runs the crew of one experts.yaml until `down`. `on_change` hears of every change of a worker, `clear` is the crew's."""

    def __init__(
        self,
        config: Path,
        file: ExpertsFile,
        place: Place,
        on_change: Callable[[Told], None] = lambda told: None,
        clear: Callable[[], Awaitable[None]] = nothing_left,
    ) -> None:
        self._config, self._on_change = config, on_change
        self._state = place.state
        self.clients: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._rereading: asyncio.Task[None] | None = None
        self._again = False
        self._down = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.crew = Crew(file, place, self._changed, clear)

    async def start(self) -> None:
        """Tidy up after one that was killed, listen, and start the workers in the background. Raises OSError."""
        _remove_stale(self._state)
        if count := await end_marked(self._state, LEFT_SECONDS):
            log.warning("ended what an earlier owner left", extra={"processes": count})
        folder = _short_folder()
        self._server = await asyncio.start_unix_server(self._serve, folder / SOCKET, limit=MOST_LINE)
        _write(owner_file(self._state), OwnerFile(str(folder / SOCKET), os.getpid()))
        await self.crew.start()

    async def until_down(self) -> None:
        """Until somebody asks for the end."""
        await self._down.wait()

    def down(self) -> None:
        self._down.set()

    @property
    def ending(self) -> bool:
        return self._down.is_set()

    async def stop(self) -> None:
        """Stop the workers, then listening: whoever asked for the end hears of it."""
        if self._rereading is not None:
            self._rereading.cancel()
        await self.crew.stop()
        self.tell()
        if self._server is not None:
            self._server.close()
        for writer in self.clients:
            writer.close()
        await asyncio.gather(*filter(None, self.clients.values()), return_exceptions=True)
        _remove_stale(self._state)

    def reread(self) -> None:
        """Follow experts.yaml as it is now; a bad one changes nothing."""
        self._again = True
        if self._rereading is None or self._rereading.done():
            self._rereading = asyncio.ensure_future(self._reread())

    async def board(self) -> Board:
        return await self.crew.board(str(self._config))

    async def _reread(self) -> None:
        while self._again:
            self._again = False
            try:
                file = await asyncio.to_thread(load_experts, self._config)
            except (RouterError, OSError, UnicodeDecodeError) as error:
                why = str(error).partition("\n")[0]
                log.error("experts.yaml is not followed", extra={"config": self._config.name, "why": why})
                continue
            if file.digest != self.crew.digest:
                await self.crew.change(file)
                log.info("experts.yaml is followed", extra={"config": file.digest})

    def _changed(self) -> None:
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(GATHER_SECONDS, self.tell)

    def tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        self._telling = None
        told = self.crew.told()
        self._on_change(told)
        for writer in list(self.clients):
            _send(writer, told)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients[writer] = asyncio.current_task()
        _send(writer, self.crew.told())
        try:
            while (text := await reader.readline()).endswith(b"\n"):
                await self._hear(read_asked(text), writer)
        except (OSError, ValueError, RecursionError) as error:  # a line that is too long, or none of ours
            log.warning("a client of the workers' owner is left", extra={"why": type(error).__name__})
        finally:
            self.clients.pop(writer, None)
            self.crew.forget(writer)
            writer.close()

    async def _hear(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        match asked:
            case Want():
                self.crew.want(writer, asked)
            case HungWorker():
                self.crew.hung(asked.name, asked.url)
            case Reread():
                self.reread()
            case Look():
                _send(writer, await self.board())
            case Down():
                self.down()


def _send(writer: asyncio.StreamWriter, message: Told | Board) -> None:
    if writer.is_closing():
        return
    if writer.transport.get_write_buffer_size() > MOST_UNSENT:
        writer.transport.abort()
        return
    writer.write(line(message))


def _short_folder() -> Path:
    """A new folder that is this user's alone, whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    if len(os.fsencode(folder / SOCKET)) > LONGEST_SOCKET:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/tmp"))
    return folder


def _write(path: Path, owner: OwnerFile) -> None:
    """Whole, and for this user alone."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".owner-")
    with open(descriptor, "wb") as file:
        file.write(msgspec.json.encode(owner))
    Path(name).replace(path)


def _remove_stale(state: Path) -> None:
    """What an owner leaves: its file, and the folder of its socket. The lock says that there is none now."""
    with contextlib.suppress(OSError, ValueError):
        folder = Path(read_owner(state).socket).parent
        if folder.name.startswith(FOLDER_PREFIX) and folder.stat().st_uid == os.geteuid():
            shutil.rmtree(folder, ignore_errors=True)
    owner_file(state).unlink(missing_ok=True)
