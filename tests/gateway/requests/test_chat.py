from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadRequestError
from gateway.requests.chat import Chat
from gateway.requests.fields import MAX_FIELDS
from gateway.requests.routed import parse_route, text_query, wants_explanation
from router.conversation import MAX_EARLIER, looked_at
from router.decision import Asked, Overrides
from router.experts import Defaults, Expert
from router.messages import MAX_MESSAGES, MAX_PARTS

NOTHING = Defaults()


def expert(model: str, defaults: Defaults = NOTHING, **fields: Any) -> Expert:
    given = {"model": model, "domains": ["code"], "upstream": {"embedded": "smollm2"}, "defaults": defaults, **fields}
    return Expert.model_validate(given)


READ = (
    "messages",
    "model",
    "stream",
    "stream_options",
    "tools",
    "functions",
    "response_format",
    "logprobs",
    "input",
    "modalities",
)
# Spellings that a decoder and an encoder would change between them.
SPELLINGS = (
    b"1e-7", b"1.0", b"-0.0", b"0.10", b"1E+2", b"1e999", b"123456789012345678901234567890", b"-9223372036854775809",
    b'"caf\\u00e9"', b'"caf\xc3\xa9"', b'"\\ud83d\\ude00"', b'"a\\/b"', b'"\\u0041\\n\\"usage\\":{}"', b"true", b"null",
    b'{ "b" : 1.50,\n"a":[ 1 , 2.0 ] , "b" : 2 }', b"[ ]", b"{\t}", b'{"seed":{"deep":[{"er":1e-7}]}}',
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
DUMPED = st.tuples(JSON, st.booleans(), st.sampled_from([None, 1])).map(
    lambda given: json.dumps(given[0], ensure_ascii=given[1], indent=given[2]).encode()
)
VALUES = st.sampled_from(SPELLINGS) | DUMPED
OTHERS = st.dictionaries(st.text(max_size=8).filter(lambda name: name not in READ), VALUES, max_size=5)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "function"]), "content": st.text(max_size=9)},
        optional={"name": st.text(max_size=5), "tool_calls": JSON, "anything": JSON},
    ),
    min_size=1,
    max_size=3,
)
MESSAGE_BYTES = st.tuples(MESSAGES, st.booleans(), st.sampled_from([None, 1])).map(
    lambda given: json.dumps(given[0], ensure_ascii=given[1], indent=given[2]).encode()
)
SPACE = st.sampled_from([b"", b" ", b"\n", b"\t \r\n"])
MINIMAL = b'[{"role":"user","content":"hi"}]'


def body_of(fields: dict[str, bytes], space: bytes = b"") -> bytes:
    pairs = (space + json.dumps(name).encode() + space + b":" + space + raw for name, raw in fields.items())
    return space + b"{" + (space + b",").join(pairs) + space + b"}" + space


def fields_of(body: bytes) -> dict[str, bytes]:
    """Every field of a body and the bytes of its value."""
    return {name: bytes(raw) for name, raw in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items()}


def refused(body: bytes) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        Chat.parse(body)
    return caught.value


def chat(messages: Any = None, **fields: Any) -> Chat:
    messages = [{"role": "user", "content": "hi"}] if messages is None else messages
    return Chat.parse(json.dumps({"messages": messages, **fields}).encode())


@settings(deadline=None)
@given(OTHERS, MESSAGE_BYTES, SPACE, st.booleans())
def test_every_value_but_the_model_goes_up_byte_for_byte(
    others: dict[str, bytes], messages: bytes, space: bytes, with_model: bool
) -> None:
    sent = {**others, "messages": messages, **({"model": b'"auto"'} if with_model else {})}
    got = fields_of(Chat.parse(body_of(sent, space)).body(expert("Qwen/Qwen3")))
    assert got.pop("model") == b'"Qwen/Qwen3"'
    sent.pop("model", None)
    assert got == sent


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelling_that_re_encoding_would_change_arrives_as_it_was_written(spelling: bytes) -> None:
    sent = {"messages": MINIMAL, "seed": spelling}
    assert fields_of(Chat.parse(body_of(sent)).body(expert("m")))["seed"] == spelling


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_the_model_is_valid_json_whatever_its_name_holds(model: str) -> None:
    assert json.loads(Chat.parse(body_of({"messages": MINIMAL})).body(expert(model)))["model"] == model


