from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.exchange import Outcome
from gateway.pool import Place, Pool, part
from gateway.queueing import NoPlaceError
from gateway.refusals import Refusal
from gateway.replica import COOL_DOWN_SECONDS, FAILURES_TO_OPEN, Replica
from gateway.upstreams.base import FixedAddress
from router.experts import ExpertsFile
from tests.fakes.clock import Clock
from tests.fakes.memory import SkippingLoop, experts_file


class Worker:
    """A worker's address, before and after it came up."""

    url: str | None = None
    api_key: str | None = None


def small_file() -> ExpertsFile:
    urls = [{"url": "http://a.test/v1"}, {"url": "http://b.test/v1", "weight": 2.5}]
    embedded = {"upstream": {"embedded": "smollm2"}}
    return experts_file({"coder": {"upstream": {"vllm": urls}}, "math": embedded, "bio": embedded})


def test_replicas_are_named_by_their_expert_and_their_place() -> None:
    pool = Pool(small_file(), {"smollm2": Worker()})
    assert [replica.name for replica in pool.all()] == ["coder-0", "coder-1", "math-0", "bio-0"]
    assert [replica.address.url for replica in pool.replicas["coder"]] == ["http://a.test/v1", "http://b.test/v1"]
    assert [replica.weight for replica in pool.all()] == [1.0, 2.5, 1.0, 1.0]


def test_an_experts_key_goes_to_all_of_its_replicas_and_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODER_KEY", "k-123")
    upstream = {"vllm": ["http://a.test/v1", "http://b.test/v1"], "api_key": "${CODER_KEY}"}
    pool = Pool(experts_file({"coder": {"upstream": upstream}, "math": {}}), {})
    assert [replica.address.api_key for replica in pool.all()] == ["k-123", "k-123", None]
    assert "k-123" not in repr(pool.all())


def test_experts_that_share_a_worker_share_its_address_but_not_their_replica() -> None:
    worker = Worker()
    pool = Pool(small_file(), {"smollm2": worker})
    (math,), (bio,) = pool.replicas["math"], pool.replicas["bio"]
    assert math is not bio
    assert math.address is bio.address is worker


def test_an_expert_is_ready_while_one_of_its_replicas_may_be_asked() -> None:
    worker = Worker()
    pool = Pool(small_file(), {"smollm2": worker})
    assert not pool.ready("math")
    worker.url = "http://127.0.0.1:1/v1"
    assert pool.ready("math")
    first, second = pool.replicas["coder"]
    first.up = False
    assert pool.ready("coder")
    second.up = False
    assert not pool.ready("coder")


def test_the_cap_of_a_replica_is_its_own_or_that_of_its_expert() -> None:
    urls = [{"url": "http://a.test/v1", "max_in_flight": 7}, "http://b.test/v1"]
    experts = {"coder": {"upstream": {"vllm": urls}, "max_in_flight": 2}, "math": {}}
    assert [replica.cap for replica in Pool(experts_file(experts), {}).all()] == [7, 2, None]


@given(st.integers(1, 200), st.integers(1, 16))
def test_processes_that_share_a_cap_have_parts_of_it_that_add_up(cap: int, count: int) -> None:
    parts = [part(cap, (index, count)) or 0 for index in range(count)]
    assert min(parts) >= 1
    assert sum(parts) == max(cap, count)
    assert max(parts) - min(parts) <= 1
    assert part(None, (0, count)) is None


def test_an_expert_of_litellm_s_has_one_replica_and_no_metrics_of_vllm_s() -> None:
    upstreams: list[dict[str, str]] = [
        {"litellm": "openai/gpt-x"}, {"litellm": "openai/gpt-x", "base_url": "http://own.test/v1"}
    ]  # fmt: skip
    pool = Pool(experts_file({f"e{i}": {"upstream": upstream} for i, upstream in enumerate(upstreams)}), {})
    one, two = pool.all()
    assert (one.name, one.metered, one.available) == ("e0-0", False, True)
    assert two.address.url == "http://own.test/v1"


def test_only_vllm_s_servers_are_asked_for_their_load() -> None:
    assert [r.metered for r in Pool(small_file(), {"smollm2": Worker()}).all()] == [True, True, False, False]


