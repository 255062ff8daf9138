"""POST /v1/route: the decision without the generation."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from gateway.asgi import read_body, request_id
from gateway.deciding import decision_headers
from gateway.exchange import Exchange
from gateway.schema import parse_route
from gateway.state import GatewayState

routes = APIRouter(tags=["routing"])


@routes.post("/v1/route")
async def route(request: Request, response: Response) -> dict[str, Any]:
    """Takes a chat completion body, or {"input": "text"}; answers what `auto` would do with it, and why."""
    state: GatewayState = request.app.state.gateway
    headers = dict(request.scope["headers"])
    body = await read_body(headers, request.receive, state.settings.max_body_bytes)
    decision = await state.decider.decide(parse_route(body))
    exchange = Exchange(request_id(headers), "route", decision=decision)
    exchange.expert = state.file.experts[decision.expert]
    response.headers.update(decision_headers(exchange))
    return decision.described() | {"model": exchange.expert.model}
