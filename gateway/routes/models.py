"""GET /v1/models: what `model` may be. `auto` comes first, since load tools take the first."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from gateway.errors import NotFoundError
from gateway.state import GatewayState

routes = APIRouter(tags=["OpenAI"])


@routes.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    state: GatewayState = request.app.state.gateway
    return {"object": "list", "data": [_item(state, name) for name in state.decider.models()]}


@routes.get("/v1/models/{model}")
async def model(request: Request, model: str) -> dict[str, Any]:
    state: GatewayState = request.app.state.gateway
    if model not in state.decider.models():
        raise NotFoundError(state.decider.unknown(model), param="model", code="model_not_found")
    return _item(state, model)


def _item(state: GatewayState, name: str) -> dict[str, Any]:
    item: dict[str, Any] = {"id": name, "object": "model", "created": state.started, "owned_by": "moe-gateway"}
    expert = state.file.experts.get(name)
    if expert is not None:
        item |= {"root": expert.model, "max_model_len": expert.context_window, "stand_in": expert.stand_in}
    return item
