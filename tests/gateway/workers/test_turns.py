"""When workers that share a GPU wake and sleep: what holds in every history, and what it saves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.workers.protocol import WorkerState
from gateway.workers.turns import (
    LEAST_COST_SECONDS,
    START_SECONDS,
    WAKE_SECONDS,
    Order,
    Seen,
    Sleeper,
    Turns,
    linger,
    longest_turn,
    sleepers_of,
    state_of,
)
from tests.fakes.memory import experts_file
from tests.fakes.shared_gpu import ASLEEP, FAILED, READY, STOPPING, WAKING, Request, World, state_spans

LONGEST_REQUEST, LONGEST_WAKE, STOP, GRACE = 30.0, 40.0, 2.0, 5.0
END = 20_000.0
ONE_GPU = frozenset({0})
often = settings(max_examples=60, deadline=None)


def shared(*names: str, sleep_after: float = 600.0, wake: float = 10.0) -> dict[str, Sleeper]:
    return {name: Sleeper(sleep_after, ONE_GPU, wake) for name in names}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """One to four experts on up to three GPUs; wakings of 0.1 to 40 s, some of which fail."""
    names = "abcd"[: draw(st.integers(1, 4))]
    gpus = st.frozensets(st.integers(0, 2), max_size=3)
    sleepers = {name: Sleeper(draw(st.sampled_from([1.0, 30.0, 600.0])), draw(gpus), 20.0) for name in names}
    wake = st.floats(0.1, LONGEST_WAKE)
    wakes = {n: [*draw(st.lists(wake | wake.map(lambda w: -w), max_size=4)), draw(wake)] for n in names}
    return World(sleepers, wakes=wakes, stop_seconds=draw(st.sampled_from([0.0, STOP])), grace=GRACE)


@st.composite
def played(draw: st.DrawFn, foresight: bool = True) -> World:
    """A world after requests that came in bursts and alone, and expectations that came and went."""
    world = draw(worlds())
    names = sorted(world.sleepers)
    when = st.floats(0, 2000) | st.integers(0, 40).map(float)
    request = st.builds(Request, when, st.sampled_from(names), st.floats(0.1, LONGEST_REQUEST))
    likely = st.tuples(when, st.sampled_from(names), st.sampled_from([0.0, 0.9, 1.0, 3.0]))
    return world.play(draw(st.lists(request, max_size=40)), END, draw(st.lists(likely, max_size=10 * foresight)))


@often
@given(played())
def test_of_those_that_share_a_gpu_one_at_a_time_holds_it(world: World) -> None:
    spans = {name: state_spans(world, name) for name in world.sleepers}
    for name in world.sleepers:
        for rival in world.turns.rivals(name):
            for state, begin, end in spans[name]:
                for other, at, until in spans[rival]:
                    together = min(end, until) - max(begin, at)
                    assert together <= 0 or ASLEEP in (state, other), (name, rival, state, other, begin, at)


@often
@given(played())
def test_every_request_is_answered_and_none_waits_for_longer_than_the_others_turns(world: World) -> None:
    turn = longest_turn(LONGEST_WAKE) + LONGEST_REQUEST + STOP + LONGEST_WAKE
    rivals = max((len(world.turns.rivals(name)) for name in world.sleepers), default=0)
    failures = world.count(str(FAILED)) * (LONGEST_WAKE + GRACE + turn)
    for request in world.requests:
        assert request.wait <= 2 * (rivals + 1) * turn + failures, (request, world.count("wake"))


@often
@given(played())
def test_one_with_work_keeps_the_gpu_for_its_turn(world: World) -> None:
    for event in world.events:
        seen = event.before[event.expert]
        if event.what == "sleep" and seen.state is READY and seen.working:
            cost = seen.wake_seconds or 0.0
            assert event.at >= seen.awake_since + longest_turn(cost) >= seen.awake_since + max(cost, LEAST_COST_SECONDS)
            assert any(event.before[rival].waiting for rival in world.turns.rivals(event.expert))


@often
@given(played())
def test_one_without_work_sleeps_when_its_time_is_over_not_before_and_not_later(world: World) -> None:
    for event in world.events:
        for name, seen in event.before.items():
            if seen.state is READY and not seen.working:
                assert event.at <= seen.rests_since + world.sleepers[name].sleep_after
        seen = event.before[event.expert]
        if event.what == "sleep" and seen.state is READY and not seen.working:
            rests, cost = seen.rests_since, seen.wake_seconds or 0.0
            rivals = [event.before[rival] for rival in world.turns.rivals(event.expert)]
            for_others = event.at >= rests + linger(cost) and any(rival.waiting for rival in rivals)
            foreseen = event.at >= rests + cost and any(rival.likely >= 1 for rival in rivals)
            assert event.at == rests + world.sleepers[event.expert].sleep_after or for_others or foreseen


@often
@given(played())
def test_nothing_wakes_that_nobody_wants_or_expects(world: World) -> None:
    for event in world.events:
        if event.what == "wake":
            seen = event.before[event.expert]
            assert seen.waiting or seen.likely >= 1


@often
@given(played())
def test_what_is_only_likely_takes_no_gpu_from_one_that_works(world: World) -> None:
    for event in world.events:
        if event.what == "sleep" and event.before[event.expert].working:
            assert any(event.before[rival].waiting for rival in world.turns.rivals(event.expert))


@often
@given(played(foresight=False))
def test_when_nobody_asks_any_more_all_sleep(world: World) -> None:
    assert {seen.state for seen in world.seen().values()} <= {ASLEEP}


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 5), st.floats(0.5, 60), st.integers(1, 4))
def test_who_asks_without_end_does_not_keep_the_others_out(experts: int, wake: float, users: int) -> None:
    names = "abcde"[:experts]
    crowd = [Request(i / 10, names[i % (experts - 1)], 2.0, again=10**6) for i in range(users + experts)]
    late = Request(100.0, names[-1], 1.0)
    World(shared(*names), wakes={name: [wake] for name in names}).play([*crowd, late], 1500.0)
    assert late.wait <= (experts - 1) * (longest_turn(wake) + 2.0 + wake) + wake + 2.0


def test_those_who_waited_are_answered_together() -> None:
    requests = [Request(i / 2, "ab"[i % 2], 1.0) for i in range(40)]
    world = World(shared("a", "b")).play(requests, 200.0)
    began = {name: {r.began for r in requests if r.expert == name and r.at < 10} for name in "ab"}
    assert len(began["b"]) == 1
    assert world.count("wake") == 2


def test_one_that_never_comes_up_keeps_nobody_out() -> None:
    world = World(shared("a", "b"), wakes={"a": [-10.0], "b": [10.0]})
    asked = [Request(float(10 * i), "b") for i in range(1, 10)]
    world.play([Request(0.0, "a"), *asked], 500.0)
    assert all(request.wait < 60 for request in asked)
    assert world.seen()["b"].state is READY or world.count("sleep", "b") > 0


def test_what_is_likely_wakes_once_and_not_again_for_the_same_reason() -> None:
    world = World(shared("a", sleep_after=30.0)).play([], 5000.0, [(100.0, "a", 5.0)])
    assert (world.count("wake"), world.count("sleep")) == (1, 1)
    world = World(shared("a", sleep_after=30.0)).play(
        [], 5000.0, [(100.0, "a", 5.0), (300.0, "a", 0.0), (600.0, "a", 5.0)]
    )
    assert (world.count("wake"), world.count("sleep")) == (2, 2)


def test_what_is_likely_takes_over_from_one_that_rests() -> None:
    world = World(shared("a", "b")).play([Request(0.0, "a", 1.0)], 300.0, [(12.0, "b", 2.0)])
    woken = {event.expert: event.at for event in world.events if event.what == "wake"}
    assert woken == {"a": 0.0, "b": 10.0 + 1.0 + 10.0}  # awake, and as long without work as waking costs


def test_rivals_that_are_awake_together_since_the_file_changed_are_parted() -> None:
    turns = Turns(shared("a", "b", "c"))
    seen = {"a": Seen(READY, busy=True, awake_since=9), "b": Seen(READY, awake_since=1), "c": Seen(ASLEEP)}
    assert turns.decide(10.0, seen) == [Order("a", "sleep")]


@pytest.mark.parametrize("state", [WAKING, STOPPING, WorkerState.STARTING])
def test_who_is_on_the_way_is_waited_for(state: WorkerState) -> None:
    turns = Turns(shared("a", "b"))
    assert turns.decide(1e6, {"a": Seen(state), "b": Seen(ASLEEP, waiting=3)}) == []


def test_nobody_who_came_later_is_woken_in_the_way_of_one_who_needs_two_gpus() -> None:
    sleepers = {
        "wide": Sleeper(600, frozenset({0, 1})),
        "left": Sleeper(600, frozenset({0})),
        "right": Sleeper(600, frozenset({1})),
    }
    seen = {
        "wide": Seen(ASLEEP, waiting=1, waiting_since=1),
        "left": Seen(READY, busy=True, awake_since=0),
        "right": Seen(ASLEEP, waiting=1, waiting_since=2),
    }
    assert Turns(sleepers).decide(3.0, seen) == []
    assert Turns(sleepers).decide(3.0, seen | {"wide": Seen(ASLEEP)}) == [Order("right", "wake")]
    foreseen = seen | {"right": Seen(ASLEEP, likely=5.0)}
    assert Turns(sleepers).decide(3.0, foreseen) == []
    assert Turns(sleepers).decide(3.0, foreseen | {"wide": Seen(ASLEEP)}) == [Order("right", "wake")]


def test_of_rivals_the_first_of_the_file_is_started() -> None:
    sleepers = shared("a", "b") | {"c": Sleeper(1, frozenset({1})), "d": Sleeper(1, frozenset({0, 1})), "e": Sleeper(1)}
    assert Turns(sleepers).first() == ["a", "c", "e"]


def test_an_order_stands_until_it_was_followed() -> None:
    turns = Turns(shared("a"))
    seen = {"a": Seen(ASLEEP, waiting=1)}
    assert turns.decide(1.0, seen) == turns.decide(2.0, seen) == [Order("a", "wake")]
    assert turns.decide(3.0, {"a": replace(seen["a"], state=WAKING)}) == []


def test_an_expert_does_as_its_workers_do() -> None:
    assert state_of([ASLEEP, READY, FAILED]) is READY
    assert state_of([READY, STOPPING]) is STOPPING
    assert state_of([ASLEEP, FAILED]) is FAILED
    assert state_of([ASLEEP, ASLEEP]) is ASLEEP


def test_those_sleep_that_the_file_says_so_of() -> None:
    launch = {"engine": "vllm", "gpus": [1, 0], "replicas": 2}
    file = experts_file(
        {
            "a": {"upstream": {"launch": {**launch, "args": "--enable-sleep-mode"}}, "sleep_after": "10m"},
            "b": {"upstream": {"launch": {}}, "sleep_after": "5s"},
            "c": {"upstream": {"launch": launch}},
            "d": {},
        }
    )
    assert sleepers_of(file) == {
        "a": Sleeper(600.0, frozenset({0, 1}), WAKE_SECONDS),
        "b": Sleeper(5.0, frozenset(), START_SECONDS),
    }