def test_a_place_is_given_back_when_the_request_fails() -> None:
    heard: list[tuple[str, int]] = []
    pool = Pool(experts_file({"coder": {}}), {}, lambda expert, count: heard.append((expert, count)))
    replica = pool.replicas["coder"][0]

    def fail() -> None:
        with pool.holding("coder", replica):
            assert replica.in_flight == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert replica.in_flight == 0
    assert heard == [("coder", 1), ("coder", 0)]


@given(st.lists(st.tuples(st.sampled_from(["coder", "math"]), st.integers(0, 1)), max_size=12), st.randoms())
def test_the_counts_are_those_of_the_requests_in_flight_in_whatever_order_they_end(
    requests: list[tuple[str, int]], random: Random
) -> None:
    heard: dict[str, list[int]] = {"coder": [0], "math": [0]}
    pool = Pool(experts_file({"coder": {}, "math": {}}, replicas=2), {}, lambda e, n: heard[e].append(n))
    replicas = [(expert, pool.replicas[expert][i]) for expert, i in requests]
    holds = [(expert, replica, pool.holding(expert, replica)) for expert, replica in replicas]
    for _, _, hold in holds:
        hold.__enter__()
    for name, counts in heard.items():
        assert counts[-1] == sum(r.in_flight for r in pool.replicas[name]) == sum(e == name for e, _ in requests)
    random.shuffle(holds)
    for _, _, hold in holds:
        hold.__exit__(None, None, None)
    assert all(replica.in_flight == 0 for replica in pool.all())
    assert all(counts[-1] == 0 and min(counts) == 0 for counts in heard.values())
    assert all(abs(a - b) == 1 for counts in heard.values() for a, b in pairwise(counts))


def test_an_address_tells_nothing_of_itself() -> None:
    assert "secret" not in repr(FixedAddress("http://secret.test/v1", "secret"))


# Places, and those who wait for one.


class Told:
    """Books that remember all they were told."""

    def __init__(self) -> None:
        self.queue: list[tuple[str, int]] = []
        self.waits: list[tuple[str, float]] = []
        self.refused: list[tuple[str, str]] = []
        self.ejected: list[tuple[str, str, str]] = []

    def on_queue(self, expert: str, length: int) -> None:
        self.queue.append((expert, length))

    def on_wait(self, expert: str, seconds: float) -> None:
        self.waits.append((expert, seconds))

    def on_refused(self, expert: str, reason: str) -> None:
        self.refused.append((expert, reason))

    def on_eject(self, expert: str, replica: str, cause: str) -> None:
        self.ejected.append((expert, replica, cause))


def pool_of(
    replicas: int = 1, cap: int | None = 1, length: int = 10, wait: float = 10.0, clock: Clock | None = None,
    books: Told | None = None,
) -> Pool:  # fmt: skip
    """Experts `coder` and `math`, each of whose replicas takes `cap` requests."""
    spec = {"max_in_flight": cap, "queue": {"length": length, "wait": wait}}
    file = experts_file({"coder": spec, "math": spec}, replicas)
    return Pool(file, {}, books=books, clock=clock or Clock())


def taken(pool: Pool, expert: str = "coder") -> Place:
    place = pool.take(expert)
    assert place is not None
    return place


def eject(pool: Pool, replica: Replica) -> None:
    for _ in range(FAILURES_TO_OPEN):
        with pool.holding(replica.name.partition("-")[0], replica) as place:
            place.note(Outcome.TIMEOUT)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_places_are_held_from_the_moment_they_are_taken_and_end_with_the_caps() -> None:
    pool = pool_of(replicas=2, cap=2)
    places = [taken(pool) for _ in range(4)]
    assert Counter(place.replica.name for place in places) == {"coder-0": 2, "coder-1": 2}
    assert pool.take("coder") is None
    assert taken(pool, "math").expert == "math"
    places[1].release()
    assert taken(pool).replica is places[1].replica


def test_a_place_is_released_once_and_what_is_noted_first_counts() -> None:
    pool = pool_of(cap=5)
    with taken(pool) as place:
        place.note(Outcome.SERVER_ERROR)
        place.note(Outcome.OK)
        place.release()
        place.release()
    assert place.replica.in_flight == 0
    assert place.replica.failures == 1


