"""LangChain's ChatOpenAI and OpenAIEmbeddings."""

from __future__ import annotations

from typing import Any

import tiktoken.registry
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.clients.python.checks import KEY, URL, asked
from tests.fakes.model.texts import vector

SAID = "Grüße 👋, you said: "


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """Current weather in a city."""
    return f"21 °C in {city}"


WEATHER: Any = tool(get_weather)


def chat(model: str = "auto", **options: Any) -> Any:
    return ChatOpenAI(model=model, base_url=URL, api_key=SecretStr(KEY), max_retries=0, timeout=20, **options)


def check_invoke_and_batch_bring_text_and_usage() -> None:
    message = chat().invoke("Hello there")
    assert message.content == f"{SAID}Hello there"
    assert message.usage_metadata["total_tokens"] > 4
    assert message.response_metadata["finish_reason"] == "stop"
    assert [answer.content for answer in chat().batch(["one", "two"])] == [f"{SAID}one", f"{SAID}two"]


async def check_streams_bring_pieces_and_usage() -> None:
    pieces = list(chat(stream_usage=True).stream("Hello there"))
    assert len(pieces) > 4
    assert "".join(piece.content for piece in pieces) == f"{SAID}Hello there"
    assert sum(1 for piece in pieces if piece.usage_metadata) == 1
    assert "".join([piece.content async for piece in chat().astream("Hello")]) == f"{SAID}Hello"


def check_a_bound_tool_is_called_whole_and_streamed() -> None:
    bound = chat().bind_tools([WEATHER])
    messages: list[Any] = [HumanMessage("Weather in Paris?")]
    first = bound.invoke(messages)
    assert first.tool_calls[0]["name"] == "get_weather"
    assert first.tool_calls[0]["args"] == {"city": "Paris"}
    gathered: Any = None
    for piece in bound.stream(messages):
        gathered = piece if gathered is None else gathered + piece
    assert gathered.tool_calls[0]["args"] == {"city": "Paris"}
    result = WEATHER.invoke(first.tool_calls[0])
    assert isinstance(result, ToolMessage)
    assert bound.invoke([*messages, first, result]).content == "The tool says: 21 °C in Paris – voilà."


def check_structured_output_by_schema_and_by_tool() -> None:
    for method in ("json_schema", "function_calling"):
        assert chat().with_structured_output(Person, method=method).invoke("Who is Ada?") == Person(name="Paris", age=7)


def check_the_responses_api_answers_too() -> None:
    message = chat(use_responses_api=True).invoke("Hello there")
    assert message.text == f"{SAID}Hello there"
    pieces = list(chat(use_responses_api=True).stream("Hello there"))
    assert "".join(piece.text for piece in pieces) == f"{SAID}Hello there"
    called = chat(use_responses_api=True).bind_tools([WEATHER]).invoke("Weather in Paris?")
    assert called.tool_calls[0]["args"] == {"city": "Paris"}


def check_embeddings_are_asked_with_token_ids() -> None:
    # The client fetches its vocabulary from the network; here it has one whose tokens are bytes.
    tokens = tiktoken.Encoding(
        "cl100k_base",
        pat_str=r"(?s).+",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    tiktoken.registry.ENCODINGS["cl100k_base"] = tokens
    embeddings = OpenAIEmbeddings(model="embedder", base_url=URL, api_key=SecretStr(KEY), max_retries=0)
    assert embeddings.embed_documents(["one", "two, LangChain"]) == [vector("one"), vector("two, LangChain")]
    ids = ", ".join(str(byte) for byte in b"two, LangChain")
    assert asked("native", ids), "the texts came as the ids of their tokens"
    assert embeddings.embed_query("one") == vector("one")
