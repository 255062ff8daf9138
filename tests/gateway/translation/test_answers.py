from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.translation.answers import INVALID, call_id, message_id, tool_input, usage_fields
from gateway.usage import Usage
from tests.gateway.translation.bodies import OBJECTS


@settings(deadline=None)
@given(OBJECTS)
def test_an_object_is_kept_to_the_byte(written: str) -> None:
    assert bytes(tool_input(written)) == written.strip().encode()
    assert bytes(tool_input(f" {written}\n")) == written.strip().encode()


@settings(deadline=None, max_examples=100)
@given(st.text() | OBJECTS.flatmap(lambda o: st.integers(0, len(o)).map(lambda n: o[:n])))
def test_anything_else_becomes_an_object(written: str) -> None:
    assert isinstance(json.loads(bytes(tool_input(written))), dict)


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("", {}),
        (" \n", {}),
        ('{"a": 1, "b": "x', {"a": 1}),
        ('{"a": {"b": 1}', {"a": {"b": 1}}),
        ('{"a": [1, 2', {"a": [1, 2]}),
        ("{", {}),
        ('{"a": 1}}', {"a": 1}),
        ('{"a": 1} and then', {"a": 1}),
        ('{"a": "\\ud83d"}}', {"a": "\ud83d"}),
        ('{"a": nope}', {INVALID: '{"a": nope}'}),
        ("[1]", {INVALID: "[1]"}),
        ("[1", {INVALID: "[1"}),
        ("3", {INVALID: "3"}),
        ("\ud83d", {INVALID: "\ud83d"}),
    ],
)
def test_arguments_that_are_not_one_object(written: str, given: dict[str, Any]) -> None:
    assert json.loads(bytes(tool_input(written))) == given


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_deep_arguments_are_told_as_text(deep: str) -> None:
    assert json.loads(bytes(tool_input(deep))) == {INVALID: deep}


def test_ids() -> None:
    assert (message_id("chatcmpl-abc"), message_id("x")) == ("msg_abc", "msg_x")
    assert message_id(None) != message_id("")
    assert call_id("call_1") == "call_1"
    assert call_id(None).startswith("toolu_")


def test_usage_that_is_not_known_is_nothing() -> None:
    assert set(usage_fields(None).values()) == {0}
    assert usage_fields(Usage(input=3, cached_input=2, output=1, reasoning=1)) == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 2,
        "output_tokens": 1,
    }
