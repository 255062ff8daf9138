"""Anthropic's tools and the choice among them, as chat's functions."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.translation.reading import Raw, read, refuse, shown
from router.messages import absent

CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class Tool(msgspec.Struct):
    name: str
    type: str | None = None
    description: Raw = Raw()
    input_schema: Raw = Raw()
    strict: Raw = Raw()


class ToolType(msgspec.Struct):
    type: str | None = None


class ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


def chat_tools(tools: Raw | None, choice: Raw | None) -> dict[str, Any]:
    """The fields tools, tool_choice and parallel_tool_calls of a chat request, those that are needed.

    Every tool is told to the model from the beginning, one with defer_loading too: nothing here would search for it.
    Raises BadRequestError for a tool that only Anthropic's servers or models have.
    """
    given: list[Raw] = [] if tools is None or absent(tools) else read(tools, _TOOLS, "tools")
    chosen: ToolChoice | None = None if choice is None or absent(choice) else read(choice, _CHOICE, "tool_choice")
    fields: dict[str, Any] = (
        {"tools": [_function(tool, f"tools[{i}]") for i, tool in enumerate(given)]} if given else {}
    )
    if chosen is not None:
        fields |= _chosen(chosen, bool(given))
    return fields


def _function(raw: Raw, path: str) -> dict[str, Any]:
    kind: str | None = read(raw, _TYPE, path).type
    if kind is not None and kind != "custom":
        message = f"{path}.type is {shown(kind)}, which only Anthropic's own models or servers have; describe the tool "
        refuse(f"{path}.type", message + "by name, description and input_schema.")
    tool: Tool = read(raw, _TOOL, path)
    function: dict[str, Any] = {"name": tool.name}
    if not absent(tool.description):
        function["description"] = tool.description
    function["parameters"] = _schema(tool.input_schema, f"{path}.input_schema")
    if not absent(tool.strict):
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _schema(schema: Raw, path: str) -> Raw | dict[str, Any]:
    """As it came, but that it is said to be an object: some templates and grammars read nothing else."""
    if absent(schema):
        refuse(path, f"{path} is missing.")
    fields: dict[str, Raw] = read(schema, _OBJECT, path)
    return schema if "type" in fields else {"type": "object", **fields}


def _chosen(choice: ToolChoice, any_tools: bool) -> dict[str, Any]:
    if choice.type not in (*CHOICES, "tool"):
        refuse("tool_choice.type", f"{shown(choice.type)} is none of auto, any, tool and none.")
    if not any_tools:
        if choice.type in ("any", "tool"):
            refuse("tool_choice", "tool_choice asks for a call, but there are no tools.")
        return {}
    if choice.type == "tool" and not choice.name:
        refuse("tool_choice.name", "tool_choice.name is missing.")
    named = {"type": "function", "function": {"name": choice.name}}
    fields: dict[str, Any] = {"tool_choice": CHOICES.get(choice.type, named)}
    if choice.disable_parallel_tool_use is not None and choice.type != "none":
        fields["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    return fields


_TOOLS = msgspec.json.Decoder(list[Raw])
_TOOL = msgspec.json.Decoder(Tool)
_TYPE = msgspec.json.Decoder(ToolType)
_CHOICE = msgspec.json.Decoder(ToolChoice)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
