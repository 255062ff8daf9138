"""What no body may be, whatever endpoint it came to."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import BadRequestError
from gateway.requests.chat import Chat
from gateway.requests.completion import Completion
from gateway.requests.embedding import Embedding
from gateway.requests.fields import check_encoding, check_pieces, fields_of
from gateway.requests.message import CountTokens, MessageRequest
from gateway.requests.response import ResponseRequest
from router.errors import MessagesError
from tests.gateway.requests.test_chat import expert

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a,"\\[]{}:\n ü', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(alphabet='a,"\\', max_size=3), inner, max_size=4)
    ),
    max_leaves=30,
)


def commas_of(value: Any) -> int:
    """Those between the values of arrays and objects, the texts left out."""
    if isinstance(value, dict):
        return max(0, len(value) - 1) + sum(map(commas_of, value.values()))
    if isinstance(value, list):
        return max(0, len(value) - 1) + sum(map(commas_of, value))
    return 0


@given(JSON, st.integers(0, 12), st.booleans())
@example(["\\", '",",",', "\\\\", ",,,"], 2, True)
def test_the_values_of_a_body_are_counted_and_no_text_that_looks_like_them(
    value: Any, limit: int, ascii_: bool
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_).encode()
    try:
        check_pieces(body, limit)
    except MessagesError:
        assert commas_of(value) > limit
    else:
        assert commas_of(value) <= limit


@given(st.lists(st.sampled_from([b'"', b"\\", b",", b"{", b"]", b"a"]), max_size=40).map(b"".join), st.integers(0, 3))
def test_the_values_of_what_is_no_json_are_counted_somehow(body: bytes, limit: int) -> None:
    try:
        check_pieces(body, limit)
    except MessagesError:
        assert body.count(b",") > limit


def test_a_body_of_texts_without_end_is_given_up() -> None:
    with pytest.raises(MessagesError, match="more than 2 "):
        check_pieces(b'""' * 20_000 + b",,,", 2)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        ('{"a":1}'.encode("utf-16"), "UTF-16"),
        ('{"a":1}'.encode("utf-16-le"), "UTF-16"),
        ('{"a":1}'.encode("utf-16-be"), "UTF-16"),
        ('{"a":1}'.encode("utf-32"), "UTF-16"),
        (gzip.compress(b'{"a":1}', mtime=0), "compressed"),
        (b'{"a":"\xe9"}', "not UTF-8 (byte 6)"),
        (b'{"\xff":1}', "not UTF-8 (byte 2)"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),  # half a character, as CESU-8 writes it
        (b'{"a":"\xc0\xaf"}', "not UTF-8"),  # a slash, written too long
        (b'{"a":"\xf0\x9f\x98"}', "not UTF-8"),  # cut off in the middle
    ],
)
def test_what_is_not_utf8_is_told_for_what_it_is(body: bytes, why: str) -> None:
    for read in (check_encoding, fields_of):
        with pytest.raises(BadRequestError, match=re.escape(why)) as caught:
            read(body)
        assert caught.value.code == "invalid_json"


@given(st.text())
def test_what_is_utf8_passes(text: str) -> None:
    check_encoding(b"{" + text.encode("utf-8", "replace") + b"}" if "\0" not in text[:4] else b"{}")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Chat, b'"messages":[{"role":"user","content":"hi"}]'),
        (Completion, b'"prompt":"hi"'),
        (Embedding, b'"input":"hi"'),
        (ResponseRequest, b'"input":"hi"'),
        (MessageRequest, b'"messages":[{"role":"user","content":"hi"}],"max_tokens":5'),
        (CountTokens, b'"messages":[{"role":"user","content":"hi"}]'),
    ],
)
@pytest.mark.parametrize("name", [b'"model"', rb'"mod\u0065l"', rb'"\u006dodel"'])
def test_of_a_field_that_is_said_twice_router_and_expert_see_the_same_one(kind: Any, body: bytes, name: bytes) -> None:
    request = kind.parse(b'{"model":"a",' + body + b',"seed":1,' + name + b':"b","seed":2}')
    assert request.query().requested_model == "b"
    sent = request.body(expert("mine"))
    assert sent.count(b"mod") == 1
    assert json.loads(sent, object_pairs_hook=list).count(("seed", 2)) == 1
    assert (json.loads(sent)["model"], sent.count(b'"seed"')) == ("mine", 1)
