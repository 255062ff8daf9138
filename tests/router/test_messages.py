from __future__ import annotations

from typing import Any

import pytest

from router.errors import MessagesError
from router.messages import MAX_MESSAGES, MAX_PARTS, Message, Survey, at_most, read_messages

# What a survey finds is tested where requests are read: tests/gateway/test_schema.py.


def test_messages_are_read_as_those_of_a_request() -> None:
    call = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    raw = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "tool_calls": call}]
    first, second = read_messages(raw)
    assert (first.role, first.has_text, second.has_text) == ("user", True, False)
    assert second.written > 0


@pytest.mark.parametrize(
    "raw",
    [[{}], [{"role": 5}], [{"role": "user", "content": 5}], [{"role": "user", "content": "\ud800"}], ["x"], 5],
    ids=str,
)
def test_what_could_not_be_sent_is_refused(raw: Any) -> None:
    with pytest.raises(MessagesError):
        read_messages(raw)


def test_too_many_messages_or_parts_are_refused() -> None:
    with pytest.raises(MessagesError, match=f"{MAX_MESSAGES} is the most"):
        Survey.of([Message("tool")] * (MAX_MESSAGES + 1))
    with pytest.raises(MessagesError, match=f"{MAX_PARTS + 1} parts"):
        at_most(MAX_PARTS + 1, MAX_PARTS, "parts")


def test_an_empty_user_message_is_named() -> None:
    with pytest.raises(MessagesError, match=r"messages\[1\]\.content is empty") as caught:
        Survey.of([Message("user", "hi"), Message("user", None)])
    assert caught.value.param == "messages"
