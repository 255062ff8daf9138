"""The anthropic client, against an expert that serves messages itself and one that only chats, to which they are translated."""

from __future__ import annotations

from typing import Any

import anthropic
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel

from tests.clients.python.checks import (
    BROKEN,
    FAULTY,
    KEY,
    PNG,
    PNG_BYTES,
    STAGE,
    WEATHER_TOOL,
    asked,
    eventually,
    raised,
    state,
)

NATIVE_AND_TRANSLATED = ("coder", "plain")
TOOLS: Any = [
    {"name": "get_weather", "description": WEATHER_TOOL["description"], "input_schema": WEATHER_TOOL["parameters"]}
]
STREAM = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
]


class Person(BaseModel):
    name: str
    age: int


def client(**options: Any) -> Anthropic:
    return Anthropic(**{"base_url": STAGE["url"], "api_key": KEY, "max_retries": 0, "timeout": 20, **options})


def ask(model: str, content: Any, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": content}]
    return client().messages.create(model=model, max_tokens=99, messages=messages, **options)


def check_a_message_is_created() -> None:
    for model in (*NATIVE_AND_TRANSLATED, "auto", "claude-sonnet"):
        options: Any = {"stop_sequences": ["END"], "extra_body": {"temperature": 0.1}}
        message = ask(model, "Write a haiku on autumn.", system="Be brief.", **options)
        assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn"), model
        assert [block.type for block in message.content] == ["text"], model
        assert message.content[0].text == "Grüße 👋, you said: Write a haiku on autumn."
        assert message.usage.input_tokens > 0
        assert message.usage.output_tokens > 3
        assert message.id
    body = asked("plain", "Write a haiku on autumn.")[-1]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["stop"], body["temperature"]) == (["END"], 0.1)


def check_the_stream_helper_sees_the_events_in_order() -> None:
    for model in NATIVE_AND_TRANSLATED:
        messages: Any = [{"role": "user", "content": "Sing of rain."}]
        with client().messages.stream(model=model, max_tokens=99, messages=messages) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert text == final.content[0].text == "Grüße 👋, you said: Sing of rain."
        assert final.stop_reason == "end_turn"
        assert final.usage.output_tokens > 3
        assert final.usage.input_tokens > 0
        events: list[Any] = list(ask(model, "Sing of rain.", stream=True))
        kinds = [event.type for event in events if event.type != "ping"]
        assert [kind for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]] == STREAM, kinds


def check_a_tool_is_called_and_its_result_answered() -> None:
    for model in NATIVE_AND_TRANSLATED:
        messages: Any = [{"role": "user", "content": f"Weather in Paris, {model}?"}]
        first = client().messages.create(model=model, max_tokens=99, messages=messages, tools=TOOLS)
        assert first.stop_reason == "tool_use"
        call: Any = first.content[-1]
        assert (call.type, call.name, call.input) == ("tool_use", "get_weather", {"city": "Paris"})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "21 °C"}]}
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        second: Any = client().messages.create(model=model, max_tokens=99, messages=messages, tools=TOOLS)
        assert second.content[0].text == "The tool says: 21 °C – voilà.", model


def check_a_streamed_tool_call_is_put_together() -> None:
    for model in NATIVE_AND_TRANSLATED:
        messages: Any = [{"role": "user", "content": "Weather in Paris?"}]
        choice: Any = {"type": "tool", "name": "get_weather"}
        with client().messages.stream(
            model=model, max_tokens=99, messages=messages, tools=TOOLS, tool_choice=choice
        ) as stream:
            partial = [event for event in stream if event.type == "input_json"]
            final = stream.get_final_message()
        assert len(partial) > 2
        call: Any = final.content[-1]
        assert (call.name, call.input, final.stop_reason) == ("get_weather", {"city": "Paris"}, "tool_use")


def check_two_tools_are_called_at_once_whole_and_streamed() -> None:
    both: Any = [*TOOLS, {**TOOLS[0], "name": "get_time"}]
    for model in NATIVE_AND_TRANSLATED:
        messages: Any = [{"role": "user", "content": "Paris: all tools at once"}]
        whole = client().messages.create(model=model, max_tokens=99, messages=messages, tools=both)
        with client().messages.stream(model=model, max_tokens=99, messages=messages, tools=both) as stream:
            streamed = stream.get_final_message()
        for message in (whole, streamed):
            blocks: Any = message.content
            assert [(block.name, block.input) for block in blocks] == [
                ("get_weather", {"city": "Paris"}),
                ("get_time", {"city": "Paris"}),
            ], model
            assert len({block.id for block in blocks}) == 2
        calls: Any = whole.content
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": call.name} for call in calls]
        messages += [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]
        answer: Any = client().messages.create(model=model, max_tokens=99, messages=messages, tools=both)
        assert answer.content[0].text == "The tool says: get_weather; get_time – voilà.", model


def check_an_image_is_seen() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    for model in (*NATIVE_AND_TRANSLATED, "auto"):
        assert ask(model, parts).content[0].text == f"I see images of {PNG_BYTES} bytes.", model


def check_thinking_comes_before_the_text() -> None:
    for model in NATIVE_AND_TRANSLATED:
        blocks = ask(model, "think hard").content
        assert [block.type for block in blocks] == ["thinking", "text"], model
        assert blocks[0].thinking == "Let me see."
        messages: Any = [{"role": "user", "content": "think hard"}]
        with client().messages.stream(model=model, max_tokens=99, messages=messages) as stream:
            thoughts = "".join(event.thinking for event in stream if event.type == "thinking")
            final = stream.get_final_message()
        assert thoughts == "Let me see.", model
        assert [block.type for block in final.content] == ["thinking", "text"], model


