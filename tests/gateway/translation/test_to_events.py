from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.events import EventSplitter
from gateway.translation.answers import INVALID, SIGNATURE
from gateway.translation.to_events import EventTranslator
from gateway.translation.to_message import message_of
from tests.fakes.memory import split
from tests.gateway.translation.accumulator import Accumulator, StreamError
from tests.gateway.translation.completions import DONE, Answer, answers, called, chunk, event, streams, usage_chunk


def translated(*pieces: bytes, model: str | None = None) -> bytes:
    splitter, translator = EventSplitter(), EventTranslator(model)
    events = [translator.feed(event) for piece in pieces for event in splitter.feed(piece)]
    return b"".join([*events, translator.end()])


def read(*pieces: bytes) -> Accumulator:
    return Accumulator().read(translated(*pieces))


def blocks(*events: bytes, finish: str = "stop") -> Any:
    read_whole = read(*events, chunk({}, finish), DONE)
    assert read_whole.done
    return read_whole.message["content"]


def tool(number: int, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"call_{number}", "name": f"f{number}", "input": given}


def begun(number: int, arguments: str | None = None) -> bytes:
    return chunk(called(number, arguments, f"call_{number}", f"f{number}"))


def test_a_stream_of_text() -> None:
    stream = translated(
        chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk({}, "stop"), usage_chunk(), DONE
    )
    message = Accumulator().read(stream).message
    assert message == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 6,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
        },
    }
    assert Accumulator().read(stream).events == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


@settings(deadline=None, max_examples=150)
@given(st.data(), answers(), st.lists(st.integers(0, 10_000), max_size=4))
def test_whatever_the_order_the_stream_gives_the_message_of_the_whole_answer(
    data: st.DataObject, answer: Answer, cuts: list[int]
) -> None:
    streamed = read(*split(data.draw(streams(answer)), cuts))
    assert streamed.done
    assert _joined(streamed.message) == _joined(json.loads(message_of(answer.whole)))


def _joined(message: dict[str, Any]) -> dict[str, Any]:
    """With its thoughts in one, and its texts: a stream may have come back to either after something else."""
    content = message["content"]
    thinking = "".join(block["thinking"] for block in content if block["type"] == "thinking")
    text = "".join(block["text"] for block in content if block["type"] == "text")
    return {**message, "content": [thinking, text, *(block for block in content if block["type"] == "tool_use")]}


@settings(deadline=None, max_examples=50)
@given(st.data(), answers())
def test_a_whole_answer_in_order_streams_block_by_block(data: st.DataObject, answer: Answer) -> None:
    order = sorted(
        answer.deltas, key=lambda d: d["tool_calls"][0]["index"] if "tool_calls" in d else -2 + ("content" in d)
    )
    answer.deltas = order
    assert read(data.draw(streams(answer))).message == json.loads(message_of(answer.whole))


def test_every_piece_of_the_first_block_that_is_not_whole_is_sent_at_once() -> None:
    translator = EventTranslator()
    for piece, sent in [
        (chunk({"content": "a"}), b'"text":"a"'),
        (chunk({"reasoning": "b"}), b'"thinking":"b"'),
        (begun(0, '{"x"'), b'"partial_json":"{\\"x\\""'),
        (chunk(called(0, ":1}")), b'"partial_json":":1}"'),
        (begun(1, "{"), b'"partial_json":"{"'),
    ]:
        assert sent in translator.feed(piece)


def test_calls_in_turns_come_one_after_the_other() -> None:
    turns = [begun(0, '{"x"'), begun(1, '{"y"'), chunk(called(0, ":1}")), chunk(called(1, ":2}"))]
    assert blocks(*turns, finish="tool_calls") == [tool(0, x=1), tool(1, y=2)]


def test_two_calls_in_one_chunk() -> None:
    both = {"tool_calls": called(0, "{}", "call_0", "f0")["tool_calls"] + called(1, "{}", "call_1", "f1")["tool_calls"]}
    assert blocks(chunk(both)) == [tool(0), tool(1)]


def test_text_after_a_call_and_amid_one() -> None:
    after = [{"type": "text", "text": "A"}, tool(0, x=1), {"type": "text", "text": "B"}]
    assert blocks(chunk({"content": "A"}), begun(0, '{"x":1}'), chunk({"content": "B"})) == after
    assert blocks(chunk({"content": "A"}), begun(0, '{"x"'), chunk({"content": "B"}), chunk(called(0, ":1}"))) == after


