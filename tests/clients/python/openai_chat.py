"""The openai client: chat completions."""

from __future__ import annotations

import json
from typing import Any

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.clients.python.checks import KEY, PNG, PNG_BYTES, TIME_TOOL, URL, WEATHER_TOOL, asked

CODE = "Fix this Python function, it raises a KeyError: def f(d): return d['x']"
LETTER = "Write a polite letter to my landlord asking to repaint the hallway."
TOOLS: Any = [{"type": "function", "function": WEATHER_TOOL}]


class GetWeather(BaseModel):
    """Current weather in a city."""

    city: str
    days: int


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]


def client() -> OpenAI:
    return OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=20)


def user(content: Any) -> Any:
    return [{"role": "user", "content": content}]


def check_a_whole_answer_tells_its_expert_usage_and_request_id() -> None:
    raw = client().chat.completions.with_raw_response.create(model="auto", messages=user(CODE))
    answer = raw.parse()
    assert raw.headers["x-moe-expert"] == "coder", raw.headers
    assert answer.model == "fake/coder"
    assert answer.choices[0].message.content == f"Grüße 👋, you said: {CODE}"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert answer._request_id == raw.headers["x-request-id"]


def check_a_stream_brings_role_text_and_end_and_usage_only_when_asked() -> None:
    for options, expected in (({}, 0), ({"stream_options": {"include_usage": True}}, 1)):
        asking: Any = {"model": "auto", "messages": user(CODE), "stream": True, **options}
        chunks: list[Any] = list(client().chat.completions.create(**asking))
        spoken = [chunk.choices[0] for chunk in chunks if chunk.choices]
        assert spoken[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in spoken) == f"Grüße 👋, you said: {CODE}"
        assert spoken[-1].finish_reason == "stop"
        assert sum(chunk.usage is not None for chunk in chunks) == expected
        assert len(spoken) == len(chunks) - expected


def check_the_stream_helper_gathers_the_answer() -> None:
    with client().chat.completions.stream(model="general", messages=user("Tell me of autumn.")) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert "".join(event.delta for event in events if event.type == "content.delta").endswith("autumn.")
    assert any(event.type == "content.done" for event in events)
    assert final.choices[0].message.content == "Grüße 👋, you said: Tell me of autumn."


def check_a_tool_is_called_and_its_result_answered() -> None:
    messages = user("What is the weather in Paris? (openai)")
    first = client().chat.completions.create(model="auto", messages=messages, tools=TOOLS)
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    call: Any = choice.message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "21 °C"}]
    second = client().chat.completions.create(model="auto", messages=messages, tools=TOOLS)
    assert second.choices[0].message.content == "The tool says: 21 °C – voilà."
    assert second.model == first.model, "the loop of a tool stays with its expert"


def check_a_streamed_tool_call_is_put_together_by_the_helper() -> None:
    tools = [openai.pydantic_function_tool(GetWeather, name="get_weather")]
    with client().chat.completions.stream(model="coder", messages=user("Weather in Paris?"), tools=tools) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    assert kinds.count("tool_calls.function.arguments.delta") > 3
    assert message.tool_calls
    assert message.tool_calls[0].function.parsed_arguments == GetWeather(city="Paris", days=7)


def check_two_tools_are_called_at_once_whole_and_streamed() -> None:
    both: Any = [{"type": "function", "function": tool} for tool in (WEATHER_TOOL, TIME_TOOL)]
    messages = user("Paris: all tools at once")
    ask: Any = {"model": "coder", "messages": messages, "tools": both}
    whole = client().chat.completions.create(**ask).choices[0].message
    with client().chat.completions.stream(**ask) as stream:
        streamed = stream.get_final_completion().choices[0].message
    for message in (whole, streamed):
        calls: Any = message.tool_calls
        assert [call.function.name for call in calls] == ["get_weather", "get_time"]
        assert [call.function.arguments for call in calls] == ['{"city": "Paris"}'] * 2
        assert len({call.id for call in calls}) == 2
    messages += [streamed]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": call.function.name} for call in calls]
    answer = client().chat.completions.create(model="coder", messages=messages, tools=both)
    assert answer.choices[0].message.content == "The tool says: get_weather; get_time – voilà."


def check_parse_gives_an_instance_of_the_schema() -> None:
    parsed = client().chat.completions.parse(model="auto", messages=user("Who is Ada?"), response_format=Person)
    assert parsed.choices[0].message.parsed == Person(name="Paris", age=7, tags=["Paris"])
    with client().chat.completions.stream(model="auto", messages=user("Who is Ada?"), response_format=Person) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == Person(name="Paris", age=7, tags=["Paris"])


def check_logprobs_reasoning_and_two_answers_arrive() -> None:
    answer = client().chat.completions.create(model="general", messages=user("think hard"), logprobs=True, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[1].logprobs is not None
    assert answer.choices[1].logprobs.content is not None
    assert answer.choices[1].logprobs.content[0].logprob == -0.5
    assert answer.choices[0].message.reasoning_content == "Let me see."  # type: ignore[attr-defined]
    stream = client().chat.completions.create(
        model="general", messages=user("think hard"), logprobs=True, n=2, stream=True
    )
    choices = [chunk.choices[0] for chunk in stream]
    thoughts = [getattr(choice.delta, "reasoning_content", None) or "" for choice in choices if choice.index == 1]
    assert "".join(thoughts) == "Let me see."
    assert any(choice.logprobs is not None for choice in choices)


def check_an_image_goes_to_an_expert_that_sees() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    answer = client().chat.completions.create(model="auto", messages=user(parts))
    assert answer.choices[0].message.content == f"I see images of {PNG_BYTES} bytes."


def check_with_streaming_response_gives_headers_and_lines() -> None:
    with client().chat.completions.with_streaming_response.create(
        model="gpt-4o-mini", messages=user(LETTER), stream=True
    ) as response:
        assert response.headers["x-moe-expert"] == "general"
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert len(lines) > 4


def check_unknown_fields_and_the_developer_role_reach_the_expert() -> None:
    messages: Any = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "unknown fields, 1"}]
    client().chat.completions.create(
        model="general",
        messages=messages,
        max_completion_tokens=9,
        seed=3,
        extra_body={"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}},
    )
    body = asked("native", "unknown fields, 1")[-1]
    assert body["messages"] == messages
    assert (body["max_completion_tokens"], body["seed"], body["top_k"]) == (9, 3, 5)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["model"] == "fake/general"


def check_a_real_language_model_streams_words() -> None:
    patient = client().with_options(timeout=90)  # of a busy machine
    stream = patient.chat.completions.create(
        model="engine", messages=user("Write a long story of a fox."), max_tokens=6, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert len(pieces) > 3
    assert "".join(pieces).strip()


async def check_the_async_client_streams_and_calls_tools() -> None:
    async with AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=20) as async_client:
        stream = await async_client.chat.completions.create(model="auto", messages=user(CODE), stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert text == f"Grüße 👋, you said: {CODE}"
        tools = [openai.pydantic_function_tool(GetWeather, name="get_weather")]
        async with async_client.chat.completions.stream(
            model="coder", messages=user("Weather in Paris?"), tools=tools
        ) as helper:
            final = await helper.get_final_completion()
        assert final.choices[0].message.tool_calls
        assert final.choices[0].message.tool_calls[0].function.parsed_arguments == GetWeather(city="Paris", days=7)
        parsed = await async_client.chat.completions.parse(
            model="auto", messages=user("Who is Ada?"), response_format=Person
        )
        assert parsed.choices[0].message.parsed == Person(name="Paris", age=7, tags=["Paris"])