def check_parse_gives_an_instance_of_the_schema() -> None:
    for model in NATIVE_AND_TRANSLATED:
        messages: Any = [{"role": "user", "content": "Who is Ada?"}]
        parsed: Any = client().messages.parse(model=model, max_tokens=99, messages=messages, output_format=Person)
        assert parsed.parsed_output == Person(name="Paris", age=7), model


def check_tokens_are_counted_and_nothing_is_generated() -> None:
    for model in NATIVE_AND_TRANSLATED:
        messages: Any = [{"role": "user", "content": f"Count me, {model}, please."}]
        count = client().messages.count_tokens(model=model, messages=messages, tools=TOOLS, system="Be brief.")
        assert count.input_tokens > 5, model


def check_models_are_listed() -> None:
    names = [model.id for model in client().models.list()]
    assert names[0] == "auto"
    assert client().models.retrieve("coder").id == "coder"


def check_errors_are_the_clients_own() -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    error = raised(anthropic.BadRequestError, lambda: client().messages.create(model="auto", max_tokens=9, messages=[]))
    assert error.body["type"] == "error"
    assert error.body["error"]["type"] == "invalid_request_error"
    assert "messages" in error.body["error"]["message"]
    error = raised(anthropic.NotFoundError, lambda: ask("codr", "hi"))
    assert error.body["error"]["type"] == "not_found_error"
    wrong = client(api_key="wrong-key").messages
    error = raised(anthropic.AuthenticationError, lambda: wrong.create(model="auto", max_tokens=9, messages=messages))
    assert error.body["error"]["type"] == "authentication_error"
    error = raised(anthropic.BadRequestError, lambda: ask(FAULTY, "fail 400 1 times, anthropic"))
    assert error.body["error"]["type"] == "invalid_request_error"
    assert "refused with 400" in error.body["error"]["message"]
    error = raised(anthropic.RateLimitError, lambda: ask(FAULTY, "fail 429 1 times, anthropic"))
    assert error.body["error"]["type"] == "rate_limit_error"
    assert error.response.headers["retry-after"] == "1"


def check_the_request_id_is_where_the_client_looks_for_it() -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    create = client().messages.create
    for model in NATIVE_AND_TRANSLATED:
        assert create(model=model, max_tokens=9, messages=messages)._request_id, model
    error = raised(anthropic.BadRequestError, lambda: create(model="auto", max_tokens=9, messages=[]))
    assert error.request_id


def check_the_client_retries_as_it_is_told_and_every_kind_of_key_is_known() -> None:
    messages: Any = [{"role": "user", "content": "fail 429 1 times, anthropic retries"}]
    with_token = client(api_key=None, auth_token=KEY, max_retries=3)
    assert with_token.messages.create(model=FAULTY, max_tokens=9, messages=messages).stop_reason == "end_turn"
    assert len(asked("faulty", "anthropic retries")) == 2
    older = client(api_key=None, default_headers={"X-Api-Key": KEY}).messages  # the client's own way before 2.x
    messages = [{"role": "user", "content": "hi"}]
    assert older.create(model="coder", max_tokens=9, messages=messages).stop_reason == "end_turn"


def check_a_stream_that_breaks_off_raises_once_its_beginning_was_read() -> None:
    for model, fake in ((f"{BROKEN}3", "faulty"), ("plain", "plain")):
        seen: list[Any] = []
        stream = ask(model, f"please break, anthropic {model}", stream=True)
        error = raised(anthropic.APIError, lambda stream=stream, seen=seen: seen.extend(stream))  # type: ignore[misc]
        assert seen[0].type == "message_start"
        assert error.body["error"]["type"] == "api_error"
        assert len(asked(fake, f"please break, anthropic {model}")) == 1


def check_a_client_that_leaves_frees_the_expert() -> None:
    stream: Any = ask(FAULTY, "please stall", stream=True)
    assert next(iter(stream)).type == "message_start"
    assert state("faulty")["open"] == 1
    stream.close()
    assert eventually(lambda: state("faulty")["open"] == 0)
    messages: Any = [{"role": "user", "content": "please hang"}]
    impatient = client(timeout=0.5).messages
    raised(anthropic.APITimeoutError, lambda: impatient.create(model=FAULTY, max_tokens=9, messages=messages))
    assert eventually(lambda: state("faulty")["open"] == 0)


def check_a_real_language_model_streams_words() -> None:
    messages: Any = [{"role": "user", "content": "Write a long story of a fox."}]
    with client(timeout=90).messages.stream(model="engine", max_tokens=6, messages=messages) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 3
    assert final.stop_reason in ("end_turn", "max_tokens")
    assert final.usage.output_tokens > 3


async def check_the_async_client_streams_a_tool_call() -> None:
    async with AsyncAnthropic(base_url=STAGE["url"], api_key=KEY, max_retries=0, timeout=20) as async_client:
        messages: Any = [{"role": "user", "content": "Weather in Paris?"}]
        for model in NATIVE_AND_TRANSLATED:
            async with async_client.messages.stream(
                model=model, max_tokens=99, messages=messages, tools=TOOLS
            ) as stream:
                final = await stream.get_final_message()
            call: Any = final.content[-1]
            assert call.input == {"city": "Paris"}
