from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.events import MAX_EVENT_BYTES, ChunkReader, EventSplitter, EventTooLargeError, payload_of
from gateway.usage import Usage
from tests.fakes.memory import DONE, ERROR_EVENT, ROLE, STOP, USAGE, USAGE_CHUNK, delta, event, split

ENDS = [b"\n", b"\r\n", b"\r"]
LINES = st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b"") or b":"), min_size=1)
# Streams as they should be, and streams of nearly nothing but line ends.
STREAMS = st.one_of(
    st.tuples(st.lists(LINES, max_size=4), st.sampled_from(ENDS)).map(
        lambda given: b"".join(given[1].join(lines) + given[1] * 2 for lines in given[0])
    ),
    st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", "ü".encode()])).map(b"".join),
)


def events_of(*pieces: bytes) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter()
    found = [event for piece in pieces for event in splitter.feed(piece)]
    return found, splitter.rest()


def read(*events: bytes) -> ChunkReader:
    reader = ChunkReader()
    for item in events:
        reader.read(item)
    return reader


@settings(deadline=None, max_examples=300)
@given(STREAMS, st.lists(st.integers(0, 10_000)))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", list(range(100)))
def test_any_split_of_a_stream_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    assert events_of(*split(stream, cuts)) == events_of(stream)


@settings(deadline=None)
@given(STREAMS, st.lists(st.integers(0, 10_000)))
def test_no_byte_is_lost_or_invented(stream: bytes, cuts: list[int]) -> None:
    events, rest = events_of(*split(stream, cuts))
    assert b"".join(events) + rest == stream


@pytest.mark.parametrize("end", ENDS)
@given(cuts=st.lists(st.integers(0, 60)))
def test_every_style_of_line_end_ends_an_event(end: bytes, cuts: list[int]) -> None:
    events = [end.join([b"event: x", "data: wörld".encode()]) + end * 2, b": ping" + end * 2, b"data: [DONE]" + end * 2]
    assert events_of(*split(b"".join(events) + b"data: un", cuts)) == (events, b"data: un")


@pytest.mark.parametrize("end", [b"\n\r\n", b"\r\n\n"])
def test_a_blank_line_ends_an_event_though_its_line_end_is_another(end: bytes) -> None:
    events = [b"data: a" + end, b"data: b" + end]
    assert events_of(b"".join(events)) == (events, b"")
    assert events_of(*(bytes([byte]) for byte in b"".join(events))) == (events, b"")


def test_an_event_comes_out_as_soon_as_it_is_complete() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b"data: a\n")) == []
    assert list(splitter.feed(b"\nda")) == [b"data: a\n\n"]
    assert list(splitter.feed(b"ta: b\n\n")) == [b"data: b\n\n"]
    assert splitter.rest() == b""


def test_an_event_without_end_is_refused() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b"data: " + b"x" * (MAX_EVENT_BYTES - 6))) == []
    with pytest.raises(EventTooLargeError):
        list(splitter.feed(b"x"))


def test_many_events_may_be_larger_than_one_may_be() -> None:
    splitter = EventSplitter()
    half = b"data: " + b"x" * (MAX_EVENT_BYTES // 2) + b"\n\n"
    for _ in range(3):
        assert len(list(splitter.feed(half))) == 1


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("lines", "payload"),
    [
        ([b"data: {}"], b"{}"),
        ([b"data:{}"], b"{}"),
        ([b"data:   [DONE]  "], b"[DONE]"),
        ([b"event: message", b"id: 7", b"data: x"], b"x"),
        ([b"data: x", b"id: 7"], b"x"),
        ([b"data: {", b'data: "a": 1', b"data: }"], b'{\n"a": 1\n}'),
        ([b": keep-alive"], b""),
        ([b": talks of data: x"], b""),
        ([b"retry: 5"], b""),
        ([b""], b""),
    ],
)
def test_the_payload_is_the_data_of_an_event(end: bytes, lines: list[bytes], payload: bytes) -> None:
    assert payload_of(end.join(lines) + end * 2) == payload


