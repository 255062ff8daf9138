from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.upstreams.base import FixedAddress
from gateway.upstreams.sending import SHOWN_CHARACTERS, plain, refusal


@pytest.mark.parametrize(("body", "message"), [
    ({"error": {"message": "no", "type": "x", "param": None, "code": 400}}, "no"),
    ({"error": "Unauthorized"}, "Unauthorized"),
    ({"detail": "Not Found"}, None),
    ({"error": {"message": 5}}, None),
    ([], None),
])  # fmt: skip
def test_a_refusal_is_read_in_both_of_vllm_s_shapes(body: Any, message: str | None) -> None:
    assert refusal(json.dumps(body).encode()) == message


def test_what_is_no_json_is_no_refusal() -> None:
    assert [refusal(body) for body in (b"", b"\xff", b"[" * 10_000)] == [None] * 3


def test_what_a_server_wrote_is_short_and_printable_and_tells_neither_key_nor_address() -> None:
    address = FixedAddress("http://10.0.0.5:8000/v1", "k-123")
    assert plain("10.0.0.5:8000 wants k-123 of 10.0.0.5\x07", address) == "… wants … of …\ufffd"
    assert plain("x" * 1000, address) == "x" * SHOWN_CHARACTERS + "…"
    assert plain("fine", FixedAddress("")) == "fine"
