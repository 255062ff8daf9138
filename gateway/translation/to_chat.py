"""A request for a message, as a chat request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.translation.conversation import chat_messages
from gateway.translation.reading import Raw, read, refuse, shown
from gateway.translation.tools import chat_tools
from router.messages import absent

# What is translated by name, what only Anthropic's servers do, and what means another thing in chat or would give an answer
# that no message can hold. Every other field goes on as it came.
NOT_FORWARDED = frozenset(
    [
        *("messages", "system", "tools", "tool_choice", "stop_sequences", "metadata", "thinking", "output_config"),
        *("output_format", "cache_control", "container", "context_management", "diagnostics", "inference_geo"),
        *("mcp_servers", "service_tier", "speed", "betas", "anthropic_beta", "anthropic_version", "user_profile_id"),
        *("n", "stream_options", "functions", "function_call"),
    ]
)
THINKING = {"enabled": True, "adaptive": True, "between_tools": True, "disabled": False}
EFFORTS = {"xhigh": "high", "max": "high"}  # what chat has no word for that every server takes


class Metadata(msgspec.Struct):
    user_id: str | None = None


class Thinking(msgspec.Struct):
    type: str


class Format(msgspec.Struct):
    type: str
    schema: Raw = Raw()


class OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: Format | None = None


def chat_fields(raw: Mapping[str, Raw]) -> dict[str, Any]:
    """The body of a chat request from the fields of a request for a message, or for the count of its tokens.

    `model` and `max_tokens` are as they came; usage is asked for on streams. Raises BadRequestError, its `param` being the
    path in the client's own body, for what cannot be translated.
    """
    given = {name: value for name, value in raw.items() if not absent(value)}
    if "messages" not in given:
        refuse("messages", "messages is missing.")
    fields: dict[str, Any] = {name: value for name, value in given.items() if name not in NOT_FORWARDED}
    fields["messages"] = messages = chat_messages(given["messages"], given.get("system"))
    fields |= chat_tools(given.get("tools"), given.get("tool_choice"))
    if "mcp_servers" in given and read(given["mcp_servers"], _LIST, "mcp_servers"):
        refuse("mcp_servers", "mcp_servers are called by Anthropic's servers only; call them yourself, as tools.")
    if "stop_sequences" in given and (stops := read(given["stop_sequences"], _STRINGS, "stop_sequences")):
        fields["stop"] = stops
    if "metadata" in given and (user := read(given["metadata"], _METADATA, "metadata").user_id) is not None:
        fields["user"] = user
    if "thinking" in given:
        fields["chat_template_kwargs"] = _template_fields(given["thinking"], given.get("chat_template_kwargs"))
    if bytes(given.get("stream", b"")) == b"true":
        fields["stream_options"] = {"include_usage": True}
    return _begun(messages) | _output(given) | fields


def _template_fields(thinking: Raw, own: Raw | None) -> dict[str, Any]:
    """What chat templates know as thinking, under both names in use. A budget of tokens is left out: servers that were not
    started for it refuse the request. What the client said in chat's own words goes before."""
    kind: str = read(thinking, _THINKING, "thinking").type
    if kind not in THINKING:
        refuse("thinking.type", f"{shown(kind)} is none of enabled, disabled and adaptive.")
    known: dict[str, Raw] = {} if own is None else read(own, _OBJECT, "chat_template_kwargs")
    return {"enable_thinking": THINKING[kind], "thinking": THINKING[kind], **known}


def _output(given: Mapping[str, Raw]) -> dict[str, Any]:
    """How long to think, and the schema of the answer."""
    config = OutputConfig()
    if "output_config" in given:
        config = read(given["output_config"], _OUTPUT_CONFIG, "output_config")
    path, schema = "output_config.format", config.format
    if schema is None and "output_format" in given:  # its name before
        path, schema = "output_format", read(given["output_format"], _FORMAT, "output_format")
    fields: dict[str, Any] = {}
    if config.effort is not None:
        fields["reasoning_effort"] = EFFORTS.get(config.effort, config.effort)
    if schema is not None:
        fields["response_format"] = _response_format(schema, path)
    return fields


def _response_format(schema: Format, path: str) -> dict[str, Any]:
    if schema.type != "json_schema":
        refuse(f"{path}.type", f"{shown(schema.type)} is no format that is known here; json_schema is.")
    if absent(schema.schema):
        refuse(f"{path}.schema", f"{path}.schema is missing.")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema.schema, "strict": True}}


def _begun(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the last message is an answer that was begun, the model goes on in it. Servers that do not know these fields
    mostly do so by themselves."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or "tool_calls" in last or not last["content"]:
        return {}
    return {"add_generation_prompt": False, "continue_final_message": True}


_LIST = msgspec.json.Decoder(list[Raw])
_STRINGS = msgspec.json.Decoder(list[str])
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_METADATA = msgspec.json.Decoder(Metadata)
_THINKING = msgspec.json.Decoder(Thinking)
_FORMAT = msgspec.json.Decoder(Format)
_OUTPUT_CONFIG = msgspec.json.Decoder(OutputConfig)