@settings(deadline=None)
@given(OTHERS, st.none() | st.just(b"null") | st.sampled_from([b"true", b"false"]), OTHERS)
def test_a_stream_asks_for_usage_and_keeps_its_other_options(
    others: dict[str, bytes], asked: bytes | None, options: dict[str, bytes]
) -> None:
    options.pop("include_usage", None)
    given_options = options if asked is None else {**options, "include_usage": asked}
    sent = {**others, "messages": MINIMAL, "stream": b"true", "stream_options": body_of(given_options)}
    parsed = Chat.parse(body_of(sent))
    got = fields_of(parsed.body(expert("m")))
    assert fields_of(got.pop("stream_options")) == {**options, "include_usage": b"true"}
    assert got == {**others, "messages": MINIMAL, "stream": b"true", "model": b'"m"'}
    assert parsed.stream
    assert parsed.hide_usage is not (asked == b"true")


@pytest.mark.parametrize("options", [None, b"null", b" null "])
def test_a_stream_without_options_asks_for_usage_too(options: bytes | None) -> None:
    sent = {"messages": MINIMAL, "stream": b"true", **({} if options is None else {"stream_options": options})}
    got = fields_of(Chat.parse(body_of(sent)).body(expert("m")))
    assert json.loads(got["stream_options"]) == {"include_usage": True}


@pytest.mark.parametrize("stream", [b"false", b"null", None])
def test_a_request_that_is_no_stream_gets_no_stream_options(stream: bytes | None) -> None:
    sent = {"messages": MINIMAL, **({} if stream is None else {"stream": stream})}
    assert "stream_options" not in fields_of(Chat.parse(body_of(sent)).body(expert("m")))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.sampled_from([b"null", b"0", b"0.50", b"7"])
            for name in ("temperature", "top_p", "max_tokens", "max_completion_tokens")
        },
    )
)
def test_defaults_speak_only_where_the_request_says_nothing(said: dict[str, bytes]) -> None:
    defaults = Defaults(temperature=0.2, top_p=0.9, max_tokens=512)
    got = fields_of(Chat.parse(body_of({"messages": MINIMAL, **said})).body(expert("m", defaults)))
    spoken = {name for name, raw in said.items() if raw != b"null"}
    for name in spoken:
        assert got[name] == said[name]
    for name, raw in (("temperature", b"0.2"), ("top_p", b"0.9")):
        assert name in spoken or got[name] == raw
    if not spoken & {"max_tokens", "max_completion_tokens"}:
        assert got["max_tokens"] == b"512"
    elif "max_tokens" not in spoken:
        assert got.get("max_tokens", b"null") == b"null"


def test_without_defaults_nothing_is_added() -> None:
    got = fields_of(Chat.parse(body_of({"messages": MINIMAL, "temperature": b"null"})).body(expert("m")))
    assert got == {"messages": MINIMAL, "temperature": b"null", "model": b'"m"'}


@settings(deadline=None)
@given(MESSAGE_BYTES, st.text(min_size=1, max_size=9))
def test_the_system_default_is_put_in_front_and_the_messages_stay_as_they_were(messages: bytes, system: str) -> None:
    body = Chat.parse(body_of({"messages": messages})).body(expert("m", Defaults(system=system)))
    got = fields_of(body)["messages"]
    assert got.endswith(messages[1:])
    assert json.loads(got) == [{"role": "system", "content": system}, *json.loads(messages)]


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_conversation_with_instructions_of_its_own_keeps_them_alone(role: str, place: int) -> None:
    messages = [{"role": "user", "content": "hi"}]
    messages.insert(place, {"role": role, "content": "Be brief."})
    got = json.loads(chat(messages).body(expert("m", Defaults(system="You are a careful programmer."))))
    assert got["messages"] == messages


