"""Refusals: what a server that answers with a failure says about itself rather than about the request."""

from __future__ import annotations

from enum import StrEnum

LONGEST_BYTES = 1000  # a refusal is one sentence; a longer body may quote the request, which must not pass for one


class Refusal(StrEnum):
    """DRAINING: it finishes what it runs and takes nothing new. LOADING: it is not ready yet. FULL: well, and busy."""

    DRAINING = "draining"
    LOADING = "loading"
    FULL = "full"


# In lower case. vLLM with --shutdown-timeout answers 500 with the first until it is gone, while its /health stays 200.
_DRAINING = (
    b"cannot schedule new futures after shutdown",
    b"cannot schedule new futures after interpreter shutdown",
    b"server is shutting down",
    b"server is draining",
)
_LOADING = (b"loading model", b"model is loading")  # llama.cpp
_FULL = (
    b"currently busy and cannot accept new requests",  # vLLM with --max-num-queued-reqs
    b"no slot available",  # llama.cpp, older
    b"queue is full",  # SGLang
    b"model is overloaded",  # TGI
)


def refusal_of(status: int, body: bytes) -> Refusal | None:
    """What an answer with `status` says of the server that gave it; None for an answer about the request, or a plain fault."""
    if status == 429:
        return Refusal.FULL
    if status not in (500, 503) or len(body) > LONGEST_BYTES:
        return None
    said = body.lower()
    if any(words in said for words in _DRAINING):
        return Refusal.DRAINING
    if status == 503:
        if any(words in said for words in _LOADING):
            return Refusal.LOADING
        if any(words in said for words in _FULL):
            return Refusal.FULL
    return None
