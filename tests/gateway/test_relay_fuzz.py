"""A fuzzer on the relay: streams of every dialect, whole, mutated and invented, cut anywhere.

Whatever comes, nothing is raised, the client gets whole events of the expert's in their order, and at most one error event.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.errors import ANTHROPIC
from gateway.events import MAX_EVENT_BYTES, EventSplitter
from gateway.exchange import Exchange, Outcome
from gateway.relay import Relay
from gateway.requests.base import ModelRequest, Wire
from gateway.requests.chat import Chat
from gateway.requests.completion import Completion
from gateway.requests.message import MessageRequest
from gateway.requests.response import ResponseRequest
from gateway.upstreams.base import UpstreamError
from gateway.usage import Usage
from router.experts import Expert, Timeouts
from router.upstream import Upstream
from tests.fakes.memory import FakeReply, Step, split

FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
EXPERT = Expert(model="m", domains={"code": 1}, upstream=Upstream(embedded="smollm2"), timeouts=Timeouts())
USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "input_tokens": 11, "output_tokens": 4}
ENDS = [b"\n", b"\r\n", b"\r"]
TRICKY = [
    '"usage":{',
    '"error":{"message":"x"}',
    "[DONE]",
    "data: [DONE]\n\n",
    "\r\n",
    "\0",
    "ü🌍",
    "\ufeff",
    "\\",
    "event: error\n",
]
Event = list[bytes]  # its lines


def data(value: Any, name: str = "", spread: bool = False) -> Event:
    """An event; `spread` over as many lines of data as its JSON has."""
    compact = None if spread else (",", ":")  # as vLLM spells it
    lines = json.dumps(value, ensure_ascii=False, indent=1 if spread else None, separators=compact).split("\n")
    return [f"event: {name}".encode()] * bool(name) + [f"data: {line}".encode() for line in lines]


def typed(kind: str, **fields: Any) -> Event:
    return data({"type": kind, **fields}, kind)


def chat_events(words: Sequence[str], spread: bool) -> list[Event]:
    """With many words their usage so far rides on the last of them, as some servers have it."""

    def chunk(delta: Any, finish: str | None = None, **more: Any) -> Event:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return data({"id": "c1", "choices": [choice], **more}, spread=spread)

    *said, last = (chunk({"content": word}) for word in words)
    last = chunk({"content": words[-1]}, usage=USAGE) if len(words) > 2 else last
    usage = data({"id": "c1", "choices": [], "usage": USAGE}, spread=spread)
    return [chunk({"role": "assistant", "content": ""}), *said, last, chunk({}, "stop"), usage, [b"data: [DONE]"]]


def text_events(words: Sequence[str], spread: bool) -> list[Event]:
    said = [data({"choices": [{"index": 0, "text": word, "finish_reason": None}]}, spread=spread) for word in words]
    stop = data({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    return [*said, stop, data({"choices": [], "usage": USAGE}, spread=spread), [b"data: [DONE]"]]


def response_events(words: Sequence[str], spread: bool) -> list[Event]:
    said = [typed("response.output_text.delta", delta=word) for word in words]
    ended = data({"type": "response.completed", "response": {"usage": USAGE}}, "response.completed", spread)
    return [typed("response.created", response={"id": "r1", "usage": None}), *said, ended]


def message_events(words: Sequence[str], spread: bool) -> list[Event]:
    said = [typed("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in words]
    begin = data({"type": "message_start", "message": {"usage": {"input_tokens": 11}}}, "message_start", spread)
    delta = typed("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4})
    return [begin, typed("ping"), *said, delta, typed("message_stop")]


@dataclass(frozen=True)
class Dialect:
    """How a client asks, what its expert streams, and what is read of it."""

    kind: type[ModelRequest]
    asked: dict[str, Any]
    events: Callable[[Sequence[str], bool], list[Event]]
    translated: bool = False

    @property
    def request(self) -> ModelRequest:
        return self.kind.parse(json.dumps({"stream": True, **self.asked}).encode())

    @property
    def wire(self) -> Wire:
        wires = self.request.wires
        return wires["chat"] if self.translated else next(iter(wires.values()))


HELLO = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
TOLD = {"stream_options": {"include_usage": True}}
DIALECTS = {
    "chat": Dialect(Chat, HELLO | TOLD, chat_events),
    "chat, usage hidden": Dialect(Chat, HELLO, chat_events),
    "completions": Dialect(Completion, {"prompt": "hi"} | TOLD, text_events),
    "completions, usage hidden": Dialect(Completion, {"prompt": "hi"}, text_events),
    "responses": Dialect(ResponseRequest, {"input": "hi"}, response_events),
    "messages": Dialect(MessageRequest, HELLO, message_events),
    "translated": Dialect(MessageRequest, HELLO, chat_events, translated=True),
}
PASSED = {name: dialect for name, dialect in DIALECTS.items() if not dialect.translated}

WORDS = st.lists(st.text(max_size=8) | st.sampled_from(TRICKY), min_size=1, max_size=5).filter(any)
BETWEEN = st.sampled_from(
    [[b": ping"], [b"retry: 5"], [b"id: 7"], [b"data:"], [b""], [b": data: [DONE]"], [b"event: ping"]]
)
JUNK = st.binary(max_size=6) | st.sampled_from(
    [
        *(
            b"\xef\xbb\xbf",
            b"\0",
            b"\xff\xfe",
            b"\r",
            b"\n",
            b"\n\n",
            b"\r\n\r",
            b'"',
            b"{",
            b"}]}",
            b"data:",
            b"data: {}\n\n",
        ),
        *(
            b'data: {"error":{"message":"x"}}\n\n',
            b"data: [DONE]\n\n",
            b"[" * 3000,
            b"9" * 5000,
            b"1e999",
            b"NaN",
            b"\\ud800",
        ),
        *(b'"index":null,', b'"choices":{},', b'"delta":[],', b'"finish_reason":7,', b'"content":[{}],', b'"usage":9,'),
        *(b'"usage":{"prompt_tokens":-1},', b'"tool_calls":[null],'),
        b'"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{"}}],',
    ]
)
FAILED = b'event: error\ndata: {"type":"error","error":{"message":"x"}}\n\n'  # in every dialect
CUTS = st.lists(st.integers(0, 3000), max_size=12)


@st.composite
def streams(draw: st.DrawFn, events: Callable[[Sequence[str], bool], list[Event]]) -> list[bytes]:
    """A good stream, in its events, with what may stand between them."""
    end = draw(st.sampled_from(ENDS))
    lines: list[Event] = []
    for event in events(draw(WORDS), draw(st.booleans())):
        lines += [*draw(st.lists(BETWEEN, max_size=1)), draw(st.sampled_from([[], [b"id: 1"], [b": note"]])) + event]
    return [end.join(event) + end * 2 for event in lines]


@st.composite
def mutated(draw: st.DrawFn, events: Callable[[Sequence[str], bool], list[Event]]) -> bytes:
    """A good stream to which something happened."""
    stream = b"".join(draw(streams(events)))
    for kind, at, length, junk in draw(
        st.lists(
            st.tuples(st.sampled_from("ircdst"), st.integers(0, 2000), st.integers(0, 90), JUNK), min_size=1, max_size=4
        )
    ):
        at %= len(stream) + 1
        head, piece, tail = stream[:at], stream[at : at + length], stream[at + length :]
        stream = {
            "i": head + junk + piece + tail,
            "r": head + junk + tail,
            "c": head + piece + piece + tail,
            "d": head + tail,
            "s": tail + piece + head,
            "t": head + piece,
        }[kind]
    return stream


def cut_up(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut at the places given, or at the line's or the event's end that comes next: there an event is whole, or looks so."""
    at = []
    for cut in cuts:
        end = (b"", b"\n", b"\n\n")[cut % 3]
        at.append(stream.find(end, cut % (len(stream) + 1)) + len(end))
    return split(stream, at)


