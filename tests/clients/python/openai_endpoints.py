"""The openai client: models, embeddings, completions, responses."""

from __future__ import annotations

from typing import Any

import openai
from pydantic import BaseModel

from tests.clients.python.checks import KEY, PNG, PNG_BYTES, URL, WEATHER_TOOL, asked, raised
from tests.clients.python.openai_chat import Person, client
from tests.fakes.model.texts import vector

TOOLS: Any = [{"type": "function", "strict": True, **WEATHER_TOOL}]


class Add(BaseModel):
    """Adds two numbers."""

    first: int
    second: int


def check_models_are_listed_auto_first_and_found_by_name() -> None:
    models = client().models.list()
    names = [model.id for model in models]
    assert names[0] == "auto"
    assert {"coder", "plain", "gpt-4o-mini"} <= set(names)
    assert client().models.retrieve("coder").id == "coder"
    assert client().models.retrieve("auto").object == "model"


def check_embeddings_come_as_base64_and_as_floats_of_texts_and_of_tokens() -> None:
    create = client().embeddings.create
    found = create(model="embedder", input=["one", "zwei ü"])
    assert [item.embedding for item in found.data] == [vector("one"), vector("zwei ü")]
    assert asked("native", "zwei ü")[-1]["encoding_format"] == "base64", "the client's default"
    assert found.usage.total_tokens == 8
    assert create(model="embedder", input="one", encoding_format="float").data[0].embedding == vector("one")
    assert create(model="embedder", input=list(b"one")).data[0].embedding == vector("one")
    assert create(model="embedder", input=[list(b"one"), list(b"two")]).data[1].embedding == vector("two")


def check_completions_whole_streamed_and_with_tokens() -> None:
    create = client().completions.create
    whole = create(model="coder", prompt="abc", echo=True, logprobs=1)
    assert whole.choices[0].text == "abc … cba"
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.tokens is not None
    assert "".join(whole.choices[0].logprobs.tokens) == "abc … cba"
    stream = list(
        create(model="coder", prompt="abc", suffix="xyz", stream=True, stream_options={"include_usage": True})
    )
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == " … cba [before xyz]"
    assert stream[-1].usage is not None
    assert all(chunk.usage is None for chunk in create(model="coder", prompt="abc", stream=True))
    assert create(model="coder", prompt=[1, 2, 3]).choices[0].text


def check_a_response_is_created_and_streamed_in_order() -> None:
    response = client().responses.create(model="auto", input="Hello there")
    assert response.output_text == "Grüße 👋, you said: Hello there"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response._request_id
    events: list[Any] = list(client().responses.create(model="auto", input="Hello there", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events if event.type != "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    with client().responses.stream(model="auto", input="think hard") as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert deltas == final.output_text == "Grüße 👋, you said: think hard"


def check_a_response_calls_a_tool_and_goes_on_with_its_result() -> None:
    items: Any = [{"role": "user", "content": "Weather in Paris?"}]
    with client().responses.stream(model="auto", input=items, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        first = stream.get_final_response()
    assert kinds.count("response.function_call_arguments.delta") > 2
    call: Any = first.output[0]
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Paris"}')
    items += [_plain(call)]
    items += [{"type": "function_call_output", "call_id": call.call_id, "output": "21 °C"}]
    second = client().responses.create(model="auto", input=items, tools=TOOLS)
    assert second.output_text == "The tool says: 21 °C – voilà."
    assert second.model == first.model


def _plain(call: Any) -> dict[str, str]:
    kept = ("id", "call_id", "name", "arguments", "type")
    return {name: getattr(call, name) for name in kept}


def check_a_response_is_parsed_by_its_schema_and_sees_images() -> None:
    parsed = client().responses.parse(model="auto", input="Who is Ada?", text_format=Person)
    assert parsed.output_parsed == Person(name="Paris", age=7, tags=["Paris"])
    tools = [openai.pydantic_function_tool(Add)]
    called: Any = client().responses.parse(model="auto", input="7 + 7?", tools=tools)
    assert called.output[0].parsed_arguments == Add(first=7, second=7)
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}
    parts: Any = [{"role": "user", "content": [{"type": "input_text", "text": "What is this?"}, image]}]
    assert client().responses.create(model="auto", input=parts).output_text == f"I see images of {PNG_BYTES} bytes."


def check_state_that_no_expert_keeps_is_refused_with_its_field() -> None:
    create = client().responses.create
    error = raised(openai.BadRequestError, lambda: create(model="auto", input="go on", previous_response_id="resp_1"))
    assert error.param == "previous_response_id", error
    assert not asked("native", 'previous_response_id": "resp_1')


async def check_the_async_client_reaches_every_endpoint() -> None:
    async with openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=20) as async_client:
        assert await anext(model.id async for model in async_client.models.list()) == "auto"
        found = await async_client.embeddings.create(model="embedder", input="one")
        assert found.data[0].embedding == vector("one")
        texts = await async_client.completions.create(model="coder", prompt="abc", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in texts]) == " … cba"
        async with async_client.responses.stream(model="auto", input="Hello") as stream:
            final = await stream.get_final_response()
        assert final.output_text == "Grüße 👋, you said: Hello"