def test_a_brace_inside_of_the_arguments_ends_no_call() -> None:
    pieces = [begun(0, '{"x": {"y": 1}'), begun(1, '{"z": "}'), chunk(called(0, "}")), chunk(called(1, '"}'))]
    assert blocks(*pieces) == [tool(0, x={"y": 1}), tool(1, z="}")]


def test_a_call_whose_name_comes_late_waits_for_it() -> None:
    late = [chunk(called(0, "{", "call_0")), chunk(called(0, "}", None, "f0"))]
    assert blocks(*late) == [tool(0)]
    assert blocks(chunk(called(0, "{}", "call_0")))[0]["name"] == ""


def test_a_call_that_repeats_its_id_and_name_is_one_call() -> None:
    again = called(0, ":1}", "call_0", "f0")
    assert blocks(begun(0, '{"x"'), chunk(again)) == [tool(0, x=1)]
    # One that waits, as the call before it is not whole yet.
    assert blocks(begun(1, "{"), begun(0, '{"x"'), chunk(again), chunk(called(1, "}"))) == [tool(1), tool(0, x=1)]


def test_calls_that_all_have_the_index_0_are_told_apart_by_their_ids() -> None:
    assert blocks(begun(0, '{"x":1}'), chunk(called(0, '{"y":2}', "call_1", "f1"))) == [tool(0, x=1), tool(1, y=2)]


def test_a_call_without_an_index_goes_on_with_the_last() -> None:
    piece = called(0, "}")
    del piece["tool_calls"][0]["index"]
    assert blocks(begun(0, "{}"), begun(1, "{"), chunk(piece)) == [tool(0), tool(1)]


def test_a_call_without_an_id_gets_one() -> None:
    (block,) = blocks(chunk(called(0, "{}", None, "f0")))
    assert block["id"].startswith("toolu_")


def test_arguments_that_are_json_and_no_string() -> None:
    delta = called(0, None, "call_0", "f0")
    delta["tool_calls"][0]["function"]["arguments"] = {"x": 1}
    assert blocks(chunk(delta)) == [tool(0, x=1)]


def test_thinking_under_either_name_is_told_once_and_signed() -> None:
    both = chunk({"reasoning": "a", "reasoning_content": "a"})
    thought = {"type": "thinking", "thinking": "ab", "signature": SIGNATURE}
    assert blocks(both, chunk({"reasoning": "b"}), chunk({"content": "c"})) == [thought, {"type": "text", "text": "c"}]


def test_content_in_parts() -> None:
    assert blocks(chunk({"content": [{"type": "text", "text": "a"}, {"type": "x"}]})) == [{"type": "text", "text": "a"}]


def test_other_choices_are_not_mixed_in() -> None:
    assert blocks(chunk({"content": "a"}), chunk({"content": "no"}, index=1)) == [{"type": "text", "text": "a"}]


