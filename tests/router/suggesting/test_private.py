from __future__ import annotations

import pytest

from router.suggesting.private import is_private


@pytest.mark.parametrize(
    "text",
    [
        "write to jane.doe+x@mail.example.org about it",
        "call me on +49 170 123 4567",
        "my card is 4111 1111 1111 1111",
        "IBAN DE89 3704 0044 0532 0130 00 please",
        "ssh root@10.20.30.40 hangs",
        "fe80:0:0:1:2:3 does not answer",
        "what is on https://intranet.example/x?token=1",
        "password: hunter2 does not work",
        "my api key is abc123, why 401?",
        "sk-proj-abcdefgh12345678 is refused",
        "AKIAIOSFODNN7EXAMPLE leaked",
        "-----BEGIN PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9 what is this",
        "decode x9Kq2LmZ7vB4nR8tY1wE5uI0 for me",
    ],
)
def test_what_looks_like_a_secret_or_a_person_s_is_private(text: str) -> None:
    assert is_private(text)


@pytest.mark.parametrize(
    "text",
    [
        "Is a verbal contract enforceable in Spain?",
        "What happened in 1066 and 1945?",
        "contractor took $4,200 for a fence in March",
        "Ticket HR-902: retention policy is ten years",
        "How do I reset a password?",
        "What does the secret service do?",
        "Donaudampfschifffahrtsgesellschaft 2",
        "3 + 4 = 7, 12 of 100",
        "連帯保証人になった場合の責任は？",
    ],
)
def test_ordinary_prompts_are_not(text: str) -> None:
    assert not is_private(text)
