"""The API's description: what GET /openapi.json says. Bodies are typed where something is read of them, and open elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec.json
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from msgspec import inspect

from gateway.receipt import Receipt
from gateway.requests.chat import ChatFields
from gateway.requests.completion import CompletionFields
from gateway.requests.embedding import EmbeddingFields
from gateway.requests.message import MessageFields
from gateway.requests.response import STATE, ResponseFields
from gateway.requests.routed import RouteFields
from gateway.settings import Settings

Schema = dict[str, Any]


def _one_of(*names: str) -> Schema:
    """Of these fields one has to be there."""
    return {"anyOf": [{"required": [name]} for name in names]}


ABOUT = (
    "Takes what OpenAI's and Anthropic's clients send, and has each request answered by the expert that is best for it. A body "
    "is passed on as it came: fields that are not described here are the expert's to take or to refuse. JSON is read in UTF-8, "
    "whatever content-type says, and never compressed. No CORS headers are sent: a key has no place in a browser."
)
NOT_READ = Schema(type="object", description="As the expert says it, byte for byte.")
SAID: Schema = {"properties": {"messages": {"minItems": 1}}}
LIMITED: Schema = {"required": ["max_tokens"], "properties": {"max_tokens": {"type": "integer", "minimum": 1}}}
# By path: its tag, what it does, what is read of its body, and what has to be there besides.
CARRIED: Mapping[str, tuple[str, str, type, list[Schema]]] = {
    "/v1/chat/completions": ("OpenAI", "Answer a conversation.", ChatFields, [SAID]),
    "/v1/completions": ("OpenAI", "Go on with a text.", CompletionFields, [_one_of("prompt", "prompt_embeds")]),
    "/v1/embeddings": (
        "OpenAI",
        "Embed texts; not to be routed among different models.",
        EmbeddingFields,
        [_one_of("input", "messages")],
    ),
    "/v1/responses": (
        "OpenAI",
        "Answer, by OpenAI's Responses API.",
        ResponseFields,
        [_one_of("input", "prompt", *STATE)],
    ),
    "/v1/messages": (
        "Anthropic",
        "Answer a conversation, by Anthropic's Messages API.",
        MessageFields,
        [SAID, LIMITED],
    ),
    "/v1/messages/count_tokens": ("Anthropic", "How many tokens a conversation has.", MessageFields, [SAID]),
}
NEVER_STREAMED = ("/v1/embeddings", "/v1/messages/count_tokens")
ASKED = {
    "x-request-id": "Names the request in the answer and the logs, where it is at most 128 safe characters.",
    "x-moe-session": "Names the conversation, so that its turns come to the same replica.",
    "x-moe-policy": "How to weigh quality against cost for this request: cheap, best.",
    "x-moe-domain": "The domain to answer in, in place of the one that would be found.",
    "x-moe-max-cost-usd": "The most that this answer may cost, such as 0.002.",
}
TOLD = {
    "x-request-id": "The client's own, or a new one.",
    "x-moe-expert": "Who answered.",
    "x-moe-model": "The model that the expert was asked for.",
    "x-moe-domain": "The most probable domain.",
    "x-moe-confidence": "Its probability.",
    "x-moe-reason": "Why this expert.",
    "x-moe-stage": "What found it: static, transformer or none.",
    "x-moe-route-ms": "How long that took.",
    "x-moe-attempts": "How many replicas were asked.",
    "x-moe-cost-usd": "What it cost, where that is known before the answer is sent.",
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field or header that is wrong."},
                "code": {"type": ["string", "integer", "null"]},
            },
        }
    },
}
ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
KEYED: list[Schema] = [{"bearer": []}, {"key": []}]


def described(app: FastAPI, settings: Settings) -> Callable[[], Schema]:
    """What makes the description, once, when it is first asked for."""
    made: Schema = {}

    def describe() -> Schema:
        if not made:
            made.update(_document(app, settings))
        return made

    return describe


def _document(app: FastAPI, settings: Settings) -> Schema:
    document: Schema = get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes)
    schemas: Schema = {"Error": ERROR, "AnthropicError": ANTHROPIC_ERROR}
    paths = document["paths"]
    for path, (tag, about, fields, more) in CARRIED.items():
        paths[path] = {"post": _carried(path, tag, about, _body(fields, schemas, more))}
    paths["/v1/route"]["post"] |= _routed(schemas)
    told, parts = msgspec.json.schema_components([Receipt], ref_template="#/components/schemas/{name}")
    schemas |= parts
    for path in ("/v1/receipts/{request_id}", "/admin/receipts/{request_id}"):
        paths[path]["get"]["responses"]["200"]["content"] = _json(*told)
    paths["/admin/usage"]["get"]["responses"]["200"]["content"] = {**_json({"type": "object"}), "text/csv": {}}
    paths["/metrics"]["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    paths["/ready"]["get"]["responses"]["503"] = {"description": "Not now.", "content": _json({"type": "object"})}
    for path, item in paths.items():
        for operation in item.values():
            _failures(path, operation)
            if _is_keyed(path, settings):
                operation["security"] = KEYED
    document["components"] = {"schemas": schemas, "securitySchemes": SCHEMES}
    return document


def _carried(path: str, tag: str, about: str, body: Schema) -> Schema:
    content = _json(NOT_READ)
    if path not in NEVER_STREAMED:
        content["text/event-stream"] = {}
    return {
        "tags": [tag],
        "summary": about,
        "operationId": path.removeprefix("/v1/").replace("/", "_"),
        "parameters": _asked(),
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {"200": {"description": "The answer.", "headers": _told(), "content": content}},
    }


def _routed(schemas: Schema) -> Schema:
    bodies = [_body(ChatFields, schemas, [SAID]), _body(RouteFields, schemas, [_one_of("input")])]
    explain = {"name": "explain", "in": "query", "schema": {"enum": ["0", "1", "false", "true"]}}
    return {
        "parameters": [explain, *_asked()],
        "requestBody": {"required": True, "content": _json({"anyOf": bodies})},
        "responses": {
            "200": {"description": "The decision.", "headers": _told(), "content": _json({"type": "object"})}
        },
    }


def _failures(path: str, operation: Schema) -> None:
    """In the shape of who asks, in place of FastAPI's own."""
    shape = "AnthropicError" if path.startswith("/v1/messages") else "Error"
    content = _json({"$ref": f"#/components/schemas/{shape}"})
    headers = {"x-request-id": {"schema": {"type": "string"}}}
    operation["responses"].pop("422", None)
    operation["responses"] |= {
        "4XX": {"description": "The request is wrong, or too many ask.", "headers": headers, "content": content},
        "5XX": {"description": "No expert answers, or the gateway failed.", "headers": headers, "content": content},
    }


