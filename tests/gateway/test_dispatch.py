from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.attempt import Answer, Ask, seconds_of
from gateway.budget import RESERVE, SHARE
from gateway.dispatch import MAX_ATTEMPTS, Dispatcher
from gateway.errors import UpstreamGatewayError
from gateway.exchange import Exchange, Outcome, Phase
from gateway.hedging import LEAST_SAMPLES
from gateway.pool import Pool
from gateway.requests.chat import Chat
from gateway.requests.embedding import Embedding
from gateway.requests.message import CountTokens, MessageRequest
from gateway.requests.response import ResponseRequest
from gateway.serves import Serves
from gateway.usage import Usage
from tests.fakes.memory import (
    DONE,
    ERROR_EVENT,
    ROLE,
    STOP,
    USAGE,
    USAGE_CHUNK,
    Behaviour,
    FakeReply,
    FakeUpstream,
    Hang,
    answers,
    decision,
    delta,
    experts_file,
    fails,
    hangs,
    streams,
)
from tests.fakes.upstream import PATIENCE

WHOLE = json.dumps({"id": "c1", "choices": [{"message": {"content": "Hello"}}], "usage": USAGE}).encode()
WELL = answers(WHOLE)
STREAM = [ROLE, delta(content="Hello"), STOP, USAGE_CHUNK, DONE]
TOO_LONG = b'{"error":{"message":"This model\'s maximum context length is 10 tokens.","code":400}}'


def refuses(status: int, body: bytes | None = None, **headers: str) -> Behaviour:
    shaped = json.dumps({"error": {"message": f"refused with {status}", "type": "x", "param": None, "code": "y"}})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answers(
        shaped.encode() if body is None else body, status=status, headers={"content-type": "application/json", **named}
    )


class House:
    """A dispatcher over experts `one`, `two`, … that have `replicas` each; behaviours by the replica's name."""

    def __init__(
        self,
        script: Mapping[str, Behaviour | list[Behaviour]],
        replicas: int = 1,
        experts: Mapping[str, Mapping[str, Any]] | None = None,
        stream: bool = False,
        **fields: Any,
    ) -> None:
        names = list(dict.fromkeys(name.partition("-")[0] for name in script))
        self.file = experts_file(
            {name: {"affinity": "none", **(experts or {}).get(name, {})} for name in names}, replicas
        )
        self.told: dict[str, int] = {}
        self.pool = Pool(self.file, {}, self.told.__setitem__)
        self.upstream = FakeUpstream({name: b if isinstance(b, list) else [b] for name, b in script.items()})
        self.dispatcher = Dispatcher(self.pool, self.upstream, Serves(self.file.experts))
        self.exchange = Exchange("req-1", "chat.completions", stream=stream)
        body = {"messages": [{"role": "user", "content": "hi"}], "model": "auto", "stream": stream, **fields}
        self.chat = Chat.parse(json.dumps(body).encode())
        self.decision = decision(*names)

    async def answer(self) -> Answer:
        return await self.dispatcher.answer(self.exchange, Ask(self.chat), self.decision)

    async def refusal(self) -> UpstreamGatewayError:
        with pytest.raises(UpstreamGatewayError) as caught:
            await self.answer()
        self.settled()
        return caught.value

    async def whole(self) -> tuple[int, bytes]:
        """The status and the bytes that a client would get; the answer is closed behind them."""
        with closing(await self.answer()) as answer:
            body = answer.body if answer.relay is None else b"".join([chunk async for chunk in answer.relay.rest()])
        self.exchange.finish(answer.outcome, answer.status)
        self.settled()
        return answer.status, body

    def outcomes(self) -> list[tuple[str, Outcome | None]]:
        return [(attempt.replica, attempt.outcome) for attempt in self.exchange.attempts]

    def settled(self) -> None:
        """Every place was given back and every connection closed."""
        assert [replica.in_flight for replica in self.pool.all() if replica.in_flight] == []
        assert set(self.told.values()) <= {0}
        assert [reply.steps for reply in self.upstream.replies if not reply.closed] == []


async def test_the_first_expert_s_answer_is_the_client_s_byte_for_byte() -> None:
    house = House({"one-0": WELL, "two-0": WELL})
    assert await house.whole() == (200, WHOLE)
    assert house.upstream.asked == ["one-0"]
    assert house.outcomes() == [("one-0", Outcome.OK)]
    assert house.exchange.usage == Usage(input=8, cached_input=3, output=4)
    assert house.exchange.expert is house.file.experts["one"]


async def test_the_expert_is_asked_for_its_own_model_with_its_defaults_and_the_request_s_id() -> None:
    house = House({"one-0": WELL}, experts={"one": {"defaults": {"temperature": 0.25}}}, seed=7)
    await house.whole()
    (call,) = house.upstream.calls
    assert (call.url, call.path, call.fresh) == ("http://one-0.test/v1", "/chat/completions", False)
    assert call.body == {
        "messages": [{"role": "user", "content": "hi"}],
        "model": "model-of-one",
        "stream": False,
        "seed": 7,
        "temperature": 0.25,
    }
    assert call.headers == {"x-request-id": "req-1", "accept": "application/json"}
    assert call.timeouts is house.file.experts["one"].timeouts


