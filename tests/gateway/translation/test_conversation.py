from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadRequestError
from gateway.translation.conversation import IMAGE_BELOW
from gateway.translation.to_chat import chat_fields
from tests.gateway.translation.bodies import (
    OBJECTS,
    TEXTS,
    assistant,
    body,
    call,
    chat_of,
    image,
    messages,
    result,
    text,
    user,
)

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def refused(*given: dict[str, Any], **fields: Any) -> str | None:
    """The param of the refusal."""
    with pytest.raises(BadRequestError) as caught:
        messages(*given, **fields)
    assert len(caught.value.message) < 300
    return caught.value.param


def test_the_system_prompt_is_a_message_of_its_own() -> None:
    assert messages(user("q"), system="s")[0] == {"role": "system", "content": "s"}
    blocks = [text("a"), {**text("b"), "cache_control": {"type": "ephemeral"}}]
    assert messages(user("q"), system=blocks)[0] == {"role": "system", "content": "a\n\nb"}
    empties: list[Any] = [None, "", []]
    for nothing in empties:
        assert messages(user("q"), system=nothing) == [user("q")]


def test_a_header_that_differs_with_every_request_does_not_spoil_the_prefix() -> None:
    header = "x-anthropic-billing-header: cc_version=1; cch=a1b2c;"
    assert messages(user("q"), system=[text(header), text("s")])[0]["content"] == "s"
    assert messages(user("q"), system=f"{header}\ns")[0]["content"] == "s"


def test_one_text_is_a_string_and_several_are_parts() -> None:
    assert messages(user([text("a")])) == [user("a")]
    assert messages(user([text("a"), text("b")])) == [user([text("a"), text("b")])]


def test_images_are_parts_in_their_places() -> None:
    web = {"type": "image", "source": {"type": "url", "url": "https://images.test/a.png"}}
    (message,) = messages(user([text("a"), image(), text("b"), web]))
    there = {"type": "image_url", "image_url": {"url": "https://images.test/a.png"}}
    assert message["content"] == [text("a"), IMAGE, text("b"), there]


def test_documents_and_search_results_are_told_with_their_titles() -> None:
    plain = {"type": "document", "title": "T", "context": "C", "source": {"type": "text", "data": "D"}}
    content = {"type": "document", "source": {"type": "content", "content": [text("E"), image()]}}
    found = {"type": "search_result", "title": "S", "source": "https://s.test", "content": [text("F")]}
    (message,) = messages(user([plain, content, found]))
    texts = [part.get("text", part) for part in message["content"]]
    assert texts == ["T", "C", "D", "E", IMAGE, "S", "https://s.test", "F"]
    assert messages(user([{"type": "document", "source": {"type": "content", "content": "G"}}])) == [user("G")]


def test_turns_of_the_same_role_are_one_as_with_anthropic() -> None:
    said = messages(user("a"), {"role": "ctx", "content": "b"}, assistant("c"), assistant([text("d"), call()]))
    assert said[0] == user([text("a"), text("b")])
    assert (said[1]["content"], len(said[1]["tool_calls"]), len(said)) == ("cd", 1, 2)


def test_a_call_is_a_function_with_the_very_bytes_of_its_input() -> None:
    written = b'{"big": 12345678901234567890123, "price": 1.10, "far": 1E400, "e": "\\u00e9"}'
    request = body(user("q"), assistant([text("w"), call(id="toolu_1", name="get")]), user("x"))
    reply = chat_of(request.replace(b'"input": {}', b'"input": ' + written))["messages"][1]
    assert reply["content"] == "w"
    assert reply["tool_calls"] == [
        {"id": "toolu_1", "type": "function", "function": {"name": "get", "arguments": written.decode()}}
    ]


def test_a_call_alone_has_no_content_and_no_input_is_an_empty_object() -> None:
    bare = {"type": "tool_use", "id": "t1", "name": "f"}
    _, reply, _ = messages(user("q"), assistant([bare]), user([result("r")]))
    assert reply["content"] is None
    assert reply["tool_calls"][0]["function"]["arguments"] == "{}"
    empties: list[Any] = ["", []]
    for nothing in empties:
        assert messages(user("q"), assistant(nothing), user("r"))[1] == {"role": "assistant", "content": ""}