def relayed(dialect: Dialect, steps: Sequence[Step]) -> tuple[list[bytes] | None, Relay, Exchange]:
    """What the client gets, None where another expert would be asked; the relay and its books."""
    exchange = Exchange("req-1", "x", stream=True)
    relay = Relay(FakeReply(*steps).chunks(), exchange, dialect.wire, dialect.request.shape, EXPERT)

    async def carry() -> list[bytes] | None:
        try:
            await relay.first()
        except UpstreamError:
            return None
        return [chunk async for chunk in relay.rest()]

    try:
        return asyncio.run(carry()), relay, exchange
    finally:
        relay.close()


def ends_of(stream: bytes) -> set[bytes]:
    """The stream up to each end of an event, by the standard: a line that is empty, whatever ends lines. Line ends aside."""
    found, at = {b""}, 0
    for line_end in re.finditer(rb"\r\n|\n|\r", stream):
        if line_end.start() == at:
            found.add(stream[:at].rstrip(b"\r\n"))
        at = line_end.end()
    return found


def payload(event: bytes) -> Any:
    """The JSON of an event, None where it has none."""
    lines = [line[5:] for line in re.split(rb"\r\n|\n|\r", event) if line.startswith(b"data:")]
    try:
        return json.loads(b"\n".join(lines))
    except (ValueError, RecursionError):
        return None