@pytest.mark.parametrize(
    ("behaviour", "outcome", "status"),
    [
        (fails(Outcome.CONNECT_ERROR), Outcome.CONNECT_ERROR, 502),
        (fails(Outcome.TIMEOUT), Outcome.TIMEOUT, 504),
        (fails(Outcome.SERVER_ERROR), Outcome.SERVER_ERROR, 502),
        (refuses(500), Outcome.SERVER_ERROR, 502),
        (refuses(502), Outcome.SERVER_ERROR, 502),
        (refuses(503), Outcome.SERVER_ERROR, 503),
        (refuses(504), Outcome.SERVER_ERROR, 504),
        (refuses(529), Outcome.SERVER_ERROR, 503),
        (refuses(402), Outcome.REJECTED, 502),
        (refuses(501), Outcome.REJECTED, 502),
        (refuses(302, location="http://10.0.0.5/"), Outcome.REJECTED, 502),
        (refuses(401), Outcome.REJECTED, 502),
        (refuses(403), Outcome.REJECTED, 502),
        (refuses(404), Outcome.REJECTED, 502),
        (refuses(408), Outcome.REJECTED, 408),
        (refuses(429), Outcome.REJECTED, 429),
    ],
)
async def test_what_another_may_do_better_goes_to_the_next_replica_then_to_the_next_expert(
    behaviour: Behaviour, outcome: Outcome, status: int
) -> None:
    bad = {"one-0": behaviour, "one-1": behaviour}
    house = House({**bad, "two-0": WELL, "two-1": WELL}, replicas=2)
    assert await house.whole() == (200, WHOLE)
    assert [(name[:3], o) for name, o in house.outcomes()] == [("one", outcome), ("one", outcome), ("two", Outcome.OK)]
    assert len(set(house.upstream.asked)) == 3

    house = House({**bad, "two-0": behaviour, "two-1": behaviour}, replicas=2)
    error = await house.refusal()
    assert error.status == status
    assert error.code == f"upstream_{outcome}"
    assert len(house.upstream.asked) == 4
    assert "10.0.0.5" not in error.message
    assert "location" not in error.headers


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        ([ERROR_EVENT], Outcome.STREAM_ERROR),
        ([ROLE, ERROR_EVENT], Outcome.STREAM_ERROR),
        ([ROLE], Outcome.TRUNCATED),
    ],
)
async def test_a_stream_that_fails_before_content_goes_to_the_next(steps: list[bytes], outcome: Outcome) -> None:
    house = House({"one-0": streams(*steps), "two-0": streams(*STREAM)}, stream=True)
    status, body = await house.whole()
    assert (status, body) == (200, b"".join(item for item in STREAM if item is not USAGE_CHUNK))
    assert house.outcomes() == [("one-0", outcome), ("two-0", Outcome.OK)]
    assert (await House({"one-0": streams(*steps)}, stream=True).refusal()).status == 502


