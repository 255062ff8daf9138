"""The watch over the fleet: times to first token as a mean that forgets, and who is down."""

from __future__ import annotations

import pytest

from gateway.exchange import Exchange, Outcome
from gateway.fleet import HALF_LIFE_TOKENS, SECONDS_KEPT, SECONDS_REMEMBERED, WEIGHT, FleetWatch
from gateway.pool import Pool
from gateway.usage import Usage
from tests.fakes.clock import Clock
from tests.fakes.memory import experts_file


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool() -> Pool:
    return Pool(experts_file({"coder": {}, "general": {}}, replicas=2), {})


@pytest.fixture
def watch(pool: Pool, clock: Clock) -> FleetWatch:
    return FleetWatch(pool, clock)


def streamed(
    expert: str, seconds: float | None, outcome: Outcome = Outcome.OK, stream: bool = True, failed: str | None = None
) -> Exchange:
    """A finished stream whose first token came so many seconds after its last attempt began."""
    exchange = Exchange("r", "chat.completions", stream=stream)
    for name in filter(None, (failed, expert)):
        exchange.attempt(name, f"{name}-0")
    exchange.first_token = None if seconds is None else exchange.attempts[-1].started + seconds
    exchange.finish(outcome, 200)
    return exchange


def test_at_first_nothing_is_known(watch: FleetWatch) -> None:
    assert (watch().latency, watch().down) == ({}, frozenset())


def test_the_first_stream_tells_an_experts_latency_and_later_ones_move_it(watch: FleetWatch, clock: Clock) -> None:
    watch.observe(streamed("coder", 2.0))
    assert watch().latency == pytest.approx({"coder": 2.0})
    watch.observe(streamed("coder", 1.0))
    clock.now += SECONDS_KEPT
    assert watch().latency == pytest.approx({"coder": 2.0 - WEIGHT})


def test_an_attempt_that_failed_before_does_not_count_against_who_answered(watch: FleetWatch) -> None:
    exchange = streamed("general", 0.5, failed="coder")
    exchange.attempts[0].started -= 100
    watch.observe(exchange)
    assert watch().latency == pytest.approx({"general": 0.5})


@pytest.mark.parametrize(
    "exchange",
    [
        streamed("coder", None),
        streamed("coder", 1.0, Outcome.TRUNCATED),
        streamed("coder", 1.0, Outcome.CANCELLED),
        streamed("coder", 1.0, stream=False),
        Exchange("r", "route"),
    ],
    ids=["no token", "truncated", "left", "in one piece", "no answer at all"],
)
def test_what_says_nothing_of_the_first_token_is_passed_over(watch: FleetWatch, exchange: Exchange) -> None:
    watch.observe(exchange)
    assert watch().latency == {}


def test_what_was_measured_long_ago_is_forgotten(watch: FleetWatch, clock: Clock) -> None:
    watch.observe(streamed("coder", 9.0))
    clock.now += SECONDS_REMEMBERED / 2
    watch.observe(streamed("general", 1.0))
    assert set(watch().latency) == {"coder", "general"}
    clock.now += SECONDS_REMEMBERED / 2
    assert set(watch().latency) == {"general"}


def test_an_expert_is_down_when_none_of_its_replicas_can_be_asked(watch: FleetWatch, pool: Pool, clock: Clock) -> None:
    first, second = pool.replicas["coder"]
    first.up = False
    assert watch().down == frozenset()
    second.open_until = float("inf")
    clock.now += SECONDS_KEPT
    assert watch().down == {"coder"}
    first.up = True
    clock.now += SECONDS_KEPT
    assert watch().down == frozenset()


def test_a_snapshot_is_kept_for_a_moment(watch: FleetWatch, pool: Pool, clock: Clock) -> None:
    before = watch()
    for replica in pool.replicas["coder"]:
        replica.up = False
    clock.now += SECONDS_KEPT * 0.9
    assert watch() is before
    clock.now += SECONDS_KEPT * 0.2
    assert watch().down == {"coder"}


def test_a_snapshot_does_not_change(watch: FleetWatch, clock: Clock) -> None:
    watch.observe(streamed("coder", 2.0))
    before = watch()
    watch.observe(streamed("coder", 4.0))
    watch.observe(streamed("general", 4.0))
    assert before.latency == pytest.approx({"coder": 2.0})


def hourly(tokens: int, seconds: float, outcome: Outcome = Outcome.OK) -> Exchange:
    """A finished request that had so many seconds of a server at 3.6 USD an hour, for so many tokens."""
    expert = experts_file({"coder": {"price": {"gpu_hour": 3.6}}}).experts["coder"]
    exchange = Exchange("r", "chat.completions", expert_id="coder", expert=expert)
    exchange.usage = Usage(input=tokens // 2, cached_input=10_000, output=tokens - tokens // 2)
    exchange.took("coder", expert, seconds)
    exchange.finish(outcome, 200)
    return exchange


def test_the_price_of_an_expert_that_is_paid_by_the_hour_is_measured(watch: FleetWatch, clock: Clock) -> None:
    watch.observe(hourly(500, 1.0))
    assert watch().prices == {}  # too little to go by
    watch.observe(hourly(1500, 1.0))
    clock.now += SECONDS_KEPT
    assert watch().prices == pytest.approx({"coder": 2 * 0.001 / 2000 * 1e6}, rel=0.01)


def test_what_was_measured_many_tokens_ago_counts_less(watch: FleetWatch, clock: Clock) -> None:
    watch.observe(hourly(int(HALF_LIFE_TOKENS), 10_000.0))
    watch.observe(hourly(int(HALF_LIFE_TOKENS), 1000.0))
    assert watch().prices == pytest.approx({"coder": (5.0 + 1.0) / 1.5})


def test_an_expert_with_token_prices_or_that_told_no_usage_has_no_measured_price(
    watch: FleetWatch, clock: Clock
) -> None:
    untold = hourly(5000, 1.0)
    untold.usage = None
    watch.observe(untold)
    watch.observe(streamed("general", 1.0))
    assert watch().prices == {}
