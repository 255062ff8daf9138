"""litellm as a client: the gateway is its OpenAI-compatible, its Anthropic and its embeddings provider."""

from __future__ import annotations

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch its price map

import litellm

from tests.clients.python.checks import FAULTY, KEY, STAGE, URL, WEATHER_TOOL, raised
from tests.fakes.model.texts import vector

SAID = "Grüße 👋, you said: "
WITHOUT_MCP: Any = {"_skip_mcp_handler": True}  # with tools it would import a package that only litellm[mcp] brings
TOOLS = [{"type": "function", "function": WEATHER_TOOL}]


def ask(content: str, model: str = "openai/auto", **options: Any) -> Any:
    messages = options.pop("messages", [{"role": "user", "content": content}])
    base = STAGE["url"] if model.startswith("anthropic/") else URL
    return litellm.completion(
        model=model, messages=messages, api_base=base, api_key=KEY, num_retries=0, timeout=20, **WITHOUT_MCP, **options
    )


def check_a_completion_whole_and_streamed() -> None:
    answer = ask("Hello there")
    assert answer.choices[0].message.content == f"{SAID}Hello there"
    assert answer.usage.total_tokens > 4
    chunks = list(ask("Hello there", stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == f"{SAID}Hello there"
    assert chunks[-1].usage.completion_tokens > 2


def check_a_tool_call_whole_and_streamed_and_its_result() -> None:
    messages: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
    message = ask("", messages=messages, tools=TOOLS).choices[0].message
    assert message.tool_calls[0].function.arguments == '{"city": "Paris"}'
    chunks = list(ask("", messages=messages, tools=TOOLS, stream=True))
    rebuilt: Any = litellm.stream_chunk_builder(chunks, messages=messages)
    assert rebuilt.choices[0].message.tool_calls[0].function.arguments == '{"city": "Paris"}'
    messages += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "21 °C"}]
    assert ask("", messages=messages, tools=TOOLS).choices[0].message.content == "The tool says: 21 °C – voilà."


async def check_the_async_call_streams() -> None:
    messages = [{"role": "user", "content": "Hello"}]
    stream: Any = await litellm.acompletion(
        model="openai/auto", messages=messages, api_base=URL, api_key=KEY, stream=True, timeout=20
    )
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == f"{SAID}Hello"


def check_as_an_anthropic_provider() -> None:
    for model in ("anthropic/coder", "anthropic/plain"):
        assert ask("Hello there", model=model).choices[0].message.content == f"{SAID}Hello there", model
        chunks = list(ask("Weather in Paris?", model=model, tools=TOOLS, stream=True))
        rebuilt: Any = litellm.stream_chunk_builder(chunks)
        assert rebuilt.choices[0].message.tool_calls[0].function.arguments == '{"city": "Paris"}', model


def check_embeddings_and_errors() -> None:
    found = litellm.embedding(model="openai/embedder", input=["one"], api_base=URL, api_key=KEY)
    assert found.data[0]["embedding"] == vector("one")
    error = raised(litellm.exceptions.NotFoundError, lambda: ask("hi", model="openai/codr"))
    assert "coder" in str(error)
    raised(litellm.exceptions.RateLimitError, lambda: ask("fail 429 1 times, litellm", model=f"openai/{FAULTY}"))
