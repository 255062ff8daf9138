from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import ANONYMOUS, Keyring
from gateway.errors import AuthenticationError

KEYS = {"team-a": "key-of-a", "team-b": "schlüssel-of-b"}


def refused(headers: dict[bytes, bytes]) -> AuthenticationError:
    with pytest.raises(AuthenticationError) as caught:
        Keyring(KEYS).caller(headers)
    return caught.value


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b"bEaReR"])
def test_a_bearer_key_names_its_caller_in_any_case_of_the_scheme(scheme: bytes) -> None:
    assert Keyring(KEYS).caller({b"authorization": scheme + b" key-of-a"}) == "team-a"


@pytest.mark.parametrize("value", [b"Bearer  key-of-a", b"Bearer key-of-a ", b"Bearer \tkey-of-a"])
def test_blanks_around_a_bearer_key_do_not_count(value: bytes) -> None:
    assert Keyring(KEYS).caller({b"authorization": value}) == "team-a"


def test_x_api_key_names_its_caller() -> None:
    assert Keyring(KEYS).caller({b"x-api-key": b" key-of-a "}) == "team-a"


def test_a_key_beyond_ascii_is_compared_as_utf_8() -> None:
    assert Keyring(KEYS).caller({b"x-api-key": "schlüssel-of-b".encode()}) == "team-b"


@pytest.mark.parametrize("authorization", [b"Basic key-of-b", b"Bearer", b"Bearer  ", b""])
def test_x_api_key_counts_where_authorization_holds_no_bearer_key(authorization: bytes) -> None:
    assert Keyring(KEYS).caller({b"authorization": authorization, b"x-api-key": b"key-of-a"}) == "team-a"


def test_a_wrong_bearer_key_is_not_made_good_by_x_api_key() -> None:
    refused({b"authorization": b"Bearer wrong", b"x-api-key": b"key-of-a"})


@pytest.mark.parametrize(
    "headers",
    [{}, {b"authorization": b"Bearer "}, {b"authorization": b"Basic key-of-a"}, {b"authorization": b"key-of-a"},
     {b"x-api-key": b"  "}, {b"cookie": b"key-of-a"}],
)  # fmt: skip
def test_without_a_key_the_caller_is_told_how_to_send_one(headers: dict[bytes, bytes]) -> None:
    error = refused(headers)
    assert error.status == 401
    assert "x-api-key" in error.message
    assert "Authorization: Bearer" in error.message


@pytest.mark.parametrize(
    "key", [b"key-of-", b"key-of-aa", b"KEY-OF-A", b"team-a", b"\xff\xfe", "schlüssel-of-b".encode("latin-1"), b"\0"]
)
def test_an_unknown_key_is_refused_and_not_repeated(key: bytes) -> None:
    error = refused({b"authorization": b"Bearer " + key})
    assert error.message == "That API key is not known here."
    assert error.code == "invalid_api_key"


@given(st.binary(max_size=30), st.sampled_from([b"authorization", b"x-api-key"]))
def test_no_bytes_but_a_key_get_in(value: bytes, name: bytes) -> None:
    given_key = value.split(b" ", 1)[-1].strip()
    if given_key in {key.encode() for key in KEYS.values()}:
        return
    refused({name: value})


@pytest.mark.parametrize("headers", [{}, {b"authorization": b"Bearer anything"}, {b"x-api-key": b"\xff"}])
def test_where_no_key_is_set_every_caller_is_anonymous(headers: dict[bytes, bytes]) -> None:
    assert Keyring({}).caller(headers) == ANONYMOUS


def test_each_key_has_its_own_name() -> None:
    ring = Keyring({f"team-{i}": f"key-{i}" for i in range(20)})
    assert [ring.caller({b"x-api-key": f"key-{i}".encode()}) for i in range(20)] == [f"team-{i}" for i in range(20)]
