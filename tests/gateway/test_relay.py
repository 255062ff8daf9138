from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ANTHROPIC, OPENAI
from gateway.events import MAX_EVENT_BYTES
from gateway.exchange import Exchange, Outcome
from gateway.relay import HEARTBEAT, Relay
from gateway.requests.chat import Chat
from gateway.requests.message import MessageRequest
from gateway.upstreams.base import UpstreamError
from gateway.usage import Usage
from router.experts import Expert, Timeouts
from router.upstream import Upstream
from tests.fakes.memory import (
    DONE,
    ERROR_EVENT,
    ROLE,
    STOP,
    USAGE_CHUNK,
    FakeReply,
    Hang,
    Later,
    Pause,
    Step,
    delta,
    split,
)

NAGGING: list[Step] = [b": ping\n\n", Later()] * 1_000_000
TALKING: list[Step] = [delta(content="on and on "), Later()] * 1_000_000
EMBEDDED = Upstream(embedded="smollm2")
PING = b": ping\n\n"
WORDS = [delta(content=word) for word in ("Hel", "lo ", "wörld 🌍", '"usage": {"x"')]
ANSWER = [ROLE, *WORDS, STOP, USAGE_CHUNK, DONE]


def relay_of(
    *steps: Step, hide_usage: bool = False, heartbeat: float | None = None, **timeouts: float
) -> tuple[Relay, Exchange, FakeReply]:
    reply = FakeReply(*steps)
    exchange = Exchange("req-1", "chat.completions", stream=True)
    options = {} if hide_usage else {"stream_options": {"include_usage": True}}
    chat = Chat.parse(json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True, **options}).encode())
    expert = Expert(
        model="m", domains={"code": 1}, upstream=EMBEDDED, timeouts=Timeouts(**timeouts), heartbeat=heartbeat
    )
    return Relay(reply.chunks(), exchange, chat, OPENAI, expert), exchange, reply


async def carried(relay: Relay) -> list[bytes]:
    await relay.first()
    return [chunk async for chunk in relay.rest()]


async def refusal(relay: Relay) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await relay.first()
    return caught.value


def error_code(last: bytes) -> str:
    assert last.startswith(b"data: ")
    assert last.endswith(b"\n\n")
    code = json.loads(last.removeprefix(b"data: "))["error"]["code"]
    assert isinstance(code, str)
    return code


async def test_nothing_is_let_go_before_the_expert_has_said_something() -> None:
    relay, exchange, reply = relay_of(PING, ROLE, PING, WORDS[0], WORDS[1], STOP, DONE)
    await relay.first()
    assert reply.taken == 4
    assert exchange.first_token is not None
    rest: Any = relay.rest()
    assert await anext(rest) == PING + ROLE + PING + WORDS[0]
    await rest.aclose()


async def test_content_that_came_with_the_first_chunk_is_held_whole() -> None:
    relay, _, _ = relay_of(ROLE + WORDS[0] + WORDS[1], STOP, DONE)
    assert (await carried(relay))[0] == ROLE + WORDS[0] + WORDS[1]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000)), st.booleans(), st.sampled_from([b"", b": bye\n\n", b"data: unfinished"]))
def test_the_bytes_arrive_as_the_expert_sent_them_however_they_were_split(
    cuts: list[int], hide_usage: bool, tail: bytes
) -> None:
    relay, exchange, _ = relay_of(*split(b"".join(ANSWER) + tail, cuts), hide_usage=hide_usage)
    got = b"".join(asyncio.run(carried(relay)))
    assert got == b"".join(item for item in ANSWER if not (hide_usage and item is USAGE_CHUNK)) + tail
    assert relay.outcome is Outcome.OK
    assert exchange.usage == Usage(input=8, cached_input=3, output=4)


@pytest.mark.parametrize("hide", [True, False])
async def test_a_usage_chunk_is_hidden_from_clients_that_did_not_ask(hide: bool) -> None:
    relay, exchange, _ = relay_of(*ANSWER, hide_usage=hide)
    assert (USAGE_CHUNK in await carried(relay)) is not hide
    assert exchange.usage == Usage(8, 3, 4)


async def test_usage_that_rides_on_a_chunk_with_choices_is_passed_even_when_hidden() -> None:
    last = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"completion_tokens":2}}\n\n'
    relay, exchange, _ = relay_of(ROLE, WORDS[0], last, DONE, hide_usage=True)
    assert last in await carried(relay)
    assert exchange.usage == Usage(output=2)


