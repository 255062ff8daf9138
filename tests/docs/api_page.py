"""docs/reference/api.md: every endpoint, from what GET /openapi.json says."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gateway.app import create_app
from gateway.openapi import ASKED, TOLD
from gateway.settings import Settings
from router.artifact import PACKAGED, load_artifact
from router.experts import parse_experts
from router.routing import Router
from tests.docs.experts_page import cell, code, paragraph

Schema = dict[str, Any]
GROUPS = {
    "OpenAI": "OpenAI's API",
    "Anthropic": "Anthropic's API",
    "routing": "Routing",
    "receipts": "Receipts",
    "catalogue": "The catalogue",
    "operations": "Operations",
    "admin": "Administration",
}
INTRODUCTION = """# API

Every endpoint, as `GET /openapi.json` of a running gateway describes it. This page is written from that (`make reference`).
{about}

In the examples `GATEWAY` is its address, such as `http://127.0.0.1:8080`, and `KEY` and `ADMIN_KEY` are keys. Where keys are set
(`MOE_GATEWAY_KEYS`), `/v1/*` asks for one, and `/admin/*` for that of `MOE_GATEWAY_ADMIN_KEY`: as `Authorization: Bearer …`, or
as `x-api-key`.
"""
ERRORS = """## Errors

Every failure has OpenAI's shape, and on `/v1/messages` Anthropic's, in which their clients find the exception that they raise.
What follows from which failure is [a table of its own](../failures.md).

```json
{"error": {"message": "…", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}}
```
"""
ASK = """curl $GATEWAY{path} -H 'content-type: application/json' -H "Authorization: Bearer $KEY" \\
  -d '{body}'"""
LOOK = """curl $GATEWAY{path} -H "Authorization: Bearer ${key}\""""
SAID = '"messages": [{"role": "user", "content": "Why does my loop never end?"}]'
EXAMPLES = {
    "/v1/chat/completions": ASK.format(
        path="/v1/chat/completions", body=f'{{"model": "auto", "stream": true, {SAID}}}'
    ),
    "/v1/messages": ASK.format(path="/v1/messages", body=f'{{"model": "auto", "max_tokens": 100, {SAID}}}'),
    "/v1/route": ASK.format(path="/v1/route", body='{"input": "Why does my loop never end?", "explain": true}'),
    "/v1/catalog": 'curl "$GATEWAY/v1/catalog?task=code&max_gb=24"',
    "/v1/receipts/{request_id}": LOOK.format(path="/v1/receipts/$REQUEST_ID", key="KEY"),
    "/ready": "curl $GATEWAY/ready",
    "/admin/config": LOOK.format(path="/admin/config", key="ADMIN_KEY"),
    "/admin/reload": 'curl --request POST $GATEWAY/admin/reload -H "Authorization: Bearer $ADMIN_KEY"',
    "/admin/usage": LOOK.format(path="/admin/usage", key="ADMIN_KEY"),
}
ANY = """version: 1
experts:
  general: {model: any, domains: [general], upstream: {vllm: [http://127.0.0.1:9/v1]}}
"""


def api_page() -> str:
    document = description()
    lines = [INTRODUCTION.format(about=document["info"]["description"])]
    lines += ["## Headers of a request", "", *table("header", ASKED), ""]
    lines += ["## Headers of an answer", "", *table("header", TOLD), ""]
    lines.append(ERRORS)
    for tag, title in GROUPS.items():
        lines += [f"## {title}", ""]
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if operation["tags"] == [tag]:
                    lines += endpoint(method, path, operation, document["components"]["schemas"])
    return "\n".join(lines).rstrip() + "\n"


def description() -> Schema:
    """What a gateway says, whatever its experts.yaml."""
    router = Router(parse_experts(ANY), load_artifact(PACKAGED))
    with TemporaryDirectory() as state:
        return create_app(Settings(state=Path(state)), router).openapi()


def table(first: str, rows: dict[str, str]) -> list[str]:
    return [f"| {first} | says |", "|---|---|", *(f"| `{name}` | {cell(what)} |" for name, what in rows.items())]


def endpoint(method: str, path: str, operation: Schema, schemas: Schema) -> list[str]:
    lines = [f"### {method.upper()} {path}", "", paragraph(operation.get("description") or operation["summary"]), ""]
    if example := EXAMPLES.get(path):
        lines += ["```sh", example, "```", ""]
    parameters = [one for one in operation.get("parameters", ()) if one["in"] != "header"]
    if parameters:
        lines += ["| parameter | in | says |", "|---|---|---|"]
        lines += [
            f"| `{one['name']}` | {one['in']} | {cell(one.get('description', '')) or kind(one['schema'], schemas)} |"
            for one in parameters
        ]
        lines.append("")
    if body := operation.get("requestBody"):
        lines += fields("Of its body is read", body["content"]["application/json"]["schema"], schemas)
    answered = operation["responses"]["200"]
    contents = ", ".join(f"`{media}`" for media in answered.get("content", ()))
    if len(operation.get("parameters", ())) > len(parameters):
        contents += ", with the headers above"
    lines += [f"Answers 200 with {contents}." if contents else "Answers 200.", ""]
    said = answered.get("content", {}).get("application/json", {}).get("schema", {})
    return lines + (fields("It holds", said, schemas) if "$ref" in said else [])


def fields(title: str, schema: Schema, schemas: Schema) -> list[str]:
    """A table of what a body's schema names, those of nested objects behind a dot; nothing where it names nothing."""
    rows: dict[str, str] = {}
    for name, what in flat(schema, schemas):
        if what != "anything" or name not in rows:  # what is only bounded was said before
            rows[name] = what
    if not rows:
        return []
    return [
        f"{title}:",
        "",
        "| field | value |",
        "|---|---|",
        *(f"| `{name}` | {what} |" for name, what in rows.items()),
        "",
    ]


def flat(schema: Schema, schemas: Schema, before: str = "", deep: int = 2) -> list[tuple[str, str]]:
    schema = resolved(schema, schemas)
    rows: list[tuple[str, str]] = []
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        rows += flat(part, schemas, before, deep)
    for name, value in schema.get("properties", {}).items():
        needed = ", required" if name in schema.get("required", ()) else ""
        rows.append((before + name, kind(value, schemas) + needed))
        inner = value.get("items", value)
        if deep > 1:
            rows += flat(inner, schemas, f"{before}{name}{'[]' if 'items' in value else ''}.", deep - 1)
    return rows


def resolved(schema: Schema, schemas: Schema) -> Schema:
    found: Schema = schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    return found


def kind(schema: Schema, schemas: Schema) -> str:
    if "enum" in schema:
        return ", ".join(code(one) for one in schema["enum"])
    if "$ref" in schema:
        return kind(resolved(schema, schemas), schemas)
    if "anyOf" in schema:
        ways = dict.fromkeys(kind(way, schemas) for way in schema["anyOf"])
        return " or ".join(way for way in ways if way != "null")  # it is as good as left out
    if "items" in schema:
        return f"list of {kind(schema['items'], schemas)}"
    kinds = schema.get("type", "any")
    words = {
        "string": "text",
        "array": "list",
        "any": "anything",
        "integer": "whole number",
        "boolean": "true or false",
    }
    return " or ".join(words.get(one, one) for one in ([kinds] if isinstance(kinds, str) else kinds))
