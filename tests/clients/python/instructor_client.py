"""instructor: structured answers, and the retry when one does not validate."""

from __future__ import annotations

from typing import Any

import instructor
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, field_validator

from tests.clients.python.checks import BIO, FAULT, KEY, URL

ADA = {"name": "Paris", "age": 7}
MODES = (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA)


class Person(BaseModel):
    name: str
    age: int


class Adult(Person):
    @field_validator("age")
    @classmethod
    def _grown_up(cls, age: int) -> int:
        if age < 18:
            raise ValueError(FAULT)
        return age


def client(mode: instructor.Mode) -> Any:
    return instructor.from_openai(OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=20), mode=mode)


def ask(content: str, response_model: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": content}], "response_model": response_model}


def check_an_answer_is_an_instance_of_the_model() -> None:
    for mode in MODES:
        person = client(mode).chat.completions.create(**ask("Who is Ada?", Person))
        assert isinstance(person, Person)
        assert person.model_dump() == ADA


def check_a_retry_after_validation_stays_with_the_expert_that_began() -> None:
    for mode in MODES:
        patched = client(mode)
        models: list[str] = []
        patched.on("completion:response", lambda answer, seen=models: seen.append(answer.model))
        adult = patched.chat.completions.create(**ask(BIO, Adult), max_retries=2)
        assert adult.age == 42, "the second answer"
        assert models == ["fake/biologist", "fake/biologist"], (mode, models)


def check_a_partial_answer_is_streamed() -> None:
    stream = client(instructor.Mode.TOOLS).chat.completions.create_partial(**ask("Who is Ada?", Person))
    seen = list(stream)
    assert len(seen) > 2
    assert (seen[-1].name, seen[-1].age) == ("Paris", 7)


async def check_the_async_client_streams_a_list() -> None:
    async_client = AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=20)
    patched: Any = instructor.from_openai(async_client)
    people = [person async for person in patched.chat.completions.create_iterable(**ask("Who are they?", Person))]
    assert [person.model_dump() for person in people] == [ADA]
    await async_client.close()
