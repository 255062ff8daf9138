"""Experts whose workers sleep: who is asleep, how long one would wait, and what a request does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import closing
from functools import wraps
from typing import Any

import pytest

from gateway.attempt import Answer, Ask
from gateway.dispatch import Dispatcher
from gateway.errors import UpstreamGatewayError
from gateway.exchange import Exchange, Outcome
from gateway.fleet import FleetWatch
from gateway.metrics import Metrics
from gateway.pool import Pool
from gateway.requests.chat import Chat
from gateway.serves import Serves
from gateway.upstreams.base import UpstreamError
from gateway.workers.link import LinkedAddress
from gateway.workers.protocol import WorkerState
from gateway.workers.turns import LEAST_COST_SECONDS, LINGER, LONGEST_TURN, START_SECONDS, WAKE_SECONDS
from router.experts import ExpertsFile
from tests.fakes.memory import FakeUpstream, SkippingLoop, answers, decision, experts_file
from tests.fakes.owner import facts

WHOLE = b'{"id": "c1", "choices": [{"message": {"content": "Hello"}}]}'
CODER = "http://127.0.0.1:7001/v1"
NOW = 1_700_000_000.0


class Wanted:
    """Remembers what is wanted of the workers, oldest first."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []
        self.wishes: list[str] = []
        self.likely: list[tuple[str, float]] = []

    def waiting(self, expert: str, count: int) -> None:
        self.said.append((expert, count))

    def wish(self, expert: str) -> None:
        self.wishes.append(expert)

    def expect(self, expert: str, likely: float) -> None:
        self.likely.append((expert, likely))


def launching(sleep_after: str | None = "10m", **changes: Any) -> dict[str, Any]:
    """An expert with one worker that is launched."""
    launch = changes.pop("launch", {})
    return {
        "upstream": {"launch": {"engine": "vllm", **launch}},
        "sleep_after": sleep_after,
        "affinity": "none",
        **changes,
    }


