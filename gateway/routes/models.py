"""GET /v1/models: what `model` may be. `auto` comes first, since load tools take the first.

An item has OpenAI's keys and Anthropic's: clients of both ask here, and each passes over what it does not know.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request

from gateway.errors import NotFoundError
from gateway.state import GatewayState

routes = APIRouter(tags=["OpenAI"])


@routes.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """What may be asked for as `model`: virtual models, experts, and aliases of either."""
    state: GatewayState = request.app.state.gateway
    names = state.decider.models()
    items = [_item(state, name) for name in names]
    return {"object": "list", "data": items, "has_more": False, "first_id": names[0], "last_id": names[-1]}


@routes.get("/v1/models/{model}")
async def model(request: Request, model: str) -> dict[str, Any]:
    """One of them; 404 `model_not_found` names the nearest that there is."""
    state: GatewayState = request.app.state.gateway
    if model not in state.decider.models():
        raise NotFoundError(state.decider.unknown(model), param="model", code="model_not_found")
    return _item(state, model)


def _item(state: GatewayState, name: str) -> dict[str, Any]:
    item: dict[str, Any] = {"id": name, "object": "model", "created": state.started, "owned_by": "moe-gateway"}
    item |= {
        "type": "model",
        "display_name": name,
        "created_at": datetime.fromtimestamp(state.started, UTC).isoformat(),
    }
    expert = state.file.experts.get(name)
    if expert is not None:
        item |= {"root": expert.model, "max_model_len": expert.context_window, "stand_in": expert.stand_in}
    return item
