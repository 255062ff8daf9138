"""What is counted of launched workers, from what their owner says."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from gateway.workermetrics import WorkerMetrics
from gateway.workers.link import LinkedAddress
from gateway.workers.protocol import WorkerState
from tests.fakes.owner import facts


class House:
    def __init__(self, *names: str) -> None:
        self.now, self.registry = 1000.0, CollectorRegistry()
        self.metrics = WorkerMetrics(self.registry, clock=lambda: self.now)
        self.addresses = {name: LinkedAddress(name) for name in names or ("coder-0",)}
        self.metrics.watch(self.addresses)

    def tell(self, state: WorkerState | str, name: str = "coder-0", **more: Any) -> None:
        self.addresses[name].tell(facts(name, state, **more))
        self.metrics.refresh()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"moe_worker_{name}", {"expert": "coder", **labels})


def test_each_waking_is_counted_once_with_what_it_took() -> None:
    house = House()
    house.tell("asleep", since=1000.0)
    for _ in range(3):
        house.tell("ready", wakes=1, wake_seconds=12.0)
    assert (house.value("wake_seconds_count"), house.value("wake_seconds_sum")) == (1, 12)
    house.tell("waking", wakes=1, wake_seconds=12.0)
    house.tell("ready", wakes=2, wake_seconds=3.0)
    assert (house.value("wake_seconds_count"), house.value("wake_seconds_sum")) == (2, 15)


def test_sleep_counts_while_it_goes_on_and_once() -> None:
    house = House()
    house.tell("asleep", since=1000.0, asleep_seconds=0.0)
    house.now += 60
    house.metrics.refresh()
    assert house.value("asleep_seconds_total") == 60
    house.now += 5
    house.tell("waking", since=1065.2, asleep_seconds=65.2)
    house.tell("ready", since=1070.0, asleep_seconds=64.9)  # a clock that was set
    house.tell("asleep", since=1070.0, asleep_seconds=65.2)
    assert house.value("asleep_seconds_total") == 65.2
    house.tell("ready", since=1070.0, asleep_seconds=65.2)
    house.now += 100
    house.metrics.refresh()
    assert house.value("asleep_seconds_total") == 65.2


def test_what_was_before_we_listened_is_not_ours_and_what_another_owner_counts_anew_is() -> None:
    house = House()
    house.tell("ready", wakes=7, restarts=3, asleep_seconds=500.0, wake_seconds=1.0)
    assert (house.value("restarts_total"), house.value("asleep_seconds_total")) == (0, 0)
    house.tell("ready", wakes=7, restarts=4, asleep_seconds=500.0, wake_seconds=1.0)
    house.tell("ready", wakes=1, restarts=1, asleep_seconds=20.0, wake_seconds=2.0)
    assert house.value("restarts_total") == 2
    assert house.value("asleep_seconds_total") == 20
    assert house.value("wake_seconds_sum") == 2


def test_the_state_of_each_worker_is_told_and_of_none_that_nobody_runs() -> None:
    house = House("coder-0", "coder-1")
    house.tell("asleep")
    house.tell("failed", "coder-1")
    states = {(n, s): house.value("state", replica=n, state=s) for n in house.addresses for s in WorkerState}
    assert {key for key, value in states.items() if value} == {("coder-0", "asleep"), ("coder-1", "failed")}
    house.addresses["coder-0"].tell(None)
    house.metrics.refresh()
    assert house.value("state", replica="coder-0", state="asleep") == 0
    house.metrics.watch({})
    assert house.value("state", replica="coder-1", state="failed") is None


def test_the_workers_of_an_expert_are_counted_together() -> None:
    house = House("coder-0", "coder-1")
    for name in house.addresses:
        house.tell("ready", name)
    for name in house.addresses:
        house.tell("ready", name, restarts=1, wakes=1, wake_seconds=2.0)
    assert (house.value("restarts_total"), house.value("wake_seconds_count")) == (2, 2)


numbers = st.integers(-(2**40), 2**40)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(WorkerState), numbers, numbers, st.floats(-1e12, 1e12), st.none() | st.floats(-1, 1e9)
        )
    )
)
def test_no_number_that_is_told_makes_a_counter_fall_or_fail(
    told: list[tuple[WorkerState, int, int, float, float | None]],
) -> None:
    house = House()
    before = 0.0
    for state, wakes, restarts, seconds, wake in told:
        house.tell(
            state, wakes=min(wakes, 50), restarts=restarts, asleep_seconds=seconds, wake_seconds=wake, since=seconds
        )
        after = house.value("asleep_seconds_total") or 0.0
        assert after >= before
        before = after
