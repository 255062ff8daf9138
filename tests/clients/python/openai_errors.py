"""The openai client: its errors, its retries, its time-outs."""

from __future__ import annotations

import time
import uuid
from typing import Any

import openai
from openai import OpenAI

from tests.clients.python.checks import BROKEN, FAULTY, KEY, URL, asked, eventually, raised, state
from tests.clients.python.openai_chat import client, user


def _ask(prompt: str, model: str = FAULTY, **options: Any) -> Any:
    patient = OpenAI(base_url=URL, api_key=KEY, **{"max_retries": 0, "timeout": 20, **options})
    return patient.chat.completions.create(model=model, messages=user(f"{prompt} {uuid.uuid4()}"))


def check_a_bad_request_names_its_field() -> None:
    error = raised(openai.BadRequestError, lambda: client().chat.completions.create(model="auto", messages=[]))
    assert (error.status_code, error.type, error.param) == (400, "invalid_request_error", "messages"), error
    assert error.code
    assert "messages" in error.message
    assert error.request_id == error.response.headers["x-request-id"]


def check_the_experts_own_refusal_arrives_with_its_field() -> None:
    error = raised(openai.BadRequestError, lambda: _ask("fail 400 1 times"))
    assert (error.status_code, error.param, error.type) == (400, "top_p", "BadRequestError")
    assert "refused with 400" in error.message
    assert raised(openai.UnprocessableEntityError, lambda: _ask("fail 422 1 times")).status_code == 422


def check_an_unknown_model_is_not_found() -> None:
    error = raised(openai.NotFoundError, lambda: _ask("hi", model="codr"))
    assert (error.status_code, error.code, error.param) == (404, "model_not_found", "model"), error
    assert "coder" in error.message
    raised(openai.NotFoundError, lambda: client().models.retrieve("nope"))
    raised(openai.NotFoundError, lambda: client().get("/no-such-path", cast_to=object))


def check_a_wrong_key_is_an_authentication_error() -> None:
    error = raised(openai.AuthenticationError, lambda: _wrong_key())
    assert (error.status_code, error.code) == (401, "invalid_api_key"), error
    assert "wrong-key" not in str(error)


def _wrong_key() -> Any:
    return OpenAI(base_url=URL, api_key="wrong-key", max_retries=0).chat.completions.create(
        model="auto", messages=user("hi")
    )


def check_a_busy_expert_is_a_rate_limit_error_that_says_when_to_come_back() -> None:
    error = raised(openai.RateLimitError, lambda: _ask("fail 429 1 times"))
    assert error.status_code == 429
    assert error.response.headers["retry-after"] == "1"
    assert error.code
    assert error.message
    time.sleep(1)  # as it was told


def check_the_client_retries_as_it_is_told_and_then_has_its_answer() -> None:
    for status in (429, 503):
        mark = f"fail {status} 1 times, mark {uuid.uuid4()}"
        began = time.monotonic()
        answer = _ask(mark, max_retries=2)
        assert mark in answer.choices[0].message.content
        assert time.monotonic() - began > 0.9, "retry-after: 1"
        assert len(asked("faulty", mark)) == 2


def check_a_server_error_is_an_internal_server_error_without_secrets() -> None:
    error = raised(openai.InternalServerError, lambda: _ask("fail 500 1 times"))
    assert error.status_code == 502, error
    assert "127.0.0.1" not in str(error)


def check_a_stream_that_breaks_off_raises_once_its_beginning_was_read() -> None:
    seen: list[object] = []
    prompt = f"please break {uuid.uuid4()}"
    chat = client().chat.completions.create(model=f"{BROKEN}0", messages=user(prompt), stream=True)
    texts = client().completions.create(model=f"{BROKEN}1", prompt=f"{prompt} {'x' * 60}", stream=True)
    response = client().responses.create(model=f"{BROKEN}2", input=prompt, stream=True)
    for stream in (chat, texts, response):
        seen.clear()
        error = raised(openai.APIError, lambda stream=stream: seen.extend(stream))  # type: ignore[misc]
        assert len(seen) > 3
        assert "127.0.0.1" not in str(error)
        assert error.message
    assert len(asked("faulty", prompt)) == 3, "what has begun is not asked again"


def check_a_client_that_runs_out_of_time_frees_the_expert() -> None:
    raised(openai.APITimeoutError, lambda: _ask("please hang", timeout=0.5))
    assert eventually(lambda: state("faulty")["open"] == 0)


def check_a_stream_that_is_left_frees_the_expert() -> None:
    stream = client().chat.completions.create(model=FAULTY, messages=user("please stall"), stream=True)
    assert next(iter(stream)).choices
    assert state("faulty")["open"] == 1
    stream.close()
    assert eventually(lambda: state("faulty")["open"] == 0)
