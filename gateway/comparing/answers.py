"""Answer: what one expert said to one prompt, how long it took, and whether it is right."""

from __future__ import annotations

import hashlib

import msgspec

from gateway.comparing.prompts import Prompt


class Answer(msgspec.Struct, kw_only=True):
    """`target` is the model that was asked for, `expert` who answered. Times in seconds from the request's first byte;
    `tokens_per_second` is the pace after the first token. `grade` is 1 for right, 0 for wrong, None where nobody can say."""

    key: str
    prompt: str
    target: str
    expert: str = ""
    model: str = ""
    domain: str = ""
    reason: str = ""
    text: str = ""
    reasoning: str = ""
    finish: str = ""
    error: str = ""
    first_token: float | None = None
    seconds: float = 0.0
    tokens_per_second: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    grade: float | None = None
    why: str = ""


class Sampling(msgspec.Struct, frozen=True):
    """What every prompt is asked with; None leaves it to the expert's defaults."""

    max_tokens: int | None = None
    temperature: float | None = None


def key_of(prompt: Prompt, target: str, sampling: Sampling) -> str:
    """What an answer is known by: the same messages, put to the same target in the same way."""
    asked = msgspec.json.encode((prompt.messages, target, sampling))
    return hashlib.blake2b(asked, digest_size=12).hexdigest()