def test_thinking_comes_under_both_names_and_what_only_anthropic_can_read_is_left_out() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        text("a"),
    ]
    assert messages(user("q"), assistant(blocks), user("r"))[1] == {
        "role": "assistant",
        "content": "a",
        "reasoning": "hm",
        "reasoning_content": "hm",
    }


def test_results_come_before_what_the_user_says_besides() -> None:
    turn = user(
        [text("now"), result("r1", "t1"), result([text("a"), text("b")], "t2"), result(id="t3"), result([], "t4")]
    )
    calls = [call(id=f"t{i}") for i in range(1, 5)]
    *results, said = messages(user("q"), assistant(calls), turn)[2:]
    assert [(r["role"], r["tool_call_id"], r["content"]) for r in results] == [
        ("tool", "t1", "r1"),
        ("tool", "t2", "a\nb"),
        ("tool", "t3", ""),
        ("tool", "t4", ""),
    ]
    assert said == user("now")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no such file", "Error: no such file"),
        ("Error: no such file", "Error: no such file"),
        ([text("a"), text("b")], "Error: a\nb"),
        (None, "Error"),
    ],
)
def test_that_a_tool_failed_is_told_in_its_text(content: Any, told: str) -> None:
    said = messages(user("q"), assistant([call()]), user([result(content, is_error=True)]))
    assert said[2]["content"] == told


def test_a_tools_images_go_into_the_next_message_and_no_result_is_parted_from_its_call() -> None:
    turn = user([result([text("a"), image()], "t1"), result("r", "t2"), text("see")])
    said = messages(user("q"), assistant([call(id="t1"), call(id="t2")]), turn)
    assert [message["role"] for message in said] == ["user", "assistant", "tool", "tool", "user"]
    assert said[2]["content"] == f"a\n{IMAGE_BELOW}"
    assert said[4]["content"] == [IMAGE, text("see")]


def test_a_tool_that_a_search_found_is_named() -> None:
    reference = {"type": "tool_reference", "tool_name": "get_weather"}
    said = messages(user("q"), assistant([call()]), user([result([reference])]))
    assert "get_weather" in said[2]["content"]


SYSTEM = {"role": "system", "content": "S"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([SYSTEM, user("q")], [{"role": "system", "content": "S"}, user("q")]),
        ([user("q"), SYSTEM], [user([text("q"), text("\n\nS")])]),
        ([user("q"), assistant("a"), SYSTEM, user("r")], [user("q"), assistant("a"), user([text("S\n\n"), text("r")])]),
        ([user("q"), assistant("a"), SYSTEM], [user("q"), assistant("a"), user("S")]),
        ([user("q"), assistant("a"), SYSTEM, assistant("b")], [user("q"), assistant("a"), user("S"), assistant("b")]),
    ],
)
def test_a_system_message_amid_the_conversation_goes_onto_its_neighbour(given: list[Any], told: list[Any]) -> None:
    assert messages(*given) == told


def test_no_system_message_parts_a_call_from_its_result() -> None:
    before = messages(user("q"), assistant([call()]), SYSTEM, user([result("r")]))
    after = messages(user("q"), assistant([call()]), user([result("r")]), SYSTEM)
    assert before == after
    assert (len(after), after[2]["content"]) == (3, "r\nS")
    said = messages(user("q"), assistant([call()]), SYSTEM, user([result("r"), text("and")]))
    assert said[2:] == [{"role": "tool", "tool_call_id": "t1", "content": "r"}, user([text("S\n\n"), text("and")])]


PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}}
FILE = {"type": "image", "source": {"type": "file", "file_id": "f"}}
SERVER = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s", "content": {"type": "error"}}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ([{"role": "tool", "content": "x"}], "messages[0].role"),
        ([{"role": "x" * 10_000, "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([user("q"), {"role": "user"}], "messages[1].content"),
        ([user(None)], "messages[0].content"),
        ([user(3)], "messages[0].content"),
        ([user([])], "messages[0].content"),
        (["x"], "messages[0]"),
        ([user(["x"])], "messages[0].content[0]"),
        ([user([{"text": "x"}])], "messages[0].content[0].type"),
        ([user([{"type": "text"}])], "messages[0].content[0].text"),
        ([user([{"type": "text", "text": 3}])], "messages[0].content[0].text"),
        ([user([{"type": "h" * 10_000}])], "messages[0].content[0].type"),
        ([user([text("a"), PDF])], "messages[0].content[1].source.type"),
        ([user([FILE])], "messages[0].content[0].source.type"),
        ([user([{"type": "image"}])], "messages[0].content[0].source"),
        ([user([{"type": "image", "source": {"type": "url"}}])], "messages[0].content[0].source.url"),
        (
            [user([{"type": "image", "source": {"type": "base64", "data": "A"}}])],
            "messages[0].content[0].source.media_type",
        ),
        ([user([call()])], "messages[0].content[0].type"),
        ([user("q"), assistant([image()])], "messages[1].content[0].type"),
        ([user("q"), assistant([SERVER])], "messages[1].content[0].type"),
        ([user("q"), assistant([FOUND])], "messages[1].content[0].type"),
        ([user("q"), assistant([{"type": "tool_use", "name": "f"}])], "messages[1].content[0].id"),
        ([user("q"), assistant([{"type": "tool_use", "id": "t"}])], "messages[1].content[0].name"),
        ([user("q"), assistant([{**call(), "input": [1]}])], "messages[1].content[0].input"),
        ([user([{"type": "tool_result"}])], "messages[0].content[0].tool_use_id"),
        ([user([result([result("x")])])], "messages[0].content[0].content[0].type"),
        ([user([result([image(), PDF])])], "messages[0].content[0].content[1].source.type"),
        ([user([result({"a": 1})])], "messages[0].content[0].content"),
        ([user("q"), {"role": "system", "content": [image()]}], "messages[1].content[0].type"),
    ],
)
def test_what_cannot_be_told_is_refused_by_its_path(given: list[Any], param: str) -> None:
    assert refused(*given) == param


def test_a_system_prompt_takes_text_only() -> None:
    assert refused(user("q"), system=[text("a"), image()]) == "system[1].type"
    assert refused(user("q"), system=3) == "system"


def test_documents_in_documents_are_not_followed() -> None:
    inner: dict[str, Any] = text("x")
    for _ in range(200):
        inner = {"type": "document", "source": {"type": "content", "content": [inner]}}
    assert refused(user([inner])) == "messages[0].content[0].source.content[0].type"


def test_bytes_that_are_no_text_are_refused() -> None:
    broken = body(user("q"), assistant([call(x="Q")]), user("r")).replace(b'"Q"', b'"\xff"')
    with pytest.raises(BadRequestError, match="UTF-8") as caught:
        chat_of(broken)
    assert caught.value.param == "messages[1].content[0].input"
    with pytest.raises(BadRequestError) as caught:
        chat_of(body(user("Q")).replace(b'"Q"', b'"\xff"'))
    assert caught.value.param == "messages"


@pytest.mark.parametrize("deep", [b"[" * 200_000 + b"]" * 200_000, b'{"a":' * 200_000 + b"1" + b"}" * 200_000])
def test_deep_nesting_is_refused(deep: bytes) -> None:
    for field in (
        "messages",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "stop_sequences",
        "metadata",
    ):
        raw = {"messages": msgspec.Raw(b'[{"role":"user","content":"q"}]'), field: msgspec.Raw(deep)}
        with pytest.raises(BadRequestError):
            chat_fields(raw)


@pytest.mark.parametrize(
    "given",
    [
        [user([text("x")] * 20_000)],
        [user("x")] * 20_000,
        [user("x"), *[SYSTEM] * 20_000],
        [user("x"), assistant("a"), *[SYSTEM] * 20_000],
        [user("x"), assistant([call()]), user([result([text("x")] * 20_000)]), *[SYSTEM] * 20_000],
        [user("x"), *[assistant([text("y")]), user("z")] * 10_000],
    ],
)
def test_long_conversations_take_time_in_proportion(given: list[Any]) -> None:
    begun = time.process_time()
    messages(*given)
    assert time.process_time() - begun < 5


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, dict[str, list[Any]]]:
    """A request, and what is in it by kind, in order."""
    told: dict[str, list[Any]] = {
        kind: [] for kind in ("system", "user", "answer", "thinking", "call", "result", "image")
    }
    inputs: list[str] = []

    def noted(kind: str) -> str:
        told[kind].append(draw(TEXTS))
        return str(told[kind][-1])

    def shown() -> dict[str, Any]:
        data = str(draw(st.integers(0, 10**9)))
        told["image"].append(f"data:image/png;base64,{data}")
        return image(data)

    def answer() -> list[dict[str, Any]]:
        blocks = []
        for kind in draw(st.lists(st.sampled_from(["text", "thinking", "tool_use"]), min_size=1, max_size=4)):
            if kind == "text":
                blocks.append(text(noted("answer")))
            elif kind == "thinking":
                blocks.append({"type": "thinking", "thinking": noted("thinking"), "signature": ""})
            else:
                written, number = draw(OBJECTS), len(inputs)
                inputs.append(written)
                told["call"].append((f"toolu_{number}", "f", written))
                blocks.append({**call(id=f"toolu_{number}"), "input": f"INPUT{number}!"})
        return blocks

    def results(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        blocks = []
        for made in calls:
            texts = [draw(TEXTS) for _ in range(draw(st.integers(0, 2)))]
            pictured = draw(st.booleans())
            blocks.append(result([*map(text, texts), *([shown()] if pictured else [])], made["id"]))
            told["result"].append((made["id"], "\n".join(texts + [IMAGE_BELOW] * pictured)))
        return blocks

    given = [user(noted("user"))]
    for _ in range(draw(st.integers(0, 4))):
        reply = answer()
        given.append(assistant(reply))
        said = results([block for block in reply if block["type"] == "tool_use"])
        for kind in draw(st.lists(st.sampled_from(["text", "image"]), min_size=0 if said else 1, max_size=3)):
            said.append(text(noted("user")) if kind == "text" else shown())
        given.append(user(said))
    fields = {"system": [text(noted("system"))]} if draw(st.booleans()) else {}
    request = body(*given, **fields)
    for number, written in enumerate(inputs):
        request = request.replace(f'"INPUT{number}!"'.encode(), written.encode())
    return request, told


@settings(deadline=None, max_examples=80)
@given(conversations())
def test_everything_that_was_said_is_in_the_chat_and_in_its_place(made: tuple[bytes, dict[str, list[Any]]]) -> None:
    request, told = made
    said = chat_of(request)["messages"]
    parts = [part for m in said if m["role"] == "user" for part in _as_parts(m["content"])]
    answers = [m for m in said if m["role"] == "assistant"]
    calls = [c for m in answers for c in m.get("tool_calls", [])]
    assert [m["content"] for m in said if m["role"] == "system"] == told["system"]
    assert [part["text"] for part in parts if part["type"] == "text"] == told["user"]
    assert [part["image_url"]["url"] for part in parts if part["type"] == "image_url"] == told["image"]
    assert "".join(m["content"] or "" for m in answers) == "".join(told["answer"])
    assert "".join(m.get("reasoning_content", "") for m in answers) == "".join(told["thinking"])
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == told["call"]
    assert [(m["tool_call_id"], m["content"]) for m in said if m["role"] == "tool"] == told["result"]
    _in_order(said)


def _as_parts(content: Any) -> list[Any]:
    return [text(content)] if isinstance(content, str) else list(content)


def _in_order(said: list[dict[str, Any]]) -> None:
    """As strict chat templates want it: turns take turns, and every result follows its call."""
    open_calls: list[str] = []
    before = ""
    for message in said:
        if message["role"] == "tool":
            assert message["tool_call_id"] == open_calls.pop(0)
        else:
            assert not open_calls
            assert message["role"] != before
        open_calls += [c["id"] for c in message.get("tool_calls", [])]
        before = message["role"]
    assert json.dumps(said)
