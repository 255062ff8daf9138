"""create_app: the only place where the parts are put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway import __version__, tracing
from gateway.asgi import ASGIApp, Receive, Scope, Send
from gateway.errors import GatewayError, InternalError, MethodError, NotFoundError, shape_of
from gateway.generation import Generation
from gateway.guard import Guard
from gateway.ledger.lookups import Lookups
from gateway.ledger.writer import Ledger
from gateway.metrics import Metrics
from gateway.observing import Observing
from gateway.openapi import described
from gateway.recent import Recent
from gateway.reloading.keeper import Keeper, Outcome
from gateway.reloading.status import Status
from gateway.reloading.swapping import Swapper
from gateway.routes import admin, catalog, models, ops, receipts, routing, usage
from gateway.routes.carried import KINDS, Carried
from gateway.settings import Settings
from gateway.state import GatewayState
from gateway.workers.lent import LentWorker
from gateway.workers.link import Link, launches
from gateway.workers.supervisor import Worker, embedded_worker
from router.routing import Router

log = logging.getLogger("moe_gateway")


class Gateway(FastAPI):
    """FastAPI, and before it the endpoints that carry bytes: its middleware and routing would cost them more than they take
    themselves, and wrap every piece of a stream. `hot` has them by path."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.hot: dict[str, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hot = self.hot.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if hot is None:
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self
            await hot(scope, receive, send)


def create_app(
    settings: Settings,
    router: Router,
    on_ready: Callable[[GatewayState], None] | None = None,
    workers: Mapping[str, Worker | LentWorker] | None = None,
    share: tuple[int, int] = (0, 1),
) -> Gateway:
    """The gateway as an ASGI application. `on_ready` is called once workers and upstreams are up.

    It launches the embedded engine itself unless it is lent to it; vLLM workers are launched by their owner. `share` is
    (index, count) of several processes.
    """
    workers = _workers(settings, router) if workers is None else workers
    metrics, link, telemetry = Metrics(), Link(settings.state), tracing.from_environment()
    recent, ledger = Recent(), _ledger(settings, metrics, rolls_up=share[0] == 0)
    lookups = Lookups(settings.ledger) if settings.ledger else None
    observing = [Observing(name, metrics.observed) for name in settings.observers]
    observers = (recent.observe, *([ledger.observe] if ledger else ()), *(one.observe for one in observing))
    first = Generation(settings, router, metrics, workers, link, share, telemetry=telemetry, observers=observers)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.starting = asyncio.current_task()
        try:
            linking = [link.start()] if launches(router.file) else []
            await asyncio.gather(*(worker.start() for worker in workers.values()), *linking)
            await first.start()
            if on_ready:
                on_ready(first.state)
            if ledger:
                ledger.start()
            for one in observing:
                one.start()
            app.state.starting = None
            if isinstance(app.state.keeper, Keeper):
                app.state.keeper.start()
            async with metrics.process.looking():
                yield
        except Exception as error:
            app.state.failure = error  # for whoever runs the server: it keeps only the fact that start-up failed
            raise
        finally:
            if isinstance(app.state.keeper, Keeper):
                await app.state.keeper.close()
            await app.state.swapper.close()
            if ledger:
                await asyncio.to_thread(ledger.close)
            await asyncio.gather(*(asyncio.to_thread(one.close) for one in observing))
            if lookups:
                lookups.close()
            await link.close()
            await asyncio.gather(*(worker.stop() for worker in workers.values()))
            if telemetry is not None:
                await asyncio.to_thread(telemetry.close)

    # A redirect would name this machine as the client did, which behind a proxy is the wrong scheme for its key.
    app = Gateway(
        title="moe-gateway",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.failure, app.state.starting, app.state.draining = None, None, False
    app.state.gateway, app.state.recent, app.state.lookups = first.state, recent, lookups

    def serve(generation: Generation) -> None:
        before, app.state.gateway = app.state.gateway, generation.state  # at once: a request sees the one or the other
        if launches(before.file) or launches(generation.state.file):
            link.reread()

    def told(status: Status, outcome: Outcome | None) -> None:
        metrics.reloading(status.state == "refused", outcome)

    swapper = app.state.swapper = Swapper(
        first,
        partial(
            Generation,
            settings,
            metrics=metrics,
            workers=workers,
            link=link,
            share=share,
            telemetry=telemetry,
            observers=observers,
        ),
        serve,
    )
    # One of several processes puts its parent's in the place of this one.
    app.state.keeper = Keeper(settings, swapper.running, swapper.swap, workers, told)
    for path, kind in KINDS.items():
        carried = Carried(kind, settings)
        app.router.routes.append(Route(path, carried, methods=["POST"]))
        app.hot[path] = Guard(carried, settings)
    for module in (models, catalog, routing, receipts, ops, admin, usage):
        app.include_router(module.routes)
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _fault)
    app.add_middleware(Guard, settings=settings)
    app.openapi = described(app, settings)  # type: ignore[method-assign]
    return app


def _workers(settings: Settings, router: Router) -> dict[str, Worker]:
    wanted = {expert.upstream.embedded for expert in router.file.experts.values()} - {None}
    return {"smollm2": embedded_worker(settings.state)} if wanted else {}


def _ledger(settings: Settings, metrics: Metrics, rolls_up: bool) -> Ledger | None:
    if settings.ledger is None:
        return None
    keep = timedelta(seconds=settings.ledger_keep) if settings.ledger_keep is not None and rolls_up else None
    return Ledger(settings.ledger, metrics.ledger, settings.ledger_prompts, keep)


def _answer(request: Request, error: GatewayError) -> Response:
    headers = {"x-request-id": request.scope["state"]["request_id"], **error.headers}
    body = shape_of(request.url.path).body(error)
    return Response(body, error.status, headers, media_type="application/json")


async def _gateway_error(request: Request, error: Exception) -> Response:
    return _answer(request, error if isinstance(error, GatewayError) else InternalError("The gateway failed."))


async def _http_exception(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: an unknown path, a wrong method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = f"{request.method} {request.url.path[:200]}"
    if status == 405:
        return _answer(request, MethodError(f"{what} is not allowed here.", headers=getattr(error, "headers", None)))
    return _answer(request, NotFoundError(f"There is no {what} here."))


async def _fault(request: Request, error: Exception) -> Response:
    log.error("the gateway failed", exc_info=error, extra={"request_id": request.scope["state"]["request_id"]})
    return _answer(request, InternalError("The gateway failed; its log has more under this request id."))
