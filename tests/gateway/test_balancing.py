from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.balancing import Balancer
from gateway.replica import Replica
from gateway.upstreams.base import FixedAddress


def replicas_of(expert: str, count: int) -> list[Replica]:
    return [
        Replica(f"{expert}-{i}", FixedAddress(f"http://{expert}-{i}.test/v1"), clock=lambda: 0.0) for i in range(count)
    ]


def cooling(replica: Replica) -> Replica:
    replica.open_until = 1.0
    return replica


def test_the_replica_with_the_fewest_requests_in_flight_is_first() -> None:
    busy, idle, middling = replicas_of("coder", 3)
    busy.in_flight, middling.in_flight = 5, 2
    balancer = Balancer()
    for _ in range(4):
        assert balancer.order([busy, idle, middling]) == [idle, middling, busy]


def test_a_heavier_replica_carries_as_many_times_more_requests() -> None:
    light, heavy = replicas_of("coder", 2)
    heavy.weight = 3.0
    light.in_flight, heavy.in_flight = 1, 2
    assert Balancer().order([light, heavy]) == [heavy, light]
    heavy.in_flight = 4
    assert Balancer().order([light, heavy]) == [light, heavy]


@given(st.lists(st.sampled_from([1.0, 2.0, 4.0]), min_size=1, max_size=5), st.integers(1, 20))
def test_requests_that_stay_are_spread_by_weight(weights: list[float], rounds: int) -> None:
    replicas = replicas_of("coder", len(weights))
    for replica, weight in zip(replicas, weights, strict=True):
        replica.weight = weight
    balancer = Balancer()
    for _ in range(rounds * int(sum(weights))):
        balancer.order(replicas)[0].in_flight += 1
    # No replica is ahead of another by more than the one request that the other may still get.
    assert all(
        a.in_flight / a.weight <= (b.in_flight + 1) / b.weight + 1 / a.weight for a in replicas for b in replicas
    )


@given(st.integers(1, 8), st.integers(1, 5))
def test_equal_replicas_are_first_equally_often(count: int, rounds: int) -> None:
    replicas, balancer = replicas_of("coder", count), Balancer()
    first = Counter(balancer.order(replicas)[0].name for _ in range(count * rounds))
    assert first == {replica.name: rounds for replica in replicas}


@given(st.lists(st.integers(1, 4), min_size=2, max_size=3), st.integers(1, 3))
def test_equal_replicas_take_turns_however_the_requests_for_other_experts_fall_between(
    counts: list[int], rounds: int
) -> None:
    experts, balancer = [replicas_of(f"expert{i}", count) for i, count in enumerate(counts)], Balancer()
    first: Counter[str] = Counter()
    for _ in range(12 * rounds):
        first.update(balancer.order(replicas)[0].name for replicas in experts)
    assert first == {replica.name: 12 * rounds / len(replicas) for replicas in experts for replica in replicas}


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_replicas_that_cool_down_are_left_out_and_the_others_are_all_there(cool: list[bool]) -> None:
    replicas = replicas_of("coder", len(cool))
    well = [replica for replica, cools in zip(replicas, cool, strict=True) if not cools or not cooling(replica)]
    ordered = Balancer().order(replicas)
    assert len(ordered) == len(well)
    assert set(ordered) == set(well)


def test_the_turns_of_a_replica_that_cools_down_are_shared_by_the_others() -> None:
    replicas, balancer = replicas_of("coder", 3), Balancer()
    cooling(replicas[1])
    first = Counter(balancer.order(replicas)[0].name for _ in range(12))
    assert first == {"coder-0": 6, "coder-2": 6}