async def test_a_stream_that_fails_after_content_is_not_asked_for_again() -> None:
    house = House({"one-0": streams(*STREAM[:2], ERROR_EVENT), "two-0": streams(*STREAM)}, stream=True)
    _, body = await house.whole()
    assert body.startswith(ROLE)
    assert body.count(b'"error"') == 1
    assert house.outcomes() == [("one-0", Outcome.STREAM_ERROR)]
    assert house.pool.replicas["one"][0].failures == 1


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_of_our_own_request_is_loud_and_says_nothing_of_it_to_the_client(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    body = b'{"error":{"message":"invalid key sk-123 at 10.0.0.5"}}'
    with caplog.at_level(logging.ERROR, "moe_gateway"):
        error = await House({"one-0": refuses(status, body)}).refusal()
    (record,) = caplog.records
    assert record.__dict__["replica"] == "one-0"
    assert "sk-123" not in record.getMessage() + error.message


@pytest.mark.parametrize("status", [408, 429, 503])
async def test_a_busy_expert_s_own_retry_after_is_passed_on(status: int) -> None:
    assert (await House({"one-0": refuses(status)}).refusal()).headers == {"retry-after": "5"}
    hints: dict[str, Any] = {"retry_after": "17", "retry_after_ms": "17000", "x_should_retry": "true"}
    error = await House({"one-0": refuses(status, server="secret-host-7", **hints)}).refusal()
    assert error.headers == {"retry-after": "17", "retry-after-ms": "17000", "x-should-retry": "true"}


@pytest.mark.parametrize("status", [400, 409, 413, 415, 418, 422])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_fault_of_the_request_is_passed_as_it_is_and_asked_of_no_other(status: int, stream: bool) -> None:
    body = b'{"error": {"message": "temperature is 9", "type": "BadRequestError", "param": null, "code": 400, "x": 1}}'
    house = House({"one-0": refuses(status, body), "two-0": WELL}, stream=stream)
    assert await house.whole() == (status, body)
    assert house.outcomes() == [("one-0", Outcome.CLIENT_ERROR)]
    assert house.pool.replicas["one"][0].failures == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"bad temperature\n", "bad temperature"),
        (b'{"detail":"bad"}', '{"detail":"bad"}'),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", "The expert answered with status 422."),
        (b'{"error":"bad"}', '{"error":"bad"}'),
        (b"x" * 9999, "x" * 500),
        (b'{"x":' + b"[" * 100_000, '{"x":' + "[" * 495),
    ],
)
async def test_a_refusal_in_another_shape_is_put_into_openai_s(body: bytes, message: str) -> None:
    house = House({"one-0": answers(body, status=422, headers={"content-type": "text/html"})})
    answer = await house.answer()
    assert answer.status == 422
    assert answer.headers == {"content-type": "application/json"}
    assert json.loads(answer.body)["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    answer.close()
    house.settled()


@pytest.mark.parametrize(
    "says",
    [
        TOO_LONG,
        b'{"error":{"message":"the request exceeds the available context size, try increasing it"}}',
        b'{"error":{"message":"too long","type":"exceed_context_size_error"}}',
        b'{"error":{"message":"Prompt is beyond the Context Window"}}',
        b'{"error":{"message":"too long","code":"context_length_exceeded"}}',
    ],
)
async def test_a_prompt_too_long_for_one_expert_goes_to_the_next_with_a_larger_window(says: bytes) -> None:
    windows = {"one": {"context_window": 4096}, "two": {"context_window": 4096}, "big": {"context_window": 8192}}
    script = {"one-0": refuses(400, says), "one-1": WELL, "two-0": WELL, "two-1": WELL, "big-0": WELL, "big-1": WELL}
    house = House(script, replicas=2, experts=windows)
    assert await house.whole() == (200, WHOLE)
    assert [(name[:3], outcome) for name, outcome in house.outcomes()] == [
        ("one", Outcome.CLIENT_ERROR),
        ("big", Outcome.OK),
    ]


async def test_a_prompt_too_long_for_every_window_gets_the_last_expert_s_own_words() -> None:
    windows = {"one": {"context_window": 4096}, "big": {"context_window": 8192}, "two": {"context_window": 8192}}
    longest = TOO_LONG.replace(b" 10 ", b" 8192 ")
    house = House({"one-0": refuses(400, TOO_LONG), "big-0": refuses(400, longest), "two-0": WELL}, experts=windows)
    assert await house.whole() == (400, longest)
    assert house.upstream.asked == ["one-0", "big-0"]


@pytest.mark.parametrize(("tried", "other"), [(4096, 4096), (8192, 4096), (None, 4096), (None, None)])
async def test_a_prompt_too_long_is_not_asked_of_a_window_that_is_no_larger(
    tried: int | None, other: int | None
) -> None:
    windows = {"one": {"context_window": tried}, "two": {"context_window": other}}
    house = House({"one-0": refuses(400, TOO_LONG), "two-0": WELL}, experts=windows)
    assert await house.whole() == (400, TOO_LONG)
    assert house.upstream.asked == ["one-0"]


async def test_an_expert_whose_window_is_not_known_counts_as_larger() -> None:
    house = House({"one-0": refuses(400, TOO_LONG), "two-0": WELL}, experts={"one": {"context_window": 4096}})
    assert await house.whole() == (200, WHOLE)


async def test_a_connection_that_was_reset_is_tried_once_more_afresh() -> None:
    reset = fails(Outcome.CONNECT_ERROR, reset=True)
    house = House({"one-0": [reset, WELL], "two-0": WELL})
    assert await house.whole() == (200, WHOLE)
    assert [(call.url, call.fresh) for call in house.upstream.calls] == [
        ("http://one-0.test/v1", False),
        ("http://one-0.test/v1", True),
    ]
    assert house.outcomes() == [("one-0", Outcome.CONNECT_ERROR), ("one-0", Outcome.OK)]


async def test_a_connection_that_is_reset_twice_goes_to_the_next() -> None:
    house = House({"one-0": fails(Outcome.CONNECT_ERROR, reset=True), "two-0": WELL})
    assert await house.whole() == (200, WHOLE)
    assert house.upstream.asked == ["one-0", "one-0", "two-0"]


async def test_a_refused_connection_is_not_tried_again_at_once() -> None:
    house = House({"one-0": fails(Outcome.CONNECT_ERROR), "two-0": WELL})
    await house.whole()
    assert house.upstream.asked == ["one-0", "two-0"]


async def test_replicas_that_are_cooling_down_are_passed_over() -> None:
    house = House({"one-0": WELL, "one-1": WELL, "two-0": WELL, "two-1": WELL}, replicas=2)
    for replica in house.pool.replicas["one"]:
        for _ in range(3):
            replica.note(Outcome.TIMEOUT)
    await house.whole()
    assert house.upstream.asked[0].startswith("two")


async def test_each_fault_is_told_to_the_replica_that_had_it() -> None:
    house = House({"one-0": [refuses(500), refuses(500), refuses(500), WELL]})
    for _ in range(3):
        house.exchange = Exchange("req-1", "chat.completions")
        await house.refusal()
    assert not house.pool.ready("one")
    house.exchange = Exchange("req-1", "chat.completions")
    assert (await house.refusal()).code == "no_expert_available"
    assert len(house.upstream.calls) == 3


async def test_a_full_expert_is_passed_over() -> None:
    house = House({"one-0": WELL, "two-0": WELL}, experts={"one": {"max_in_flight": 1}})
    first = await house.answer()
    second = await house.answer()
    assert house.upstream.asked == ["one-0", "two-0"]
    first.close()
    third = await house.answer()
    assert house.upstream.asked == ["one-0", "two-0", "one-0"]
    second.close()
    third.close()
    house.settled()


async def test_where_all_are_full_or_down_the_client_is_told_when_to_come_back() -> None:
    house = House({"one-0": WELL, "two-0": WELL}, experts={"one": {"max_in_flight": 1, "queue": {"wait": 0.05}}})
    held = await house.answer()
    house.pool.replicas["two"][0].up = False
    with pytest.raises(UpstreamGatewayError) as caught:
        await house.answer()
    assert (caught.value.status, caught.value.code) == (503, "no_expert_available")
    assert caught.value.headers == {"retry-after": "1"}
    held.close()
    house.settled()


async def test_a_client_is_told_to_come_back_when_the_first_cool_down_ends() -> None:
    house = House({"one-0": WELL, "two-0": WELL})
    now = itertools.repeat(100.0)
    for replica, until in zip(house.pool.all(), (140.5, 117.2), strict=True):
        replica.clock, replica.open_until = now.__next__, until
    error = await house.refusal()
    assert (error.status, error.headers) == (503, {"retry-after": "18"})
    assert house.upstream.calls == []


async def test_the_last_failure_is_told_where_the_others_could_not_be_asked() -> None:
    house = House({"one-0": refuses(429, retry_after="9"), "two-0": WELL})
    house.pool.replicas["two"][0].up = False
    error = await house.refusal()
    assert (error.status, error.headers) == (429, {"retry-after": "9"})


@pytest.mark.parametrize("stream", [True, False])
async def test_an_expert_that_does_not_answer_in_time_is_left(stream: bool) -> None:
    timeouts = {"timeouts": {"first_byte" if stream else "total": 0.02}}
    well = streams(*STREAM) if stream else WELL
    house = House({"one-0": hangs, "two-0": well}, experts={"one": timeouts}, stream=stream)
    assert (await house.whole())[0] == 200
    assert house.outcomes()[0] == ("one-0", Outcome.TIMEOUT)


async def test_a_body_that_does_not_end_in_time_is_left() -> None:
    house = House({"one-0": answers(b'{"id":', Hang())}, experts={"one": {"timeouts": {"total": 0.02}}})
    assert (await house.refusal()).status == 504


async def test_a_whole_answer_is_not_bound_by_the_first_byte_s_time_out() -> None:
    async def slow() -> Any:
        await asyncio.sleep(0.01)
        return await WELL()

    house = House({"one-0": slow}, experts={"one": {"timeouts": {"first_byte": 1e-9, "idle": 1e-9}}})
    assert (await house.whole())[0] == 200


async def test_of_an_upstream_s_headers_only_those_that_readers_need_go_down() -> None:
    headers = {
        "content-type": "application/json; charset=utf-8",
        "server": "secret-host-7",
        "set-cookie": "a=b",
        "content-length": "1",
        "transfer-encoding": "chunked",
        "content-encoding": "gzip",
        "connection": "close",
        "x-internal": "10.0.0.5",
    }
    house = House({"one-0": answers(WHOLE, headers=headers)})
    answer = await house.answer()
    assert answer.headers == {"content-type": "application/json; charset=utf-8"}
    answer.close()


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_s_usage_goes_down_exactly_when_it_was_asked_for(asked: bool) -> None:
    house = House({"one-0": streams(*STREAM)}, stream=True, stream_options={"include_usage": asked})
    _, body = await house.whole()
    assert (USAGE_CHUNK in body) is asked
    assert house.exchange.usage == Usage(8, 3, 4)
    assert house.upstream.calls[0].body["stream_options"] == {"include_usage": True}
    assert house.upstream.calls[0].headers["accept"] == "text/event-stream"


async def test_one_piece_in_place_of_a_stream_is_a_fault_of_the_server_s() -> None:
    house = House({"one-0": WELL, "two-0": streams(*STREAM)}, stream=True, stream_options={"include_usage": True})
    assert await house.whole() == (200, b"".join(STREAM))
    assert house.outcomes() == [("one-0", Outcome.SERVER_ERROR), ("two-0", Outcome.OK)]


@pytest.mark.parametrize("body", [b"", b"<html>please log in</html>", b'{"choices": [{"mess', b"[]", b"null"])
async def test_an_answer_that_is_no_json_object_is_a_fault_of_the_server_s(body: bytes) -> None:
    house = House({"one-0": answers(body), "two-0": WELL})
    assert await house.whole() == (200, WHOLE)
    assert house.outcomes() == [("one-0", Outcome.SERVER_ERROR), ("two-0", Outcome.OK)]


async def test_requests_wait_in_turn_for_a_place() -> None:
    house = House({"one-0": WELL}, experts={"one": {"max_in_flight": 1}})
    held = await house.answer()
    waiting = [asyncio.create_task(house.answer()) for _ in range(2)]
    await until(lambda: house.pool.queued("one") == 2)
    held.close()
    for task in waiting:
        (await task).close()
    assert len(house.outcomes()) == 3
    assert house.exchange.waited > 0
    house.settled()


async def test_a_full_queue_turns_the_next_away() -> None:
    house = House({"one-0": WELL}, experts={"one": {"max_in_flight": 1, "queue": {"length": 0}}})
    held = await house.answer()
    with pytest.raises(UpstreamGatewayError) as caught:
        await house.answer()
    assert caught.value.status == 503
    assert int(caught.value.headers["retry-after"]) > 0
    held.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def slow() -> FakeReply:
    await asyncio.sleep(0.2)
    return await WELL()


async def test_a_second_replica_is_asked_where_the_first_is_late() -> None:
    house = House({"one-0": hangs, "one-1": WELL}, replicas=2, experts={"one": {"hedge": 0.02}})
    assert await house.whole() == (200, WHOLE)
    assert house.outcomes() == [("one-0", Outcome.CANCELLED), ("one-1", Outcome.OK)]
    assert house.pool.replicas["one"][0].failures == 0


async def test_of_two_that_are_asked_the_first_to_answer_stands_last() -> None:
    async def last() -> FakeReply:
        await until(lambda: len(house.upstream.asked) == 2)
        return await slow()

    house = House({"one-0": last, "one-1": hangs}, replicas=2, experts={"one": {"hedge": 0.02}})
    began = time.perf_counter()
    assert await house.whole() == (200, WHOLE)
    assert house.outcomes() == [("one-1", Outcome.CANCELLED), ("one-0", Outcome.OK)]
    assert house.exchange.waited < time.perf_counter() - began  # what overlaps counts once


async def test_a_hedge_that_fails_does_not_spoil_the_first() -> None:
    house = House({"one-0": slow, "one-1": refuses(500)}, replicas=2, experts={"one": {"hedge": 0.02}})
    assert await house.whole() == (200, WHOLE)
    house = House({"one-0": refuses(500), "one-1": WELL}, replicas=2, experts={"one": {"hedge": 5}})
    assert await house.whole() == (200, WHOLE)


async def test_nobody_hedges_unless_told_to() -> None:
    house = House({"one-0": slow, "one-1": WELL}, replicas=2)
    assert await house.whole() == (200, WHOLE)
    assert house.outcomes() == [("one-0", Outcome.OK)]


async def test_a_client_that_leaves_ends_both_attempts_of_a_hedge() -> None:
    house = House({"one-0": hangs, "one-1": hangs}, replicas=2, experts={"one": {"hedge": 0.01}})
    task = asyncio.create_task(house.answer())
    await until(lambda: len(house.exchange.attempts) == 2)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    house.settled()


@pytest.mark.parametrize(("script", "attempts"), [(("one",), 1), (("one", "two"), 2)])
async def test_where_the_budget_is_spent_each_expert_is_asked_once_and_nobody_waits_for_more(
    script: tuple[str, ...], attempts: int
) -> None:
    house = House({f"{name}-{i}": refuses(500) for name in script for i in range(4)}, replicas=4)
    for name in script:
        while house.dispatcher._budget.spend(name):
            pass
    await house.refusal()
    assert len(house.upstream.asked) == attempts


async def test_what_a_server_asked_for_is_kept_where_another_failure_comes_after_it() -> None:
    house = House(
        {"one-0": refuses(429, retry_after="17"), "two-0": refuses(500), "three-0": refuses(503, retry_after="9")}
    )
    assert (await house.refusal()).headers["retry-after"] == "9"
    house = House({"one-0": refuses(429, retry_after="17"), "two-0": refuses(500)})
    error = await house.refusal()
    assert (error.status, error.headers["retry-after"]) == (502, "17")


async def test_retries_at_one_expert_are_bounded_whatever_the_traffic() -> None:
    house = House({"one-0": refuses(429), "one-1": refuses(429), "two-0": WELL, "two-1": WELL}, replicas=2)
    for _ in range(100):
        house.exchange = Exchange("req", "chat.completions")
        for replica in house.pool.all():
            replica.busy_until = 0.0
        assert await house.whole() == (200, WHOLE)  # nobody is turned away: the next expert is no retry
    at_one = sum(name.startswith("one") for name in house.upstream.asked)
    assert 100 + RESERVE - 5 <= at_one <= 100 * (1 + SHARE) + RESERVE + 5


async def test_what_cannot_be_put_into_an_expert_s_words_goes_to_one_that_speaks_the_request_s_own() -> None:
    answer = b'{"type": "message", "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}'
    experts = {"one": {"endpoints": ["chat"]}, "two": {"endpoints": ["chat"]}, "three": {"endpoints": ["messages"]}}
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 5,
        "tools": [{"type": "web_search_20250305", "name": "w"}],
    }
    request = MessageRequest.parse(json.dumps(body).encode())
    house = House({"one-0": WELL, "two-0": WELL, "three-0": answers(answer)}, experts=experts)
    with closing(await house.dispatcher.answer(house.exchange, Ask(request), house.decision)) as got:
        assert (got.status, got.body) == (200, answer)
    assert house.upstream.asked == ["three-0"]
    assert [outcome for _, outcome in house.outcomes()] == [Outcome.CLIENT_ERROR, Outcome.OK]
    house = House({"one-0": WELL}, experts=experts)
    with closing(await house.dispatcher.answer(house.exchange, Ask(request), house.decision)) as got:
        assert got.status == 400
        assert json.loads(got.body)["error"]["type"] == "invalid_request_error"
        assert "tools[0]" in json.loads(got.body)["error"]["message"]


