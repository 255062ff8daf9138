from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.translation.answers import INVALID, SIGNATURE, UnreadableAnswerError
from gateway.translation.to_message import message_of
from tests.gateway.translation.completions import completion


def message(told: dict[str, Any], finish: str | None = "stop", **choice: Any) -> Any:
    return json.loads(message_of(completion(told, finish, **choice)))


def call(arguments: Any = "{}", id: str | None = "call_1", name: str = "f") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_whole_answer() -> None:
    assert message({"content": "Hi", "refusal": None, "tool_calls": []}) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 6,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
        },
    }


def test_thinking_comes_first_and_calls_last() -> None:
    for name in ("reasoning", "reasoning_content"):
        told = message({"tool_calls": [call('{"a": 1}')], "content": "t", name: "r"}, "tool_calls")
        assert told["content"] == [
            {"type": "thinking", "thinking": "r", "signature": SIGNATURE},
            {"type": "text", "text": "t"},
            {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
        ]
        assert told["stop_reason"] == "tool_use"
    assert len(message({"reasoning": "r", "reasoning_content": "r"})["content"]) == 1


def test_content_in_parts_and_nothing_at_all() -> None:
    assert (
        message({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})["content"][0]["text"]
        == "ab"
    )
    assert message({"content": None})["content"] == []


def test_arguments_keep_every_digit() -> None:
    written = '{"big": 12345678901234567890123, "price": 1.10, "e": "\\u00e9", "half": "\\ud83d"}'
    assert f'"input":{written}'.encode() in message_of(completion({"tool_calls": [call(written)]}))


def test_no_id_gets_one() -> None:
    assert message({"tool_calls": [call(id=None)]})["content"][0]["id"].startswith("toolu_")
    told = json.loads(message_of(b'{"choices": [{"message": {"content": "a"}}]}', "mine"))
    assert len(told["id"]) == 36
    assert (told["model"], told["usage"]["input_tokens"]) == ("mine", 0)


@pytest.mark.parametrize(
    ("finish", "choice", "told", "reason", "sequence"),
    [
        ("stop", {}, {"content": "a"}, "end_turn", None),
        ("length", {}, {"content": "a"}, "max_tokens", None),
        ("content_filter", {}, {"content": "a"}, "refusal", None),
        ("tool_calls", {}, {"tool_calls": [call()]}, "tool_use", None),
        ("stop", {}, {"tool_calls": [call()]}, "tool_use", None),
        ("length", {}, {"tool_calls": [call()]}, "max_tokens", None),
        ("stop", {"stop_reason": "END"}, {"content": "a"}, "stop_sequence", "END"),
        ("stop", {"matched_stop": "END"}, {"content": "a"}, "stop_sequence", "END"),
        ("stop", {"stop_reason": 151645}, {"content": "a"}, "end_turn", None),
        ("stop", {}, {"refusal": "no"}, "refusal", None),
        (None, {}, {"content": "a"}, "end_turn", None),
        ("abort", {}, {"content": "a"}, "end_turn", None),
    ],
)
def test_reasons_to_stop(finish: str, choice: dict[str, Any], told: dict[str, Any], reason: str, sequence: str) -> None:
    got = message(told, finish, **choice)
    assert (got["stop_reason"], got["stop_sequence"]) == (reason, sequence)


def test_a_refusal_is_told() -> None:
    assert message({"content": None, "refusal": "no"})["content"] == [{"type": "text", "text": "no"}]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"index": 1, "message": {"content": "a"}}]}',
        b'{"choices": [{"text": "a"}]}',
        b'{"choices": [{"message": {"content": 3}}]}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "\xff"}}]}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": "\xff"}}}]}}]}',
        b'{"choices": ' + b"[" * 100_000,
        b'{"error": {"message": "no"}}',
    ],
)
def test_what_is_no_completion_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableAnswerError):
        message_of(content)


def test_half_a_character_alone_is_replaced() -> None:
    told = json.loads(message_of(b'{"choices": [{"message": {"content": "a\\ud83d"}}]}'))
    assert told["content"][0]["text"] == "a?"


def test_a_call_that_is_no_object_is_told_as_it_was_written() -> None:
    assert message({"tool_calls": [call("nope")]})["content"][0]["input"] == {INVALID: "nope"}


def test_a_call_that_names_no_function_is_no_reason_to_fail() -> None:
    (block,) = message({"tool_calls": [{"id": "call_1"}]})["content"]
    assert (block["type"], block["id"], block["input"]) == ("tool_use", "call_1", {})
