"""One data-plane process: serves the application on bound sockets until it is told to end, and then lets what runs end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gateway import logs
from gateway.app import create_app
from gateway.connection import Connection, Limits
from gateway.reloading.errors import ReloadError
from gateway.settings import Settings
from gateway.sockets import connections_allowed, named
from gateway.state import GatewayState
from gateway.tls import tls_context
from router.experts import ExpertsFile
from router.training.provision import Progress, load_or_train

log = logging.getLogger("moe_gateway")

CUT_SECONDS = 1.0  # for the books of requests that were cut off
LOOK_SECONDS = 0.05
COLLECT_EVERY = 20_000  # objects more than before: those of a thousand requests or so

Announce = Callable[[Settings, ExpertsFile, float, Sequence[str]], None]


def run(
    settings: Settings, file: ExpertsFile, sockets: Sequence[socket.socket], progress: Progress, announce: Announce
) -> None:
    """Serve until a signal ends it. `announce` is told the settings, the experts, the seconds it took to be ready, and how the
    experts' servers are not as the file says.

    Raises SettingsError, WorkerError and what load_or_train raises, before anything was served.
    """
    began = time.perf_counter()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves: what it would take up anew is what it is reading
    tls = tls_context(settings.tls_cert, settings.tls_key)
    settings = named(settings, sockets)
    router = load_or_train(file, settings.state, progress)
    router.warm()

    def on_ready(state: GatewayState) -> None:
        spare_collector()
        for listener in sockets:
            listener.listen(settings.backlog)  # before the address is told, so that the first to try it is heard
        announce(settings, file, time.perf_counter() - began, state.served.warnings())

    logs.configure(settings.log_level, settings.log_format)
    Server(create_app(settings, router, on_ready=on_ready), settings, tls).serve_on(sockets)


def spare_collector() -> None:
    """Keep the garbage collector off what lives as long as the process: the router alone is some hundred thousand objects,
    which every full collection would walk through while requests wait. What requests leave in cycles is still collected."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])


class Server(uvicorn.Server):
    """uvicorn, ended in the gateway's way.

    The first signal makes /ready say so and every answer close its connection; after `drain_delay` it listens no more, and what
    is in flight has `drain_seconds`. What is left then is cut, at once where a second signal comes.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        tls: ssl.SSLContext | None,
        beside: Callable[[], Coroutine[None, None, None]] | None = None,
    ) -> None:
        """`beside` runs for as long as it serves."""
        allowed = settings.max_connections or connections_allowed()
        counted = app.state.gateway.metrics.process
        self._limits = Limits(settings.max_header_bytes, settings.header_seconds, allowed, refused=counted.refuse)
        self._settings, self._app, self._beside = settings, app, beside
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection.within(self._limits),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # who the client is says its key, not its address
                lifespan="on",
                backlog=settings.backlog,
                timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]
                ssl_context_factory=None if tls is None else lambda config, default: tls,
            )
        )
        counted.watch(lambda: len(self.server_state.connections))

    def serve_on(self, sockets: Sequence[socket.socket]) -> None:
        """Returns when it was ended by signals. Raises what kept the application from starting."""
        # What goes wrong is told by this process's own log and exit; uvicorn would print tracebacks beside it.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        # While it runs signals are handle_exit's. Those that come when the work is done change nothing: that is status 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        try:
            self.run(sockets=list(sockets))
        except SystemExit:  # how uvicorn leaves a start-up that failed, or that a signal broke off
            if self._app.state.failure is not None:
                raise self._app.state.failure from None
            if not self.should_exit:
                raise

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second cuts what is left, a third is for the system. All lead to status 0 but that."""
        if self.should_exit:
            self.force_exit = True
            signal.signal(sig, signal.SIG_DFL)
        self.drain()

    def drain(self) -> None:
        """Begin to end. To be called from the thread that serves."""
        self._limits.draining = self._app.state.draining = self.should_exit = True
        # It stops while it is still starting, too: a worker that does not come up must not hold back a signal.
        starting = self._app.state.starting
        if starting is not None:
            starting.get_loop().call_soon_threadsafe(starting.cancel)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        beside = asyncio.create_task(self._beside()) if self._beside else None
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        await super().startup(sockets)
        self._task = beside  # asyncio itself holds tasks by weak references alone

    def _reload(self) -> None:
        """SIGHUP: how it went says the log."""

        async def reload() -> None:
            with contextlib.suppress(ReloadError):
                await self._app.state.keeper.reload()

        self._reloading = asyncio.create_task(reload())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = self.server_state
        log.info("draining", extra={"in_flight": len(state.tasks), "connections": len(state.connections)})
        await self._wait(self._settings.drain_delay, lambda: False)
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(state.connections):
            connection.shutdown()
        await self._wait(self._settings.drain_seconds, self._is_idle)
        if not self._is_idle():
            log.warning("cut off", extra={"in_flight": len(state.tasks)})
            await self._cut()
        await self.lifespan.shutdown()

    async def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            connection.cut()  # type: ignore[union-attr]
        self.force_exit = False
        await self._wait(CUT_SECONDS, self._is_idle)
        for task in list(self.server_state.tasks):
            task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._wait(CUT_SECONDS, self._is_idle)

    def _is_idle(self) -> bool:
        return not (self.server_state.connections or self.server_state.tasks)

    async def _wait(self, seconds: float, until: Callable[[], bool]) -> None:
        """So long at most, and no longer than until the second signal."""
        end = time.monotonic() + seconds
        while not until() and not self.force_exit and time.monotonic() < end:  # noqa: ASYNC110 - a signal sets it
            await asyncio.sleep(min(LOOK_SECONDS, seconds))
