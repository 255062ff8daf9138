from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadRequestError
from gateway.translation.to_chat import NOT_FORWARDED, chat_fields
from tests.gateway.translation.bodies import assistant, body, call, chat, chat_of, text, user


def refused(**fields: Any) -> str | None:
    with pytest.raises(BadRequestError) as caught:
        chat(user("q"), **fields)
    return caught.value.param


def test_a_plain_request() -> None:
    assert chat(user("q")) == {"model": "m", "max_tokens": 10, "messages": [user("q")]}


def test_fields_of_the_same_meaning_keep_their_bytes() -> None:
    request = body(user("q"), temperature=0.5, top_p=0.9, top_k=4, ignore_eos=True).replace(b"0.5", b"0.50")
    fields = chat_fields(msgspec.json.decode(request, type=dict[str, msgspec.Raw]))
    assert bytes(fields["temperature"]) == b"0.50"
    assert {name: chat_of(request)[name] for name in ("top_p", "top_k", "ignore_eos", "max_tokens")} == {
        "top_p": 0.9,
        "top_k": 4,
        "ignore_eos": True,
        "max_tokens": 10,
    }


def test_fields_of_another_name() -> None:
    told = chat(user("q"), stop_sequences=["a", "b"], metadata={"user_id": "u"})
    assert (told["stop"], told["user"]) == (["a", "b"], "u")
    assert not {"stop", "user"} & set(chat(user("q"), stop_sequences=[], metadata={"user_id": None}))


def test_what_only_anthropics_servers_do_is_left_out_and_so_are_nulls() -> None:
    theirs = {
        "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
        "context_management": {"edits": []},
        "container": "c",
        "mcp_servers": [],
        "n": 2,
        "stream_options": {"include_usage": False},
    }
    nulls = dict.fromkeys(
        ["system", "tools", "tool_choice", "thinking", "stop_sequences", "metadata", "stream", "top_p"]
    )
    assert set(chat(user("q"), **theirs, **nulls)) == {"model", "max_tokens", "messages"}
    assert refused(mcp_servers=[{"url": "https://mcp.test"}]) == "mcp_servers"


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.lists(st.booleans())))
def test_every_other_field_is_forwarded(fields: dict[str, Any]) -> None:
    known = NOT_FORWARDED | {"model", "max_tokens", "stream"}
    others = {name: value for name, value in fields.items() if name not in known}
    assert others.items() <= chat(user("q"), **others).items()


def test_usage_is_asked_for_on_streams_only() -> None:
    told = chat(user("q"), stream=True)
    assert (told["stream"], told["stream_options"]) == (True, {"include_usage": True})
    assert "stream_options" not in chat(user("q"), stream=False)


@pytest.mark.parametrize(("kind", "thinks"), [("enabled", True), ("adaptive", True), ("disabled", False)])
def test_thinking_is_told_to_the_chat_template(kind: str, thinks: bool) -> None:
    told = chat(user("q"), thinking={"type": kind, "budget_tokens": 2000})
    assert told["chat_template_kwargs"] == {"enable_thinking": thinks, "thinking": thinks}
    own = chat(user("q"), thinking={"type": kind}, chat_template_kwargs={"enable_thinking": None, "x": 1})
    assert own["chat_template_kwargs"] == {"enable_thinking": None, "thinking": thinks, "x": 1}
    assert "chat_template_kwargs" not in chat(user("q"))


@pytest.mark.parametrize(("effort", "told"), [("low", "low"), ("high", "high"), ("xhigh", "high"), ("max", "high")])
def test_effort(effort: str, told: str) -> None:
    assert chat(user("q"), output_config={"effort": effort})["reasoning_effort"] == told
    assert chat(user("q"), output_config={"effort": effort}, reasoning_effort="none")["reasoning_effort"] == "none"


@pytest.mark.parametrize("nested", [True, False])
def test_a_schema_for_the_answer(nested: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "schema": schema}
    told = chat(user("q"), **({"output_config": {"format": form}} if nested else {"output_format": form}))
    assert told["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thinking": {"type": "x"}}, "thinking.type"),
        ({"thinking": {}}, "thinking.type"),
        ({"thinking": {"type": "enabled"}, "chat_template_kwargs": 1}, "chat_template_kwargs"),
        ({"output_config": {"effort": 1}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml", "schema": {}}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
        ({"stop_sequences": "a"}, "stop_sequences"),
        ({"stop_sequences": ["a", 1]}, "stop_sequences[1]"),
        ({"metadata": {"user_id": 1}}, "metadata.user_id"),
        ({"metadata": []}, "metadata"),
        ({"mcp_servers": {}}, "mcp_servers"),
        ({"messages": None}, "messages"),
        ({"messages": "x"}, "messages"),
    ],
)
def test_what_is_wrong_is_refused_by_its_path(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields) == param


def test_an_answer_that_was_begun_is_gone_on_with() -> None:
    told = chat(user("q"), assistant("The answer is ("))
    assert (told["add_generation_prompt"], told["continue_final_message"]) == (False, True)
    for last in (user("r"), assistant([text("a"), call()]), assistant([])):
        assert "continue_final_message" not in chat(user("q"), last)
    assert chat(user("q"), assistant("a"), continue_final_message=False)["continue_final_message"] is False


NAMES = st.sampled_from(
    ["type", "role", "content", "text", "source", "data", "input", "id", "name", "tool_use_id", "schema", "format"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(sorted(NOT_FORWARDED)), JSON), JSON, JSON)
def test_nonsense_is_refused_and_nothing_else_is_raised(fields: dict[str, Any], content: Any, block: Any) -> None:
    for messages in (fields.get("messages"), [user(content)], [user([block]), assistant([block])]):
        raw = msgspec.json.decode(msgspec.json.encode(fields | {"messages": messages}), type=dict[str, msgspec.Raw])
        with suppress(BadRequestError):
            msgspec.json.encode(chat_fields(raw))
