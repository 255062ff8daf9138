from __future__ import annotations

from gateway.hedging import LEAST_SAMPLES, SAMPLES, Hedges
from tests.fakes.memory import experts_file

EXPERTS = experts_file({"never": {}, "fixed": {"hedge": 0.5}, "p95": {"hedge": "p95"}}).experts

CHAT, WHOLE = ("chat.completions", True), ("chat.completions", False)


def test_nobody_hedges_who_was_not_told_to() -> None:
    hedges = Hedges(EXPERTS)
    for _ in range(100):
        hedges.learn("never", CHAT, 1.0)
    assert hedges.delay("never", CHAT) is None
    assert hedges.delay("fixed", WHOLE) == 0.5


def test_the_95th_percentile_is_that_of_what_was_seen_lately_in_the_same_kind() -> None:
    hedges = Hedges(EXPERTS)
    for i in range(LEAST_SAMPLES - 1):
        hedges.learn("p95", CHAT, float(i))
    assert hedges.delay("p95", CHAT) is None
    hedges.learn("p95", CHAT, 0.5)
    assert hedges.delay("p95", CHAT) == LEAST_SAMPLES - 2
    assert hedges.delay("p95", WHOLE) is None  # whole answers take longer than first tokens
    for i in range(SAMPLES):
        hedges.learn("p95", CHAT, i / SAMPLES)
    delay = hedges.delay("p95", CHAT)
    assert delay is not None
    assert 0.94 <= delay <= 0.96
