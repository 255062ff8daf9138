"""Link: a gateway's line to the process that owns the launched workers, and where those are, as that one says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from gateway.workers.protocol import (
    Asked,
    Crew,
    HungWorker,
    Reread,
    Want,
    WorkerFacts,
    WorkerState,
    line,
    read_crew,
    read_owner,
)
from router.experts import Expert, ExpertsFile

log = logging.getLogger("moe_gateway")

START_SECONDS = 1.0  # that a start waits for the owner; it may come later
CONNECT_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
GATHER_SECONDS = 0.05  # what is wanted changes with every request; it is said no more often than this
WISH_SECONDS = 120.0
MAX_LINE = 4 * 1024 * 1024  # bytes
MAX_UNSENT = 1024 * 1024  # bytes; an owner that takes nothing any more is left
NO_OWNER = (
    "nobody runs the workers that experts.yaml launches, so that their experts are down: "
    "start moe-gateway workers up, or serve --with-workers"
)


class LinkedAddress:
    """A launched worker, as an Address. `facts` is what its owner said last, None while there is no owner."""

    def __init__(self, name: str, on_hung: Callable[[str, str], None] = lambda name, url: None) -> None:
        self.name = name
        self.url: str | None = None
        self.api_key: str | None = None
        self.facts: WorkerFacts | None = None
        self._on_hung = on_hung

    @property
    def state(self) -> WorkerState | None:
        return self.facts.state if self.facts else None

    def tell(self, facts: WorkerFacts | None) -> None:
        """What the owner says. A worker that is not on this machine is none of its own, and is not asked."""
        ready = facts is not None and facts.state is WorkerState.READY and _on_loopback(facts.url)
        self.facts = facts
        self.url = facts.url if facts and ready else None
        self.api_key = facts.api_key if facts and ready else None

    def kill(self) -> None:
        """Say that it hangs: the owner ends the one that has this URL."""
        if self.url is not None:
            self._on_hung(self.name, self.url)


class Link:
    """Connects to the owner of the state folder, and again whenever it is gone. Everything is called from the event loop.

    What is wanted is said anew to each owner. Those who `listen` are called after every word of the owner, and when it is gone.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._addresses: dict[str, LinkedAddress] = {}
        self._crew: Mapping[str, WorkerFacts] = {}
        self._listeners: list[Callable[[], None]] = []
        self._told = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reread = False
        self._wants = _Wants(self._flush_soon)
        self._said: dict[str, Want] = {}
        self._flush: asyncio.TimerHandle | None = None
        self._flushed = float("-inf")

    @property
    def crew(self) -> Mapping[str, WorkerFacts]:
        """What the owner said last of each worker; nothing while there is none."""
        return self._crew

    def addresses(self, file: ExpertsFile) -> dict[str, LinkedAddress]:
        """By name, every worker that the file launches. A name has the same address in every file."""
        names = [worker for name, spec in file.experts.items() for worker in launched(name, spec)]
        for name in names:
            if name not in self._addresses:
                address = self._addresses[name] = LinkedAddress(name, self._hung)
                address.tell(self._crew.get(name))
        return {name: self._addresses[name] for name in names}

    def listen(self, heard: Callable[[], None]) -> Callable[[], None]:
        """Call `heard` from now on, until what this returns is called."""
        self._listeners.append(heard)

        def leave() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(heard)

        return leave

    async def start(self) -> None:
        """Begin to look for the owner. Returns when it told of the workers, or after START_SECONDS."""
        self._begin()
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._told.wait()
        except TimeoutError:
            log.error(NO_OWNER)

    def reread(self) -> None:
        """The file is another one now. What it launches comes up later; before it is ready it is down."""
        self._reread = True
        self._begin()
        self._send_reread()

    def waiting(self, expert: str, count: int) -> None:
        """So many requests wait here for the expert's workers now."""
        self._wants.waiting(expert, count)

    def wish(self, expert: str) -> None:
        """A request went elsewhere, since the expert sleeps: it is wanted until it is awake, for WISH_SECONDS at most."""
        self._wants.wish(expert)

    def expect(self, expert: str, likely: float) -> None:
        """So many requests more are expected for it within a minute."""
        self._wants.expect(expert, likely)

    async def close(self) -> None:
        """Say nothing any more. The workers stay."""
        self._wants.close()
        if self._flush is not None:
            self._flush.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            if await self._spoken():
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _spoken(self) -> bool:
        """Talk with an owner until one of both leaves. Whether it told anything."""
        try:
            owner = await asyncio.to_thread(read_owner, self._state)
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(owner.socket, limit=MAX_LINE)
        except (OSError, ValueError, TimeoutError):
            return False  # it is not there, or about to come or to go
        self._told.clear()
        try:
            self._greet(writer)
            while (text := await reader.readline()).endswith(b"\n"):
                self._hear(read_crew(text))
        except (OSError, ValueError, RecursionError) as error:  # a line that is too long, or not what we speak
            log.warning("the workers' owner cannot be understood", extra={"why": type(error).__name__})
        finally:
            self._writer = None
            writer.close()
            spoke = self._told.is_set()
            if spoke:
                log.warning("the workers' owner is gone")
            self._take({})
        return spoke

    def _greet(self, writer: asyncio.StreamWriter) -> None:
        self._writer, self._said = writer, {}
        self._send_reread()
        self._say_wants()

    def _hear(self, crew: Crew) -> None:
        if not self._told.is_set():
            log.info("the workers' owner is there", extra={"workers": len(crew.workers), "config": crew.digest[:64]})
        self._take({facts.name: facts for facts in crew.workers})
        self._told.set()

    def _take(self, crew: Mapping[str, WorkerFacts]) -> None:
        self._crew = crew
        for name, address in self._addresses.items():
            address.tell(crew.get(name))
        self._wants.fulfil({facts.expert for facts in crew.values() if facts.state is WorkerState.READY})
        for heard in list(self._listeners):
            try:
                heard()
            except Exception:  # one generation's fault is not to be that of the line, nor of the others
                log.exception("what the workers' owner said could not be taken in")

    def _hung(self, name: str, url: str) -> None:
        log.error("worker hangs", extra={"worker": name})
        self._send(HungWorker(name, url))

    def _send_reread(self) -> None:
        if self._reread and self._send(Reread()):
            self._reread = False

    def _send(self, message: Asked) -> bool:
        """Whether there is somebody to tell."""
        if self._writer is None or self._writer.is_closing():
            return False
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT:
            self._writer.transport.abort()
            return False
        self._writer.write(line(message))
        return True

    def _flush_soon(self) -> None:
        if self._flush is None:
            loop = asyncio.get_running_loop()
            self._flush = loop.call_later(max(0.001, self._flushed + GATHER_SECONDS - loop.time()), self._say_wants)

    def _say_wants(self) -> None:
        """Say what is wanted otherwise than was said."""
        if self._flush is not None:
            self._flush.cancel()
        self._flush, self._flushed = None, asyncio.get_running_loop().time()
        wants = {expert: Want(expert, 0) for expert in self._said} | self._wants.all()
        changed = [want for expert, want in wants.items() if self._said.get(expert, Want(expert, 0)) != want]
        for want in changed:
            if self._send(want):
                self._said[want.expert] = want