def test_a_body_can_be_written_for_one_expert_after_another() -> None:
    request = chat(stream=True, temperature=None)
    first = request.body(expert("a", Defaults(system="s", temperature=0.5, max_tokens=9)))
    assert json.loads(request.body(expert("b"))) == {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": None,
        "model": "b",
    }
    assert request.body(expert("a", Defaults(system="s", temperature=0.5, max_tokens=9))) == first


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"[]", None, "Expected `object`, got `array`"),
        (b"null", None, "Expected `object`"),
        (b"{}", "messages", "missing required field `messages`"),
        (b'{"messages":[]}', "messages", "messages is empty"),
        (b'{"messages":"hi"}', "messages", "Expected `array`, got `str`"),
        (b'{"messages":null}', "messages", "Expected `array`, got `null`"),
        (b'{"messages":[null]}', "messages[0]", "Expected `object`"),
        (b'{"messages":[{"content":"hi"}]}', "messages[0]", "missing required field `role`"),
        (b'{"messages":[{"role":"user","content":5}]}', "messages[0].content", "got `int`"),
        (b'{"messages":[{"role":"user","content":["x"]}]}', "messages[0].content[0]", "got `str`"),
        (b'{"messages":[{"role":"user","content":null}]}', "messages", "messages[0].content is empty"),
        (b'{"messages":[{"role":"user"}]}', "messages", "messages[0].content is empty"),
        (b'{"messages":[{"role":"system","content":"s"},{"role":"user","content":[]}]}', "messages", "messages[1]"),
        (b'{"messages":[{"role":"user","content":"x"}],"model":5}', "model", "Expected `str`, got `int`"),
        (b'{"messages":[{"role":"user","content":"x"}],"model":null}', "model", "Expected `str`"),
        (b'{"messages":[{"role":"user","content":"x"}],"stream":"yes"}', "stream", "Expected `bool | null`"),
        (b'{"messages":[{"role":"user","content":"x"}],"stream_options":[]}', "stream_options", "got `array`"),
        (b'{"messages":[{"role":"user","content":"x"}],"tools":{}}', "tools", "got `object`"),
        (b'{"messages":[{"role":"user","content":"x"}],"functions":{}}', "functions", "got `object`"),
        (b'{"messages":[{"role":"user","content":"x"}],"response_format":"json"}', "response_format", "got `str`"),
    ],
)
def test_a_wrong_body_is_refused_with_what_is_wrong_and_where(body: bytes, param: str | None, says: str) -> None:
    error = refused(body)
    assert says in error.message
    assert (error.status, error.code, error.param) == (400, "invalid_request", param)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"hello", b"\xff\xfe", b'{"messages":[{"role":"user","content":"hi"}],}', b"{'messages':[]}",
        b'{"messages":[{"role":"user","content":"\xff"}]}', b'{"messages":[{"role":"user","content":"hi"}]} {}',
        b'{"messages":[{"role":"user","content":"hi"}],"seed":01}', b'{"messages":[{"role":"user","content":"a\nb"}]}',
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused_as_such(body: bytes) -> None:
    error = refused(body)
    assert error.code == "invalid_json"
    assert error.message.startswith("The body is not valid JSON: ")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_that_is_nested_without_end_is_refused(opening: bytes) -> None:
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    deep = opening * 100_000 + b"1" + closing * 100_000
    error = refused(b'{"messages":[{"role":"user","content":"hi"}],"metadata":' + deep + b"}")
    assert (error.code, error.message) == ("invalid_json", "The JSON is nested too deeply.")


@settings(deadline=None)
@given(st.binary(max_size=60) | DUMPED | DUMPED.map(lambda raw: b'{"messages":' + raw + b"}"))
def test_whatever_is_sent_is_read_or_refused_as_a_bad_request(body: bytes) -> None:
    with suppress(BadRequestError):
        Chat.parse(body).query()


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "assistant"},
        {"role": "tool", "content": [], "tool_call_id": "1"},
        {"role": "a-role-of-next-year", "content": None},
    ],
)
def test_only_a_user_s_message_needs_content(message: dict[str, Any]) -> None:
    assert chat([{"role": "user", "content": "hi"}, message]).query().text == "hi"


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None = "ANSWER", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