@pytest.mark.parametrize("end", ENDS)
def test_a_reader_understands_every_style_of_line_end(end: bytes) -> None:
    reader = read(*(item.replace(b"\n", end) for item in (ROLE, delta(content="x"), USAGE_CHUNK, DONE)))
    assert (reader.content, reader.ended, reader.failed) == (True, True, False)
    assert reader.usage == Usage(8, 3, 4)


def test_the_last_chunk_with_usage_and_no_choices_is_the_usage_chunk() -> None:
    reader = ChunkReader()
    assert reader.read(USAGE_CHUNK) is True
    assert reader.usage == Usage(input=8, cached_input=3, output=4)


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE},
        {"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": USAGE},
    ],
)
def test_usage_beside_choices_is_read_and_its_chunk_stays(chunk: Any) -> None:
    reader = ChunkReader()
    assert reader.read(event(chunk)) is False
    assert reader.usage == Usage(8, 3, 4)


def test_running_totals_of_usage_are_counted_once() -> None:
    totals = [event({"choices": [{"delta": {"content": "x"}}], "usage": {"completion_tokens": n}}) for n in (1, 2, 3)]
    assert read(*totals, event({"choices": [], "usage": {"completion_tokens": 3}})).usage == Usage(output=3)


@pytest.mark.parametrize(
    "chunk", [{"choices": [], "usage": None}, {"choices": []}, {"choices": [], "prompt_filter": 1}]
)
def test_a_chunk_without_choices_that_tells_no_usage_is_not_the_usage_chunk(chunk: Any) -> None:
    reader = ChunkReader()
    assert reader.read(event(chunk)) is False
    assert reader.usage is None


@pytest.mark.parametrize(
    "said",
    [
        {"content": "x"},
        {"content": " "},
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}]},
        {"function_call": {"name": "f"}},
        {"audio": {"data": "AAAA"}},
        {"role": "assistant", "content": None, "tool_calls": [{"index": 0}]},
    ],
)
def test_whatever_a_delta_says_is_content(said: Any) -> None:
    reader = read(delta(**said))
    assert reader.content
    assert not reader.ended


@pytest.mark.parametrize(
    "silent",
    [
        ROLE,
        delta(),
        delta(content=None),
        delta(role="assistant", content=None, tool_calls=[], refusal=None, reasoning_content=""),
        event({"choices": [{"index": 0, "delta": None}]}),
        event({"choices": []}),
        event({"choices": None}),
        event({}),
        b": keep-alive\n\n",
        b"\n\n",
        b"data: \n\n",
    ],
)
def test_a_chunk_that_says_nothing_is_no_content(silent: bytes) -> None:
    reader = read(silent)
    assert (reader.content, reader.failed, reader.ended) == (False, False, False)


def test_a_text_completion_s_chunk_is_content() -> None:
    assert read(event({"choices": [{"index": 0, "text": "x"}]})).content
    assert not read(event({"choices": [{"index": 0, "text": ""}]})).content


@pytest.mark.parametrize("last", [STOP, delta("length"), delta("tool_calls"), DONE, b"data:[DONE]\r\n\r\n"])
def test_a_finish_reason_or_done_is_the_proper_end(last: bytes) -> None:
    assert not read(delta(content="x")).ended
    assert read(delta(content="x"), last).ended