class _Wants:
    """What is wanted of each expert. `on_change` hears of every change."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._waiting: dict[str, int] = {}
        self._likely: dict[str, float] = {}
        self._wishes: dict[str, tuple[int, asyncio.TimerHandle]] = {}

    def waiting(self, expert: str, count: int) -> None:
        if self._waiting.get(expert, 0) != count:
            self._waiting[expert] = count
            self._on_change()

    def expect(self, expert: str, likely: float) -> None:
        if self._likely.get(expert, 0.0) != likely:
            self._likely[expert] = likely
            self._on_change()

    def wish(self, expert: str) -> None:
        count = self._unwish(expert)
        timer = asyncio.get_running_loop().call_later(WISH_SECONDS, self._forget, expert)
        self._wishes[expert] = count + 1, timer
        self._on_change()

    def fulfil(self, awake: set[str]) -> None:
        """These are awake."""
        if sum(self._unwish(expert) for expert in awake):
            self._on_change()

    def all(self) -> dict[str, Want]:
        wishes = {expert: count for expert, (count, _) in self._wishes.items()}
        return {
            expert: Want(expert, self._waiting.get(expert, 0) + wishes.get(expert, 0), self._likely.get(expert, 0.0))
            for expert in dict.fromkeys((*self._waiting, *wishes, *self._likely))
        }

    def close(self) -> None:
        for expert in list(self._wishes):
            self._unwish(expert)

    def _forget(self, expert: str) -> None:
        self._unwish(expert)
        self._on_change()

    def _unwish(self, expert: str) -> int:
        """How many wishes there were."""
        count, timer = self._wishes.pop(expert, (0, None))
        if timer is not None:
            timer.cancel()
        return count


def launcher_of(file: ExpertsFile, expert: str) -> tuple[str, Expert] | None:
    """The expert whose workers answer for `expert`, itself as a rule; None where nothing is launched for it."""
    name = file.experts[expert].upstream.worker or expert
    spec = file.experts[name]
    return (name, spec) if spec.upstream.launch is not None else None


def launched(name: str, spec: Expert) -> list[str]:
    """The names of the workers that an expert launches, those of its replicas."""
    launch = spec.upstream.launch
    return [f"{name}-{i}" for i in range(launch.replicas)] if launch else []


def launches(file: ExpertsFile) -> bool:
    """Whether the file has workers to launch."""
    return any(spec.upstream.launch is not None for spec in file.experts.values())


def _on_loopback(url: str | None) -> bool:
    try:
        return url is not None and urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
    except ValueError:
        return False