CALLS = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "RESULT"}
RETRY = "Correct your JSON ONLY RESPONSE, based on the following errors:\n1 validation error for Person"


def test_what_is_routed_is_what_the_user_said() -> None:
    messages = [
        {"role": "system", "content": "SYSTEM"},
        {"role": "developer", "content": "DEVELOPER"},
        user("first question"),
        assistant(),
        {"role": "tool", "content": "RESULT"},
        user([{"type": "text", "text": "and"}, {"type": "image_url"}, {"type": "text", "text": "now?"}]),
    ]
    query = chat(messages).query()
    assert (query.text, query.earlier, query.continues) == ("and now?", ("first question",), False)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["system", "developer", "assistant", "tool", "function", "user"]), min_size=1, max_size=12)
)
def test_nobody_but_the_user_has_a_word_in_the_route(roles: list[str]) -> None:
    messages = [{"role": role, "content": f"{role} says {i}"} for i, role in enumerate(roles)]
    query = chat(messages).query()
    said = [message["content"] for message in messages if message["role"] == "user"]
    assert [*query.earlier, query.text] == (said or [""])


@pytest.mark.parametrize(
    ("goes_on", "messages"),
    [
        (False, []),
        (False, [{"role": "system", "content": "s"}]),
        (True, [assistant(None, **CALLS), RESULT]),
        (True, [assistant(None, **CALLS), RESULT, RESULT]),
        (True, [assistant(None, **CALLS), RESULT, {"role": "system", "content": "s"}]),
        (True, [assistant(None, **CALLS), RESULT, assistant(None, **CALLS), RESULT]),
        (True, [assistant(None, function_call={"name": "f"}), {"role": "function", "name": "f", "content": "RESULT"}]),
        (True, [assistant(None, **CALLS), user([{"type": "tool_result", "content": "RESULT"}])]),
        (True, [assistant(None, **CALLS), user([{"type": "tool_result"}, {"type": "text", "text": " "}])]),
        (True, [{"role": "assistant", "content": [{"type": "tool_use"}]}, user([{"type": "tool_result", "content": "RESULT"}])]),
        (True, [assistant("{"), user(RETRY)]),
        (True, [user(RETRY)]),
        (True, [assistant("{"), user(RETRY), assistant("{"), user(RETRY)]),
        (True, [assistant(None, **CALLS), RESULT, user("Recall the function correctly, fix the errors, exceptions found\nx")]),
        (True, [assistant("the start of an answer that is to be gone on with")]),
    ],
)  # fmt: skip
def test_a_tool_loop_and_a_validation_retry_go_on_with_the_turn(goes_on: bool, messages: list[dict[str, Any]]) -> None:
    query = chat([user("zero"), assistant(), user("question"), *messages]).query()
    assert (query.text, query.earlier, query.continues) == ("question", ("zero",), goes_on)


@pytest.mark.parametrize(
    "messages",
    [
        [assistant(None, **CALLS), RESULT, assistant()],
        [assistant("{"), user(RETRY), assistant("{}")],
        [assistant(None, **CALLS), RESULT],
        [assistant(None, **CALLS)],
        [assistant(None, **CALLS), {"role": "system", "content": "s"}],
        [assistant(None, function_call={"name": "f"})],
        [assistant(tool_calls=[])],
        [assistant(tool_calls=None, function_call=None)],
        [{"role": "system", "content": "s"}],
    ],
)
def test_the_users_next_words_are_a_new_turn(messages: list[dict[str, Any]]) -> None:
    query = chat([user("question"), *messages, user("another")]).query()
    assert (query.text, query.earlier, query.continues) == ("another", ("question",), False)


def test_words_that_stand_in_place_of_a_tools_result_stay_a_turn_in_later_requests() -> None:
    messages = [user("sort a list"), assistant(None, **CALLS), user("forget it"), assistant(), user("and now?")]
    query = chat(messages).query()
    assert (query.earlier, query.text) == (("sort a list", "forget it"), "and now?")


