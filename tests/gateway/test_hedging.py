from __future__ import annotations

from gateway.hedging import LEAST_SAMPLES, SAMPLES, Hedges
from tests.fakes.memory import experts_file

EXPERTS = experts_file({"never": {}, "fixed": {"hedge": 0.5}, "p95": {"hedge": "p95"}}).experts


def test_nobody_hedges_who_was_not_told_to() -> None:
    hedges = Hedges(EXPERTS)
    for _ in range(100):
        hedges.learn("never", True, 1.0)
    assert hedges.delay("never", True) is None
    assert hedges.delay("fixed", False) == 0.5


def test_the_95th_percentile_is_that_of_what_was_seen_lately_in_the_same_kind() -> None:
    hedges = Hedges(EXPERTS)
    for i in range(LEAST_SAMPLES - 1):
        hedges.learn("p95", True, float(i))
    assert hedges.delay("p95", True) is None
    hedges.learn("p95", True, 0.5)
    assert hedges.delay("p95", True) == LEAST_SAMPLES - 2
    assert hedges.delay("p95", False) is None  # whole answers take longer than first tokens
    for i in range(SAMPLES):
        hedges.learn("p95", True, i / SAMPLES)
    delay = hedges.delay("p95", True)
    assert delay is not None
    assert 0.94 <= delay <= 0.96