@pytest.mark.parametrize("before", [[], [ROLE], [PING, ROLE], [b""]])
async def test_an_error_event_before_content_lets_another_be_asked(before: list[bytes]) -> None:
    relay, exchange, _ = relay_of(*before, ERROR_EVENT, DONE)
    error = await refusal(relay)
    assert error.outcome is Outcome.STREAM_ERROR
    assert "10.0.0.5" not in str(error)
    assert exchange.first_token is None


async def test_an_error_event_right_behind_the_first_content_still_lets_another_be_asked() -> None:
    relay, _, _ = relay_of(ROLE + WORDS[0] + ERROR_EVENT)
    assert (await refusal(relay)).outcome is Outcome.STREAM_ERROR


@pytest.mark.parametrize("steps", [[], [ROLE], [ROLE, PING], [WORDS[0][:-1]]])
async def test_a_stream_that_ends_before_it_says_anything_lets_another_be_asked(steps: list[bytes]) -> None:
    assert (await refusal(relay_of(*steps)[0])).outcome is Outcome.TRUNCATED


@pytest.mark.parametrize("outcome", [Outcome.TRUNCATED, Outcome.CONNECT_ERROR, Outcome.TIMEOUT])
async def test_a_connection_that_fails_before_content_lets_another_be_asked(outcome: Outcome) -> None:
    assert (await refusal(relay_of(ROLE, UpstreamError(outcome, "x"))[0])).outcome is outcome


@settings(deadline=None)
@given(st.integers(1, len(WORDS)), st.booleans(), st.lists(st.integers(0, 5000), max_size=4))
def test_an_error_after_content_gives_the_client_one_error_event_and_no_more(
    words: int, together: bool, cuts: list[int]
) -> None:
    before = b"".join([ROLE, *WORDS[:words]])
    failure = ERROR_EVENT + DONE if together else ERROR_EVENT
    relay, _, reply = relay_of(ROLE + WORDS[0], *split(before[len(ROLE + WORDS[0]) :] + failure, cuts), Hang())
    got = asyncio.run(carried(relay))
    *passed, last = got
    assert b"".join(passed) == before
    assert error_code(last) == "upstream_stream_error"
    assert b"10.0.0.5" not in last
    assert relay.outcome is Outcome.STREAM_ERROR
    assert reply.taken < len(reply.steps)


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        ([], Outcome.TRUNCATED),
        ([b'data: {"choices":[{"delta":{"content":"cut o'], Outcome.TRUNCATED),
        ([UpstreamError(Outcome.TRUNCATED, "its answer broke off")], Outcome.TRUNCATED),
        ([UpstreamError(Outcome.CONNECT_ERROR, "x")], Outcome.CONNECT_ERROR),
        ([Hang()], Outcome.TIMEOUT),
        ([b"data: " + b"x" * MAX_EVENT_BYTES], Outcome.STREAM_ERROR),
    ],
)
async def test_a_stream_that_breaks_off_gives_whole_events_and_one_error_event(
    steps: list[Step], outcome: Outcome
) -> None:
    relay, _, _ = relay_of(ROLE, WORDS[0], WORDS[1], *steps, idle=0.02)
    *passed, last = await carried(relay)
    assert b"".join(passed) == ROLE + WORDS[0] + WORDS[1]
    assert error_code(last) == f"upstream_{outcome}"
    assert relay.outcome is outcome


async def test_an_event_without_end_before_content_lets_another_be_asked() -> None:
    assert (await refusal(relay_of(b"data: " + b"x" * MAX_EVENT_BYTES)[0])).outcome is Outcome.STREAM_ERROR


@pytest.mark.parametrize("end", [[STOP], [STOP, USAGE_CHUNK], [DONE]])
@pytest.mark.parametrize("breaks", [UpstreamError(Outcome.TRUNCATED, "x"), Hang()])
async def test_what_breaks_off_behind_the_end_of_the_answer_is_no_failure(end: list[bytes], breaks: Step) -> None:
    relay, _, _ = relay_of(ROLE, WORDS[0], *end, breaks, idle=0.02)
    assert b"".join(await carried(relay)) == b"".join([ROLE, WORDS[0], *end])
    assert relay.outcome is Outcome.OK