@pytest.mark.parametrize(("model", "asked"), [("one", ["one-0", "two-0"]), ("other", ["one-0"])])
async def test_embeddings_come_from_no_other_model(model: str, asked: list[str]) -> None:
    every = {"endpoints": ["embeddings"]}
    experts = {"one": {**every, "model": "one"}, "two": {**every, "model": model}}
    house = House({"one-0": refuses(500), "two-0": WELL}, experts=experts)
    request = Embedding.parse(b'{"input": "hi", "model": "one"}')
    with suppress(UpstreamGatewayError):
        (await house.dispatcher.answer(house.exchange, Ask(request), house.decision)).close()
    assert house.upstream.asked == asked


async def test_a_stream_that_nobody_asked_for_is_a_fault_of_the_server_s() -> None:
    house = House({"one-0": streams(*STREAM), "two-0": WELL})
    assert await house.whole() == (200, WHOLE)
    assert house.outcomes() == [("one-0", Outcome.SERVER_ERROR), ("two-0", Outcome.OK)]


async def test_an_error_that_calls_itself_a_success_is_a_fault_of_the_server_s() -> None:
    error = b'{"error": {"message": "engine at 10.0.0.5 died"}}'
    house = House({"one-0": answers(error), "two-0": WELL})
    assert await house.whole() == (200, WHOLE)
    refusal = await House({"one-0": answers(error)}).refusal()
    assert refusal.status == 502
    assert "10.0.0.5" not in refusal.message