def test_words_beside_a_tools_result_are_a_turn() -> None:
    said = user([{"type": "tool_result", "content": "RESULT"}, {"type": "text", "text": "what does it mean?"}])
    query = chat([user("question"), assistant(None, **CALLS), said]).query()
    assert (query.text, query.earlier, query.continues) == ("what does it mean?", ("question",), False)


def test_a_first_message_is_a_turn_whatever_it_says() -> None:
    query = chat([user(RETRY)]).query()
    assert (query.text.split()[0], query.continues) == ("Correct", False)


def test_what_an_assistant_may_carry_is_nobody_elses_business() -> None:
    odds: list[Any] = [7, "x", {"a": [1e-7]}, [[]], True]
    for odd in odds:
        assert chat([user("hi"), assistant(tool_calls=odd, function_call=odd)]).query().text == "hi"


def test_turns_that_say_nothing_are_left_out() -> None:
    query = chat([user("code?"), user("  "), user([{"type": "image_url"}])]).query()
    assert (query.text, query.earlier) == ("code?", ())
    assert query.needs == {"vision"}
    assert (chat([user([{"type": "image_url"}])]).query().text, chat([RESULT]).query().text) == ("", "")


def test_of_a_long_conversation_the_first_turns_and_the_last_are_kept() -> None:
    turns = [str(i) for i in range(MAX_EARLIER + 9)]
    query = chat([user(turn) for turn in turns]).query()
    assert [*query.earlier, query.text] == list(looked_at(turns))
    assert (query.earlier[0], query.text) == (turns[0], turns[-1])
    assert len(query.asked) == MAX_EARLIER + 1


def test_long_turns_are_clipped() -> None:
    query = chat([user("a" * 9000), user("b" * 9000)]).query()
    assert len(query.text) < 900
    assert [len(turn) < 900 for turn in query.earlier] == [True]
    assert query.tokens == 4500


def test_the_size_and_the_needs_of_every_turn_are_told() -> None:
    messages = [
        {"role": "system", "content": "s" * 40},
        user("a" * 80),
        assistant("x" * 400),
        user([{"type": "text", "text": "b" * 80}, {"type": "image_url"}]),
        assistant("y" * 400),
        user("c" * 40),
        assistant(None, **CALLS),
        {**RESULT, "content": "r" * 4000},
    ]
    query = chat(messages, tools=[{"description": "d" * (100 - len(json.dumps({"description": ""})))}]).query()
    tools, both = frozenset({"tools"}), frozenset({"tools", "vision"})
    assert query.asked == (Asked(35, 55, tools), Asked(155, 675, both), Asked(775, 785, both))
    assert (query.tokens, query.needs) == (1785 + len(json.dumps(CALLS["tool_calls"])) // 4, both)


LARGE = {"name": "f", "parameters": {"description": "x" * 40_000}}
CALL = {"name": "f", "arguments": json.dumps({"text": "x" * 40_000})}


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ({"tools": [{"type": "function", "function": LARGE}]}, []),
        ({"functions": [LARGE]}, []),
        ({}, [assistant(None, tool_calls=[{"id": "1", "type": "function", "function": CALL}])]),
        ({}, [assistant(None, function_call=CALL)]),
        ({}, [{"role": "assistant", "content": [{"type": "tool_use", "input": {"text": "x" * 40_000}}]}]),
        ({}, [user([{"type": "tool_result", "content": [{"type": "text", "text": "x" * 40_000}]}])]),
    ],
)
def test_what_tools_are_told_and_tell_counts_and_promises_nothing(
    fields: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    query = chat([user("what?"), *messages], **fields).query()
    assert query.tokens == pytest.approx(10_000, rel=0.02)
    assert query.least_tokens == 0  # the worker may write it in another way
    assert query.asked[0].prefix == (query.tokens - 1 if fields else 0)


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_turn_is_told_with_the_calls_before_it_and_not_with_those_after_it(before: int, after: int) -> None:
    calls = [[{"function": {"name": "f", "arguments": "x" * size}}] for size in (before, after)]
    messages = [
        user("zero"),
        assistant(None, tool_calls=calls[0]),
        RESULT,
        user("one"),
        assistant(None, tool_calls=calls[1]),
    ]
    query = chat(messages).query()
    size = len("zero") + len(json.dumps(calls[0])) + len("RESULT")
    assert query.asked == (Asked(0, 1), Asked(size // 4, (size + len("one")) // 4))
    assert query.tokens == (size + len("one") + len(json.dumps(calls[1]))) // 4


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, None),
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 200}, 200),
        ({"max_completion_tokens": 200, "max_tokens": 100}, 200),
        ({"max_completion_tokens": None, "max_tokens": 100}, 100),
        ({"max_tokens": None}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -5}, None),
        ({"max_tokens": 1.5}, None),
        ({"max_tokens": "many"}, None),
        ({"max_tokens": 2**63 - 1}, None),
    ],
)
def test_the_length_of_the_answer_is_read_where_it_is_a_number(fields: dict[str, Any], tokens: int | None) -> None:
    assert chat(**fields).query().answer_tokens == tokens


