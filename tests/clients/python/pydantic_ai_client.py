"""pydantic-ai: agents over chat and over responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, NativeOutput
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.python.checks import BIO, FAULT, KEY, URL


class Person(BaseModel):
    name: str
    age: int


def get_weather(city: str) -> str:
    """Current weather in a city."""
    return f"21 °C in {city}"


def models() -> Iterator[Any]:
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        yield kind("auto", provider=OpenAIProvider(base_url=URL, api_key=KEY))


async def check_an_agent_calls_its_tool_and_answers() -> None:
    for model in models():
        result = await Agent(model, tools=[get_weather]).run("Weather in Paris?")
        assert result.output == "The tool says: 21 °C in Paris – voilà."
        assert result.usage.requests == 2
        assert result.usage.tool_calls == 1
        assert result.usage.output_tokens > 0


async def check_a_streamed_run_calls_its_tool_and_brings_pieces() -> None:
    for model in models():
        async with Agent(model, tools=[get_weather]).run_stream("Weather in Paris?") as run:
            pieces = [piece async for piece in run.stream_text(delta=True, debounce_by=None)]
        assert "".join(pieces) == "The tool says: 21 °C in Paris – voilà."
        assert len(pieces) > 2


async def check_an_agent_with_a_type_gives_an_instance_of_it() -> None:
    for model in models():
        result = await Agent(model, output_type=Person).run("Who is Ada?")
        assert result.output == Person(name="Paris", age=7)


async def check_a_tool_and_a_typed_answer_go_together() -> None:
    for model in models():
        result = await Agent(model, output_type=Person, tools=[get_weather]).run("Weather in Paris?")
        assert result.output.name == "Paris"
        assert result.usage.requests == 2


async def check_a_retry_of_a_tool_stays_with_the_expert_that_began() -> None:
    await _retried(Person)


async def check_a_retry_in_the_users_name_stays_with_the_expert_that_began() -> None:
    await _retried(NativeOutput(Person))


async def _retried(output: Any) -> None:
    """The second answer validates, and comes from the expert of the first."""
    for model in models():
        agent: Any = Agent(model, output_type=output, retries=2)
        agent.output_validator(_grown_up)
        result = await agent.run(BIO)
        answers = [message for message in result.all_messages() if isinstance(message, ModelResponse)]
        assert result.output.age == 42, "the second answer"
        experts = [answer.model_name for answer in answers]
        assert experts == ["fake/biologist", "fake/biologist"], experts


def _grown_up(person: Person) -> Person:
    if person.age < 18:
        raise ModelRetry(FAULT)
    return person