async def test_a_stream_that_ends_with_its_finish_reason_needs_no_done() -> None:
    relay, _, _ = relay_of(ROLE, WORDS[0], STOP)
    assert b"".join(await carried(relay)) == ROLE + WORDS[0] + STOP
    assert relay.outcome is Outcome.OK


async def test_an_expert_that_says_nothing_in_time_lets_another_be_asked() -> None:
    relay, _, _ = relay_of(ROLE, Hang(), first_byte=0.02)
    assert (await refusal(relay)).outcome is Outcome.TIMEOUT


async def test_keep_alive_comments_do_not_put_off_the_first_byte_s_time_out() -> None:
    relay, _, _ = relay_of(*NAGGING, first_byte=0.02)
    assert (await refusal(relay)).outcome is Outcome.TIMEOUT


async def test_waiting_for_the_first_content_is_not_bound_by_the_idle_time_out() -> None:
    relay, _, _ = relay_of(*[Later()] * 50, WORDS[0], DONE, idle=1e-9)
    await relay.first()


async def test_an_answer_that_never_ends_is_ended_by_the_total_time_out() -> None:
    relay, _, _ = relay_of(ROLE, *TALKING, total=0.05)
    assert error_code((await carried(relay))[-1]) == "upstream_timeout"
    assert relay.outcome is Outcome.TIMEOUT


async def test_time_in_which_a_slow_client_takes_the_bytes_is_not_the_expert_s() -> None:
    relay, _, _ = relay_of(WORDS[0], Pause(0.01), WORDS[1], Pause(0.01), STOP + DONE, total=1.0)
    await relay.first()
    got = b""
    async for chunk in relay.rest():
        await asyncio.sleep(0.4)
        got += chunk
    assert relay.outcome is Outcome.OK
    assert got == b"".join([WORDS[0], WORDS[1], STOP, DONE])


async def test_the_total_time_out_bounds_the_wait_for_the_first_content_too() -> None:
    relay, _, _ = relay_of(Hang(), total=0.02)
    assert (await refusal(relay)).outcome is Outcome.TIMEOUT


async def test_a_stream_that_the_client_gave_up_has_no_outcome() -> None:
    relay, _, _ = relay_of(*ANSWER)
    await relay.first()
    rest: Any = relay.rest()
    await anext(rest)
    await rest.aclose()
    assert relay.outcome is None


async def test_the_last_token_is_later_than_the_first() -> None:
    relay, exchange, _ = relay_of(*ANSWER)
    await relay.first()
    first = exchange.first_token
    _ = [chunk async for chunk in relay.rest()]
    assert exchange.first_token == first
    assert first is not None
    assert exchange.last_token is not None
    assert exchange.last_token > first


async def test_a_silent_expert_s_client_gets_a_comment_at_every_heartbeat() -> None:
    relay, exchange, _ = relay_of(Pause(0.05), ROLE, WORDS[0], Pause(0.05), STOP, DONE, heartbeat=0.02)
    got = await carried(relay)
    assert got[0] == HEARTBEAT
    assert got.count(HEARTBEAT) >= 2
    assert b"".join(chunk for chunk in got if chunk != HEARTBEAT) == ROLE + WORDS[0] + STOP + DONE
    assert relay.outcome is Outcome.OK
    assert exchange.first_token is not None


async def test_a_heartbeat_commits_to_the_expert_so_that_its_failure_is_told_in_the_stream() -> None:
    relay, exchange, _ = relay_of(Pause(0.05), ERROR_EVENT, heartbeat=0.01)
    *beats, last = await carried(relay)
    assert set(beats) == {HEARTBEAT}
    assert error_code(last) == "upstream_stream_error"
    assert exchange.first_token is None


@pytest.mark.parametrize("bound", ["first_byte", "total"])
async def test_heartbeats_do_not_put_off_the_time_outs(bound: str) -> None:
    limits: dict[str, Any] = {bound: 0.05}
    relay, _, _ = relay_of(Hang(), heartbeat=0.01, **limits)
    assert error_code((await carried(relay))[-1]) == "upstream_timeout"
    relay, _, _ = relay_of(Hang(), heartbeat=1.0, **limits)
    assert (await refusal(relay)).outcome is Outcome.TIMEOUT


async def test_an_expert_that_speaks_in_time_is_not_given_a_heartbeat() -> None:
    relay, _, _ = relay_of(*ANSWER, heartbeat=5.0)
    assert b"".join(await carried(relay)) == b"".join(ANSWER)


