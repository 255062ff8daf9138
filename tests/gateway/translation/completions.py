"""Chat completions, whole and as streams, as experts send them and as hypothesis makes them up."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.gateway.translation.bodies import OBJECTS, WORDS

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}


def completion(message: dict[str, Any], finish: str | None = "stop", usage: Any = USAGE, **choice: Any) -> bytes:
    told = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}
    return json.dumps({"id": "chatcmpl-1", "model": "m", "choices": [told], "usage": usage}).encode()


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, usage: Any = None, **choice: Any) -> bytes:
    told = {"index": 0, "delta": delta or {}, "finish_reason": finish, **choice}
    return event({"choices": [told], **({} if usage is None else {"usage": usage})})


def usage_chunk(usage: Any = USAGE) -> bytes:
    return event({"choices": [], "usage": usage})


def event(fields: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"id": "chatcmpl-1", "model": "m", **fields}).encode() + b"\n\n"


def called(index: int, arguments: str | None = None, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    """A delta with a piece of a call."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"tool_calls": [{"index": index, "function": function, **({} if id is None else {"id": id})}]}


@dataclass
class Answer:
    """What an expert answers, whole, and the deltas of one of the streams that say the same."""

    message: dict[str, Any]
    finish: str
    choice: dict[str, Any]
    usage: dict[str, Any]
    deltas: list[dict[str, Any]] = field(default_factory=list)

    @property
    def whole(self) -> bytes:
        return completion(self.message, self.finish, self.usage, **self.choice)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Thinking, text and calls, each in pieces, mixed in any way that keeps the order within each."""
    kinds = draw(st.lists(st.sampled_from(["thinking", "text"]), unique=True))
    calls = draw(st.lists(OBJECTS | st.just(""), max_size=3))
    queues: list[list[dict[str, Any]]] = []
    message: dict[str, Any] = {"content": None}
    for kind in kinds:
        words = draw(WORDS.filter(bool))
        name = "content" if kind == "text" else draw(st.sampled_from(["reasoning", "reasoning_content"]))
        message[name] = words
        queues.append([{name: piece} for piece in _pieces(draw, words)])
    places = draw(st.permutations([i for i, queue in enumerate(queues) for _ in queue]))
    mixed = [queues[i].pop(0) for i in places]
    for index, arguments in enumerate(calls):  # in the order in which they begin, as servers count
        pieces = [called(index, piece) for piece in _pieces(draw, arguments)]
        mixed = _merged(draw, mixed, [_begun(draw, index), *pieces], after=index)
    if calls:
        functions = [{"name": f"f{i}", "arguments": arguments} for i, arguments in enumerate(calls)]
        message["tool_calls"] = [
            {"id": f"call_{i}", "type": "function", "function": f} for i, f in enumerate(functions)
        ]
    finish = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    choice: dict[str, Any] = draw(
        st.sampled_from([{}, {"stop_reason": "END"}, {"stop_reason": 2}, {"matched_stop": "END"}])
    )
    prompt, cached = draw(st.integers(0, 100)), draw(st.integers(0, 100))
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": draw(st.integers(0, 100)),
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return Answer(message, finish, choice, usage, mixed)


def _begun(draw: st.DrawFn, index: int) -> dict[str, Any]:
    return called(index, draw(st.sampled_from([None, ""])), f"call_{index}", f"f{index}")


def _pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = draw(st.lists(st.integers(0, max(len(text), 1)), max_size=3))
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(places)]


def _merged(
    draw: st.DrawFn, first: list[dict[str, Any]], second: list[dict[str, Any]], after: int
) -> list[dict[str, Any]]:
    """Both, each in its order, the second after the beginning of the call before it."""
    begun = [i for i, delta in enumerate(first) if "tool_calls" in delta and delta["tool_calls"][0].get("id")]
    least = begun[-1] + 1 if after and begun else 0
    places = sorted(draw(st.lists(st.integers(least, len(first)), min_size=len(second), max_size=len(second))))
    merged: list[dict[str, Any]] = []
    for i in range(len(first) + 1):
        merged += [delta for delta, place in zip(second, places, strict=True) if place == i]
        merged += first[i : i + 1]
    return merged


@st.composite
def streams(draw: st.DrawFn, answer: Answer) -> bytes:
    """A stream that says what `answer` does."""
    everywhere, apart, noisy, together, joined = draw(st.tuples(*[st.booleans()] * 5))
    running = {**answer.usage, "completion_tokens": 0} if everywhere else None
    deltas = _together(answer.deltas) if together else list(answer.deltas)
    last = deltas.pop() if joined and deltas else {}
    events = [chunk({"role": "assistant", "content": ""}, usage=running)]
    for delta in deltas:
        events.append(chunk(delta, usage=running))
        if noisy:
            events += [b": keep-alive\n\n", chunk({"content": ""}), chunk({"reasoning": None, "tool_calls": []})]
    events.append(chunk(last, answer.finish, None if apart else answer.usage, **answer.choice))
    return b"".join([*events, *([usage_chunk(answer.usage)] if apart else []), DONE])


def _together(deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Deltas of two pieces each, where two of different kinds, or of calls, follow each other."""
    joined: list[dict[str, Any]] = []
    for delta in deltas:
        last = joined[-1] if joined else delta
        if "tool_calls" in last and "tool_calls" in delta and last is not delta:
            joined[-1] = {**last, "tool_calls": last["tool_calls"] + delta["tool_calls"]}
        elif not set(last) & set(delta) and "tool_calls" not in last:
            joined[-1] = last | delta
        else:
            joined.append(delta)
    return joined
