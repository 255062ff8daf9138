"""POST /v1/route, and a bare prompt: what is asked of the router without an answer being wanted."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from gateway.errors import BadRequestError
from gateway.requests.chat import Chat
from gateway.requests.fields import decode
from router.decision import NO_OVERRIDES, Overrides, Query
from router.messages import Message, Survey


class RouteFields(msgspec.Struct):
    input: str | None = None
    model: str = "auto"
    explain: bool | None = None


def parse_route(body: bytes, overrides: Overrides = NO_OVERRIDES) -> Query:
    """The query of POST /v1/route: a chat body, or {"input": "text"}, with a model or without. Raises BadRequestError."""
    fields: RouteFields = decode(body, _ROUTE)
    if fields.input is None:
        return Chat.parse(body).query(overrides)
    if not fields.input.strip():
        raise BadRequestError("input is empty; send the text to route.", param="input")
    return text_query(fields.input, fields.model, overrides)


def wants_explanation(body: bytes) -> bool:
    """Whether a body that parse_route takes asks for the reasons of the decision as well: {"explain": true}."""
    return b'"explain"' in body and bool(decode(body, _ROUTE).explain)


def text_query(text: str, model: str = "auto", overrides: Overrides = NO_OVERRIDES) -> Query:
    """The query of a bare prompt."""
    return replace(Survey.of([Message("user", text)]).query(), requested_model=model, overrides=overrides)


_ROUTE = msgspec.json.Decoder(RouteFields)