class House:
    """A dispatcher over `coder`, whose worker sleeps, and `other`, which is always there; `tell` says how the worker does."""

    def __init__(
        self, experts: Mapping[str, Mapping[str, Any]] | None = None, other: bool = True, **coder: Any
    ) -> None:
        fixed: dict[str, Mapping[str, Any]] = {"other": {}} if other else {}
        self.file: ExpertsFile = experts_file({"coder": launching(**coder), **(experts or {}), **fixed})
        names = [n for n, spec in self.file.experts.items() if spec.upstream.launch]
        self.addresses = {f"{n}-{i}": LinkedAddress(f"{n}-{i}") for n in names for i in range(4)}
        self.wanted, self.metrics = Wanted(), Metrics()
        self.pool = Pool(self.file, self.addresses, self.metrics.hold, self.metrics, wants=self.wanted)
        self.pool.sleepers._clock = lambda: NOW
        self.upstream = FakeUpstream({"127": [answers(WHOLE)], "other-0": [answers(WHOLE)]})
        self.dispatcher = Dispatcher(self.pool, self.upstream, Serves(self.file.experts))
        self.exchange = Exchange("req-1", "chat.completions", observers=[self.metrics.observe])
        self.chain = tuple(self.file.experts)

    def tell(self, state: WorkerState | str, worker: str = "coder-0", **more: Any) -> None:
        self.addresses[worker].tell(facts(worker, state, CODER, **{"since": NOW, **more}))
        self.pool.heard()

    async def answer(self) -> Answer:
        chat = Chat.parse(b'{"model": "auto", "messages": [{"role": "user", "content": "hi"}]}')
        answer = await self.dispatcher.answer(self.exchange, Ask(chat), decision(*self.chain))
        with closing(answer):
            self.exchange.finish(answer.outcome, answer.status)
        return answer

    async def answered_by(self) -> str | None:
        await self.answer()
        assert not any(replica.in_flight for replica in self.pool.all())
        return self.exchange.expert_id

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def quickly(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """In a loop in which minutes pass at once."""

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            runner.run(test(*arguments, **named))

    return run


def later(house: House, seconds: float, state: str, **more: Any) -> None:
    asyncio.get_running_loop().call_later(seconds, lambda: house.tell(state, **more))


# Who is asleep.


@pytest.mark.parametrize("state", list(WorkerState))
def test_one_is_asleep_that_will_be_awake_again(state: WorkerState) -> None:
    house = House()
    house.tell(state)
    asleep = state in (WorkerState.ASLEEP, WorkerState.WAKING, WorkerState.STOPPING)
    assert house.pool.sleepers.asleep("coder") is asleep
    assert house.pool.ready("coder") is (state is WorkerState.READY)
    assert house.pool.able("coder") is (asleep or state is WorkerState.READY)
    assert house.pool.sleepers.lost("coder") is not house.pool.able("coder")
    assert FleetWatch(house.pool)().down == (frozenset() if house.pool.able("coder") else frozenset({"coder"}))


def test_one_that_never_sleeps_is_down_while_its_worker_stops() -> None:
    house = House(sleep_after=None)
    house.tell("stopping")
    assert (house.pool.able("coder"), bool(house.pool.sleepers)) == (False, False)


def test_without_an_owner_all_are_down() -> None:
    house = House()
    house.tell("asleep")
    house.addresses["coder-0"].tell(None)
    assert (house.pool.able("coder"), house.pool.able("other")) == (False, True)


def test_an_expert_on_another_s_workers_sleeps_as_they_do_and_wants_those() -> None:
    house = House({"poet": {"upstream": {"worker": "coder", "adapter": {"name": "verse"}}}})
    house.tell("asleep")
    assert house.pool.replicas["poet"][0].address is house.pool.replicas["coder"][0].address
    assert house.pool.sleepers.asleep("poet")
    house.pool.sleepers.wish("poet")
    assert house.wanted.wishes == ["coder"]
    assert [replica.metered for replica in house.pool.all()] == [True, True, True]


def test_one_that_came_up_may_be_asked_before_it_is_probed_with_a_clean_slate() -> None:
    house = House()
    house.tell("ready")
    (replica,) = house.pool.replicas["coder"]
    replica.up, replica.failures, replica.open_until = False, 9, 1e12
    house.tell("asleep")
    house.tell("ready")
    assert (replica.available, replica.failures) == (True, 0)
    replica.failures, replica.open_until = 9, 1e12  # no probe has found it down since
    house.tell("asleep")
    house.tell("ready")
    assert (replica.available, replica.failures) == (True, 0)
    replica.up = False
    house.tell("ready")  # nothing new: what the probe said holds
    assert not replica.available


# How long one would wait.


def test_a_waking_is_expected_to_take_what_the_last_took() -> None:
    house = House()
    sleepers = house.pool.sleepers
    house.tell("asleep")
    assert sleepers.expected("coder") == START_SECONDS
    house.tell("asleep", wake_seconds=8.0)
    assert sleepers.expected("coder") == 8.0
    house.tell("waking", wake_seconds=8.0, since=NOW - 5)
    assert sleepers.expected("coder") == 3.0
    house.tell("waking", wake_seconds=8.0, since=NOW - 12)  # late, and as late again
    assert sleepers.expected("coder") == 4.0
    sleeping = House(launch={"args": "--enable-sleep-mode"})
    sleeping.tell("asleep")
    assert sleeping.pool.sleepers.expected("coder") == WAKE_SECONDS


def test_what_is_left_of_a_rival_s_turn_is_waited_for_as_well() -> None:
    house = House({"math": launching(launch={"gpus": [0]})}, launch={"gpus": [0]})
    sleepers = house.pool.sleepers
    house.tell("asleep", wake_seconds=8.0)
    for state, since, more in (
        ("asleep", 0, 0.0),
        ("stopping", 0, 0.0),
        ("failed", 0, 0.0),
        ("ready", 0, LINGER * 20),
        ("ready", 2, LINGER * 20 - 2),
        ("ready", 100, 0.0),
        ("waking", 15, 5.0 + LINGER * 20),
    ):
        house.tell(state, "math-0", since=NOW - since, wake_seconds=20.0)
        assert sleepers.expected("coder") == pytest.approx(8.0 + more), (state, since)
    house.tell("ready", "math-0", since=NOW - 15, wake_seconds=1.0)
    with house.pool.holding("math", house.pool.replicas["math"][0]):
        assert sleepers.expected("coder") == 8.0 + LONGEST_TURN * LEAST_COST_SECONDS - 15


def test_where_nobody_else_is_awake_the_longer_of_both_limits_counts() -> None:
    assert House(wake_within="5s", queue={"wait": "40s"}).pool.sleepers.patience("coder") == 40
    assert House(wake_within="50s", queue={"wait": "40s"}).pool.sleepers.patience("coder") == 50


# What a request does meanwhile.


@quickly
async def test_one_that_will_be_awake_in_time_is_waited_for_beyond_its_queue_s_time() -> None:
    house = House(queue={"wait": "1s"}, wake_within="30s")
    house.tell("asleep", wake_seconds=20.0)
    later(house, 25, "ready")
    began = asyncio.get_running_loop().time()
    assert await house.answered_by() == "coder"
    assert house.wanted.said == [("coder", 1), ("coder", 0)]
    assert (house.exchange.passed_over, house.wanted.wishes) == (None, [])
    assert asyncio.get_running_loop().time() - began > 24


@quickly
async def test_one_that_will_not_be_awake_in_time_is_woken_while_a_fallback_answers() -> None:
    house = House(wake_within="5s")
    house.tell("asleep", wake_seconds=20.0)
    began = asyncio.get_running_loop().time()
    assert await house.answered_by() == "other"
    assert asyncio.get_running_loop().time() - began < 1
    assert house.wanted.wishes == ["coder"]
    assert house.counted("moe_fallbacks_total", from_expert="coder", to_expert="other", reason="asleep") == 1
    assert len(house.exchange.attempts) == 1


@quickly
async def test_one_that_wakes_too_late_is_left_when_its_time_is_over() -> None:
    house = House(wake_within="30s", queue={"wait": "500s"})
    house.tell("asleep", wake_seconds=20.0)
    later(house, 90, "ready")
    began = asyncio.get_running_loop().time()
    assert await house.answered_by() == "other"
    assert 29 < asyncio.get_running_loop().time() - began < 31
    assert house.wanted.wishes == ["coder"]
    assert house.counted("moe_fallbacks_total", from_expert="coder", to_expert="other", reason="woke_late") == 1
    assert house.counted("moe_queue_refused_total", expert="coder", reason="expired") == 0


@pytest.mark.parametrize("gone", ["failed", None])
@quickly
async def test_one_that_will_not_wake_any_more_is_left_at_once(gone: str | None) -> None:
    house = House()
    house.tell("waking", wake_seconds=20.0)
    loop = asyncio.get_running_loop()
    began = loop.time()

    def go() -> None:
        if gone:
            house.tell(gone)
        else:
            house.addresses["coder-0"].tell(None)
            house.pool.heard()

    loop.call_later(2, go)
    assert await house.answered_by() == "other"
    assert loop.time() - began < 3
    assert house.wanted.said[-1] == ("coder", 0)
    assert house.wanted.wishes == []


@quickly
async def test_a_full_queue_of_one_that_sleeps_sends_to_the_fallback() -> None:
    house = House(queue={"length": 0})
    house.tell("asleep", wake_seconds=1.0)
    assert await house.answered_by() == "other"
    assert house.exchange.passed_over == ("coder", "full")


@quickly
async def test_where_nobody_is_awake_it_is_waited_for_however_long_it_takes_and_then_told() -> None:
    house = House(other=False, wake_within="40s", queue={"wait": "5s"})
    house.tell("asleep", wake_seconds=300.0)
    later(house, 30, "ready")
    assert await house.answered_by() == "coder"
    house = House(other=False, wake_within="40s", queue={"wait": "5s"})
    house.tell("asleep", wake_seconds=300.0)
    with pytest.raises(UpstreamGatewayError) as caught:
        await house.answer()
    assert (caught.value.status, caught.value.code) == (503, "no_expert_available")
    assert caught.value.headers == {"retry-after": "300"}
    assert "woken" in caught.value.message
    assert house.counted("moe_queue_refused_total", expert="coder", reason="asleep") == 1
    assert house.wanted.said == [("coder", 1), ("coder", 0)]


@quickly
async def test_one_that_nobody_can_stand_in_for_is_waited_for_once() -> None:
    house = House(other=False, wake_within="40s", queue={"wait": "5s"})
    house.tell("asleep", wake_seconds=3.0)
    began = asyncio.get_running_loop().time()
    with pytest.raises(UpstreamGatewayError):
        await house.answer()
    assert 39 < asyncio.get_running_loop().time() - began < 41
    assert house.wanted.wishes == []


@quickly
async def test_of_those_that_sleep_the_first_is_waited_for_and_of_those_that_failed_none() -> None:
    house = House({"math": launching()}, other=False)
    house.tell("failed")
    house.tell("asleep", "math-0")
    later(house, 3, "ready", worker="math-0")
    assert await house.answered_by() == "math"
    house.tell("failed", "math-0")
    house.exchange = Exchange("req-2", "chat.completions")
    with pytest.raises(UpstreamGatewayError) as caught:
        await house.answer()
    assert (caught.value.status, caught.value.headers) == (503, {"retry-after": "5"})


@quickly
async def test_one_that_falls_asleep_as_it_is_asked_is_asked_again_when_it_is_awake() -> None:
    house = House(other=False)
    house.tell("ready")

    async def falls_asleep() -> Any:
        house.tell("stopping")
        later(house, 1, "asleep")
        later(house, 5, "ready")
        raise UpstreamError(Outcome.CONNECT_ERROR, "it could not be reached")

    house.upstream.script["127"] = [falls_asleep, answers(WHOLE)]
    assert await house.answered_by() == "coder"
    assert [attempt.replica for attempt in house.exchange.attempts] == ["coder-0", "coder-0"]


@quickly
async def test_a_fallback_that_sleeps_is_passed_by_for_one_that_is_awake() -> None:
    house = House({"math": launching()})
    house.tell("failed")
    house.tell("asleep", "math-0", wake_seconds=1.0)
    assert await house.answered_by() == "other"
    assert house.wanted.said == []


@quickly
async def test_a_client_that_leaves_wants_nothing_any_more() -> None:
    house = House(other=False)
    house.tell("asleep")
    task = asyncio.ensure_future(house.answer())
    await asyncio.sleep(0.1)
    assert house.wanted.said == [("coder", 1)]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert house.wanted.said == [("coder", 1), ("coder", 0)]


@quickly
async def test_all_who_waited_are_let_in_at_once() -> None:
    house = House()
    house.tell("asleep", wake_seconds=10.0)
    places = [asyncio.ensure_future(house.pool.wait_at("coder", None, (), 30.0)) for _ in range(50)]
    await asyncio.sleep(1)
    assert house.wanted.said[-1] == ("coder", 50)
    house.tell("ready")
    assert [place.expert for place in await asyncio.gather(*places)] == ["coder"] * 50
    assert house.wanted.said[-1] == ("coder", 0)
    for place in places:
        place.result().release()


@quickly
async def test_one_that_is_awake_costs_no_look_at_who_sleeps() -> None:
    class Touchy:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"looked at {name}")

    house = House(sleep_after=None)
    house.tell("ready")
    house.pool.sleepers = Touchy()  # type: ignore[assignment]
    assert await house.answered_by() == "coder"
