"""What a reader takes for plain says nothing that it would have learnt."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.events import ChunkReader
from tests.fakes.memory import DONE, ERROR_EVENT, ROLE, STOP, USAGE_CHUNK, delta, event

TEXTS = st.text(max_size=8) | st.sampled_from(
    ['"finish_reason":null', '"error":{}', "\n\n", "data: {", '"usage": {"a":1}', "[DONE]", '"index":0', "\r", "é"]
)


def vllm(**fields: Any) -> bytes:
    """In the spelling of vLLM."""
    import msgspec

    choice = {"index": 0, "delta": fields, "logprobs": None, "finish_reason": None}
    return b"data: " + msgspec.json.encode({"id": "c", "choices": [choice]}) + b"\n\n"


EVENTS = st.one_of(
    TEXTS.map(lambda text: vllm(content=text)),
    TEXTS.map(lambda text: delta(content=text)),
    TEXTS.map(lambda text: vllm(tool_calls=[{"index": 1, "function": {"arguments": text}}])),
    TEXTS.map(lambda text: event({"choices": [{"index": 1, "delta": {"content": text}, "finish_reason": None}]})),
    TEXTS.map(lambda text: event({"choices": [], "x": text, "error": {"message": text}})),
    st.sampled_from(
        [ROLE, STOP, DONE, USAGE_CHUNK, ERROR_EVENT, b": ping\n\n", b"data: {}\n\n", b"event: x\ndata: 1\n\n"]
    ),
    st.binary(max_size=20).map(lambda raw: b"data: {" + raw + b"}\n\n"),
    st.binary(max_size=20),
)


@settings(max_examples=500)
@given(st.lists(EVENTS, max_size=3), st.lists(EVENTS, min_size=1, max_size=4))
def test_what_is_plain_teaches_nothing(before: list[bytes], chunk: list[bytes]) -> None:
    from gateway.events import EventSplitter

    reader = ChunkReader()
    for one in before:
        reader.read(one)
    whole = b"".join(chunk)
    if not reader.is_plain(whole):
        return
    state = copy.copy(vars(reader))
    begun, finished = set(reader._begun), set(reader._finished)
    splitter = EventSplitter()
    for one in splitter.feed(whole):
        assert reader.read(one) is False
    assert splitter.rest() == b""
    assert vars(reader) == state
    assert (reader._begun, reader._finished) == (begun, finished)


def test_vllm_s_own_chunks_are_plain_once_something_was_said() -> None:
    reader = ChunkReader()
    assert not reader.is_plain(vllm(content="a"))
    reader.read(ROLE)
    reader.read(vllm(content="a"))
    assert reader.is_plain(vllm(content="b"))
    assert reader.is_plain(vllm(content="b") + vllm(content='says "error": and "finish_reason":null'))
    assert not reader.is_plain(vllm(content="b")[:-1])
    for other in (STOP, DONE, USAGE_CHUNK, ERROR_EVENT, vllm(content="b") + STOP):
        assert not reader.is_plain(other)


def test_another_choice_is_not_plain() -> None:
    reader = ChunkReader(2)
    reader.read(vllm(content="a"))
    second = vllm(content="b").replace(b'"index":0', b'"index":1')
    assert reader.is_plain(vllm(content="b"))
    assert not reader.is_plain(second)
    assert not reader.is_plain(vllm(content="b") + second)
