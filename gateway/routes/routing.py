"""POST /v1/route: the decision without the generation."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from gateway.asgi import ClientGoneError, header_value, read_body, request_id
from gateway.deciding import decision_headers
from gateway.errors import GatewayError
from gateway.exchange import CLIENT_CLOSED_REQUEST, Exchange, Outcome
from gateway.schema import parse_route
from gateway.state import GatewayState

routes = APIRouter(tags=["routing"])


@routes.post("/v1/route")
async def route(request: Request, response: Response) -> Any:
    """Takes a chat completion body, or {"input": "text"}; answers what `auto` would do with it, and why."""
    state: GatewayState = request.app.state.gateway
    headers = dict(request.scope["headers"])
    exchange = Exchange(request_id(headers), "route", state.observers, caller=request.scope["state"]["caller"])
    try:
        with exchange.waiting():
            body = await read_body(headers, request.receive, state.settings.max_body_bytes)
        exchange.decision = await state.decider.decide(await asyncio.to_thread(parse_route, body))
    except ClientGoneError:
        exchange.finish(Outcome.CANCELLED, CLIENT_CLOSED_REQUEST)
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except GatewayError as error:
        exchange.error_code = error.code
        exchange.finish(Outcome.CLIENT_ERROR, error.status)
        raise
    exchange.begin(exchange.decision.expert, state.file.experts[exchange.decision.expert])
    for name, value in decision_headers(exchange).items():
        response.headers[name] = header_value(value)
    exchange.finish(Outcome.OK, 200)
    return exchange.decision.described() | {"model": state.file.experts[exchange.decision.expert].model}
