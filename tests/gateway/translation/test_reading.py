from __future__ import annotations

import msgspec
import pytest

from gateway.errors import BadRequestError
from gateway.translation.reading import read, refuse, shown


class Thing(msgspec.Struct):
    number: int
    more: list[int] = []


DECODER = msgspec.json.Decoder(Thing)


@pytest.mark.parametrize(
    ("value", "param", "code"),
    [
        (b"[]", "x[1]", "invalid_request"),
        (b"{}", "x[1].number", "invalid_request"),
        (b'{"number": "a"}', "x[1].number", "invalid_request"),
        (b'{"number": 1, "more": [1, null]}', "x[1].more[1]", "invalid_request"),
        (b"{", "x[1]", "invalid_json"),
        (b'{"a": ' + b"[" * 100_000, "x[1]", "invalid_json"),
    ],
)
def test_what_is_wrong_and_where(value: bytes, param: str, code: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(value, DECODER, "x[1]")
    assert (caught.value.param, caught.value.code) == (param, code)
    assert param in caught.value.message


def test_what_is_right() -> None:
    assert read(msgspec.Raw(b'{"number": 1}'), DECODER, "x") == Thing(1)


def test_a_refusal_names_the_field_and_shows_little_of_it() -> None:
    with pytest.raises(BadRequestError) as caught:
        refuse("x", "why")
    assert (caught.value.param, caught.value.message) == ("x", "why")
    assert shown("a") == "'a'"
    assert len(shown("a" * 1_000)) < 70
