"""Keeper: keeps what is served as the files say. One of each gateway; of several processes, in their parent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway.history import History
from gateway.reloading.changes import changes
from gateway.reloading.errors import ReloadError
from gateway.reloading.preparing import Candidate, Wanted, prepared, read_wanted, refused
from gateway.reloading.status import Progress, Reloaded, Status
from gateway.reloading.testing import failed_tests
from gateway.reloading.watcher import wakes
from gateway.settings import Settings, Watch
from router.errors import ConfigError
from router.routetests.file import FILE_NAME
from router.sources import MAX_BYTES, Sources
from router.textfiles import UnreadableError, read_text

log = logging.getLogger("moe_gateway")

SETTLE_SECONDS = 0.1  # a file that changes between two looks so far apart is still being written
MOST_LOOKS = 30
RETRY_SECONDS = 0.5  # after which a file that was wrong just after it changed is looked at once more
TOLD_SECONDS = 10.0  # between two lines of the log about one step of a training
MOST_CHANGES = 50  # that are told

Outcome = Literal["ok", "failed"]
Serve = Callable[[Candidate], Awaitable[None]]


class Keeper:
    """`serve` takes up a candidate, or raises ReloadError. `told` hears every change of `status`, and the outcome of each try."""

    def __init__(
        self,
        settings: Settings,
        running: Candidate,
        serve: Serve,
        workers: Collection[str],
        told: Callable[[Status, Outcome | None], None],
    ) -> None:
        """`workers` are the embedded ones that run."""
        self._settings, self._running, self._serve = settings, running, serve
        self._workers, self._told = workers, told
        self._history = History(settings.state / "history")
        self._seen: dict[Path, bytes] | None = None  # what stands in each file, as it was tried last
        self._tested: bytes | None = None  # the routing tests that what runs was tried on
        self._turn = asyncio.Lock()
        self._attempt: asyncio.Task[Reloaded] | None = None
        self._preparing: asyncio.Task[Candidate] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._spoke = 0.0
        self.status = self._serving(running)
        self._paths = self._files(running.file.sources)

    def start(self) -> None:
        """Watch the files from now on, and try what is served on its routing tests."""
        self._record("start")
        self._beside(self._test())
        if self._settings.watch is not Watch.OFF:
            self._beside(self._watch())

    async def close(self) -> None:
        """End what is under way: a training as well."""
        attempts = [self._attempt] if self._attempt else []
        for task in (*self._tasks, *attempts):
            task.cancel()
        await asyncio.gather(*self._tasks, *attempts, return_exceptions=True)

    async def reload(self, force: bool = False) -> Reloaded:
        """Serve by the files as they are now; whatever is being prepared by then is given up, unless it is that. With `force` even
        where routing tests fail or old domains are worse off. Raises ReloadError, and then nothing has changed."""
        return await self._try(force, patient=False)

    async def _try(self, force: bool, patient: bool) -> Reloaded:
        """`patient` waits a moment before it takes a file for wrong: somebody may still write."""
        async with self._turn:
            seen = await self._look()
            if self._attempt is None or self._attempt.done() or force or seen != self._seen:
                await self._supersede()
                self._seen = seen
                self._attempt = asyncio.create_task(self._attempted(force, patient))
                self._attempt.add_done_callback(
                    lambda task: task.cancelled() or task.exception()
                )  # whoever waited for it
            attempt = self._attempt
        return await asyncio.shield(attempt)

    async def _supersede(self) -> None:
        if self._attempt is None or self._attempt.done():
            return
        if self._preparing is not None:
            self._preparing.cancel()  # what is prepared already is served first, in no time
        await asyncio.wait({self._attempt})

    async def _attempted(self, force: bool, patient: bool) -> Reloaded:
        began = time.monotonic()
        self._preparing = asyncio.create_task(self._prepared(force, patient))
        try:
            candidate = await self._preparing
            if candidate is self._running:
                return self._unchanged(patient)
            await self._serve(candidate)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            log.info("superseded by a newer file", extra={"wanted": self.status.wanted})
            raise ReloadError("superseded", ["a newer file took its place before it was ready"]) from None
        except ReloadError as error:
            self._refuse(error)
            raise
        except Exception as error:
            log.critical("reloading failed", exc_info=error)
            failed = ReloadError("not_started", [f"the gateway failed: {type(error).__name__}; its log has more"])
            self._refuse(failed)
            raise failed from None
        return self._take_up(candidate, time.monotonic() - began)

    async def _prepared(self, force: bool, patient: bool) -> Candidate:
        try:
            return await self._read_and_prepared(force)
        except ReloadError as error:
            if not patient or error.code != "invalid_config":
                raise
        await asyncio.sleep(RETRY_SECONDS)
        return await self._read_and_prepared(force)

    async def _read_and_prepared(self, force: bool) -> Candidate:
        try:
            wanted = await asyncio.to_thread(read_wanted, self._settings.config)
        except ConfigError as error:
            self._say(wanted=None)
            wrong = (self._settings.config.parent / problem.file for problem in error.problems)
            self._paths = tuple(dict.fromkeys((*self._paths, *wrong)))
            self._seen = await self._look() | (self._seen or {})
            raise refused(error) from None
        self._paths = self._files(wanted.sources)
        self._seen = await self._look() | self._read(wanted)
        if (digest := wanted.sources.digest) != self._running.file.digest:
            self._say(state="preparing", wanted=digest)
        running, settings = self._running, self._settings
        return await prepared(wanted, running, settings, self._workers, self._progressed, force)

    def _take_up(self, candidate: Candidate, seconds: float) -> Reloaded:
        before, self._running = self._running, candidate
        self._tested = (self._seen or {}).get(self._tests)
        listed = tuple(map(str, changes(before.file, candidate.file)))
        if len(listed) > MOST_CHANGES:
            listed = (*listed[:MOST_CHANGES], f"{len(listed) - MOST_CHANGES} more changes")
        self.status = self._serving(candidate, listed)
        self._told(self.status, "ok")
        about = {"config": candidate.file.digest, "experts": len(candidate.file.experts), "changes": listed}
        trained = {"figures": candidate.figures} if candidate.figures else {}
        log.info("reloaded", extra={**about, **trained, "seconds": round(seconds, 3)})
        if candidate.warnings:
            log.warning("reloaded by force, though much speaks against it", extra={"why": candidate.warnings})
        self._record("reload")
        return self._answer("reloaded", listed)

    def _unchanged(self, quiet: bool) -> Reloaded:
        if self.status.state != "serving":
            log.info("the files say again what is served", extra={"config": self._running.file.digest})
            self._say(state="serving", wanted=None, tried=None, code=None, problems=(), progress=None)
            self._told(self.status, "ok")
        elif not quiet:
            log.info("nothing to reload: the files say what is served", extra={"config": self._running.file.digest})
        if (self._seen or {}).get(self._tests) != self._tested:
            self._beside(self._test())
        return self._answer("unchanged")

    def _answer(self, word: Literal["reloaded", "unchanged"], listed: tuple[str, ...] = ()) -> Reloaded:
        file = self._running.file
        return Reloaded(word, file.digest, tuple(file.experts), listed, self._running.warnings)

    def _refuse(self, error: ReloadError) -> None:
        self._say(state="refused", progress=None, tried=time.time(), code=error.code, problems=error.problems)
        self._told(self.status, "failed")
        wanted = {"wanted": self.status.wanted} if self.status.wanted else {}
        about = {"why": error.problems, "error_code": error.code, "config": self._running.file.digest}
        log.error("reload failed: what ran before goes on", extra={**about, **wanted})

    def _say(self, **changed: Any) -> None:
        self.status = msgspec.structs.replace(self.status, **changed)
        self._told(self.status, None)

    def _serving(self, candidate: Candidate, listed: tuple[str, ...] = ()) -> Status:
        sources = candidate.file.sources
        return Status(
            config=candidate.file.digest,
            router=candidate.artifact,
            since=time.time(),
            files=tuple(sources.texts) if sources else (),
            experts=tuple(candidate.file.experts),
            changes=listed,
            warnings=candidate.warnings,
            watch=self._settings.watch,
        )

    def _progressed(self, progress: Progress) -> None:
        before, now = self.status.progress, time.monotonic()
        self._say(progress=progress)
        if before is None or before.step != progress.step or now - self._spoke > TOLD_SECONDS:
            self._spoke = now
            log.info("training", extra={"step": str(progress), "wanted": self.status.wanted})

    def _files(self, sources: Sources | None) -> tuple[Path, ...]:
        """What to look at: the files that were read, and the routing tests, whether there are any or not."""
        others = sources.places if sources else []
        return tuple(dict.fromkeys([self._settings.config, self._tests, *others]))

    @property
    def _tests(self) -> Path:
        return self._settings.config.parent / FILE_NAME

    def _read(self, wanted: Wanted) -> dict[Path, bytes]:
        tests = {} if wanted.tests is None else {self._tests: _hashed(wanted.tests)}
        return tests | {wanted.sources.place(name): _hashed(text) for name, text in wanted.sources.texts.items()}

    async def _look(self) -> dict[Path, bytes]:
        """What stands in each of the files, or why it cannot be read: hashed, for some hold secrets."""
        return await asyncio.to_thread(_contents, self._paths)

    async def _watch(self) -> None:
        async for _ in wakes(lambda: self._paths, self._settings.watch):
            if await self._is_new():
                self._beside(self._follow())

    async def _is_new(self) -> bool:
        """Whether the files say something that was not looked at yet; waits until nobody writes."""
        seen = await self._look()
        if seen == self._seen:
            return False
        for _ in range(MOST_LOOKS):
            await asyncio.sleep(SETTLE_SECONDS)
            before, seen = seen, await self._look()
            if seen == before:
                break
        return seen != self._seen

    async def _follow(self) -> None:
        with contextlib.suppress(ReloadError):  # which was told already
            await self._try(force=False, patient=True)

    async def _test(self) -> None:
        """Failing routing tests of what runs are told and no more: there is nothing else that could serve."""
        running, sources, seen = self._running, self._running.file.sources, await self._look()
        if sources is None or seen.get(self._settings.config) != _hashed(sources.text):
            return  # the tests are those of another file
        tests = self._tested = seen[self._tests]
        failed = await failed_tests(running, sources, self._settings)
        if self._running is not running or self._tested != tests:
            return  # others were tried meanwhile
        before = tuple(line for line in self.status.warnings if line.startswith(FILE_NAME))
        if failed:
            log.error("what is served fails its routing tests", extra={"why": failed})
        elif before:
            log.info("what is served passes its routing tests again", extra={"config": running.file.digest})
        if failed != before:
            self._say(warnings=(*(line for line in self.status.warnings if line not in before), *failed))

    def _record(self, why: str) -> None:
        self._beside(self._recorded(self._running, why))

    async def _recorded(self, candidate: Candidate, why: str) -> None:
        if (sources := candidate.file.sources) is None:
            return
        try:
            await asyncio.to_thread(self._history.record, sources, candidate.file.digest, time.time(), why)
        except OSError as error:
            why = error.strerror or type(error).__name__
            log.warning("the history of configurations cannot be written", extra={"why": why})

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("reloading failed", exc_info=error)


def _contents(paths: Iterable[Path]) -> dict[Path, bytes]:
    found: dict[Path, bytes] = {}
    for path in paths:
        try:
            found[path] = _hashed(read_text(path, MAX_BYTES))
        except UnreadableError as error:
            found[path] = _hashed(f"\0{error}")  # which no text begins with
    return found


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