async def test_an_answer_that_talks_of_errors_is_passed() -> None:
    talk = b'{"error": null, "choices": [{"message": {"content": "{\\"error\\": {\\"message\\": \\"x\\"}}"}}]}'
    json.loads(talk)
    assert await House({"one-0": answers(talk)}).whole() == (200, talk)


async def test_usage_of_an_expert_that_failed_is_not_charged_to_the_next() -> None:
    counted = b'data: {"choices":[],"usage":{"prompt_tokens":900,"completion_tokens":1}}\n\n'
    house = House({"one-0": streams(counted, ERROR_EVENT), "two-0": fails(Outcome.CONNECT_ERROR)}, stream=True)
    await house.refusal()
    assert house.exchange.usage is None
    assert house.exchange.expert_id == "two"


async def test_a_place_in_flight_is_held_until_the_answer_is_closed() -> None:
    house = House({"one-0": streams(*STREAM)}, stream=True)
    answer = await house.answer()
    assert house.told == {"one": 1}
    assert house.exchange.phase is Phase.WAITING
    answer.close()
    answer.close()
    house.settled()


async def test_an_answer_that_the_client_gave_up_is_cancelled_and_no_fault_of_the_replica_s() -> None:
    house = House({"one-0": streams(*STREAM)}, stream=True)
    answer = await house.answer()
    answer.close()
    assert house.outcomes() == [("one-0", Outcome.CANCELLED)]
    assert house.pool.replicas["one"][0].failures == 0
    assert house.upstream.replies[0].closed


