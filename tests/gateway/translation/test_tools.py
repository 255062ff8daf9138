from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import BadRequestError
from tests.gateway.translation.bodies import body, chat, chat_of, user

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"name": "f", "description": "does f", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "function": {"name": "f", "description": "does f", "parameters": SCHEMA}}


def refused(**fields: Any) -> str | None:
    with pytest.raises(BadRequestError) as caught:
        chat(user("q"), **fields)
    return caught.value.param


@pytest.mark.parametrize("kind", [{}, {"type": None}, {"type": "custom"}])
def test_a_tool_is_a_function(kind: dict[str, Any]) -> None:
    more = {"cache_control": {"type": "ephemeral"}, "defer_loading": True, "input_examples": [{}]}
    assert chat(user("q"), tools=[{**TOOL, **kind, **more}])["tools"] == [FUNCTION]


def test_a_strict_tool_is_a_strict_function_and_no_description_is_none() -> None:
    (tool,) = chat(user("q"), tools=[{"name": "f", "input_schema": SCHEMA, "strict": True}])["tools"]
    assert tool["function"] == {"name": "f", "parameters": SCHEMA, "strict": True}


def test_a_schema_keeps_its_bytes_and_is_always_an_object() -> None:
    request = body(user("q"), tools=[TOOL, {"name": "g", "input_schema": {"required": ["x"]}}])
    written = request.replace(b'"integer"}', b'"integer", "maximum": 12345678901234567890123}')
    first, second = chat_of(written)["tools"]
    assert first["function"]["parameters"]["properties"]["a"]["maximum"] == 12345678901234567890123
    assert second["function"]["parameters"] == {"type": "object", "required": ["x"]}


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_20250305",
        "bash_20250124",
        "text_editor_20250728",
        "computer_20250124",
        "mcp_toolset",
        "function",
        "",
    ],
)
def test_tools_that_only_anthropic_has_are_refused(kind: str) -> None:
    assert refused(tools=[TOOL, {"type": kind, "name": "x"}]) == "tools[1].type"


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ({}, "tools"),
        (["x"], "tools[0]"),
        ([{"input_schema": {}}], "tools[0].name"),
        ([{"name": 3, "input_schema": {}}], "tools[0].name"),
        ([{"name": "f"}], "tools[0].input_schema"),
        ([{"name": "f", "input_schema": []}], "tools[0].input_schema"),
    ],
)
def test_a_tool_that_is_none_is_refused_by_its_path(tools: Any, param: str) -> None:
    assert refused(tools=tools) == param


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_choices(choice: dict[str, Any], chosen: Any) -> None:
    told = chat(user("q"), tools=[TOOL], tool_choice=choice)
    assert told["tool_choice"] == chosen
    assert "parallel_tool_calls" not in told


@pytest.mark.parametrize("disabled", [True, False])
def test_whether_calls_may_be_parallel(disabled: bool) -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": disabled}
    assert chat(user("q"), tools=[TOOL], tool_choice=choice)["parallel_tool_calls"] is not disabled


def test_without_tools_there_is_nothing_to_choose() -> None:
    empties: list[Any] = [None, []]
    for nothing in empties:
        told = chat(user("q"), tools=nothing, tool_choice={"type": "auto"})
        assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(told)
    assert refused(tool_choice={"type": "any"}) == "tool_choice"


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("auto", "tool_choice"),
        ({}, "tool_choice.type"),
        ({"type": "x"}, "tool_choice.type"),
        ({"type": "tool"}, "tool_choice.name"),
    ],
)
def test_a_choice_that_is_none_is_refused(choice: Any, param: str) -> None:
    assert refused(tools=[TOOL], tool_choice=choice) == param