def test_who_has_tried_a_replica_gets_another_or_none() -> None:
    pool = pool_of(replicas=2, cap=None)
    one, two = pool.replicas["coder"]
    for _ in range(4):
        place = pool.take("coder", None, {one})
        assert place is not None
        assert place.replica is two
    assert pool.take("coder", None, {one, two}) is None


def test_a_key_leads_to_the_same_replica_of_any_gateway() -> None:
    pools = [pool_of(replicas=5, cap=None) for _ in range(2)]
    names = [[place.replica.name for i in range(20) if (place := pool.take("coder", b"%d" % i))] for pool in pools]
    assert names[0] == names[1]
    assert len(set(names[0])) == 5


async def test_a_place_that_is_given_back_goes_to_who_waited_longest_and_nobody_overtakes() -> None:
    books = Told()
    pool = pool_of(books=books)
    held = taken(pool)
    waiting = [asyncio.ensure_future(pool.wait(["coder"])) for _ in range(3)]
    await settle()
    assert pool.queued("coder") == 3
    for task in waiting:
        held.release()
        assert pool.take("coder") is None
        held = await task
        assert held.replica.in_flight == 1
    held.release()
    assert [length for _, length in books.queue] == [1, 2, 3, 2, 1, 0]
    assert len(books.waits) == 3
    assert books.refused == []
    taken(pool).release()


async def test_who_comes_when_a_cool_down_has_just_ended_does_not_overtake_who_waits() -> None:
    clock = Clock()
    pool = pool_of(replicas=2, clock=clock)
    _, failing = pool.replicas["coder"]
    eject(pool, failing)
    taken(pool)
    waiting = asyncio.ensure_future(pool.wait(["coder"]))
    await settle()
    clock.now += COOL_DOWN_SECONDS  # and nobody has looked yet
    assert pool.take("coder") is None
    assert (await waiting).replica is failing


async def test_the_queue_is_that_of_the_first_expert_that_is_up() -> None:
    pool = pool_of()
    held = [taken(pool, "coder"), taken(pool, "math")]
    pool.replicas["coder"][0].up = False
    task = asyncio.ensure_future(pool.wait(["coder", "math"]))
    await settle()
    assert (pool.queued("coder"), pool.queued("math")) == (0, 1)
    held[1].release()
    assert (await task).expert == "math"


async def test_where_no_expert_is_up_nobody_waits() -> None:
    books = Told()
    pool = pool_of(books=books)
    for replica in pool.all():
        eject(pool, replica)
    with pytest.raises(NoPlaceError) as caught:
        await pool.wait(["coder", "math"])
    assert (caught.value.reason, caught.value.retry_after) == ("down", 5)
    assert (books.waits, books.refused) == ([], [])
    assert books.ejected == [("coder", "coder-0", "failures"), ("math", "math-0", "failures")]


async def test_who_has_tried_all_that_is_up_does_not_wait_for_it() -> None:
    pool = pool_of()
    (replica,) = pool.replicas["coder"]
    taken(pool)
    with pytest.raises(NoPlaceError) as caught:
        await pool.wait(["coder"], None, {replica})
    assert caught.value.reason == "down"


async def test_a_full_queue_and_a_wait_that_expires_are_counted() -> None:
    books = Told()
    pool = pool_of(length=1, wait=0.01, books=books)
    taken(pool)
    first = asyncio.ensure_future(pool.wait(["coder"]))
    await settle()
    with pytest.raises(NoPlaceError) as caught:
        await pool.wait(["coder"])
    assert caught.value.reason == "full"
    with pytest.raises(NoPlaceError) as caught:
        await first
    assert caught.value.reason == "expired"
    assert books.refused == [("coder", "full"), ("coder", "expired")]


async def test_a_place_that_came_free_before_the_wait_began_is_taken_at_once() -> None:
    pool = pool_of()
    assert (await pool.wait(["coder"])).replica.in_flight == 1
    assert pool.queued("coder") == 0


async def test_who_is_cancelled_with_a_place_in_hand_passes_it_on() -> None:
    pool = pool_of()
    held = taken(pool)
    first, second = (asyncio.ensure_future(pool.wait(["coder"])) for _ in range(2))
    await settle()
    held.release()  # handed to the first, which never learns of it
    first.cancel()
    place = await second
    place.release()
    assert (place.replica.in_flight, pool.queued("coder")) == (0, 0)