async def test_a_failing_expert_of_many_replicas_is_not_asked_for_ever() -> None:
    house = House({f"one-{i}": refuses(500) for i in range(MAX_ATTEMPTS + 3)}, replicas=MAX_ATTEMPTS + 3)
    await house.refusal()
    assert len(house.upstream.calls) == MAX_ATTEMPTS


async def test_a_failing_fleet_is_not_asked_for_ever() -> None:
    names = [f"e{i}" for i in range(MAX_ATTEMPTS + 3)]
    house = House({f"{name}-0": refuses(500) for name in names})
    await house.refusal()
    assert len(house.upstream.calls) == MAX_ATTEMPTS


async def test_asking_again_after_a_reset_is_within_the_budget_of_attempts() -> None:
    reset = fails(Outcome.CONNECT_ERROR, reset=True)
    house = House({"e-0": refuses(500), **{f"r{i}-0": reset for i in range(MAX_ATTEMPTS)}})
    await house.refusal()
    assert len(house.exchange.attempts) == MAX_ATTEMPTS


BEHAVIOURS: dict[str, Behaviour] = {
    "well": WELL,
    "streams well": streams(*STREAM),
    "breaks off": streams(*STREAM[:2]),
    "hangs in a stream": streams(ROLE, delta(content="x"), Hang()),
    "errs in a stream": streams(ROLE, ERROR_EVENT),
    "errs after content": streams(*STREAM[:2], ERROR_EVENT),
    "hangs": hangs,
    "body hangs": answers(b"{", Hang()),
    "refused": fails(Outcome.CONNECT_ERROR),
    "reset": fails(Outcome.CONNECT_ERROR, reset=True),
    "times out": fails(Outcome.TIMEOUT),
    "too long": refuses(400, TOO_LONG),
    **{str(status): refuses(status) for status in (400, 401, 404, 422, 429, 500, 503)},
}
SCRIPTS = st.lists(st.lists(st.sampled_from(sorted(BEHAVIOURS)), min_size=1, max_size=3), min_size=4, max_size=8)


