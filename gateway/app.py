"""create_app: the only place where the parts are put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway import __version__, logs, tracing
from gateway.asgi import request_id
from gateway.deciding import Decider
from gateway.discovery import Discovery
from gateway.dispatch import Dispatcher
from gateway.errors import GatewayError, InternalError, MethodError, NotFoundError, shape_of
from gateway.fleet import FleetWatch
from gateway.guard import Guard
from gateway.health import HealthLoop
from gateway.metrics import Metrics, baseline_of
from gateway.pool import Pool
from gateway.routes import models, ops, routing
from gateway.routes.carried import KINDS, Carried
from gateway.serves import Serves
from gateway.settings import Settings
from gateway.state import GatewayState
from gateway.upstreams.base import Address
from gateway.upstreams.openai import OpenAIUpstream
from gateway.usage import public_price
from gateway.workers.lent import LentWorker
from gateway.workers.supervisor import Worker, embedded_worker
from router.routing import Router

log = logging.getLogger("moe_gateway")


def create_app(
    settings: Settings,
    router: Router,
    on_ready: Callable[[GatewayState], None] | None = None,
    workers: Mapping[str, Worker | LentWorker] | None = None,
) -> FastAPI:
    """The gateway as an ASGI application. `on_ready` is called once workers and upstreams are up.

    It launches its workers itself unless they are lent to it.
    """
    file = router.file
    upstream = OpenAIUpstream()
    workers = _workers(settings, router) if workers is None else workers
    metrics = Metrics(baseline_of(file, public_price(file.baseline) if file.baseline else None))
    pool = Pool(file, workers, metrics.hold)
    serves = Serves(file.experts)
    metrics.describe(router, pool.all(), tuple(file.experts))
    fleet = FleetWatch(pool)
    observers = (metrics.observe, fleet.observe, logs.write, *tracing.observers())
    state = GatewayState(settings, file, Decider(router, fleet, serves=serves), pool, metrics, workers, observers)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        discovery = Discovery(upstream, serves)

        def looked() -> None:
            pool.refresh()
            metrics.refresh()
            discovery.refresh(file.experts, pool.replicas)

        health = HealthLoop(upstream, pool.all(), settings.health_interval, on_hung=_replace, on_round=looked)
        await upstream.start()
        app.state.starting = asyncio.current_task()
        try:
            await asyncio.gather(*(worker.start() for worker in workers.values()))
            await health.probe()
            await discovery.settled()
            health.start()
            if on_ready:
                on_ready(state)
            app.state.starting = None
            yield
        except Exception as error:
            app.state.failure = error  # for whoever runs the server: it keeps only the fact that start-up failed
            raise
        finally:
            await health.stop()
            discovery.close()
            state.decider.close()
            await asyncio.gather(*(worker.stop() for worker in workers.values()))
            await upstream.close()

    app = FastAPI(title="moe-gateway", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.gateway, app.state.failure, app.state.starting, app.state.draining = state, None, None, False
    dispatcher = Dispatcher(pool, upstream, serves)
    for path, kind in KINDS.items():
        carried = Carried(kind, state.decider, dispatcher, observers, settings)
        app.router.routes.append(Route(path, carried, methods=["POST"]))
    for module in (models, routing, ops):
        app.include_router(module.routes)
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _fault)
    app.add_middleware(Guard, settings=settings)
    return app


def _replace(address: Address) -> None:
    """A worker of ours that hangs is killed, and so restarted; what somebody else runs is only left out."""
    if isinstance(address, Worker | LentWorker):
        address.kill()


def _workers(settings: Settings, router: Router) -> dict[str, Worker]:
    wanted = {expert.upstream.embedded for expert in router.file.experts.values()} - {None}
    return {"smollm2": embedded_worker(settings.state)} if wanted else {}


def _answer(request: Request, error: GatewayError) -> Response:
    headers = {"x-request-id": request_id(dict(request.scope["headers"])), **error.headers}
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
    log.error("the gateway failed", exc_info=error)
    return _answer(request, InternalError("The gateway failed; its log has more under this request id."))
