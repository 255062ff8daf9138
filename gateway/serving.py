"""Runs one gateway process on a socket that is already bound."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import uvicorn

from gateway import logs
from gateway.app import create_app
from gateway.errors import SettingsError
from gateway.settings import Settings
from gateway.state import GatewayState
from gateway.workers import embedded
from router.experts import ExpertsFile
from router.training.provision import Progress, load_or_train

BACKLOG = 2048
GRACE_SECONDS = 30


def run(
    settings: Settings,
    file: ExpertsFile,
    listener: socket.socket,
    progress: Progress,
    announce: Callable[[Settings, ExpertsFile, float], None],
) -> None:
    """Serve until a signal ends it. `announce` is told the settings, the experts and the seconds it took to be ready.

    Raises SettingsError, WorkerError and what load_or_train raises, before anything was served.
    """
    began = time.perf_counter()
    if any(expert.stand_in for expert in file.experts.values()) and (lacking := embedded.missing()):
        raise SettingsError(lacking)
    settings = replace(settings, port=listener.getsockname()[1])
    router = load_or_train(file, settings.state, progress)
    router.warm()

    def on_ready(state: GatewayState) -> None:
        listener.listen(BACKLOG)  # before the address is told, so that the first to try it is heard
        announce(settings, file, time.perf_counter() - began)

    logs.configure()
    app = create_app(settings, router, on_ready=on_ready)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    # What goes wrong is told by this process's own log and exit; uvicorn would print tracebacks beside it.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    # Once it has stopped in good order, uvicorn raises the signal that ended it again. The work is done: that is status 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server = _Server(config)
    try:
        server.run(sockets=[listener])
    except SystemExit:  # how uvicorn leaves a start-up that failed, or that a signal broke off
        if app.state.failure is not None:
            raise app.state.failure from None
        if not server.should_exit:
            raise


class _Server(uvicorn.Server):
    """Stops while it is still starting, too: a worker that does not come up must not hold back a signal."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        starting = self.config.app.state.starting  # type: ignore[union-attr]
        if starting is not None:
            starting.get_loop().call_soon_threadsafe(starting.cancel)
