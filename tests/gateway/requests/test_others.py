"""What is read of the requests that are no chat, and what of them goes up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequestError
from gateway.requests.completion import Completion
from gateway.requests.embedding import Embedding
from gateway.requests.message import CountTokens, MessageRequest
from gateway.requests.response import ResponseRequest
from router.experts import Defaults
from tests.gateway.requests.test_chat import OTHERS, body_of, expert, fields_of

MESSAGES = [{"role": "user", "content": "hi"}]
KINDS: list[tuple[Any, dict[str, Any]]] = [
    (Completion, {"prompt": "hi"}),
    (Embedding, {"input": "hi"}),
    (ResponseRequest, {"input": "hi"}),
    (MessageRequest, {"messages": MESSAGES, "max_tokens": 5}),
]
READ = {"prompt", "input", "messages", "max_tokens", "model", "stream", "stream_options", "suffix", "text", "tools"}
READ |= {
    "instructions",
    "top_logprobs",
    "include",
    "modalities",
    "system",
    "output_config",
    "prompt_cache_key",
    "n",
    "logprobs",
}


def parsed(kind: Any, **fields: Any) -> Any:
    return kind.parse(json.dumps(fields).encode())


def refused(kind: Any, **fields: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        parsed(kind, **fields)
    return caught.value


@pytest.mark.parametrize(("kind", "least"), KINDS)
@given(others=OTHERS.map(lambda others: {k: v for k, v in others.items() if k not in READ}))
def test_every_value_but_the_model_goes_up_byte_for_byte(
    kind: Any, least: dict[str, Any], others: dict[str, bytes]
) -> None:
    sent = {**others, **{name: json.dumps(value).encode() for name, value in least.items()}}
    got = fields_of(kind.parse(body_of(sent)).body(expert("Qwen/Qwen3")))
    assert got.pop("model") == b'"Qwen/Qwen3"'
    assert got == sent


@pytest.mark.parametrize(("kind", "least"), KINDS)
def test_what_is_missing_is_named(kind: Any, least: dict[str, Any]) -> None:
    for name in least:
        error = refused(kind, **{key: value for key, value in least.items() if key != name})
        assert error.param == name
        assert name in error.message


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (Completion, {"prompt": {"a": 1}}, "prompt"),
        (Completion, {"prompt": "a", "stream": "yes"}, "stream"),
        (Embedding, {"input": "a", "model": 5}, "model"),
        (ResponseRequest, {"input": [{"role": 5}]}, "input[0].role"),
        (ResponseRequest, {"input": "a", "text": {"format": 7}}, "text.format"),
        (MessageRequest, {"messages": [{"role": "user"}], "max_tokens": 1}, "messages"),
        (MessageRequest, {"messages": [], "max_tokens": 1}, "messages"),
        (MessageRequest, {"messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
        (MessageRequest, {"messages": MESSAGES, "max_tokens": "5"}, "max_tokens"),
    ],
)
def test_what_is_of_the_wrong_kind_is_named(kind: Any, fields: dict[str, Any], param: str) -> None:
    assert refused(kind, **fields).param == param


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
@given(body=st.binary(max_size=60) | st.just(b"[" * 5000) | st.just(b'{"a":' * 3000))
def test_what_is_no_json_object_is_refused(kind: Any, body: bytes) -> None:
    with pytest.raises(BadRequestError):
        kind.parse(body)


def test_a_completion_is_routed_by_its_text_and_not_by_ids_of_tokens() -> None:
    assert parsed(Completion, prompt="def f():", suffix="return 1").query().text == "def f(): return 1"
    assert parsed(Completion, prompt=["one", "two"]).query().text == "one"
    for ids in ([1, 2, 3], [[1, 2], [3]]):
        asked = parsed(Completion, prompt=ids)
        assert asked.query().text == ""
        assert asked.query().tokens > 0
        assert not asked.interchangeable
    assert parsed(Completion, prompt="a").interchangeable


def test_what_a_completion_needs() -> None:
    assert parsed(Completion, prompt="a", n=2, logprobs=0).query().needs == {"n", "logprobs"}
    assert parsed(Completion, prompt="a", n=1, logprobs=None).query().needs == frozenset()


def test_a_completion_s_usage_is_asked_for_on_streams_and_hidden_unless_the_client_asked() -> None:
    asked = parsed(Completion, prompt="a", stream=True)
    assert json.loads(asked.body(expert("m")))["stream_options"] == {"include_usage": True}
    assert asked.hide_usage
    assert not parsed(Completion, prompt="a", stream=True, stream_options={"include_usage": True}).hide_usage


def test_a_response_is_routed_by_what_the_user_said_last() -> None:
    items = [
        {"role": "user", "content": "first"},
        {"type": "reasoning", "summary": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": "an answer"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "second"}]},
    ]
    query = parsed(ResponseRequest, input=items, instructions="be brief").query()
    assert (query.earlier, query.text, query.continues) == (("first",), "second", False)
    tool = [*items, {"type": "function_call", "arguments": "{}"}, {"type": "function_call_output", "output": "5"}]
    assert parsed(ResponseRequest, input=tool).query().continues


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"tools": [{"type": "function"}]}, {"tools"}),
        ({"text": {"format": {"type": "json_schema"}}}, {"json_schema"}),
        ({"top_logprobs": 3}, {"logprobs"}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs"}),
        ({"previous_response_id": "resp_1"}, {"state"}),
        ({"background": True}, {"state"}),
        ({"background": False, "previous_response_id": None}, set()),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}]}, {"vision"}),
    ],
)
def test_what_a_response_needs(fields: dict[str, Any], needs: set[str]) -> None:
    assert parsed(ResponseRequest, **{"input": "hi", **fields}).query().needs == needs


def test_a_response_that_goes_on_with_a_kept_one_needs_no_input() -> None:
    assert parsed(ResponseRequest, previous_response_id="resp_1").query().needs == {"state"}


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"tools": [{"name": "f"}]}, {"tools"}),
        ({"output_config": {"format": {"type": "json_schema"}}}, {"json_schema"}),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, {"vision"}),
    ],
)
def test_what_a_message_needs(fields: dict[str, Any], needs: set[str]) -> None:
    assert parsed(MessageRequest, **{"messages": MESSAGES, "max_tokens": 5, **fields}).query().needs == needs


def test_the_image_in_a_tool_s_result_needs_an_expert_that_sees() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {}}]}
    messages = [{"role": "user", "content": "look"}, {"role": "user", "content": [result]}]
    assert parsed(MessageRequest, messages=messages, max_tokens=5).query().needs == {"vision"}


DEFAULTS = Defaults(system="Be careful.", temperature=0.5, max_tokens=9)


def test_an_expert_s_defaults_fill_what_is_not_said() -> None:
    def sent(kind: Any, **fields: Any) -> Any:
        return json.loads(parsed(kind, **fields).body(expert("m", DEFAULTS)))

    assert sent(Completion, prompt="a") == {"model": "m", "prompt": "a", "temperature": 0.5, "max_tokens": 9}
    told = sent(ResponseRequest, input="a")
    assert (told["instructions"], told["max_output_tokens"]) == ("Be careful.", 9)
    assert sent(ResponseRequest, input="a", instructions="mine")["instructions"] == "mine"
    assert "instructions" not in sent(ResponseRequest, input=[{"role": "system", "content": "x"}, *MESSAGES])
    told = sent(MessageRequest, messages=MESSAGES, max_tokens=5)
    assert (told["system"], told["max_tokens"], told["temperature"]) == ("Be careful.", 5, 0.5)
    assert sent(Embedding, input="a") == {"model": "m", "input": "a"}


def test_turns_of_one_conversation_share_their_affinity_and_no_others() -> None:
    first = [{"role": "user", "content": "first"}]
    later = [*first, {"role": "assistant", "content": "x"}, {"role": "user", "content": "more"}]
    for kind, name in ((MessageRequest, "messages"), (ResponseRequest, "input")):
        one, two = (parsed(kind, max_tokens=5, **{name: messages}).affinity for messages in (first, later))
        assert one == two
        other = parsed(kind, max_tokens=5, **{name: [{"role": "user", "content": "else"}]}).affinity
        assert other != one
    keyed = [parsed(ResponseRequest, input=i, prompt_cache_key=k).affinity for i in ("hi", "ho") for k in ("a", "b")]
    assert len(set(keyed)) == 4  # a key that all of an application's requests share does not lump them together


@pytest.mark.parametrize("name", ["max_tokens", "n"])
def test_a_number_that_no_server_can_take_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadRequestError, match="too large") as caught:
        parsed(Completion, prompt="a", **{name: 10**19}).query()
    assert caught.value.param == name


def test_a_count_of_tokens_is_never_streamed() -> None:
    request = parsed(CountTokens, messages=MESSAGES, stream=True)
    assert not any(wire.stream for wire in request.wires.values())


@pytest.mark.parametrize(
    ("prompt", "n", "answers"),
    [("a", 1, 1), (["a", "b"], 1, 2), (["a", "b"], 3, 6), ([1, 2, 3], 2, 2), ([[1], [2]], 1, 2)],
)
def test_a_stream_of_several_prompts_ends_when_each_has_its_answers(prompt: Any, n: int, answers: int) -> None:
    reader = parsed(Completion, prompt=prompt, n=n, stream=True).reader()
    for index in range(answers):
        assert not reader.ended
        reader.read(b'data: {"choices":[{"index":%d,"text":"x","finish_reason":"stop"}]}\n\n' % index)
    assert reader.ended