def is_usage(event: bytes) -> bool:
    """Whether this is the chunk of a good stream that tells usage and nothing else."""
    return payload(event) in ({"id": "c1", "choices": [], "usage": USAGE}, {"choices": [], "usage": USAGE})


def error_of(last: bytes, dialect: Dialect) -> Any:
    """The error that an event tells, which must be one whole event in the client's dialect."""
    assert last.endswith(b"\n\n")
    assert last.count(b"\n\n") == 1
    said = payload(last)
    if dialect.request.shape is ANTHROPIC:
        assert last.startswith(b"event: error\ndata: ")
        assert said["type"] == "error"
    assert said["error"]["message"]
    return said["error"]


def looked_over(dialect: Dialect, stream: bytes, got: list[bytes], relay: Relay) -> None:
    """The output is the input as far as whole events of it go, in order, what must be hidden left out; then one error or none."""
    if relay.outcome is Outcome.OK:
        passed = b"".join(got)
    else:
        *before, last = got
        passed = b"".join(before)
        assert error_of(last, dialect)
    if not dialect.wire.hide_usage:
        assert stream.startswith(passed)
        assert relay.outcome is not Outcome.OK or passed == stream or b'"error"' in stream
        assert relay.outcome is Outcome.OK or passed.rstrip(b"\r\n") in ends_of(stream)
        return
    splitter = EventSplitter()
    for event in [*splitter.feed(stream), splitter.rest()]:
        if is_usage(event) or not passed.startswith(event):
            assert b'"usage"' in event or not passed
        else:
            passed = passed[len(event) :]
    assert not passed


@pytest.mark.parametrize("name", PASSED)
def test_a_good_stream_arrives_byte_for_byte_however_it_was_cut(name: str) -> None:
    dialect = PASSED[name]

    @FUZZ
    @given(streams(dialect.events), CUTS, st.sampled_from([b"", b": bye", b"data: unfinished", b"\r", b"\0", FAILED]))
    def check(events: list[bytes], cuts: list[int], tail: bytes) -> None:
        got, relay, exchange = relayed(dialect, cut_up(b"".join(events) + tail, cuts))
        hides = dialect.wire.hide_usage
        assert got is not None
        assert b"".join(got) == b"".join(e for e in events if not (hides and is_usage(e))) + tail.replace(FAILED, b"")
        assert (relay.outcome, exchange.usage) == (Outcome.OK, Usage(input=11, output=4))

    assert dialect.wire.hide_usage is name.endswith("hidden")
    check()


@pytest.mark.parametrize("name", PASSED)
def test_of_a_mutated_stream_whole_events_arrive_and_one_error_at_most(name: str) -> None:
    dialect = PASSED[name]

    @FUZZ
    @given(mutated(dialect.events), CUTS, st.booleans())
    def check(stream: bytes, cuts: list[int], breaks: bool) -> None:
        steps: list[Step] = [*cut_up(stream, cuts)]
        got, relay, _ = relayed(dialect, [*steps, UpstreamError(Outcome.TRUNCATED, "x")] if breaks else steps)
        if got is not None:
            looked_over(dialect, stream, got, relay)

    check()


