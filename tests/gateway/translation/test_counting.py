from __future__ import annotations

import json

import pytest

from gateway.translation import counting
from gateway.translation.answers import UnreadableAnswerError
from tests.gateway.translation.bodies import assistant, chat, user

TOOL = {"name": "f", "input_schema": {"type": "object"}}


def test_what_makes_the_prompt_is_sent_and_nothing_else() -> None:
    request = chat(
        user("q"), assistant("a ("), tools=[TOOL], thinking={"type": "disabled"}, temperature=0.5, stream=True
    )
    sent = json.loads(counting.rendered_body(request))
    made_of = ["model", "messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"]
    assert sent == {name: request[name] for name in made_of}
    assert json.loads(counting.rendered_body(chat(user("q")))) == {"model": "m", "messages": [user("q")]}


def test_vllm() -> None:
    answer = b'{"count": 5, "max_model_len": 4096, "tokens": [1, 2, 3, 4, 5], "token_strs": null}'
    assert counting.counted(answer) == 5


def test_the_answer() -> None:
    assert json.loads(counting.count_answer(3)) == {"input_tokens": 3}


@pytest.mark.parametrize("content", [b"", b"{}", b'{"count": "x"}', b'{"error": {"message": "no"}}', b"[1]"])
def test_what_is_no_count_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableAnswerError):
        counting.counted(content)
