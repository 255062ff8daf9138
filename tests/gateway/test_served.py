from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.exchange import Outcome
from gateway.lora import ROUTES_OFF
from gateway.pool import Pool
from gateway.replica import State
from gateway.served import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, MAX_TRIES, OK, SETTLE_SECONDS, Served
from router.experts import ExpertsFile
from tests.fakes.adapters import Worker, Workers
from tests.fakes.clock import Clock
from tests.fakes.memory import SkippingLoop, experts_file

URLS = ["http://a.test/v1", "http://b.test/v1"]
PATHS = {"/lora/sql": 8, "/lora/math": 8, "/lora/sql-2": 8}


def specialists(count: int = 1, base: dict[str, Any] | None = None, **adapters: Any) -> ExpertsFile:
    """A base and an expert for each adapter, all at the same `count` servers."""
    at = {"vllm": URLS[:count]}
    experts: dict[str, Any] = {"general": {"model": "base", "upstream": at, **(base or {})}}
    experts |= {name: {"model": "base", "upstream": {**at, "adapter": adapter}} for name, adapter in adapters.items()}
    return experts_file(experts)


def with_path(name: str, path: str = "") -> dict[str, str]:
    return {"name": name, "path": path or f"/lora/{name}"}


@dataclass
class House:
    """A pool over workers that all are up, and what is served of it."""

    file: ExpertsFile
    workers: dict[str, Worker] = field(default_factory=lambda: {url: Worker(folders=PATHS) for url in URLS})
    before: ExpertsFile | None = None
    clock: Clock = field(default_factory=Clock)
    changes: int = 0

    def __post_init__(self) -> None:
        self.pool = Pool(self.file, {}, clock=self.clock)
        upstream = Workers(workers=self.workers)
        self.served = Served(
            upstream, self.file, self.pool.replicas, self.before, on_change=self._changed, clock=self.clock
        )
        for replica in self.pool.all():
            replica.probe(True)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def worker(self) -> Worker:
        return self.workers[URLS[0]]

    async def look(self, times: int = 1) -> dict[str, str | None]:
        """So many rounds of probes; what is known of each replica then."""
        for _ in range(times):
            self.served.refresh()
            await self.served.settled()
        return {replica.name: self.served.of(replica) for replica in self.pool.all()}

    def states(self) -> dict[str, State]:
        return {replica.name: replica.state for replica in self.pool.all()}

    def come_back(self) -> None:
        for up in (False, False, True):
            for replica in self.pool.all():
                replica.probe(up)


async def test_a_server_that_has_what_the_file_says_is_asked_once_in_each_life() -> None:
    house = House(specialists(sql="sql"))
    house.worker.adapters["sql"] = "/anywhere"
    assert await house.look(3) == {"general-0": OK, "sql-0": OK}
    assert house.worker.asked == 1  # for both experts
    assert house.served.warnings() == []
    assert house.served.mismatched() == {"general": False, "sql": False}
    house.come_back()
    await house.look(3)
    assert house.worker.asked == 2


async def test_one_that_is_down_or_not_yet_probed_is_not_asked() -> None:
    house = House(specialists())
    house.pool.all()[0].up = None
    await house.look()
    house.pool.all()[0].up = False
    await house.look()
    assert house.worker.asked == 0


@pytest.mark.parametrize("upstream", [{"embedded": "smollm2"}, {"litellm": "openai/x"}])
async def test_only_what_speaks_as_vllm_does_is_asked(upstream: dict[str, str]) -> None:
    file = experts_file({"one": {"upstream": upstream}})
    pool = Pool(file, {"smollm2": type("Engine", (), {"url": URLS[0], "api_key": None})()})
    pool.all()[0].probe(True)
    served = Served(Workers(), file, pool.replicas)
    served.refresh()
    await served.settled()
    assert served.of(pool.all()[0]) is None
    assert served.mismatched() == {}


async def test_a_replica_whose_server_lacks_the_model_is_left_out_until_it_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House(specialists(2, sql="sql"))
    house.worker.adapters["sql"] = "/anywhere"
    missing = "adapter missing: sql; its server has base"
    with caplog.at_level(logging.INFO, "moe_gateway"):
        assert await house.look(3) == {"general-0": OK, "general-1": OK, "sql-0": OK, "sql-1": missing}
        assert house.states()["sql-1"] is State.LACKING
        assert house.served.warnings() == [f"sql-1: {missing}"]
        assert house.served.mismatched() == {"general": False, "sql": True}
        assert [house.workers[url].asked for url in URLS] == [1, 3]
        assert house.changes == 0
        house.workers[URLS[1]].adapters["sql"] = "/anywhere"
        assert (await house.look())["sql-1"] == OK
    assert house.states()["sql-1"] is State.UP
    assert house.changes == 1
    assert [(r.levelname, r.message, r.__dict__.get("why")) for r in caplog.records] == [
        ("ERROR", "the expert's server is not as experts.yaml says", missing),
        ("INFO", "the expert's server is as experts.yaml says", None),
    ]


