"""The meter of a server's time: what is given to requests is what the server was busy, no more and no less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.busy import Meter
from tests.fakes.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Meter:
    return Meter(clock)


SECONDS = st.floats(0, 100)
STEPS = st.lists(st.tuples(SECONDS, st.sampled_from(["begin", "end", "look"])), max_size=30)


@given(STEPS)
def test_what_requests_are_given_is_the_time_in_which_any_of_them_ran(steps: list[tuple[float, str]]) -> None:
    clock = Clock()
    meter = Meter(clock)
    running: list[float] = []
    given, busy = 0.0, 0.0
    for seconds, what in [*steps, *[(1.0, "end")] * len(steps)]:
        clock.now += seconds
        busy += seconds if running else 0.0
        if what == "begin":
            running.append(meter.begin())
        elif what == "end" and running:
            given += meter.end(running.pop(0))
        assert meter.busy == pytest.approx(busy)
    assert given == pytest.approx(busy)


def test_two_at_once_have_half_each(clock: Clock, meter: Meter) -> None:
    first = meter.begin()
    clock.now += 10
    second = meter.begin()
    clock.now += 4
    assert meter.end(first) == 12
    clock.now += 1
    assert meter.end(second) == 3
    clock.now += 100
    assert meter.busy == 15


def test_requests_of_others_have_their_share_while_anybody_knows_of_them(clock: Clock, meter: Meter) -> None:
    meter.others(3, good_for=10)
    clock.now += 4
    assert meter.busy == 4  # by them
    mine = meter.begin()
    clock.now += 8  # for six of which they are known to run
    assert meter.end(mine) == 6 / 4 + 2
    clock.now += 5
    assert meter.busy == 12


def test_nothing_runs_and_nothing_is_busy(clock: Clock, meter: Meter) -> None:
    clock.now += 3600
    meter.others(0, good_for=10)
    clock.now += 5
    assert meter.busy == 0