@settings(deadline=None, max_examples=150)
@given(
    SCRIPTS,
    st.booleans(),
    st.none() | st.integers(0, 12),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from([None, 1e-6, 0.002]),
)
@example([["hangs"]] * 4, True, 3, 0, False, None)
@example([["well"]] * 4, False, None, 0, True, None)
@example([["hangs"], ["well"]] * 2, True, 7, 0, False, 1e-6)
def test_whatever_upstreams_do_every_place_and_connection_is_given_back_and_every_attempt_ended(
    script: list[list[str]], stream: bool, leaves_after: int | None, reads: int, narrow: bool, hedge: float | None
) -> None:
    names = [f"e{i // 2}-{i % 2}" for i in range(len(script) // 2 * 2)]
    quick: dict[str, Any] = {
        "timeouts": {"first_byte": 0.01, "idle": 0.01, "total": 0.02},
        "max_in_flight": 1 if narrow else None,
    }
    quick |= {"hedge": hedge, "queue": {"wait": 0.02}}
    windows = [1000, None, 500, 2000]
    experts = {f"e{i}": {**quick, "context_window": windows[i]} for i in range(4)}
    house = House(
        {name: [BEHAVIOURS[b] for b in behaviours] for name, behaviours in zip(names, script, strict=False)},
        replicas=2,
        experts=experts,
        stream=stream,
    )

    async def serve() -> None:
        """As the endpoint does it, for a client that may leave before or while it reads."""
        try:
            with closing(await house.answer()) as answer:
                if answer.relay is not None:
                    chunks: Any = answer.relay.rest()
                    with suppress(StopAsyncIteration):
                        for _ in range(reads if leaves_after is not None else 99):
                            await anext(chunks)
            house.exchange.finish(answer.outcome, answer.status)
        except UpstreamGatewayError as error:
            house.exchange.finish(Outcome.SERVER_ERROR, error.status)

    async def run() -> None:
        task = asyncio.ensure_future(serve())
        if leaves_after is not None:
            for _ in range(leaves_after):
                await asyncio.sleep(0)
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        for _ in range(5):  # what lost to a hedge is given up by now
            await asyncio.sleep(0)
        house.exchange.finish(Outcome.CANCELLED, 499)

    asyncio.run(run())
    house.settled()
    assert None not in [attempt.outcome for attempt in house.exchange.attempts]
    tried = [attempt.replica for attempt in house.exchange.attempts]
    assert not Counter(house.upstream.asked) - Counter(tried)  # a hedge may be given up before it has asked
    assert hedge or tried == house.upstream.asked
    assert len(house.exchange.attempts) <= MAX_ATTEMPTS


async def hangs_on() -> FakeReply:
    """Takes its time to be given up, as some clients of upstreams do."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)
        raise
    raise AssertionError("nobody sets it")


async def test_a_client_that_leaves_while_the_loser_of_a_hedge_is_given_up_leaves_nothing_behind() -> None:
    house = House({"one-0": hangs_on, "one-1": WELL}, replicas=2, experts={"one": {"hedge": 0.01}})
    task = asyncio.create_task(house.answer())
    await until(lambda: bool(house.upstream.replies))  # the second has answered: the first is being given up
    await asyncio.sleep(0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        (await task).close()
    await until(lambda: not any(replica.in_flight for replica in house.pool.all()))
    house.settled()


async def test_who_failed_at_one_expert_waits_for_a_place_at_the_next() -> None:
    house = House({"one-0": refuses(500), "two-0": WELL}, experts={"two": {"max_in_flight": 1}})
    with house.pool.holding("two", house.pool.replicas["two"][0]) as held:
        task = asyncio.create_task(house.whole())
        await until(lambda: house.pool.queued("two") == 1)
        held.release()
        assert await task == (200, WHOLE)


async def test_hedges_learn_from_good_answers_of_the_same_kind_alone() -> None:
    house = House({"one-0": refuses(400), "one-1": refuses(400)}, replicas=2, experts={"one": {"hedge": "p95"}})
    for _ in range(2 * LEAST_SAMPLES):
        house.exchange = Exchange("r", "chat.completions")
        await house.whole()
    assert house.dispatcher._hedges.delay("one", ("chat.completions", False)) is None


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
        (400, "prompt is too long: 250000 tokens > 200000 maximum"),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096"),
        (400, "The input token count exceeds the maximum number of tokens allowed"),
    ],
)
async def test_every_server_s_way_to_say_that_a_prompt_is_too_long_is_understood(status: int, says: str) -> None:
    windows = {"one": {"context_window": 4096}, "two": {"context_window": 8192}}
    body = json.dumps({"error": {"message": says}}).encode()
    assert await House({"one-0": refuses(status, body), "two-0": WELL}, experts=windows).whole() == (200, WHOLE)


@pytest.mark.parametrize("nonsense", ["nan", "-1", "1e400", "soon", "inf"])
async def test_a_retry_after_that_is_no_time_is_neither_believed_nor_passed_on(nonsense: str) -> None:
    house = House({"one-0": refuses(429, retry_after=nonsense)})
    assert (await house.refusal()).headers == {"retry-after": "5"}
    assert house.pool.replicas["one"][0].busy_until < float("inf")


async def test_a_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    house = House({"one-0": refuses(429, retry_after=date)})
    assert (await house.refusal()).headers == {"retry-after": date}
    assert 80 < (seconds_of(date) or 0) <= 90


async def test_a_404_about_what_a_server_keeps_is_the_client_s_to_hear(caplog: pytest.LogCaptureFixture) -> None:
    lost = b'{"error": {"message": "Response with id resp_1 not found.", "type": "invalid_request_error"}}'
    house = House({"one-0": refuses(404, lost)}, experts={"one": {"endpoints": ["responses"]}})
    request = ResponseRequest.parse(b'{"input": "hi", "previous_response_id": "resp_1"}')
    with closing(await house.dispatcher.answer(house.exchange, Ask(request), house.decision)) as answer:
        assert (answer.status, answer.body) == (404, lost)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_a_server_that_cannot_count_tokens_is_no_fault_of_the_operator_s(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House({"one-0": refuses(404)}, experts={"one": {"endpoints": ["chat"]}})
    request = CountTokens.parse(b'{"messages": [{"role": "user", "content": "hi"}]}')
    with closing(await house.dispatcher.answer(house.exchange, Ask(request), house.decision)) as answer:
        assert answer.status == 400
        assert "count tokens" in json.loads(answer.body)["error"]["message"]
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


@pytest.mark.parametrize(("stream", "limit"), [(False, "total"), (True, "first_byte")])
async def test_the_time_that_headers_took_counts_against_the_whole(stream: bool, limit: str) -> None:
    """In one of some trials: in the others the machine may be busy."""

    async def late() -> FakeReply:
        await asyncio.sleep(0.8)
        return FakeReply(Hang(), headers=None if stream else {"content-type": "application/json"})

    seconds: list[float] = []
    while min(seconds, default=9.0) > 1.7 and len(seconds) < 5:  # 1.0, or 1.8 where it does not count
        house = House({"one-0": late}, experts={"one": {"timeouts": {limit: 1.0}}}, stream=stream)
        began = time.perf_counter()
        assert (await house.refusal()).status == 504
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 1.7


@pytest.mark.parametrize("turns", range(4))
async def test_a_second_that_begins_as_the_first_ends_takes_nothing_from_it(turns: int) -> None:
    """The loop is busy when both are due: the answer of the first comes so many of its turns after the time for a second."""
    loop = asyncio.get_running_loop()

    async def due() -> FakeReply:
        reached: asyncio.Future[None] = loop.create_future()

        def turn(left: int) -> None:
            if left:
                loop.call_soon(turn, left - 1)
            else:
                reached.set_result(None)

        loop.call_later(0.015, time.sleep, 0.01)
        loop.call_later(0.02, turn, turns)
        await reached
        return await WELL()

    house = House({"one-0": due, "one-1": hangs}, replicas=2, experts={"one": {"hedge": 0.02}})
    assert await house.whole() == (200, WHOLE)
    assert house.exchange.usage == Usage(input=8, cached_input=3, output=4)