@pytest.mark.parametrize(
    ("fields", "answers"),
    [({}, 1), ({"n": 50}, 50), ({"n": 1}, 1), ({"n": None}, 1), ({"n": 0}, 1), ({"n": -3}, 1), ({"n": "2"}, 1), ({"n": 2**31}, 1)],
)  # fmt: skip
def test_the_number_of_answers_is_read_where_it_is_a_number(fields: dict[str, Any], answers: int) -> None:
    assert chat(**fields).query().answers == answers


def test_overrides_ride_along() -> None:
    wanted = Overrides(domain="code")
    assert chat().query(wanted).overrides == wanted
    assert chat().query().overrides == Overrides()
    for body in (b'{"input":"hi"}', b'{"messages":[{"role":"user","content":"hi"}]}'):
        assert parse_route(body, wanted).overrides == wanted


def test_the_model_asked_for_is_auto_where_none_is_named() -> None:
    assert chat().query().requested_model == "auto"
    assert chat(model="auto:cheap").query().requested_model == "auto:cheap"


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({}, set()),
        ({"tools": [], "logprobs": False, "response_format": {"type": "text"}}, set()),
        ({"tools": None, "logprobs": None, "response_format": None}, set()),
        ({"tools": [{"type": "function"}]}, {"tools"}),
        ({"functions": [{"name": "f"}]}, {"tools"}),
        ({"functions": [], "tools": None}, set()),
        ({"functions": None, "function_call": "none"}, set()),
        ({"logprobs": True}, {"logprobs"}),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json_schema"}),
        ({"response_format": {"type": "json_object"}}, set()),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, {"vision"}),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}, {"type": "text"}]}]}, {"audio"}),
    ],
)
def test_what_a_request_needs_is_read_from_it(fields: dict[str, Any], needs: set[str]) -> None:
    assert chat(**fields).query().needs == needs


