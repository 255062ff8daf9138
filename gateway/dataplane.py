"""One of several data-plane processes, as a program: a child of `gateway.processes`, which gives it its sockets and its settings.

It leaves when its standard input ends: that happens when its parent is gone, however it went.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from io import FileIO

from gateway import logs, metricfiles
from gateway.app import create_app
from gateway.console import fail, shown_progress
from gateway.messages import Hung, Lent, News, Ready, Reloaded, Setup, Told, line, read
from gateway.serving import Server, spare_collector
from gateway.sockets import own
from gateway.state import GatewayState
from gateway.tls import tls_context
from gateway.workers.lent import LentWorker
from router.errors import RouterError
from router.experts import parse_experts
from router.training.provision import load_or_train


def main() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves
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


def _serve(setup: Setup, news: FileIO, tell: Callable[[Told], None]) -> None:
    settings = setup.settings
    metricfiles.join(setup.process)
    with shown_progress() as progress:
        router = load_or_train(parse_experts(setup.experts, settings.config.name), settings.state, progress)
    router.warm()
    logs.configure(settings.log_level, settings.log_format, setup.process)
    sockets = [own(socket.socket(fileno=number)) for number in setup.sockets]
    workers = {name: LentWorker(name, lambda name, url: tell(Hung(name, url))) for name in setup.workers}
    _note(workers, setup.workers)

    def on_ready(state: GatewayState) -> None:
        spare_collector()
        for listener in sockets:
            listener.listen(settings.backlog)
        tell(Ready(state.served.warnings()))

    async def follow() -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), news)
        while text := await reader.readline():
            _note(workers, read(text, News).workers)
        server.drain()

    share = (setup.process, settings.processes)
    app = create_app(settings, router, on_ready=on_ready, workers=workers, share=share)
    app.state.on_reload = lambda digest: tell(Reloaded(digest))
    server = Server(app, settings, tls_context(settings.tls_cert, settings.tls_key), beside=follow)
    server.serve_on(sockets)


def _note(workers: Mapping[str, LentWorker], news: Mapping[str, Lent]) -> None:
    for name, lent in news.items():
        workers[name].tell(lent.url, lent.api_key)


if __name__ == "__main__":
    main()
