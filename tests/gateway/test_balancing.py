from __future__ import annotations

import random
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.affinity import ranked
from gateway.balancing import MARGIN_RATIO, MARGIN_REQUESTS, Balancer, outstanding
from gateway.load import Load
from gateway.replica import Replica
from gateway.upstreams.base import FixedAddress
from tests.fakes.clock import Clock

KEY = b"a conversation"


def replicas_of(expert: str, count: int, clock: Clock | None = None) -> list[Replica]:
    clock = clock or Clock(0.0)
    return [Replica(f"{expert}-{i}", FixedAddress(f"http://{expert}-{i}.test/v1"), clock=clock) for i in range(count)]


def cooling(replica: Replica) -> Replica:
    replica.open_until = 1.0
    return replica


def first(replicas: list[Replica], key: bytes | None = None) -> Replica:
    chosen = Balancer().choose(replicas, key)
    assert chosen is not None
    return chosen


def test_the_replica_with_the_fewest_requests_in_flight_is_first() -> None:
    busy, idle, middling = replicas_of("coder", 3)
    busy.in_flight, middling.in_flight = 5, 2
    for _ in range(4):
        assert first([busy, idle, middling]) is idle


def test_a_heavier_replica_carries_as_many_times_more_requests() -> None:
    light, heavy = replicas_of("coder", 2)
    heavy.weight = 3.0
    light.in_flight, heavy.in_flight = 1, 2
    assert first([light, heavy]) is heavy
    heavy.in_flight = 4
    assert first([light, heavy]) is light


@given(st.lists(st.sampled_from([1.0, 2.0, 4.0]), min_size=1, max_size=5), st.integers(1, 20))
def test_requests_that_stay_are_spread_by_weight(weights: list[float], rounds: int) -> None:
    replicas = replicas_of("coder", len(weights))
    for replica, weight in zip(replicas, weights, strict=True):
        replica.weight = weight
    for _ in range(rounds * int(sum(weights))):
        first(replicas).in_flight += 1
    # No replica is ahead of another by more than the one request that the other may still get.
    assert all(
        a.in_flight / a.weight <= (b.in_flight + 1) / b.weight + 1 / a.weight for a in replicas for b in replicas
    )


@given(st.lists(st.sampled_from([1, 2, 4]), min_size=2, max_size=5), st.integers(1, 8))
def test_requests_that_end_at_once_are_spread_by_weight_too(weights: list[int], rounds: int) -> None:
    replicas = replicas_of("coder", len(weights))
    for replica, weight in zip(replicas, weights, strict=True):
        replica.weight = float(weight)
    chosen = Counter(first(replicas).name for _ in range(rounds * sum(weights)))
    for replica, weight in zip(replicas, weights, strict=True):
        assert abs(chosen[replica.name] - rounds * weight) <= 1 + len(weights) // 2


@given(st.integers(2, 8), st.integers(1, 5))
def test_equal_replicas_are_first_equally_often(count: int, rounds: int) -> None:
    replicas = replicas_of("coder", count)
    chosen = Counter(first(replicas).name for _ in range(count * rounds))
    assert chosen == {replica.name: rounds for replica in replicas}


@given(st.lists(st.integers(1, 4), min_size=2, max_size=3), st.integers(1, 3))
def test_equal_replicas_take_turns_however_the_requests_for_other_experts_fall_between(
    counts: list[int], rounds: int
) -> None:
    experts = [replicas_of(f"expert{i}", count) for i, count in enumerate(counts)]
    chosen: Counter[str] = Counter()
    for _ in range(12 * rounds):
        chosen.update(first(replicas).name for replicas in experts)
    assert chosen == {replica.name: 12 * rounds / len(replicas) for replicas in experts for replica in replicas}


def test_the_turns_of_a_replica_that_cools_down_are_shared_by_the_others() -> None:
    replicas = replicas_of("coder", 3)
    cooling(replicas[1])
    chosen = Counter(first(replicas).name for _ in range(12))
    assert chosen == {"coder-0": 6, "coder-2": 6}


def test_a_replica_that_was_away_has_no_claim_on_the_turns_it_missed() -> None:
    clock = Clock(0.0)
    replicas = replicas_of("coder", 3, clock)
    cooling(replicas[1])
    for _ in range(300):
        first(replicas)
    clock.now, replicas[1].open_until = 2.0, 0.0
    chosen = Counter(first(replicas).name for _ in range(12))
    assert chosen["coder-1"] in (4, 5)  # the turn that was under way may be its own