@settings(deadline=None)
@given(st.lists(st.text(max_size=50), min_size=1, max_size=4), st.integers(0, 3))
def test_the_least_size_of_a_prompt_never_exceeds_its_estimate(texts: list[str], images: int) -> None:
    parts = [{"type": "image_url"}] if images else []
    messages = [{"role": "user", "content": [{"type": "text", "text": text}, *parts]} for text in texts]
    query = chat(messages).query()
    size = sum(len(text.encode()) for text in texts)
    assert query.least_tokens <= query.tokens
    assert query.tokens == size // 4 + (len(texts) * 500 if images else 0)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b'{"messages":[' + b'{"role":"tool"},' * MAX_MESSAGES + b'{"role":"tool"}]}', "messages"),
        (b'{"messages":[{"role":"user","content":[' + b"{}," * MAX_PARTS + b"{}]}]}", "parts of messages"),
        (b'{"messages":[{"role":"user","content":[' + b"{}," * (MAX_PARTS // 2) + b'{}]},'
         b'{"role":"tool","content":[' + b"{}," * (MAX_PARTS // 2) + b"{}]}]}", "parts of messages"),
        (body_of({"messages": MINIMAL, **{f"field-{i}": b"1" for i in range(MAX_FIELDS)}}), "fields"),
    ],
    ids=["messages", "parts of one", "parts of all", "fields"],
)  # fmt: skip
def test_a_body_of_more_than_a_conversation_has_is_refused(body: bytes, what: str) -> None:
    assert f" {what}; " in refused(body).message


def test_a_long_conversation_is_taken() -> None:
    Chat.parse(b'{"messages":[' + b'{"role":"tool"},' * (MAX_MESSAGES - 1) + b'{"role":"tool"}]}')
    Chat.parse(body_of({"messages": MINIMAL, **{f"field-{i}": b"1" for i in range(MAX_FIELDS - 1)}}))


@given(st.text(max_size=200))
def test_a_bare_prompt_is_asked_like_the_same_prompt_in_a_message(text: str) -> None:
    assert text_query(text, "auto:best") == chat([{"role": "user", "content": text}], model="auto:best").query()


@pytest.mark.parametrize(
    "body", [b'{"input":"why is the sky blue?"}', b'{"input":"why is the sky blue?","messages":[]}']
)
def test_a_route_may_be_asked_for_a_text_alone(body: bytes) -> None:
    query = parse_route(body)
    assert (query.text, query.requested_model, query.tokens) == ("why is the sky blue?", "auto", 5)


@given(st.text(max_size=9))
def test_a_route_for_a_text_alone_is_asked_of_the_model_that_it_names(model: str) -> None:
    query = parse_route(json.dumps({"input": "why is the sky blue?", "model": model}).encode())
    assert query == text_query("why is the sky blue?", model)
    assert query.requested_model == model


def test_a_route_may_be_asked_for_a_chat_body() -> None:
    query = parse_route(b'{"model":"coder","messages":[{"role":"user","content":"hi"}]}')
    assert (query.text, query.requested_model) == ("hi", "coder")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"input":" \\n"}', "input"),
        (b'{"input":5}', "input"),
        (b'{"input":"x","model":5}', "model"),
        (b'{"input":"x","model":null}', "model"),
        (b"{}", "messages"),
        (b"[]", None),
    ],
)
def test_a_route_for_nothing_is_refused(body: bytes, param: str | None) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_route(body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"input":"x","explain":true}', True),
        (b'{"input":"x","explain":false}', False),
        (b'{"input":"x","explain":null}', False),
        (b'{"input":"x"}', False),
        (b'{"input":"say \\"explain\\":true"}', False),
        (b'{"messages":[{"role":"user","content":"x","explain":true}]}', False),
        (b'{"messages":[{"role":"user","content":"x"}],"explain":true}', True),
    ],
)
def test_a_route_says_whether_it_is_to_be_explained(body: bytes, wanted: bool) -> None:
    parse_route(body)
    assert wants_explanation(body) is wanted


def test_a_server_that_knows_max_tokens_alone_gets_the_limit_under_that_name() -> None:
    old = expert("m", lacks=["max_completion_tokens"])
    assert json.loads(chat(max_completion_tokens=5).body(old))["max_tokens"] == 5
    assert "max_completion_tokens" not in json.loads(chat(max_completion_tokens=5).body(old))
    assert json.loads(chat(max_completion_tokens=5, max_tokens=9).body(old))["max_tokens"] == 5
    assert json.loads(chat(max_completion_tokens=5).body(expert("m")))["max_completion_tokens"] == 5
    assert "max_tokens" not in json.loads(chat(max_completion_tokens=5).body(expert("m")))


def test_a_template_without_a_developer_gets_its_words_as_the_system_s() -> None:
    raw = b'[{"role":"developer","content":"Be brief. 1.50","x":1e-7},{"role":"user","content":"caf\\u00e9"}]'
    request = Chat.parse(body_of({"messages": raw}))
    told = fields_of(request.body(expert("m", lacks=["developer"])))["messages"]
    assert told == raw.replace(b'"developer"', b'"system"')
    assert fields_of(request.body(expert("m")))["messages"] == raw


def test_an_answer_that_is_to_be_spoken_needs_an_expert_that_speaks() -> None:
    assert chat(modalities=["text", "audio"]).query().needs == {"audio"}
    assert chat(modalities=["text"]).query().needs == frozenset()
