"""For who holds the admin key: which experts.yaml runs, and how the experts' replicas do."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from fastapi import APIRouter, Request

from gateway.balancing import outstanding
from gateway.errors import BadRequestError
from gateway.reloading.errors import ReloadError
from gateway.reloading.status import Status
from gateway.replica import Replica
from gateway.state import GatewayState
from gateway.workers.link import LinkedAddress

routes = APIRouter(tags=["admin"])


@routes.post("/admin/reload")
async def reload(request: Request, force: bool = False) -> dict[str, Any]:
    """Serve by experts.yaml as it is now; where something is wrong with it, 400 says what, and nothing changes.

    Answers when it is served, after training where that is needed. `force` serves it even where it breaks routing tests, or does
    old domains worse than router.retrain_margin allows. Of several processes all come to serve by it.
    """
    try:
        reloaded = await request.app.state.keeper.reload(force)
    except ReloadError as error:
        raise BadRequestError(str(error), code=error.code) from None
    told: dict[str, Any] = msgspec.to_builtins(reloaded)
    return told


@routes.get("/admin/config")
async def config(request: Request) -> dict[str, Any]:
    """Which experts.yaml runs and since when, what it changed; and of one that was found since, why it is not served."""
    status: Status = request.app.state.keeper.status
    return status.described()


@routes.get("/admin/experts")
async def experts(request: Request) -> dict[str, Any]:
    """Every expert and its replicas as this process sees them; times are in seconds, and no address is told."""
    state: GatewayState = request.app.state.gateway
    pool = state.pool
    return {
        expert: {
            "model": spec.model,
            "ready": pool.ready(expert),
            "queued": pool.queued(expert),
            "queue_length": spec.queue.length,
            "asleep": pool.sleepers.asleep(expert),
            "awake_in": _finite(pool.sleepers.expected(expert)) if pool.sleepers.asleep(expert) else None,
            "replicas": [_described(replica, state.served.of(replica)) for replica in pool.replicas[expert]],
        }
        for expert, spec in state.file.experts.items()
    }


def _described(replica: Replica, served: str | None) -> dict[str, Any]:
    """`served` is ok, or how its server is not as experts.yaml says; None where it told nothing. `worker` is the state of one that
    is launched, None where there is no owner of it."""
    now = replica.clock()
    ttft = replica.median_first_token(now)
    return {
        "name": replica.name,
        "state": replica.state,
        "served": served,
        "worker": replica.address.state if isinstance(replica.address, LinkedAddress) else None,
        "up": replica.up,
        "available": replica.available,
        "cause": replica.cause,
        "retry_after": _finite(replica.retry_after),
        "failures": replica.failures,
        "trips": replica.trips,
        "last_outcome": replica.last_outcome,
        "in_flight": replica.in_flight,
        "max_in_flight": replica.cap,
        "weight": replica.weight,
        "share": replica.share,
        "outstanding": round(outstanding(replica, now), 2),
        "load": _load(replica, now),
        "ttft": None if ttft is None else round(ttft, 4),
    }


def _load(replica: Replica, now: float) -> dict[str, Any] | None:
    """The server's own figures and how old they are, None where it gave none."""
    load = replica.load
    if load is None:
        return None
    return {
        "running": load.running,
        "waiting": load.waiting,
        "kv_cache": round(load.cache, 4),
        "age": round(now - replica.load_at, 3),
        "stale": now >= replica.load_until,
    }


def _finite(seconds: float) -> float | None:
    return round(seconds, 3) if math.isfinite(seconds) else None