def choice(index: int, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": index, "delta": {"content": "x"}, "finish_reason": finish}]})


def test_a_stream_of_several_choices_ends_when_each_of_them_has() -> None:
    both = [choice(0), choice(1), choice(0, "stop")]
    assert not read(*both).ended
    assert not read(*both, choice(1)).ended
    assert read(*both, choice(1, "length")).ended
    assert read(*both, DONE).ended


def test_done_is_not_the_usage_chunk() -> None:
    assert ChunkReader().read(DONE) is False


def test_what_was_said_stays_said() -> None:
    reader = read(delta(content="x"), ROLE, delta(), b": keep-alive\n\n")
    assert reader.content


def test_an_answer_that_ends_at_once_has_said_all_it_has_to_say() -> None:
    assert read(STOP).content


@pytest.mark.parametrize(
    "failure",
    [
        ERROR_EVENT,
        event({"error": "out of memory"}),
        event({"error": {"message": "x"}, "choices": []}),
        b"event: error\n" + event({"error": {"message": "x"}}),
        event({"choices": [{"delta": {"content": "x"}}], "error": {"message": "x"}}),
    ],
)
def test_an_error_event_is_a_failure(failure: bytes) -> None:
    reader = read(ROLE, failure)
    assert reader.failed
    assert not reader.ended


@pytest.mark.parametrize("nothing", [None, {}, "", []])
def test_an_error_that_is_empty_is_none(nothing: Any) -> None:
    assert not read(event({"choices": [{"delta": {"content": "x"}}], "error": nothing})).failed


TALK = st.sampled_from(
    ['"usage": {"prompt_tokens": 9}', '{"error": {"message": "x"}}', "[DONE]", "data: [DONE]\n\n", '"']
)


@given(
    st.lists(TALK | st.text(max_size=9)).map("".join), st.sampled_from(["content", "reasoning_content"]), st.booleans()
)
def test_content_that_talks_of_usage_errors_and_ends_is_only_content(text: str, key: str, spaced: bool) -> None:
    arguments = [{"index": 0, "function": {"arguments": text}}]
    chunk = {"choices": [{"index": 0, "delta": {key: text, "tool_calls": arguments}, "finish_reason": None}]}
    separators = None if spaced else (",", ":")
    reader = ChunkReader()
    assert reader.read(b"data: " + json.dumps(chunk, separators=separators).encode() + b"\n\n") is False
    assert reader.usage is None
    assert (reader.content, reader.failed, reader.ended) == (True, False, False)


@settings(deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
@example(b'{"choices":' + b"[" * 100_000)
@example(b'{"choices":[{"delta":5}],"usage":{"prompt_tokens":"x"}}')
def test_an_event_that_cannot_be_read_is_passed_over(payload: bytes) -> None:
    reader = ChunkReader()
    assert reader.read(b"data: " + payload + b"\n\n") is False
    assert reader.usage is None


def test_who_takes_no_more_events_has_had_those_that_he_took() -> None:
    splitter = EventSplitter()
    events = splitter.feed(b"data: a\n\ndata: b\n\ndata: c\n\nda")
    assert [next(events), next(events)] == [b"data: a\n\n", b"data: b\n\n"]
    events.close()  # type: ignore[attr-defined]
    assert splitter.rest() == b"data: c\n\nda"
    assert list(splitter.feed(b"ta: d\n\n")) == [b"data: c\n\n", b"data: d\n\n"]


def chunk_of(index: int, text: str = "", finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def test_an_empty_finish_reason_finishes_nothing_and_says_nothing() -> None:
    reader = ChunkReader()
    reader.read(chunk_of(0, "", ""))
    assert not reader.content
    reader.read(chunk_of(0, "word", ""))
    assert (reader.content, reader.ended) == (True, False)
    reader.read(chunk_of(0, "", "stop"))
    assert reader.ended


def test_an_answer_that_is_over_before_another_has_begun_is_not_all_of_them() -> None:
    reader = ChunkReader(2)
    for one in (chunk_of(0, "a"), chunk_of(0, "", "stop")):
        reader.read(one)
        assert not reader.ended
    reader.read(chunk_of(1, "b"))
    reader.read(chunk_of(1, "", "stop"))
    assert (reader.ended, reader.over) == (True, False)
    reader.read(b"data: [DONE]\n\n")
    assert reader.over