@given(st.lists(st.sampled_from(["well", "cool", "full", "tried", "down"]), min_size=1, max_size=6), st.booleans())
def test_only_who_may_be_asked_has_room_and_was_not_tried_is_chosen(states: list[str], keyed: bool) -> None:
    replicas, tried = replicas_of("coder", len(states)), set()
    for replica, state in zip(replicas, states, strict=True):
        if state == "cool":
            cooling(replica)
        elif state == "full":
            replica.cap = replica.in_flight = 3
        elif state == "tried":
            tried.add(replica)
        elif state == "down":
            replica.up = False
    chosen = Balancer().choose(replicas, KEY if keyed else None, tried)
    well = [replica for replica, state in zip(replicas, states, strict=True) if state == "well"]
    assert chosen in well if well else chosen is None


# What the servers say of their load.


def test_the_requests_of_other_gateways_count_while_the_reading_is_fresh() -> None:
    clock = Clock(0.0)
    ours, theirs = replicas_of("coder", 2, clock)
    ours.in_flight = 3
    theirs.weigh(Load(running=8, waiting=0), good_for=15)
    assert first([ours, theirs]) is ours
    clock.now = 14.9
    assert first([ours, theirs]) is ours
    clock.now = 15.0
    assert first([ours, theirs]) is theirs


def test_our_own_requests_are_counted_once_and_as_they_are_now() -> None:
    (replica,) = replicas_of("coder", 1)
    replica.in_flight = 4
    replica.weigh(Load(running=6, waiting=0), good_for=15)
    assert outstanding(replica, 0) == 5
    replica.in_flight = 9
    assert outstanding(replica, 0) == 10
    replica.in_flight = 0
    assert outstanding(replica, 0) == 1


def spread(gateways: int, static: int = 0) -> float:
    """Mean standard deviation of the requests at 4 servers, with `static` ones of strangers at the first: 8 requests/s that
    take 10 s on the mean, and each gateway reads each server every 5 s or so."""
    clock, chance = Clock(0.0), random.Random(1)  # noqa: S311
    houses = [replicas_of("coder", 4, clock) for _ in range(gateways)]
    at = [static, 0, 0, 0]
    readings = [(chance.uniform(0, 5), house, i) for house in houses for i in range(4)]
    ends: list[tuple[float, Replica, int]] = []
    spreads = []
    while clock.now < 150:
        clock.now += chance.expovariate(8)
        for when, replica, i in [end for end in ends if end[0] <= clock.now]:
            ends.remove((when, replica, i))
            replica.in_flight -= 1
            at[i] -= 1
        for n, (when, house, i) in enumerate(readings):
            if when <= clock.now:
                house[i].weigh(Load(at[i], 0), good_for=15)
                readings[n] = (when + chance.uniform(4, 6), house, i)
        house = chance.choice(houses)
        replica = first(house)
        replica.in_flight += 1
        at[house.index(replica)] += 1
        ends.append((clock.now + chance.expovariate(0.1), replica, house.index(replica)))
        if clock.now > 50:
            spreads.append(statistics.pstdev(at))
    return statistics.mean(spreads)


def test_gateways_that_read_the_same_figures_do_not_all_run_to_the_same_server() -> None:
    assert spread(gateways=1) < 1.0
    assert spread(gateways=8) < 2.0  # it is 2.3 where others count whole


@pytest.mark.parametrize("gateways", [1, 4])
def test_a_server_that_strangers_keep_busy_gets_less(gateways: int) -> None:
    # Were they not seen, it would have them on top of its quarter of the rest, which is a spread of 17.
    assert spread(gateways, static=40) < 11


def test_a_request_that_waits_weighs_more_than_one_that_runs() -> None:
    running, waiting = replicas_of("coder", 2)
    running.weigh(Load(running=11, waiting=0), good_for=15)
    waiting.weigh(Load(running=4, waiting=6), good_for=15)
    assert first([running, waiting]) is running
    waiting.weigh(Load(running=4, waiting=2), good_for=15)
    assert first([running, waiting]) is waiting


def test_a_cache_that_is_nearly_full_weighs_and_one_that_is_not_does_not() -> None:
    full, free = replicas_of("coder", 2)
    full.weigh(Load(running=8, waiting=0, cache=0.97), good_for=15)
    free.weigh(Load(running=10, waiting=0, cache=0.5), good_for=15)
    assert first([full, free]) is free
    full.weigh(Load(running=8, waiting=0, cache=0.89), good_for=15)
    assert first([full, free]) is full
    full.weigh(Load(running=8, waiting=0, cache=1.0), good_for=15)
    assert outstanding(full, 0) == pytest.approx(9)


loads = st.builds(Load, st.integers(0, 500), st.integers(0, 500), st.floats(0, 1))


