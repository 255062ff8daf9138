"""The breaker of a replica: what opens it, what closes it, and who is let through while it is half open."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import Outcome
from gateway.load import Load
from gateway.refusals import Refusal
from gateway.replica import (
    BUSY_SECONDS,
    COOL_DOWN_SECONDS,
    FAILURES_TO_OPEN,
    FAULTS,
    FIRST_TOKEN_SECONDS,
    LEAST_FIRST_TOKENS,
    LONGEST_BUSY_SECONDS,
    LONGEST_COOL_DOWN_SECONDS,
    SLOW_SHARE,
    TRIAL_SECONDS,
    Replica,
    State,
    by_server,
)
from gateway.upstreams.base import Address, FixedAddress
from tests.fakes.clock import Clock

HARMLESS = sorted(set(Outcome) - FAULTS - {Outcome.OK})


class NoAddress:
    """A worker that is not up."""

    url: str | None = None
    api_key: str | None = None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replica(clock: Clock) -> Replica:
    return replica_at(clock=clock)


def replica_at(address: Address | None = None, clock: Callable[[], float] | None = None) -> Replica:
    return Replica("coder-0", address or FixedAddress("http://coder-0.test/v1"), clock=clock or Clock())


def state(replica: Replica) -> State:
    return replica.state


def fail(replica: Replica, times: int = 1, outcome: Outcome = Outcome.SERVER_ERROR) -> None:
    """So many requests begin and fail, one after the other."""
    for _ in range(times):
        ticket = replica.begin()
        replica.note(outcome, ticket)
        replica.end(ticket)


def opened(replica: Replica) -> Replica:
    fail(replica, FAILURES_TO_OPEN)
    return replica


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_enough_faults_in_a_row_open_the_breaker(fault: Outcome, replica: Replica) -> None:
    fail(replica, FAILURES_TO_OPEN - 1, fault)
    assert replica.available
    assert replica.retry_after == 0
    fail(replica, 1, fault)
    assert not replica.available
    assert state(replica) is State.EJECTED
    assert replica.retry_after == COOL_DOWN_SECONDS


def test_what_is_a_fault_is_what_the_replica_can_be_blamed_for() -> None:
    assert set(HARMLESS) == {Outcome.CLIENT_ERROR, Outcome.REJECTED, Outcome.CANCELLED}


@given(st.lists(st.sampled_from(HARMLESS), max_size=20))
def test_a_client_s_4xx_never_trips_the_breaker(outcomes: list[Outcome]) -> None:
    replica = replica_at()
    fail(replica, FAILURES_TO_OPEN - 1)
    for outcome in outcomes:
        fail(replica, 1, outcome)
    assert replica.available
    fail(replica)
    assert not replica.available


def test_the_one_that_trips_it_says_why_and_the_others_say_nothing(replica: Replica) -> None:
    causes = [replica.note(Outcome.TIMEOUT) for _ in range(FAILURES_TO_OPEN + 2)]
    assert causes == [None] * (FAILURES_TO_OPEN - 1) + ["failures", None, None]
    assert replica.cause == "failures"


def test_a_second_trip_lasts_twice_as_long_and_none_longer_than_the_longest(replica: Replica, clock: Clock) -> None:
    opened(replica)
    waits = [replica.retry_after]
    for _ in range(6):
        clock.now += replica.retry_after
        fail(replica)
        waits.append(replica.retry_after)
    assert waits[:3] == [COOL_DOWN_SECONDS, 2 * COOL_DOWN_SECONDS, 4 * COOL_DOWN_SECONDS]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_COOL_DOWN_SECONDS


def test_a_replica_that_failed_for_days_still_just_cools_down(replica: Replica, clock: Clock) -> None:
    opened(replica)
    for _ in range(2000):
        clock.now += replica.retry_after
        fail(replica)
    assert replica.retry_after == LONGEST_COOL_DOWN_SECONDS


def test_the_many_requests_that_one_crash_ends_are_one_trip_whose_cool_down_begins_with_the_last(
    replica: Replica, clock: Clock
) -> None:
    tickets = [replica.begin() for _ in range(50)]
    for ticket in tickets:
        clock.now += 0.1
        replica.note(Outcome.TRUNCATED, ticket)
        replica.end(ticket)
    assert replica.trips == 1
    assert replica.retry_after == COOL_DOWN_SECONDS


def test_a_success_forgets_the_failures_before_it(replica: Replica) -> None:
    fail(replica, FAILURES_TO_OPEN - 1)
    fail(replica, 1, Outcome.OK)
    fail(replica, FAILURES_TO_OPEN - 1)
    assert replica.available


# Half open: past its cool-down, with one request that has to prove it well.


def test_after_the_cool_down_exactly_one_request_is_let_through(replica: Replica, clock: Clock) -> None:
    opened(replica)
    clock.now += COOL_DOWN_SECONDS - 0.001
    assert not replica.available
    assert not replica.promising
    clock.now += 0.001
    assert state(replica) is State.HALF_OPEN
    assert replica.available
    trial = replica.begin()
    assert trial.trial
    assert not replica.available
    assert replica.promising
    assert state(replica) is State.HALF_OPEN
    assert replica.retry_after == TRIAL_SECONDS


def test_the_first_token_of_the_trial_lets_the_others_in_and_its_success_forgives(
    replica: Replica, clock: Clock
) -> None:
    opened(replica)
    clock.now += COOL_DOWN_SECONDS
    trial = replica.begin()
    replica.first_token(trial, 0.1)
    assert replica.available
    assert state(replica) is State.UP
    assert replica.failures == FAILURES_TO_OPEN - 1
    replica.note(Outcome.OK, trial)
    replica.end(trial)
    assert (replica.failures, replica.trips) == (0, 0)


def test_a_trial_that_fails_after_its_first_token_opens_the_breaker_again_for_longer(
    replica: Replica, clock: Clock
) -> None:
    opened(replica)
    clock.now += COOL_DOWN_SECONDS
    trial = replica.begin()
    replica.first_token(trial, 0.1)
    replica.note(Outcome.TRUNCATED, trial)
    replica.end(trial)
    assert replica.retry_after == 2 * COOL_DOWN_SECONDS


def test_a_first_token_does_not_forgive_one_that_always_breaks_off_after_it(replica: Replica) -> None:
    for _ in range(FAILURES_TO_OPEN):
        ticket = replica.begin()
        replica.first_token(ticket, 0.1)
        replica.note(Outcome.STREAM_ERROR, ticket)
        replica.end(ticket)
    assert not replica.available


@pytest.mark.parametrize("outcome", [*HARMLESS, None])
def test_a_trial_that_proves_nothing_makes_room_for_the_next(
    outcome: Outcome | None, replica: Replica, clock: Clock
) -> None:
    opened(replica)
    clock.now += COOL_DOWN_SECONDS
    trial = replica.begin()
    if outcome is not None:
        replica.note(outcome, trial)
    assert not replica.available
    replica.end(trial)
    assert state(replica) is State.HALF_OPEN
    assert replica.available


def test_a_trial_that_takes_for_ever_keeps_the_others_out_for_a_while_only(replica: Replica, clock: Clock) -> None:
    opened(replica)
    clock.now += COOL_DOWN_SECONDS
    first = replica.begin()
    clock.now += TRIAL_SECONDS
    assert replica.available
    second = replica.begin()
    assert second.trial
    assert not replica.available
    replica.note(Outcome.OK, second)
    assert replica.available
    replica.end(second)
    replica.end(first)
    assert replica.in_flight == 0


def test_what_began_before_the_trip_neither_closes_the_breaker_nor_counts_as_the_trial(
    replica: Replica, clock: Clock
) -> None:
    long = replica.begin()
    opened(replica)
    replica.first_token(long, 0.1)
    replica.note(Outcome.OK, long)
    assert replica.retry_after == COOL_DOWN_SECONDS
    clock.now += COOL_DOWN_SECONDS
    trial = replica.begin()
    replica.end(long)
    assert not replica.available  # the trial still runs
    replica.end(trial)
    assert replica.in_flight == 0


def test_a_fault_from_before_does_not_send_a_half_open_one_back(replica: Replica, clock: Clock) -> None:
    before = replica.begin()
    opened(replica)
    clock.now += COOL_DOWN_SECONDS
    replica.note(Outcome.TIMEOUT, before)
    assert state(replica) is State.HALF_OPEN
    assert replica.trips == 1


def test_a_fault_from_before_extends_a_cool_down_that_runs(replica: Replica, clock: Clock) -> None:
    before = replica.begin()
    opened(replica)
    clock.now += COOL_DOWN_SECONDS / 2
    replica.note(Outcome.TIMEOUT, before)
    assert replica.retry_after == COOL_DOWN_SECONDS


# What servers say of themselves.


def test_a_draining_server_is_out_at_once_and_what_it_still_finishes_does_not_bring_it_back(
    replica: Replica, clock: Clock
) -> None:
    running, new, newer = replica.begin(), replica.begin(), replica.begin()
    assert replica.note(Outcome.SERVER_ERROR, new, Refusal.DRAINING) == "draining"
    assert replica.note(Outcome.SERVER_ERROR, newer, Refusal.DRAINING) is None
    replica.note(Outcome.OK, running)
    assert state(replica) is State.DRAINING
    assert not replica.available
    assert replica.retry_after == COOL_DOWN_SECONDS


def test_a_draining_server_is_asked_by_one_request_after_the_cool_down(replica: Replica, clock: Clock) -> None:
    fail_draining(replica)
    clock.now += COOL_DOWN_SECONDS
    assert state(replica) is State.HALF_OPEN
    fail_draining(replica)
    assert state(replica) is State.DRAINING
    assert replica.retry_after == 2 * COOL_DOWN_SECONDS


def fail_draining(replica: Replica) -> None:
    ticket = replica.begin()
    replica.note(Outcome.SERVER_ERROR, ticket, Refusal.DRAINING)
    replica.end(ticket)


def test_one_that_drained_is_back_when_it_was_down_and_is_up(replica: Replica) -> None:
    replica.probe(True)
    fail_draining(replica)
    replica.probe(True)
    assert state(replica) is State.DRAINING  # its /health is well until the end
    replica.probe(False)
    assert state(replica) is State.DOWN
    replica.probe(True)
    assert state(replica) is State.UP


def test_one_that_drained_is_back_when_another_process_tells_its_load(replica: Replica) -> None:
    replica.weigh(Load(1, 0, process=100.0), 60)
    fail_draining(replica)
    replica.weigh(Load(1, 0, process=100.0), 60)
    assert state(replica) is State.DRAINING
    replica.weigh(Load(1, 0, process=None), 60)
    assert state(replica) is State.DRAINING
    replica.weigh(Load(0, 0, process=100.0), 60)
    replica.weigh(Load(0, 0, process=220.0), 60)
    assert state(replica) is State.UP


def test_another_process_does_not_excuse_failures(replica: Replica) -> None:
    replica.weigh(Load(1, 0, process=100.0), 60)
    opened(replica)
    replica.weigh(Load(0, 0, process=220.0), 60)
    assert state(replica) is State.EJECTED


def test_one_that_is_loading_is_down_until_a_probe_finds_it_well(replica: Replica) -> None:
    replica.probe(True)
    ticket = replica.begin()
    assert replica.note(Outcome.SERVER_ERROR, ticket, Refusal.LOADING) == "loading"
    assert state(replica) is State.DOWN
    replica.probe(True)
    assert state(replica) is State.UP
    assert replica.failures == 0


@pytest.mark.parametrize(("asked", "spared"), [(None, BUSY_SECONDS), (7.0, 7.0), (9e9, LONGEST_BUSY_SECONDS)])
def test_one_that_is_full_is_spared_and_not_blamed(
    asked: float | None, spared: float, replica: Replica, clock: Clock
) -> None:
    for _ in range(FAILURES_TO_OPEN + 1):
        assert replica.note(Outcome.SERVER_ERROR, replica.begin(), Refusal.FULL, asked) is None
    assert replica.available
    assert replica.failures == 0
    assert replica.busy_until == clock.now + spared


def test_a_refused_key_spares_nobody(replica: Replica) -> None:
    replica.note(Outcome.REJECTED)
    assert replica.busy_until == 0
    replica.note(Outcome.REJECTED, retry_after=3.0)
    assert replica.busy_until == replica.clock() + 3


# Probes.


def test_a_replica_without_an_address_is_down() -> None:
    address = NoAddress()
    replica = replica_at(address)
    assert (replica.available, replica.promising, state(replica)) == (False, False, State.DOWN)
    address.url = "http://127.0.0.1:1/v1"
    assert (replica.available, replica.promising, state(replica)) == (True, True, State.UP)


def test_one_failed_probe_takes_an_idle_replica_out(replica: Replica) -> None:
    assert replica.up is None
    assert replica.available
    replica.probe(False)
    assert not replica.available
    replica.probe(True)
    assert replica.available


@pytest.mark.parametrize("how", ["token", Outcome.OK, Outcome.CLIENT_ERROR])
def test_one_that_answered_since_the_last_probe_is_spared_one_that_fails_but_not_two(
    how: str | Outcome, replica: Replica
) -> None:
    replica.probe(True)
    ticket = replica.begin()
    if isinstance(how, Outcome):
        replica.note(how, ticket)
    else:
        replica.first_token(ticket, 0.1)
    replica.probe(False)
    assert replica.available
    replica.probe(False)
    assert state(replica) is State.DOWN


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.REJECTED])
def test_what_is_no_answer_spares_nobody(outcome: Outcome, replica: Replica) -> None:
    replica.probe(True)
    replica.note(outcome, replica.begin())
    replica.probe(False)
    assert state(replica) is State.DOWN


def test_an_answer_before_the_last_probe_spares_nobody(replica: Replica) -> None:
    replica.note(Outcome.OK, replica.begin())
    replica.probe(True)
    replica.probe(False)
    assert state(replica) is State.DOWN


def test_a_worker_that_is_gone_is_not_spared_and_begins_anew() -> None:
    address = NoAddress()
    address.url = "http://127.0.0.1:1/v1"
    replica = replica_at(address)
    replica.probe(True)
    fail(replica, 1, Outcome.OK)
    opened(replica)
    address.url = None
    replica.probe(False)
    address.url = "http://127.0.0.1:2/v1"
    replica.probe(True)
    assert state(replica) is State.UP


def test_a_replica_that_came_back_starts_with_a_clean_slate(replica: Replica) -> None:
    opened(replica)
    replica.probe(False)
    replica.probe(True)
    assert replica.available
    assert (replica.failures, replica.trips) == (0, 0)


def test_what_the_process_before_left_behind_is_not_the_new_one_s_fault(replica: Replica) -> None:
    old = replica.begin()
    replica.probe(False)
    replica.probe(True)
    for _ in range(FAILURES_TO_OPEN):
        replica.note(Outcome.TRUNCATED, old)
    assert replica.available


def test_a_probe_that_goes_well_does_not_close_the_breaker_of_one_that_was_never_down(replica: Replica) -> None:
    replica.probe(True)
    opened(replica)
    replica.probe(True)
    assert not replica.available


# Numbers.


def test_a_reading_counts_what_is_not_ours_until_it_is_stale(replica: Replica, clock: Clock) -> None:
    replica.in_flight = 3
    replica.weigh(Load(running=4, waiting=2), good_for=15)
    assert (replica.load_others, replica.load_at, replica.load_until) == (3, clock.now, clock.now + 15)
    replica.in_flight = 9  # more than it says: our own that it has done with
    replica.weigh(Load(running=4, waiting=2), good_for=15)
    assert replica.load_others == 0


def test_the_median_first_token_is_of_the_last_minutes_and_of_enough_requests(replica: Replica, clock: Clock) -> None:
    ticket = replica.begin()
    for i in range(LEAST_FIRST_TOKENS):
        assert replica.median_first_token(clock.now) is None
        replica.first_token(ticket, float(i))
    assert replica.median_first_token(clock.now) == (LEAST_FIRST_TOKENS - 1) / 2
    assert replica.median_first_token(clock.now + FIRST_TOKEN_SECONDS) is None


def test_a_slow_one_has_a_smaller_share_and_is_still_asked(replica: Replica) -> None:
    replica.weight, replica.slow = 2.0, True
    assert replica.share == 2 * SLOW_SHARE
    assert replica.available
    assert state(replica) is State.SLOW


def test_a_cap_is_full_when_it_is_reached(replica: Replica) -> None:
    assert not replica.full
    replica.cap = 2
    tickets = [replica.begin()]
    assert not replica.full
    tickets.append(replica.begin())
    assert replica.full
    replica.end(tickets[0])
    assert not replica.full


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(Outcome)), st.sampled_from([None, *Refusal]), st.booleans(), st.integers(0, 100)
        ),
        max_size=40,
    )
)
def test_whatever_happens_it_is_asked_again_in_the_end(
    notes: list[tuple[Outcome, Refusal | None, bool, int]],
) -> None:
    clock = Clock()
    replica, tickets = replica_at(clock=clock), []
    for outcome, refusal, late, seconds in notes:
        tickets.append(replica.begin())
        ticket = tickets.pop(0 if late else -1)
        replica.note(outcome, ticket, refusal)
        replica.end(ticket)
        assert replica.in_flight == len(tickets) >= 0
        assert replica.retry_after <= LONGEST_COOL_DOWN_SECONDS
        clock.now += seconds
    clock.now += LONGEST_COOL_DOWN_SECONDS + TRIAL_SECONDS
    replica.probe(True)
    assert replica.available


def test_one_whose_server_lacks_the_model_is_well_and_is_neither_asked_nor_waited_for(replica: Replica) -> None:
    replica.probe(True)
    replica.lacking = True
    assert state(replica) is State.LACKING
    assert not replica.available
    assert not replica.promising
    replica.probe(False)
    replica.probe(False)
    assert state(replica) is State.DOWN
    replica.probe(True)
    replica.lacking = False
    assert state(replica) is State.UP
    assert replica.available
    assert replica.promising


def test_those_of_one_server_are_together_by_its_address_and_key_or_as_the_same_worker() -> None:
    worker, other = NoAddress(), NoAddress()
    fixed = [replica_at(FixedAddress("http://a.test/v1", key)) for key in ("k", "k", "l")]
    launched = [replica_at(address) for address in (worker, other, worker)]
    groups = by_server([*fixed, *launched])
    assert groups == [fixed[:2], fixed[2:], [launched[0], launched[2]], [launched[1]]]