async def test_what_is_waited_for_is_given_up_when_the_relay_is_closed() -> None:
    relay, _, _ = relay_of(Hang(), heartbeat=0.01)
    await relay.first()
    rest: Any = relay.rest()
    await anext(rest)
    await anext(rest)
    await rest.aclose()
    relay.close()
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


def translated(*steps: Step) -> Relay:
    """A chat stream for a client that asked for a message."""
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "stream": True}
    wire = MessageRequest.parse(json.dumps(body).encode()).wires["chat"]
    expert = Expert(model="m", domains={"code": 1}, upstream=EMBEDDED)
    return Relay(FakeReply(*steps).chunks(), Exchange("r", "messages", stream=True), wire, ANTHROPIC, expert)


async def test_a_translated_stream_ends_as_the_client_s_dialect_ends() -> None:
    relay = translated(*ANSWER)
    got = b"".join(await carried(relay))
    assert got.startswith(b"event: message_start\n")
    assert got.rstrip().endswith(b'data: {"type":"message_stop"}')
    assert relay.outcome is Outcome.OK
    assert b"chatcmpl" not in got


@pytest.mark.parametrize("bad", [b'data: {"choices": "none"}\n\n', ERROR_EVENT])
async def test_what_cannot_be_translated_is_one_error_event_and_counted(bad: bytes) -> None:
    relay = translated(ROLE, WORDS[0], bad, STOP, DONE)
    got = b"".join(await carried(relay))
    assert got.count(b"event: error\n") == 1
    assert b"message_stop" not in got
    assert b"10.0.0.5" not in got
    assert relay.outcome is Outcome.STREAM_ERROR


@pytest.mark.parametrize("hide", [True, False])
async def test_an_error_behind_the_end_of_the_answer_is_kept_here_and_nothing_is_sent_twice(hide: bool) -> None:
    relay, _, _ = relay_of(ROLE, WORDS[0], STOP + USAGE_CHUNK + DONE + ERROR_EVENT + PING, hide_usage=hide)
    usage = b"" if hide else USAGE_CHUNK
    assert b"".join(await carried(relay)) == ROLE + WORDS[0] + STOP + usage + DONE
    assert relay.outcome is Outcome.OK


async def test_an_expert_that_sends_on_and_on_and_says_nothing_lets_another_be_asked() -> None:
    relay, _, reply = relay_of(*[b": " + b"x" * 100_000 + b"\n\n"] * 400)
    assert (await refusal(relay)).outcome is Outcome.STREAM_ERROR
    assert reply.taken < 400


@pytest.mark.parametrize("hide", [True, False])
async def test_usage_is_read_and_hidden_though_no_blank_line_ends_it(hide: bool) -> None:
    relay, exchange, _ = relay_of(ROLE, WORDS[0], STOP, USAGE_CHUNK[:-2], hide_usage=hide)
    assert b"".join(await carried(relay)) == ROLE + WORDS[0] + STOP + (b"" if hide else USAGE_CHUNK[:-2])
    assert (relay.outcome, exchange.usage) == (Outcome.OK, Usage(8, 3, 4))


async def test_an_error_behind_the_end_that_no_blank_line_ends_is_kept_here_too() -> None:
    relay, _, _ = relay_of(ROLE, WORDS[0], STOP, ERROR_EVENT[:-2])
    assert b"".join(await carried(relay)) == ROLE + WORDS[0] + STOP


async def test_a_server_that_does_not_close_behind_the_end_is_not_waited_for_long() -> None:
    relay, _, _ = relay_of(ROLE, WORDS[0], STOP, DONE, Hang(), idle=60)
    assert b"".join(await asyncio.wait_for(carried(relay), 10)) == ROLE + WORDS[0] + STOP + DONE
    assert relay.outcome is Outcome.OK


async def test_an_event_whose_first_line_came_before_is_not_passed_on_ahead_of_it() -> None:
    plain = [b'data: {"choices":[{"index":0,"delta":{"content":"%d"},"finish_reason":null}]}\n\n' % i for i in range(4)]
    steps = [ROLE, plain[0], b"id: 7\n", plain[1], b": note\n", plain[2] + plain[3], STOP, DONE]
    assert b"".join(await carried(relay_of(*steps)[0])) == b"".join(steps)
