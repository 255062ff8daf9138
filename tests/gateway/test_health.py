from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import Outcome
from gateway.health import (
    COOL_DOWN_SECONDS,
    FAILURES_TO_OPEN,
    FAULTS,
    LONGEST_COOL_DOWN_SECONDS,
    HealthLoop,
    Replica,
)
from gateway.upstreams.base import Address, FixedAddress
from tests.fakes.memory import FakeUpstream

HARMLESS = sorted(set(Outcome) - FAULTS - {Outcome.OK})


class Clock:
    """Stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class NoAddress:
    """A worker that is not up."""

    url: str | None = None
    api_key: str | None = None


def replica_at(address: Address | None = None, clock: Callable[[], float] | None = None) -> Replica:
    return Replica("coder-0", address or FixedAddress("http://coder-0.test/v1"), clock=clock or Clock())


def fail(replica: Replica, times: int = 1, outcome: Outcome = Outcome.SERVER_ERROR) -> None:
    for _ in range(times):
        replica.note(outcome)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_enough_faults_in_a_row_open_the_breaker(fault: Outcome) -> None:
    replica = replica_at()
    fail(replica, FAILURES_TO_OPEN - 1, fault)
    assert replica.available
    assert replica.retry_after == 0
    fail(replica, 1, fault)
    assert not replica.available
    assert replica.retry_after == COOL_DOWN_SECONDS


def test_what_is_a_fault_is_what_the_replica_can_be_blamed_for() -> None:
    assert set(HARMLESS) == {Outcome.CLIENT_ERROR, Outcome.REJECTED, Outcome.CANCELLED}


@given(st.lists(st.sampled_from(HARMLESS), max_size=20))
def test_what_a_client_did_never_opens_the_breaker(outcomes: list[Outcome]) -> None:
    replica = replica_at()
    fail(replica, FAILURES_TO_OPEN - 1)
    for outcome in outcomes:
        replica.note(outcome)
    assert replica.available
    fail(replica)
    assert not replica.available


def test_the_breaker_lets_requests_through_when_the_cool_down_is_over() -> None:
    clock = Clock()
    replica = replica_at(clock=clock)
    fail(replica, FAILURES_TO_OPEN)
    clock.now += COOL_DOWN_SECONDS - 0.001
    assert not replica.available
    clock.now += 0.001
    assert replica.available
    assert replica.retry_after == 0


def test_a_further_failure_extends_the_cool_down() -> None:
    replica = replica_at()
    fail(replica, FAILURES_TO_OPEN)
    waits = [replica.retry_after]
    for _ in range(6):
        fail(replica)
        waits.append(replica.retry_after)
    assert waits[:3] == [COOL_DOWN_SECONDS, 2 * COOL_DOWN_SECONDS, 4 * COOL_DOWN_SECONDS]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_COOL_DOWN_SECONDS


def test_a_single_failure_after_the_cool_down_opens_the_breaker_again() -> None:
    clock = Clock()
    replica = replica_at(clock=clock)
    fail(replica, FAILURES_TO_OPEN)
    clock.now += COOL_DOWN_SECONDS
    fail(replica)
    assert replica.retry_after == 2 * COOL_DOWN_SECONDS


def test_a_replica_that_failed_for_days_still_just_cools_down() -> None:
    replica = replica_at()
    fail(replica, 2000)
    assert replica.retry_after == LONGEST_COOL_DOWN_SECONDS


def test_a_success_closes_the_breaker_and_forgets_the_failures() -> None:
    replica = replica_at()
    fail(replica, FAILURES_TO_OPEN + 3)
    replica.note(Outcome.OK)
    assert replica.available
    fail(replica, FAILURES_TO_OPEN - 1)
    assert replica.available
    fail(replica)
    assert replica.retry_after == COOL_DOWN_SECONDS


@given(st.lists(st.tuples(st.sampled_from(sorted(Outcome)), st.integers(0, 100)), max_size=40))
def test_the_breaker_is_open_only_after_faults_in_a_row_and_never_for_longer_than_the_longest(
    notes: list[tuple[Outcome, int]],
) -> None:
    clock = Clock()
    replica, row = replica_at(clock=clock), 0
    for outcome, seconds in notes:
        replica.note(outcome)
        row = 0 if outcome is Outcome.OK else row + (outcome in FAULTS)
        if outcome in FAULTS:
            assert replica.available is (row < FAILURES_TO_OPEN)
        assert row >= FAILURES_TO_OPEN or replica.available
        assert replica.retry_after <= LONGEST_COOL_DOWN_SECONDS
        clock.now += seconds


def test_a_replica_without_an_address_is_not_available() -> None:
    address = NoAddress()
    replica = replica_at(address)
    assert not replica.available
    address.url = "http://127.0.0.1:1/v1"
    assert replica.available


async def test_a_probe_decides_whether_a_replica_may_be_asked() -> None:
    upstream, replica = FakeUpstream(), replica_at()
    loop = HealthLoop(upstream, [replica], interval=60)
    assert replica.up is None
    assert replica.available
    upstream.well = False
    await loop.probe()
    assert replica.up is False
    assert not replica.available
    upstream.well = True
    await loop.probe()
    assert replica.up is True
    assert replica.available


async def test_experts_that_share_an_address_share_one_probe() -> None:
    upstream, shared = FakeUpstream(well=False), FixedAddress("http://shared.test/v1")
    replicas = [replica_at(shared), replica_at(shared), replica_at()]
    await HealthLoop(upstream, replicas, interval=60).probe()
    assert sorted(map(str, upstream.probes)) == ["http://coder-0.test/v1", "http://shared.test/v1"]
    assert [replica.up for replica in replicas] == [False, False, False]


async def test_a_replica_that_came_back_starts_with_a_clean_slate() -> None:
    upstream, replica = FakeUpstream(well=False), replica_at()
    loop = HealthLoop(upstream, [replica], interval=60)
    fail(replica, FAILURES_TO_OPEN)
    await loop.probe()
    upstream.well = True
    await loop.probe()
    assert replica.available
    assert replica.failures == 0


async def test_a_probe_that_goes_well_does_not_close_the_breaker_of_a_replica_that_was_never_down() -> None:
    replica = replica_at()
    loop = HealthLoop(FakeUpstream(), [replica], interval=60)
    await loop.probe()
    fail(replica, FAILURES_TO_OPEN)
    await loop.probe()
    assert not replica.available


async def test_all_addresses_are_probed_at_once() -> None:
    together = asyncio.Barrier(3)

    class Together(FakeUpstream):
        async def healthy(self, address: Address) -> bool:
            return await together.wait() >= 0

    replicas = [replica_at(FixedAddress(f"http://coder-{i}.test/v1")) for i in range(3)]
    async with asyncio.timeout(5):
        await HealthLoop(Together(), replicas, interval=60).probe()
    assert all(replica.up for replica in replicas)


async def test_the_loop_probes_until_it_is_stopped() -> None:
    often = asyncio.Event()

    class Counting(FakeUpstream):
        async def healthy(self, address: Address) -> bool:
            if len(self.probes) == 2:
                often.set()
            return await super().healthy(address)

    upstream = Counting()
    loop = HealthLoop(upstream, [replica_at()], interval=0.001)
    before = asyncio.all_tasks()
    loop.start()
    async with asyncio.timeout(5):
        await often.wait()
    await loop.stop()
    assert asyncio.all_tasks() == before
    probed = len(upstream.probes)
    await asyncio.sleep(0.01)
    assert len(upstream.probes) == probed


async def test_stopping_a_loop_that_never_began_does_nothing() -> None:
    await HealthLoop(FakeUpstream(), [], interval=60).stop()
