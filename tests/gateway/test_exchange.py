from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import Exchange, Observer, Outcome, Phase
from gateway.usage import Usage
from router.prices import Price
from tests.fakes.memory import experts_file

OUTCOMES = st.sampled_from(list(Outcome))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("attempt")),
        st.tuples(st.just("end"), st.integers(0, 5), OUTCOMES),
        st.tuples(st.just("finish"), OUTCOMES, st.sampled_from([200, 400, 499, 502])),
        st.tuples(st.just("token")),
    ),
    max_size=12,
)


def exchange(*observers: Observer, **fields: Any) -> Exchange:
    return Exchange("req-1", "chat.completions", observers, **fields)


def perform(subject: Exchange, operation: tuple[Any, ...]) -> None:
    match operation:
        case ("attempt",) if subject.finished is None:
            subject.attempt("coder", f"coder-{len(subject.attempts)}")
        case ("end", which, outcome) if subject.attempts:
            subject.end_attempt(subject.attempts[which % len(subject.attempts)], outcome)
        case ("finish", outcome, status):
            subject.finish(outcome, status)
        case ("token",):
            subject.token()


@given(OPERATIONS)
def test_an_exchange_is_finished_once_whatever_the_calls(operations: list[tuple[Any, ...]]) -> None:
    seen: list[tuple[Outcome | None, int]] = []
    subject = exchange(lambda e: seen.append((e.outcome, e.status)))
    for operation in [*operations, ("finish", Outcome.SERVER_ERROR, 500)]:
        perform(subject, operation)
    finishes = [op for op in operations if op[0] == "finish"]
    first = (finishes[0][1], finishes[0][2]) if finishes else (Outcome.SERVER_ERROR, 500)
    assert seen == [first]
    assert (subject.outcome, subject.status) == first


@given(OPERATIONS)
def test_every_attempt_is_ended_and_its_first_end_counts(operations: list[tuple[Any, ...]]) -> None:
    subject = exchange()
    expected: dict[int, Outcome] = {}
    for operation in [*operations, ("finish", Outcome.OK, 200)]:
        if operation[0] == "end" and subject.attempts:
            expected.setdefault(operation[1] % len(subject.attempts), operation[2])
        if operation[0] == "finish":
            for i in range(len(subject.attempts)):
                expected.setdefault(i, Outcome.CANCELLED)
        perform(subject, operation)
    assert [attempt.outcome for attempt in subject.attempts] == [expected[i] for i in range(len(subject.attempts))]


def test_an_observer_sees_attempts_that_are_ended() -> None:
    seen: list[Outcome | None] = []
    subject = exchange(lambda e: seen.extend(a.outcome for a in e.attempts))
    subject.attempt("coder", "coder-0")
    subject.end_attempt(subject.attempt("coder", "coder-1"), Outcome.OK)
    subject.finish(Outcome.OK, 200)
    assert seen == [Outcome.CANCELLED, Outcome.OK]


def test_an_observer_that_raises_stops_neither_the_others_nor_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def broken(_: Exchange) -> None:
        seen.append("broken")
        raise RuntimeError("no room on the disk")

    subject = exchange(lambda e: seen.append("before"), broken, lambda e: seen.append("after"))
    with caplog.at_level(logging.ERROR, "moe_gateway"):
        subject.finish(Outcome.OK, 200)
    assert seen == ["before", "broken", "after"]
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["request_id"]) == ("an observer failed", "req-1")


def test_an_observer_that_finishes_again_is_not_called_again() -> None:
    seen: list[int] = []

    def again(e: Exchange) -> None:
        seen.append(e.status)
        e.finish(Outcome.OK, 599)

    subject = exchange(again)
    subject.finish(Outcome.REJECTED, 429)
    assert (seen, subject.status) == ([429], 429)


def test_the_clock_stops_when_the_exchange_is_finished() -> None:
    subject = exchange(started=100.0)
    subject.finish(Outcome.OK, 200)
    assert subject.finished is not None
    assert subject.seconds == subject.seconds == subject.finished - 100.0


def test_only_the_last_token_moves_on() -> None:
    subject = exchange()
    assert subject.first_token is None
    subject.token()
    first = subject.first_token
    subject.token()
    assert first is not None
    assert subject.first_token == first
    assert subject.last_token is not None
    assert subject.last_token > first


def test_what_one_expert_said_is_not_the_next_one_s() -> None:
    experts = experts_file({"coder": {}, "general": {}}).experts
    subject = exchange()
    subject.begin("coder", experts["coder"])
    subject.usage = Usage(5, 0, 5)
    subject.token()
    subject.begin("general", experts["general"])
    assert (subject.expert_id, subject.expert) == ("general", experts["general"])
    assert [subject.usage, subject.first_token, subject.last_token] == [None] * 3


def test_waiting_counts_though_it_ends_in_an_error() -> None:
    subject = exchange()
    with pytest.raises(KeyError), subject.waiting():
        raise KeyError
    once = subject.waited
    assert once > 0
    with subject.waiting():
        pass
    assert subject.waited > once


def test_an_exchange_begins_with_nothing_decided() -> None:
    subject = exchange()
    assert (subject.phase, subject.outcome, subject.cost, subject.attempts) == (Phase.ROUTING, None, None, [])


@pytest.mark.parametrize("usage", [None, Usage(1_000_000, 0, 500_000)])
@pytest.mark.parametrize("price", [None, Price(input=1.0, output=4.0)])
def test_the_cost_is_known_where_price_and_usage_are(usage: Usage | None, price: Price | None) -> None:
    expert = experts_file({"coder": {"price": price and price.model_dump()}}).experts["coder"]
    subject = exchange(expert=expert, usage=usage)
    assert subject.cost == (3.0 if price and usage else None)
    assert exchange(usage=usage).cost is None