# Half open.


async def test_those_who_wait_for_a_trial_come_in_with_its_first_token() -> None:
    clock = Clock()
    pool = pool_of(cap=None, clock=clock)
    (replica,) = pool.replicas["coder"]
    eject(pool, replica)
    clock.now += COOL_DOWN_SECONDS
    trial = taken(pool)
    assert pool.take("coder") is None
    assert pool.ready("coder")
    waiting = [asyncio.ensure_future(pool.wait(["coder"])) for _ in range(3)]
    await settle()
    assert not any(task.done() for task in waiting)
    trial.first_token(0.2)
    await settle()
    assert all(task.done() for task in waiting)
    places = await asyncio.gather(*waiting)
    assert replica.in_flight == 4
    for place in (trial, *places):
        place.release()


async def test_when_the_trial_proves_nothing_the_next_of_those_who_wait_is_the_trial() -> None:
    clock = Clock()
    pool = pool_of(cap=None, clock=clock)
    eject(pool, pool.replicas["coder"][0])
    clock.now += COOL_DOWN_SECONDS
    trial = taken(pool)
    waiting = [asyncio.ensure_future(pool.wait(["coder"])) for _ in range(2)]
    await settle()
    trial.release()
    await settle()
    assert [task.done() for task in waiting] == [True, False]
    (await waiting[0]).note(Outcome.OK)
    (await waiting[0]).release()
    await waiting[1]


def test_those_who_wait_are_woken_when_a_replica_has_cooled_down() -> None:
    async def test() -> None:
        pool = Pool(
            experts_file({"coder": {"max_in_flight": 1}}, replicas=2), {}, clock=asyncio.get_running_loop().time
        )
        full, failing = pool.replicas["coder"]
        eject(pool, failing)
        taken(pool)
        place = await pool.wait(["coder"])  # by default 10 s at most, and the other cools down for 5
        assert place.replica is failing
        place.note(Outcome.OK)
        assert not failing.open_until
        assert full.in_flight == 1

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(test())


def test_nobody_looks_again_and_again_while_all_are_merely_full() -> None:
    async def test() -> None:
        pool = pool_of(wait=60.0)
        taken(pool)
        with pytest.raises(NoPlaceError):
            await pool.wait(["coder"])

    began = time.monotonic()
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:  # it skips only what it has nothing to do in
        runner.run(test())
    assert time.monotonic() - began < 40


async def test_those_who_wait_are_woken_when_a_probe_finds_a_replica_well() -> None:
    pool = pool_of(replicas=2)
    _, down = pool.replicas["coder"]
    down.up = False
    taken(pool)
    task = asyncio.ensure_future(pool.wait(["coder"]))
    await settle()
    down.probe(True)
    pool.refresh()
    assert (await task).replica is down


def test_a_refresh_tells_of_who_became_slow() -> None:
    books = Told()
    pool = pool_of(replicas=2, books=books)
    for replica, seconds in zip(pool.replicas["coder"], (9.0, 0.1), strict=True):
        replica.first_tokens.extend([(1000.0, seconds)] * 20)
    pool.refresh()
    pool.refresh()
    assert books.ejected == [("coder", "coder-0", "slow")]


def test_when_to_come_again_is_when_the_first_has_cooled_down() -> None:
    clock = Clock()
    pool = pool_of(clock=clock)
    coder, math = pool.all()
    assert pool.retry_after(["coder"]) == 5
    coder.open_until, math.open_until = clock.now + 40.5, clock.now + 17.2
    assert pool.retry_after(["coder", "math"]) == 18
    assert pool.retry_after(["coder"]) == 41
    math.up = False
    assert pool.retry_after(["coder", "math"]) == 41


# Another file while requests run and wait.


