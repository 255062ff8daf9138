from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from aiohttp import web

from gateway.comparing.answers import Answer, Sampling
from gateway.comparing.asking import Asker
from gateway.comparing.prompts import Prompt
from gateway.upstreams.base import FixedAddress
from gateway.upstreams.openai import OpenAIUpstream
from router.experts import Expert
from tests.fakes.upstream import FakeServer, chunk, fake_server, silent, status, streams, usage_chunk, well

PROMPT = Prompt("p", ({"role": "user", "content": "?"},))
DONE = b"data: [DONE]\n\n"
PRICED = Expert.model_validate(
    {"model": "m", "domains": ["code"], "upstream": {"embedded": "smollm2"}, "price": {"input": 1, "output": 2}}
)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as server:
        yield server


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    upstream = OpenAIUpstream()
    await upstream.start()
    yield upstream
    await upstream.close()


async def asked(upstream: OpenAIUpstream, server: FakeServer, seconds: float = 5, **sampling: Any) -> Answer:
    address = FixedAddress(server.url, "the key")
    return await Asker(upstream, address, {"coder": PRICED}, Sampling(**sampling), seconds).ask(PROMPT, "auto")


async def test_an_answer_has_its_words_its_times_its_tokens_and_its_cost(
    upstream: OpenAIUpstream, server: FakeServer
) -> None:
    async def by_coder(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "content-type": "text/event-stream", "x-moe-expert": "coder", "x-moe-domain": "code",
                "x-moe-reason": "best", "x-moe-model": "m",
            }
        )  # fmt: skip
        await response.prepare(request)
        for delta in (
            {"role": "assistant", "content": ""},
            {"reasoning_content": "hm"},
            {"content": "a"},
            {"content": "b"},
        ):
            await response.write(chunk(delta))
        await response.write(chunk({}, "stop") + usage_chunk() + DONE)
        return response

    server.behaviour = by_coder
    answer = await asked(upstream, server, max_tokens=9)
    assert (answer.text, answer.reasoning, answer.finish, answer.error) == ("ab", "hm", "stop", "")
    assert (answer.expert, answer.domain, answer.reason, answer.model) == ("coder", "code", "best", "m")
    assert (answer.input_tokens, answer.output_tokens) == (11, 4)
    assert answer.cost_usd == pytest.approx((11 * 1 + 4 * 2) / 1e6)
    assert answer.first_token is not None
    assert 0 < answer.first_token <= answer.seconds
    assert answer.tokens_per_second == pytest.approx(3 / (answer.seconds - answer.first_token))
    (body,) = server.requests
    assert body == {
        "model": "auto", "messages": [{"role": "user", "content": "?"}], "stream": True,
        "stream_options": {"include_usage": True}, "max_tokens": 9,
    }  # fmt: skip
    assert server.headers[0]["authorization"] == "Bearer the key"


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (status(400), "refused with 400"),
        (status(404, {"detail": "Not Found"}), "status 404"),
        (streams(chunk({"content": "a"}), b'data: {"error": {"message": "it broke"}}\n\n', DONE), "it broke"),
        (streams(chunk({"content": "a"})), "the answer broke off"),
        (streams(chunk({"content": "a"}), then="cut"), "its answer broke off"),
        (streams(b"data: nonsense\n\n", DONE), "an event of the stream cannot be read"),
        (silent, "no whole answer within 0.5 s"),
    ],
)
async def test_an_answer_that_fails_says_why(
    upstream: OpenAIUpstream, server: FakeServer, behaviour: Any, says: str
) -> None:
    server.behaviour = behaviour
    answer = await asked(upstream, server, seconds=0.5 if behaviour is silent else 5)
    assert answer.error == says
    assert behaviour is silent or server.wait_until_idle()


async def test_a_gateway_that_is_busy_is_asked_again_when_it_says(upstream: OpenAIUpstream, server: FakeServer) -> None:
    busy = iter([status(503, headers={"retry-after": "0"}), status(429, headers={"retry-after": "0"}), well])

    async def at_last(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        return await next(busy)(server, request, body)

    server.behaviour = at_last
    answer = await asked(upstream, server)
    assert (answer.error, len(server.requests)) == ("", 3)
    server.behaviour = status(503, headers={"retry-after": "0"})
    assert (await asked(upstream, server)).error == "refused with 503"
    assert len(server.requests) == 3 + 4


async def test_an_answer_without_usage_has_neither_tokens_nor_cost(
    upstream: OpenAIUpstream, server: FakeServer
) -> None:
    server.behaviour = streams(chunk({"content": "a"}), chunk({}, "stop"), DONE)
    answer = await asked(upstream, server)
    assert (answer.error, answer.output_tokens, answer.cost_usd, answer.tokens_per_second) == ("", None, None, None)