def _is_keyed(path: str, settings: Settings) -> bool:
    """Whether a key has to be sent."""
    if path.startswith("/admin"):
        return bool(settings.admin_key)
    return bool(settings.keys) and (path.startswith("/v1/") or (path == "/metrics" and settings.protect_metrics))


def _asked() -> list[Schema]:
    return [{"name": n, "in": "header", "description": why, "schema": {"type": "string"}} for n, why in ASKED.items()]


def _told() -> Schema:
    return {name: {"description": what, "schema": {"type": "string"}} for name, what in TOLD.items()}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _body(fields: type, schemas: Schema, more: Sequence[Schema]) -> Schema:
    return {"allOf": [schema_of(inspect.type_info(fields), schemas), *more]}


def schema_of(kind: inspect.Type, schemas: Schema) -> Schema:
    """The JSON schema of what is read; those of structs go to `schemas`, by their names. What is not read may be anything."""
    match kind:
        case inspect.StructType(cls=cls, fields=fields):
            if cls.__name__ not in schemas:
                schemas[cls.__name__] = schema = Schema(type="object")
                schema["properties"] = {f.encode_name: schema_of(f.type, schemas) for f in fields}
                if required := [f.encode_name for f in fields if f.required]:
                    schema["required"] = required
            return {"$ref": f"#/components/schemas/{cls.__name__}"}
        case inspect.UnionType(types=kinds):
            return {"anyOf": [schema_of(one, schemas) for one in kinds]}
        case inspect.ListType(item_type=item):
            return {"type": "array", "items": schema_of(item, schemas)}
        case inspect.StrType():
            return {"type": "string"}
        case inspect.IntType():
            return {"type": "integer"}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.NoneType():
            return {"type": "null"}
    return {}
