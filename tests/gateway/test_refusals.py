from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusals import LONGEST_BYTES, Refusal, refusal_of


def said(message: str, code: int) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "param": None, "code": code}}).encode()


# As the servers say it.
VLLM_DRAINS = said("cannot schedule new futures after shutdown", 500)
VLLM_FULL = said(
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.",
    503,
)
VLLM_DEAD = said("EngineCore encountered an issue. See stack trace (above) for the root cause.", 500)
LLAMA_LOADS = b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'


@pytest.mark.parametrize(("status", "body", "refusal"), [
    (500, VLLM_DRAINS, Refusal.DRAINING),
    (503, VLLM_DRAINS, Refusal.DRAINING),
    (503, VLLM_FULL, Refusal.FULL),
    (503, LLAMA_LOADS, Refusal.LOADING),
    (429, b"", Refusal.FULL),
    (500, VLLM_DEAD, None),
    (503, b"", None),
    (503, b"upstream connect error", None),
    (500, LLAMA_LOADS, None),
    (500, VLLM_FULL, None),
])  # fmt: skip
def test_what_servers_say_of_themselves(status: int, body: bytes, refusal: Refusal | None) -> None:
    assert refusal_of(status, body) is refusal


@pytest.mark.parametrize("status", [200, 400, 404, 408, 422, 502, 504])
@pytest.mark.parametrize("body", [VLLM_DRAINS, VLLM_FULL, LLAMA_LOADS])
def test_other_statuses_say_nothing(status: int, body: bytes) -> None:
    assert refusal_of(status, body) is None


@given(st.sampled_from([500, 503]), st.integers(LONGEST_BYTES, 3 * LONGEST_BYTES))
def test_a_fault_that_quotes_a_long_request_is_no_refusal(status: int, length: int) -> None:
    assert refusal_of(status, said("bad: " + "x" * length + " cannot schedule new futures after shutdown", 500)) is None


@given(st.integers(100, 599), st.binary(max_size=200))
def test_no_bytes_make_it_fail(status: int, body: bytes) -> None:
    refusal_of(status, body)