@pytest.mark.parametrize("name", PASSED)
def test_how_a_mutated_stream_is_cut_makes_no_difference(name: str) -> None:
    """But for where a failure is met: what came in one piece with it may let another expert be asked."""
    dialect = PASSED[name]

    @FUZZ
    @given(mutated(dialect.events), CUTS)
    def check(stream: bytes, cuts: list[int]) -> None:
        whole, one, _ = relayed(dialect, [stream])
        pieces, other, _ = relayed(dialect, cut_up(stream, cuts))
        if whole is not None and pieces is not None:
            assert b"".join(whole) == b"".join(pieces)
            assert one.outcome == other.outcome

    check()


@pytest.mark.parametrize("name", DIALECTS)
def test_arbitrary_bytes_raise_nothing(name: str) -> None:
    dialect = DIALECTS[name]

    @FUZZ
    @given(st.lists(st.binary(max_size=30) | JUNK, max_size=12))
    @example([b"\xef\xbb\xbf", b"data: {}", b"\n", b"\n"])
    @example([b"data: " + b"[" * 100_000 + b"\n\n"])
    def check(pieces: list[bytes]) -> None:
        stream = b"".join(pieces)
        got, relay, _ = relayed(dialect, pieces)
        if got is not None and not dialect.translated:
            looked_over(dialect, stream, got, relay)

    check()


def told(got: list[bytes]) -> list[Any]:
    """The events of a translated stream, each of which must be whole and named by its type; comments left out."""
    whole = b"".join(got)
    assert whole == b"" or whole.endswith((b"\n\n", b"\r\r", b"\r\n\r\n"))
    found = []
    for event in re.split(rb"\n\n|\r\r|\r\n\r\n", whole):
        if event.startswith(b"event: "):
            name, line = event.split(b"\n")
            said = json.loads(line.removeprefix(b"data: "))
            assert name == b"event: " + said["type"].encode()
            found.append(said)
        else:
            assert not any(line.startswith(b"data") for line in re.split(rb"[\r\n]+", event))
    return found


@FUZZ
@given(streams(chat_events), CUTS)
def test_a_good_stream_is_translated_whole_however_it_was_cut(events: list[bytes], cuts: list[int]) -> None:
    dialect = DIALECTS["translated"]
    got, relay, exchange = relayed(dialect, cut_up(b"".join(events), cuts))
    assert got is not None
    found = told(got)
    words = [p["choices"][0]["delta"].get("content", "") for e in events if (p := payload(e)) and p.get("choices")]
    text = "".join(e["delta"]["text"] for e in found if e["type"] == "content_block_delta")
    assert text == "".join(words)
    kinds = [event["type"] for event in found]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert (relay.outcome, exchange.usage) == (Outcome.OK, Usage(input=11, output=4))


@FUZZ
@given(mutated(chat_events), CUTS, st.booleans())
def test_whatever_is_translated_ends_with_a_whole_message_or_one_error(
    stream: bytes, cuts: list[int], breaks: bool
) -> None:
    dialect = DIALECTS["translated"]
    steps: list[Step] = [*cut_up(stream, cuts)]
    got, relay, _ = relayed(dialect, [*steps, UpstreamError(Outcome.TRUNCATED, "x")] if breaks else steps)
    if got is None:
        return
    kinds = [event["type"] for event in told(got)]
    assert kinds.count("message_start") <= 1
    assert kinds.count("error") + kinds.count("message_stop") == 1
    assert kinds[-1] == ("message_stop" if relay.outcome is Outcome.OK else "error")


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize(
    "unit", [b"data: " + b"x" * 65_530, (b": " + b"x" * 1_020 + b"\n\n") * 64], ids=["no end", "comments"]
)
def test_an_expert_that_says_nothing_at_length_does_not_fill_the_memory(name: str, unit: bytes) -> None:
    reply = FakeReply(*[unit] * 400)
    relay = Relay(reply.chunks(), Exchange("r", "x"), DIALECTS[name].wire, DIALECTS[name].request.shape, EXPERT)
    with pytest.raises(UpstreamError) as caught:
        asyncio.run(relay.first())
    assert caught.value.outcome is Outcome.STREAM_ERROR
    assert reply.taken * len(unit) <= MAX_EVENT_BYTES + 2 * len(unit)