async def test_places_that_end_go_first_to_those_who_waited_before_the_file_was_another() -> None:
    books = Told()
    old = pool_of(books=books)
    held = taken(old)
    first = [asyncio.ensure_future(old.wait(["coder"])) for _ in range(2)]
    await settle()
    new = Pool(old.file, {}, books=books, clock=Clock(), before=old)
    assert new.replicas["coder"][0] is held.replica
    later = asyncio.ensure_future(new.wait(["coder"]))
    await settle()
    assert books.queue[-1] == ("coder", 3)
    for task in (*first, later):
        assert not task.done()
        held.release()
        assert new.take("coder") is None
        held = await task
    assert (old.idle, new.idle) == (True, False)
    held.release()
    assert (new.idle, new.queued("coder"), held.replica.in_flight) == (True, 0, 0)


async def test_a_place_of_the_new_pool_goes_to_who_waits_in_the_old_one() -> None:
    old = pool_of()
    (replica,) = old.replicas["coder"]
    blocker = taken(old)
    waiting = asyncio.ensure_future(old.wait(["coder"]))
    await settle()
    new = Pool(old.file, {}, clock=Clock(), before=old)
    replica.cap = 2
    assert new.take("coder") is None  # what there was room for went to who waited
    (await waiting).release()
    blocker.release()
    assert (replica.in_flight, old.idle) == (0, True)


async def test_an_expert_that_the_new_file_has_not_is_served_to_those_who_wait_for_it() -> None:
    old = pool_of()
    held = taken(old, "math")
    waiting = asyncio.ensure_future(old.wait(["math"]))
    await settle()
    Pool(experts_file({"coder": {}}), {}, clock=Clock(), before=old)
    held.release()
    (await waiting).release()
    assert old.idle


async def test_pools_that_ended_are_kept_by_none_that_lives() -> None:
    first = newest = pool_of()
    ended: list[weakref.ref[Pool]] = []
    for _ in range(5):
        newest = Pool(newest.file, {}, clock=Clock(), before=newest)
        ended.append(weakref.ref(newest))
    gc.collect()
    alive = [pool() is not None for pool in ended]
    assert alive == [False, False, False, True, True]  # the last two may share a replica
    assert first.others() == newest.all()


# Everything at once.


