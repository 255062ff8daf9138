"""For those who operate: is the process up, can it answer, what has it counted."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from gateway import __version__
from gateway.state import GatewayState

routes = APIRouter(tags=["operations"])
STAND_IN_NOTE = (
    "A stand-in is a small embedded model in place of a real specialist: fit to try the gateway, not to judge answers. "
    "Put a real one in experts.yaml."
)


@routes.head("/health", include_in_schema=False)
@routes.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """The process is up. Says which experts are stand-ins."""
    state: GatewayState = request.app.state.gateway
    stand_ins = [name for name, expert in state.file.experts.items() if expert.stand_in]
    body: dict[str, Any] = {"status": "ok", "version": __version__, "stand_ins": stand_ins}
    return body | ({"note": STAND_IN_NOTE} if stand_ins else {})


@routes.head("/ready", include_in_schema=False)
@routes.get("/ready")
async def ready(request: Request, response: Response) -> dict[str, Any]:
    """200 when a router is loaded, one expert or more can answer or be woken, and the gateway is not about to end; else 503.

    A refused experts.yaml is told in `config`, and does not make it unready: what ran before goes on."""
    state: GatewayState = request.app.state.gateway
    pool = state.pool
    experts = {e: "ready" if pool.ready(e) else "asleep" if pool.able(e) else "down" for e in state.file.experts}
    status = "ready" if {"ready", "asleep"} & set(experts.values()) else "unavailable"
    if request.app.state.draining:
        status = "draining"
    response.status_code = 200 if status == "ready" else 503
    return {
        "status": status,
        "router": state.decider.router.artifact.name,
        "config": request.app.state.keeper.status.brief(),
        "experts": experts,
    }


@routes.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' text format, or OpenMetrics' where the Accept header names it."""
    state: GatewayState = request.app.state.gateway
    state.metrics.refresh()  # here: what counts is for one thread
    # In a thread: of several processes it reads the files of all.
    text, kind = await asyncio.to_thread(state.metrics.exposition, request.headers.get("accept", ""))
    return Response(text, headers={"content-type": kind})