async def test_another_base_model_is_missing_too() -> None:
    house = House(specialists(), workers={URLS[0]: Worker("another")})
    assert await house.look() == {"general-0": "model missing: base; its server has another"}
    assert house.states() == {"general-0": State.LACKING}


async def test_what_differs_otherwise_is_told_once_and_asked_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    house = House(specialists(base={"context_window": 4096}, sql="sql"))
    house.worker.adapters["sql"], house.worker.parent = "/anywhere", "llama"
    with caplog.at_level(logging.INFO, "moe_gateway"):
        assert await house.look(3) == {
            "general-0": "context window: 4096 in the file, 2048 at its server",
            "sql-0": "adapter of another model: sql belongs to llama, not to base",
        }
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert set(house.states().values()) == {State.UP}
    assert house.worker.asked == 1  # it will not change while it lives


async def test_who_is_no_vllm_may_have_more_than_it_lists() -> None:
    house = House(specialists(), workers={URLS[0]: Worker("model.gguf", owner="llamacpp")})
    missing = "model missing: base; its server has model.gguf, and is asked all the same"
    assert await house.look() == {"general-0": missing}
    assert house.states() == {"general-0": State.UP}


@pytest.mark.parametrize("worker", [Worker(list_body=b"?"), Worker(list_body=b""), Worker(key="k")])
async def test_a_list_that_cannot_be_had_changes_nothing_and_is_asked_for_less_and_less(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(specialists(sql="sql"), workers={URLS[0]: worker})
    assert await house.look(2 * MAX_TRIES) == {"general-0": None, "sql-0": None}
    assert worker.asked in (0, MAX_TRIES)
    house.clock.now += LONGEST_PAUSE_SECONDS
    await house.look(3)
    assert worker.asked in (0, MAX_TRIES + 1)
    assert set(house.states().values()) == {State.UP}
    assert caplog.records == []
    house.come_back()
    worker.key, worker.list_body = None, None
    assert (await house.look())["sql-0"] == "adapter missing: sql; its server has base"


async def test_what_one_life_said_is_forgotten_in_the_next_that_says_nothing() -> None:
    house = House(specialists(sql="sql"))
    await house.look()
    assert house.states()["sql-0"] is State.LACKING
    house.worker.list_body = b"?"
    await house.look()
    assert house.states()["sql-0"] is State.LACKING  # the same server would say the same
    house.come_back()
    assert await house.look() == {"general-0": None, "sql-0": None}
    assert house.states()["sql-0"] is State.UP


async def test_a_server_that_begins_to_refuse_what_it_listed_is_asked_again() -> None:
    house = House(specialists(sql="sql"))
    house.worker.adapters["sql"] = "/anywhere"
    await house.look(2)
    house.worker.adapters.clear()  # somebody had it unloaded
    assert (await house.look())["sql-0"] == OK
    with house.pool.holding("sql", house.pool.replicas["sql"][0]) as place:
        place.note(Outcome.REJECTED)
    assert (await house.look())["sql-0"] == "adapter missing: sql; its server has base"


async def test_another_process_at_the_same_address_is_asked_anew() -> None:
    from gateway.load import Load

    house = House(specialists())
    for process in (1.0, 1.0, 2.0):
        house.pool.all()[0].weigh(Load(0, 0, process=process), 10)
        await house.look()
    assert house.worker.asked == 2


async def test_an_adapter_with_a_path_is_loaded_at_each_server_that_lacks_it() -> None:
    house = House(specialists(2, sql=with_path("sql"), queries=with_path("sql"), math=with_path("math")))
    house.worker.adapters["math"] = "/lora/math"
    verdicts = await house.look()
    assert set(verdicts.values()) == {OK}
    assert [at.told for at in house.workers.values()] == [
        ["load sql /lora/sql"], ["load sql /lora/sql", "load math /lora/math"]
    ]  # fmt: skip
    assert set(house.states().values()) == {State.UP}
    await house.look(3)
    assert [at.asked for at in house.workers.values()] == [2, 2]


async def test_it_is_loaded_again_in_the_next_life_and_after_somebody_unloaded_it() -> None:
    house = House(specialists(sql=with_path("sql")))
    await house.look()
    house.worker.adapters.clear()
    house.come_back()
    assert (await house.look())["sql-0"] == OK
    house.worker.adapters.clear()
    with house.pool.holding("sql", house.pool.replicas["sql"][0]) as place:
        place.note(Outcome.REJECTED)
    assert (await house.look())["sql-0"] == OK
    assert house.worker.told == ["load sql /lora/sql"] * 3


async def test_several_gateways_load_one_adapter_and_none_minds_the_others() -> None:
    houses = [House(specialists(sql=with_path("sql"))) for _ in range(3)]
    for house in houses:
        house.served.refresh()
    shared = houses[0].workers
    for house in houses[1:]:
        house.workers.update(shared)
    await asyncio.gather(*(house.served.settled() for house in houses))
    assert [house.served.of(house.pool.replicas["sql"][0]) for house in houses] == [OK] * 3
    assert 1 <= len(shared[URLS[0]].told) <= 3


async def test_one_that_is_refused_is_tried_again_later_and_later_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House(specialists(sql=with_path("sql")))
    house.worker.routes = False
    tried = []
    with caplog.at_level(logging.INFO, "moe_gateway"):
        for _ in range(1200):
            before = house.clock.now
            house.worker.routes, told = False, house.worker.asked
            await house.look()
            if house.worker.asked - told == 2:  # once before it is told to load, once after
                tried.append(before)
            house.clock.now += 1
    gaps = [b - a for a, b in itertools.pairwise(tried)]
    assert gaps == [FIRST_PAUSE_SECONDS, 10, 20, 40, 80, 160, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]
    why = f"adapter missing: sql; {ROUTES_OFF}"
    assert [record.__dict__["why"] for record in caplog.records] == [why]
    assert house.served.warnings() == [f"sql-0: {why}"]
    house.worker.routes = True
    house.clock.now += LONGEST_PAUSE_SECONDS
    assert (await house.look())["sql-0"] == OK


async def test_a_new_life_is_told_to_load_at_once() -> None:
    house = House(specialists(sql=with_path("sql")))
    house.worker.folders = {}
    await house.look(3)
    house.worker.folders = PATHS
    assert (await house.look())["sql-0"] == "adapter missing: sql; there is no adapter at /lora/sql on its machine"
    house.come_back()
    assert (await house.look())["sql-0"] == OK


async def test_one_bad_adapter_keeps_no_other_from_being_loaded() -> None:
    house = House(specialists(bad=with_path("bad"), sql=with_path("sql")))
    verdicts = await house.look()
    assert verdicts["sql-0"] == OK
    assert verdicts["bad-0"] == "adapter missing: bad; there is no adapter at /lora/bad on its machine"


async def test_a_path_that_changed_takes_the_place_of_what_was_loaded_by_the_file_before() -> None:
    old, new = specialists(sql=with_path("sql")), specialists(sql=with_path("sql", "/lora/sql-2"))
    house = House(new, before=old)
    house.worker.adapters["sql"] = "/lora/sql"
    assert (await house.look())["sql-0"] == OK
    assert house.worker.told == ["load sql /lora/sql-2 in place"]
    assert house.worker.adapters == {"sql": "/lora/sql-2"}


async def test_what_others_loaded_from_another_path_is_told_and_stays() -> None:
    house = House(specialists(sql=with_path("sql")), before=specialists(sql=with_path("sql", "/lora/sql-0")))
    house.worker.adapters["sql"] = "/lora/theirs"
    assert str((await house.look(3))["sql-0"]).startswith("adapter from another path")
    assert house.worker.told == []
    assert house.states()["sql-0"] is State.UP


def test_a_load_that_takes_long_holds_up_a_start_for_a_while_and_leaves_its_expert_out() -> None:
    async def start() -> House:
        house = House(specialists(sql=with_path("sql")))
        house.worker.hung = True
        await house.look()
        return house

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        began = runner.get_loop().time()
        house = runner.run(start())
        assert SETTLE_SECONDS <= runner.get_loop().time() - began < SETTLE_SECONDS + 1
        assert house.served.of(house.pool.replicas["sql"][0]) == "adapter missing: sql; it is being loaded"
        assert house.states() == {"general-0": State.UP, "sql-0": State.LACKING}
        house.served.close()


class Broken(Workers):
    """Fails as no adapter of ours may."""

    async def fetch(self, *_: Any) -> bytes | None:
        raise RuntimeError


async def test_a_look_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    file = specialists()
    pool = Pool(file, {})
    pool.all()[0].probe(True)
    served = Served(Broken(), file, pool.replicas)
    with caplog.at_level(logging.ERROR, "moe_gateway"):
        for _ in range(2):
            served.refresh()
            await served.settled()
    assert [record.message for record in caplog.records] == ["a server's models could not be looked at"] * 2


async def test_closed_it_asks_nobody_and_leaves_no_task() -> None:
    house, before = House(specialists(2)), asyncio.all_tasks()
    house.served.refresh()
    house.served.close()
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before
    assert [at.asked for at in house.workers.values()] == [0, 0]