@given(st.integers(0, 500), loads, st.integers(0, 50))
def test_more_of_anything_is_never_less_work(in_flight: int, load: Load, more: int) -> None:
    (replica,) = replicas_of("coder", 1)

    def work(in_flight: int, load: Load) -> float:
        replica.in_flight = in_flight
        replica.weigh(load, good_for=15)
        return outstanding(replica, 0)

    base = work(in_flight, load)
    assert base >= in_flight
    assert work(in_flight + more, load) >= base
    assert work(in_flight, Load(load.running + more, load.waiting, load.cache)) >= base
    assert work(in_flight, Load(load.running, load.waiting + more, load.cache)) >= base
    assert work(in_flight, Load(load.running, load.waiting, min(1.0, load.cache + more / 50))) >= base


def test_one_that_said_it_is_full_comes_last_for_a_while_and_is_asked_where_there_is_no_other() -> None:
    clock = Clock(0.0)
    said, other = replicas_of("coder", 2, clock)
    other.in_flight, said.busy_until = 7, 2.0
    assert first([said, other]) is other
    assert first([said]) is said
    other.up = False
    assert first([said, other]) is said
    other.up, other.busy_until = True, 2.0
    assert first([said, other]) is said  # both said so
    clock.now = 2.0
    assert first([said, other]) is said


# Affinity.


def test_a_conversation_comes_back_to_its_replica_while_that_is_within_the_margin() -> None:
    replicas = replicas_of("coder", 4)
    home, heir, *_ = ranked(KEY, replicas)
    assert {first(replicas, KEY) for _ in range(8)} == {home}
    home.in_flight = int(MARGIN_REQUESTS)
    assert first(replicas, KEY) is home
    home.in_flight = int(MARGIN_REQUESTS + MARGIN_RATIO * home.in_flight / 4) + 2
    assert first(replicas, KEY) is heir
    for replica in replicas:
        replica.in_flight = max(replica.in_flight, 6)  # all are busy: the home is not busier than its share allows
    assert first(replicas, KEY) is home


def test_a_conversation_leaves_one_whose_cache_is_full_or_that_others_keep_busy() -> None:
    replicas = replicas_of("coder", 2)
    home, heir = ranked(KEY, replicas)
    home.weigh(Load(running=40, waiting=0), good_for=15)
    assert first(replicas, KEY) is heir
    home.weigh(Load(running=8, waiting=0, cache=0.5), good_for=15)
    assert first(replicas, KEY) is home
    home.weigh(Load(running=8, waiting=8, cache=1.0), good_for=15)
    assert first(replicas, KEY) is heir


def test_a_heavier_home_may_be_busier() -> None:
    replicas = replicas_of("coder", 2)
    home, _ = ranked(KEY, replicas)
    home.in_flight = 11
    assert first(replicas, KEY) is not home
    home.weight = 1000.0
    assert ranked(KEY, replicas)[0] is home
    assert first(replicas, KEY) is home


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([0.5, 1.0, 3.0])), min_size=2, max_size=6),
    st.binary(min_size=1),
)
def test_there_is_always_one_within_the_margin_and_it_is_the_first_of_the_keys_own_order(
    replicas_as: list[tuple[int, float]], key: bytes
) -> None:
    replicas = replicas_of("coder", len(replicas_as))
    for replica, (in_flight, weight) in zip(replicas, replicas_as, strict=True):
        replica.in_flight, replica.weight = in_flight, weight
    total, shares = sum(r.in_flight for r in replicas), sum(r.weight for r in replicas)
    within = [r for r in ranked(key, replicas) if r.in_flight <= 1.25 * total * r.weight / shares + 4]
    assert first(replicas, key) is within[0]


@given(st.lists(st.integers(0, 9), min_size=50, max_size=200), st.integers(2, 5))
def test_one_conversation_that_floods_is_spread_within_the_margin(keys: list[int], count: int) -> None:
    replicas = replicas_of("coder", count)
    for key in keys:
        first(replicas, b"%d" % key).in_flight += 1
    mean = len(keys) / count
    assert max(r.in_flight for r in replicas) <= MARGIN_RATIO * mean + MARGIN_REQUESTS + 1


def test_what_other_experts_have_in_flight_at_a_server_is_known_before_the_server_tells() -> None:
    clock = Clock(0.0)
    (busy, idle), (sql, _) = replicas_of("base", 2, clock), replicas_of("sql", 2, clock)
    busy.beside, sql.beside = (sql,), (busy,)
    sql.in_flight = 3
    assert first([busy, idle]) is idle
    assert outstanding(busy, clock()) == 3
    busy.in_flight = 1
    busy.weigh(Load(running=6, waiting=0), good_for=10)
    assert busy.load_others == 2  # the server's six, less four that are ours
    assert outstanding(busy, clock()) == 1 + 3 + 2 / 2
