"""What the description says of bodies and keys; that it is true is seen in tests/integration/test_schemathesis.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.app import create_app
from gateway.openapi import CARRIED, schema_of
from gateway.routes.carried import KINDS
from gateway.settings import Settings
from tests.fakes.memory import experts_file, router_of


def document(**settings: Any) -> dict[str, Any]:
    described: dict[str, Any] = create_app(Settings(**settings), router_of(experts_file({"general": {}}))).openapi()
    return described


class Leaf(msgspec.Struct, rename="camel"):
    some_name: str
    anything: msgspec.Raw = msgspec.Raw()


class Tree(msgspec.Struct):
    leaves: list[Leaf]
    label: str | int | None = None
    flag: bool = False


def test_what_is_read_is_typed_by_the_structs_that_read_it_and_the_rest_is_open() -> None:
    schemas: dict[str, Any] = {}
    assert schema_of(msgspec.inspect.type_info(Tree), schemas) == {"$ref": "#/components/schemas/Tree"}
    assert schemas == {
        "Tree": {
            "type": "object",
            "properties": {
                "leaves": {"type": "array", "items": {"$ref": "#/components/schemas/Leaf"}},
                "label": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
                "flag": {"type": "boolean"},
            },
            "required": ["leaves"],
        },
        "Leaf": {
            "type": "object",
            "properties": {"someName": {"type": "string"}, "anything": {}},
            "required": ["someName"],
        },
    }


def test_every_endpoint_that_carries_is_described_with_its_body_and_both_ways_to_answer() -> None:
    assert set(CARRIED) == set(KINDS)
    paths = document()["paths"]
    for path in KINDS:
        [operation] = paths[path].values()
        assert operation["requestBody"]["required"]
        streamed = path not in ("/v1/embeddings", "/v1/messages/count_tokens")
        content = operation["responses"]["200"]["content"]
        assert set(content) == {"application/json"} | ({"text/event-stream"} if streamed else set())
        assert "x-moe-expert" in operation["responses"]["200"]["headers"]


@pytest.mark.parametrize(
    ("settings", "keyed"),
    [
        ({}, set()),
        ({"keys": {"a": "k"}}, {"/v1"}),
        ({"admin_key": "k"}, {"/admin"}),
        ({"keys": {"a": "k"}, "protect_metrics": True}, {"/v1", "/metrics"}),
    ],
)
def test_what_takes_a_key_is_said_as_it_is_set_up(settings: dict[str, Any], keyed: set[str]) -> None:
    paths = document(**settings)["paths"]
    found = {"/" + path.split("/")[1] for path, item in paths.items() for o in item.values() if "security" in o}
    assert found == keyed


def test_the_description_is_made_once() -> None:
    app = create_app(Settings(), router_of(experts_file({"general": {}})))
    assert app.openapi() is app.openapi()
    assert Path(app.openapi_url or "").name == "openapi.json"