class Requests(RuleBasedStateMachine):
    """Requests that come, wait, run, fail, end and are cancelled in any order, on replicas that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.counts: dict[str, int] = {}
        self.books = Told()
        self.places: list[Place] = []
        self.waiting: list[asyncio.Task[Place]] = []  # in order of arrival

    @initialize(replicas=st.integers(1, 3), cap=st.integers(1, 3), length=st.integers(0, 4))
    def begin(self, replicas: int, cap: int, length: int) -> None:
        self.cap, self.length = cap, length
        spec = {"max_in_flight": cap, "queue": {"length": length, "wait": 3600}}
        file = experts_file({"coder": spec}, replicas)
        self.pool = Pool(file, {}, self.counts.__setitem__, self.books, clock=self.clock)
        self.replicas = self.pool.replicas["coder"]

    def turn(self) -> None:
        """Let everybody have a turn; who was served holds a place from then on."""
        self.runner.run(settle())
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if not task.cancelled() and task.exception() is None:
                self.places.append(task.result())

    @rule(key=st.none() | st.binary(min_size=1, max_size=1))
    def take(self, key: bytes | None) -> None:
        place = self.runner.run(self._take(key))
        if place is not None:
            assert not self.waiting  # else it had overtaken them
            self.places.append(place)

    async def _take(self, key: bytes | None) -> Place | None:
        return self.pool.take("coder", key)

    @rule()
    def wait(self) -> None:
        before = len(self.waiting)
        up = any(replica.promising for replica in self.replicas)

        async def begin() -> asyncio.Task[Place]:
            task = asyncio.ensure_future(self.pool.wait(["coder"]))
            await settle()
            return task

        task = self.runner.run(begin())
        if task.done() and isinstance(error := task.exception(), NoPlaceError):
            assert error.reason == "down" if not up else (error.reason, before) == ("full", self.length)
        else:
            self.waiting.append(task)
            self.turn()

    @precondition(lambda self: self.places)
    @rule(data=st.data(), outcome=st.sampled_from([None, *Outcome]), refusal=st.sampled_from([None, *Refusal]))
    def end(self, data: st.DataObject, outcome: Outcome | None, refusal: Refusal | None) -> None:
        place = self.places.pop(data.draw(st.integers(0, len(self.places) - 1)))
        queue = list(self.waiting)

        async def end() -> None:
            if outcome is not None:
                place.note(outcome, refusal)
            place.release()
            place.release()

        self.runner.run(end())
        self.turn()
        served = [task for task in queue if task not in self.waiting]
        assert served == queue[: len(served)]  # first come, first served

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def first_token(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.places))

        async def say() -> None:
            place.first_token(0.1)

        self.runner.run(say())
        self.turn()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), served=st.booleans())
    def cancel(self, data: st.DataObject, served: bool) -> None:
        """One who waits leaves; if `served`, in the moment in which a place comes free."""
        task = self.waiting[0] if served else data.draw(st.sampled_from(self.waiting))

        async def leave() -> None:
            if served and self.places:
                self.places.pop(0).release()
            task.cancel()
            await settle()

        self.runner.run(leave())
        self.turn()
        assert task not in self.waiting

    @rule(data=st.data(), up=st.booleans())
    def probe(self, data: st.DataObject, up: bool) -> None:
        data.draw(st.sampled_from(self.replicas)).probe(up)
        self.refresh()

    @rule(seconds=st.sampled_from([0.5, 5.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.refresh()

    def refresh(self) -> None:
        async def refresh() -> None:
            self.pool.refresh()

        self.runner.run(refresh())
        self.turn()

    @invariant()
    def counts_are_right(self) -> None:
        if not hasattr(self, "pool"):
            return
        held = Counter(place.replica for place in self.places)
        for replica in self.replicas:
            assert 0 <= replica.in_flight == held[replica] <= self.cap
        assert self.counts.get("coder", 0) == len(self.places)
        assert self.pool.queued("coder") == len(self.waiting) <= self.length
        assert (self.books.queue or [("coder", 0)])[-1] == ("coder", len(self.waiting))
        # Nobody waits for what is there.
        assert not (self.waiting and any(replica.available and not replica.full for replica in self.replicas))

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            while self.places:
                self.runner.run(self._release())
                self.turn()
            for replica in self.replicas:
                replica.forgive()
                replica.probe(True)
            self.refresh()
            while self.places or self.waiting:
                assert self.places, "somebody waits though nobody holds a place"
                self.runner.run(self._release())
                self.turn()
            assert all(replica.in_flight == 0 for replica in self.replicas)
        self.runner.close()

    async def _release(self) -> None:
        self.places.pop().release()


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


SHARED = {"vllm": ["http://a.test/v1", "http://b.test/v1"]}


def lora_file(**adapters: str) -> ExpertsFile:
    """An expert for each adapter, and the base itself, all at the same two servers."""
    names = {expert: {"model": "base", "upstream": {**SHARED, "adapter": name}} for expert, name in adapters.items()}
    return experts_file({"base": {"model": "base", "upstream": SHARED, "max_in_flight": 2}, **names})


def test_experts_of_one_server_know_of_each_other_s_requests_and_have_each_its_own_cap() -> None:
    pool = Pool(lora_file(sql="sql-1", math="math-1"), {})
    for _ in range(2):
        pool.take("sql")
    assert [replica.in_flight for replica in pool.replicas["sql"]] == [1, 1]
    assert [replica.work for replica in pool.replicas["base"]] == [1, 1]
    with pool.holding("math", pool.replicas["math"][0]):
        assert taken(pool, "base").replica.name == "base-1"  # at the other a third of ours is in flight
        taken(pool, "base")
        taken(pool, "base")
        taken(pool, "base")
        assert pool.take("base") is None  # two each are its own cap
        assert pool.take("sql") is not None  # which is no other's


def test_a_replica_whose_model_is_another_is_another_and_what_is_beside_it_follows_the_file() -> None:
    old = Pool(lora_file(sql="sql-1", math="math-1"), {})
    eject(old, old.replicas["sql"][0])
    eject(old, old.replicas["math"][0])
    new = Pool(lora_file(sql="sql-2", math="math-1"), {}, before=old)
    assert new.replicas["math"] == old.replicas["math"]
    assert new.replicas["sql"][0] is not old.replicas["sql"][0]
    assert new.replicas["sql"][0].available
    assert [r.model for r in new.replicas["sql"]] == ["sql-2"] * 2
    assert set(new.replicas["math"][0].beside) == {new.replicas["base"][0], new.replicas["sql"][0]}
