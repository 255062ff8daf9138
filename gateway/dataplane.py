"""One of several data-plane processes, as a program: a child of `gateway.processes`, which gives it its sockets and its settings.

It leaves when its standard input ends: that happens when its parent is gone, however it went.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from io import FileIO
from itertools import count

from gateway import logs, metricfiles
from gateway.app import create_app
from gateway.console import fail, shown_progress
from gateway.jsonlines import line, read
from gateway.messages import Answer, Asked, Hung, Kept, Lent, News, Ready, Serve, Served, Setup, Told, Workers
from gateway.reloading.errors import ReloadError
from gateway.reloading.preparing import Candidate, parsed
from gateway.reloading.status import Reloaded, Status
from gateway.serving import Server, spare_collector
from gateway.sockets import own
from gateway.state import GatewayState
from gateway.tls import tls_context
from gateway.workers.lent import LentWorker
from router.errors import RouterError
from router.experts import parse_sources
from router.training.provision import load_or_train

log = logging.getLogger("moe_gateway")

LONGEST_LINE = 64 * 1024 * 1024  # bytes; texts of experts.yaml come in one


def main() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which is for the parent
    # Standard output is for what the parent is told; whatever else is printed goes where the log goes.
    told = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Unbuffered: what comes behind the first line is for the event loop to read.
    news = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115 - for as long as the process lives

    def tell(message: Told) -> None:
        os.write(told, line(message))

    try:
        _serve(read(news.readline(), Setup), news, tell)
    except RouterError as error:
        fail(str(error))


class Remote:
    """The parent's keeper, as the process that is asked for a reload sees it. `status` is what the parent told last."""

    def __init__(self, status: Status, tell: Callable[[Told], None]) -> None:
        self.status, self._tell = status, tell
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[Answer]] = {}

    async def reload(self, force: bool = False) -> Reloaded:
        """Raises ReloadError."""
        number = next(self._numbers)
        answered = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._tell(Asked(number, force))
            answer: Answer = await answered
        finally:
            del self._asked[number]
        if answer.reloaded is None:
            raise ReloadError(answer.code, answer.problems)
        return answer.reloaded

    def hear(self, answer: Answer) -> None:
        asked = self._asked.get(answer.number)
        if asked is not None and not asked.done():
            asked.set_result(answer)


def _serve(setup: Setup, news: FileIO, tell: Callable[[Told], None]) -> None:
    settings = setup.settings
    metricfiles.join(setup.process)
    with shown_progress() as progress:
        router = load_or_train(parse_sources(setup.experts), settings.state, progress)
    router.warm()
    logs.configure(settings.log_level, settings.log_format, setup.process)
    sockets = [own(socket.socket(fileno=number)) for number in setup.sockets]
    workers = {name: LentWorker(name, lambda name, url: tell(Hung(name, url))) for name in setup.workers}
    _note(workers, setup.workers)

    def on_ready(state: GatewayState) -> None:
        spare_collector()
        for listener in sockets:
            listener.listen(settings.backlog)
        artifact = state.decider.router.artifact
        tell(Ready(artifact.name, artifact.folder, state.served.warnings()))

    share = (setup.process, settings.processes)
    app = create_app(settings, router, on_ready=on_ready, workers=workers, share=share)
    remote = app.state.keeper = Remote(setup.status or app.state.keeper.status, tell)

    async def take_up(told: Serve) -> None:
        try:
            await app.state.swapper.swap(Candidate(await parsed(told.experts), told.artifact, told.folder))
            tell(Served(told.experts.digest))
        except ReloadError as error:
            tell(Served(told.experts.digest, list(error.problems)))
        except Exception as error:
            log.critical("reloading failed", exc_info=error)
            tell(Served(told.experts.digest, [f"the gateway failed: {type(error).__name__}; its log has more"]))

    async def follow() -> None:
        reader = asyncio.StreamReader(limit=LONGEST_LINE)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), news)
        serving: set[asyncio.Task[None]] = set()
        while text := await reader.readline():
            told = read(text, News)
            if isinstance(told, Workers):
                _note(workers, told.workers)
            elif isinstance(told, Serve):
                serving = {task for task in serving if not task.done()} | {asyncio.create_task(take_up(told))}
            elif isinstance(told, Kept):
                remote.status = told.status
                app.state.gateway.metrics.reloading(told.status.state == "refused", told.counted)
            else:
                remote.hear(told)
        server.drain()

    server = Server(app, settings, tls_context(settings.tls_cert, settings.tls_key), beside=follow)
    server.serve_on(sockets)


def _note(workers: Mapping[str, LentWorker], news: Mapping[str, Lent]) -> None:
    for name, lent in news.items():
        workers[name].tell(lent.url, lent.api_key)


if __name__ == "__main__":
    main()