@pytest.mark.parametrize(
    ("last", "reason", "sequence"),
    [
        (chunk({}, "stop"), "end_turn", None),
        (chunk({}, "length"), "max_tokens", None),
        (chunk({}, "tool_calls"), "tool_use", None),
        (chunk({}, "content_filter"), "refusal", None),
        (chunk({}, "stop", stop_reason="END"), "stop_sequence", "END"),
        (chunk({}, "stop", matched_stop="END"), "stop_sequence", "END"),
        (chunk({}, "stop", stop_reason=151645), "end_turn", None),
        (chunk({"refusal": "no"}, "stop"), "refusal", None),
        (begun(0, "{}") + chunk({}, "stop"), "tool_use", None),
        (begun(0, "{") + chunk({}, "length"), "max_tokens", None),
        (b"", "end_turn", None),  # [DONE] alone
    ],
)
def test_reasons_to_stop(last: bytes, reason: str, sequence: str | None) -> None:
    text = translated(chunk({"content": "a"}), last, DONE)
    (ending,) = (
        json.loads(e.split(b"data: ")[1]) for e in text.split(b"\n\n") if e.startswith(b"event: message_delta")
    )
    assert ending["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


def test_an_empty_finish_reason_is_none() -> None:
    with pytest.raises(StreamError):
        read(chunk({"content": "a"}, ""))


def test_usage_of_every_chunk_is_a_running_total_and_the_first_is_told_at_once() -> None:
    totals = [{"prompt_tokens": 7, "completion_tokens": n} for n in (1, 2, 3)]
    stream = translated(
        chunk({}, usage=totals[0]), chunk({"content": "a"}, usage=totals[1]), chunk({}, "stop", totals[2]), DONE
    )
    first = json.loads(stream.split(b"data: ")[1].split(b"\n")[0])
    assert first["message"]["usage"]["input_tokens"] == 7
    usage = Accumulator().read(stream).message["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (7, 3)


def test_a_stream_without_usage_ends_all_the_same() -> None:
    assert read(chunk({"content": "a"}), chunk({}, "stop")).message["usage"]["output_tokens"] == 0


def test_an_answer_of_nothing_is_a_message_of_nothing() -> None:
    assert blocks(chunk({"role": "assistant", "content": ""})) == []
    assert read(DONE).message["content"] == []


def test_an_answer_that_breaks_off_is_no_message_that_ended() -> None:
    for before in (b"", chunk({"content": "a"}), begun(0, "{")):
        with pytest.raises(StreamError, match="broke off"):
            read(before)


@pytest.mark.parametrize(
    "failed",
    [
        event({"error": {"message": "engine died", "code": 500}}),
        event({"error": "engine died"}),
        b"event: error\n" + event({"error": {"message": "engine died"}}),
    ],
)
def test_an_error_amid_the_stream_ends_it(failed: bytes) -> None:
    with pytest.raises(StreamError) as caught:
        read(chunk({"content": "a"}), failed)
    assert caught.value.args == ("api_error", "engine died")
    assert translated(chunk({"content": "a"}), failed, chunk({"content": "b"}), DONE).endswith(b'"engine died"}}\n\n')


@pytest.mark.parametrize(
    "nonsense", [b"data: {\n\n", b"data: [1]\n\n", b'data: {"choices": 3}\n\n', b'data: {"id": "\xff"}\n\n']
)
def test_what_is_no_chunk_is_a_failure(nonsense: bytes) -> None:
    with pytest.raises(StreamError, match="no chat completion"):
        read(chunk({"content": "a"}), nonsense)


def test_a_failure_that_others_see_is_told_once() -> None:
    translator = EventTranslator()
    started = translator.feed(chunk({"content": "a"}))
    failure = translator.fail("overloaded_error", "try later")
    with pytest.raises(StreamError, match="try later"):
        Accumulator().read(started + failure)
    assert translator.failed
    rest = [
        translator.fail("api_error", "x"),
        translator.feed(chunk({"content": "b"})),
        translator.feed(DONE),
        translator.end(),
    ]
    assert rest == [b""] * 4


def test_nothing_comes_after_the_end() -> None:
    translator = EventTranslator()
    assert translator.feed(chunk({"content": "a"}, "stop")) + translator.feed(DONE)
    assert [translator.feed(chunk({"content": "b"})), translator.end(), translator.fail("api_error", "x")] == [b""] * 3
    assert not translator.failed


def test_comments_go_through_and_other_events_do_not() -> None:
    translator = EventTranslator()
    assert translator.feed(b": keep-alive\n\n") == b": keep-alive\n\n"
    assert translator.feed(b": one\r\ndata:\r\nid: 1\r\n: two\r\n\r\n") == b": one\n: two\n\n"
    assert translator.feed(b"event: ping\n\n") == b""
    assert translator.feed(event({"object": "x"})) == b""


def test_the_name_that_the_client_is_told() -> None:
    assert b'"model":"mine"' in translated(chunk({}, "stop"), DONE, model="mine")


def test_half_a_character_alone_is_replaced() -> None:
    lone = b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n'
    assert blocks(lone) == [{"type": "text", "text": "a?"}]


def test_what_follows_a_whole_call_cannot_be_told_and_is_left_out() -> None:
    assert blocks(begun(0, "{}"), chunk({"content": "a"}), chunk(called(0, "}"))) == [
        tool(0),
        {"type": "text", "text": "a"},
    ]
    assert INVALID not in str(blocks(begun(0, "{}")))


def test_a_stream_of_many_calls_in_turns_takes_time_in_proportion() -> None:
    translator, pieces = EventTranslator(), 4_000
    begun_at = time.process_time()
    translator.feed(begun(0, '{"x": "'))
    translator.feed(begun(1, '{"x": "'))
    for _ in range(pieces):
        translator.feed(chunk(called(0, "ab ")))
        translator.feed(chunk(called(1, "ab ")))
        translator.feed(chunk({"content": "c"}))
    stream = translator.feed(chunk({}, "stop") + b"") + translator.end()
    assert stream.count(b"ab " * 100) >= 1
    assert time.process_time() - begun_at < 10
