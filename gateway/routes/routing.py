"""POST /v1/route: the decision without the generation."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request, Response

from gateway import logs
from gateway.asgi import ClientGoneError, header_value, read_body
from gateway.deciding import decision_headers
from gateway.errors import BadRequestError, GatewayError
from gateway.exchange import CLIENT_CLOSED_REQUEST, Exchange, Outcome
from gateway.requests.routed import parse_route, wants_explanation
from gateway.state import GatewayState
from router.decision import Overrides, Query

routes = APIRouter(tags=["routing"])


@routes.post("/v1/route")
async def route(request: Request, response: Response) -> Any:
    """Takes a chat completion body, or {"input": "text"}; answers what `auto` would do with it.

    With "explain": true in the body, or ?explain=1, it says why as well: `explanation` has the reason in a sentence, what
    each stage said, the words for and against, the nearest training prompts, every expert's arithmetic and, where there
    are several turns, what was believed after each. That takes up to some tenths of a second more, and is refused with
    503 where too many wait for theirs.
    """
    state: GatewayState = request.app.state.gateway
    headers = dict(request.scope["headers"])
    guarded = request.scope["state"]
    exchange = Exchange(guarded["request_id"], "route", state.observers, caller=guarded["caller"])
    if state.telemetry is not None:
        state.telemetry.begin(exchange, headers)
        logs.traced(exchange.trace_id)
    exchange.tariff = state.tariff
    try:
        with exchange.waiting():
            body = await read_body(headers, request.receive, state.settings.max_body_bytes)
        asked = _explains(request.query_params.get("explain"))
        query, wanted = await asyncio.to_thread(_read, body, state.decider.overrides(headers))
        exchange.query = query
        exchange.decision = await state.decider.decide(query)
        exchange.decided = time.perf_counter()
        explained = await state.decider.explain(query, exchange.decision) if asked or wanted else None
    except ClientGoneError:
        exchange.finish(Outcome.CANCELLED, CLIENT_CLOSED_REQUEST)
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except GatewayError as error:
        exchange.error_code = error.code
        exchange.finish(Outcome.CLIENT_ERROR if error.status < 500 else Outcome.SERVER_ERROR, error.status)
        raise
    except Exception:
        exchange.finish(Outcome.SERVER_ERROR, 500)
        raise
    exchange.begin(exchange.decision.expert, state.file.experts[exchange.decision.expert])
    for name, value in decision_headers(exchange).items():
        response.headers[name] = header_value(value)
    exchange.finish(Outcome.OK, 200)
    told = exchange.decision.described() | {"model": state.file.experts[exchange.decision.expert].model}
    return told if explained is None else told | {"explanation": explained.described()}


def _read(body: bytes, overrides: Overrides) -> tuple[Query, bool]:
    """The query, and whether it is to be explained. Raises BadRequestError."""
    return parse_route(body, overrides), wants_explanation(body)


def _explains(said: str | None) -> bool:
    """What ?explain= says."""
    if said in ("1", "true"):
        return True
    if said in (None, "0", "false"):
        return False
    raise BadRequestError("explain takes 1 or 0.", param="explain")
