"""GET /admin/experts: what each replica does, to those who may know, and never where it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.exchange import Outcome
from gateway.guard import Guard
from gateway.load import Load
from gateway.pool import Pool
from gateway.refusals import Refusal
from gateway.replica import COOL_DOWN_SECONDS, FAILURES_TO_OPEN
from gateway.routes import admin
from gateway.served import Served
from gateway.settings import Settings
from router.experts import ExpertsFile
from tests.fakes.adapters import Worker, Workers
from tests.fakes.clock import Clock
from tests.fakes.memory import experts_file

FILE = experts_file(
    {"coder": {"max_in_flight": 4, "queue": {"length": 7}}, "math": {"upstream": {"litellm": "openai/gpt-x"}}}, 3
)


@dataclass
class House:
    """What the route looks at: a file, and a pool over it, and what their servers say that they have."""

    file: ExpertsFile = FILE
    clock: Clock = field(default_factory=Clock)
    upstream: Workers = field(default_factory=Workers)

    def __post_init__(self) -> None:
        self.pool = Pool(self.file, {}, clock=self.clock)
        self.served = Served(self.upstream, self.file, self.pool.replicas)


async def ask(house: House, settings: Settings | None = None, **headers: str) -> httpx.Response:
    app = FastAPI()
    app.state.gateway = house
    app.include_router(admin.routes)
    app.add_middleware(Guard, settings=settings or Settings())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080") as http:
        return await http.get(
            "/admin/experts", headers={name.replace("_", "-"): text for name, text in headers.items()}
        )


async def told(house: House, replica: int = 0) -> dict[str, Any]:
    """What is told of coder's replica."""
    answer = await ask(house)
    assert answer.status_code == 200
    described: dict[str, Any] = answer.json()["coder"]["replicas"][replica]
    return described


async def test_every_expert_and_replica_is_there_and_no_address() -> None:
    answer = await ask(House())
    experts = answer.json()
    assert {expert: [replica["name"] for replica in of["replicas"]] for expert, of in experts.items()} == {
        "coder": ["coder-0", "coder-1", "coder-2"],
        "math": ["math-0"],
    }
    assert {key: experts["coder"][key] for key in ("model", "ready", "queued", "queue_length")} == {
        "model": "model-of-coder", "ready": True, "queued": 0, "queue_length": 7
    }  # fmt: skip
    assert ".test" not in answer.text
    assert "http" not in answer.text


async def test_one_that_was_never_asked() -> None:
    assert await told(House()) == {
        "name": "coder-0", "state": "up", "served": None, "worker": None, "up": None, "available": True, "cause": None,
        "retry_after": 0, "failures": 0, "trips": 0, "last_outcome": None, "in_flight": 0, "max_in_flight": 4, "weight": 1,
        "share": 1,
        "outstanding": 0, "load": None, "ttft": None,
    }  # fmt: skip


async def test_a_load_that_was_read_is_told_with_its_age() -> None:
    house = House()
    house.pool.replicas["coder"][0].weigh(Load(running=3, waiting=2, cache=0.25), good_for=15)
    house.clock.now += 4
    described = await told(house)
    assert described["load"] == {"running": 3, "waiting": 2, "kv_cache": 0.25, "age": 4, "stale": False}
    assert described["outstanding"] == 4.5
    house.clock.now += 11
    described = await told(house)
    assert described["load"]["stale"] is True
    assert described["outstanding"] == 0


async def test_the_states_as_they_follow_one_another() -> None:
    house = House()
    replica = house.pool.replicas["coder"][0]
    for _ in range(FAILURES_TO_OPEN):
        with house.pool.holding("coder", replica) as place:
            place.note(Outcome.TIMEOUT)
    described = await told(house)
    assert (described["state"], described["cause"], described["available"]) == ("ejected", "failures", False)
    assert (described["failures"], described["trips"], described["last_outcome"]) == (3, 1, "timeout")
    assert described["retry_after"] == COOL_DOWN_SECONDS
    house.clock.now += COOL_DOWN_SECONDS
    assert (await told(house))["state"] == "half_open"
    with house.pool.holding("coder", replica) as place:
        assert (await told(house))["in_flight"] == 1
        place.note(Outcome.SERVER_ERROR, Refusal.DRAINING)
    assert (await told(house))["state"] == "draining"
    replica.probe(False)
    assert (await told(house))["state"] == "down"
    replica.probe(True)
    replica.slow = True
    replica.first_tokens.extend([(house.clock.now, 2.5)] * 10)
    described = await told(house)
    assert (described["state"], described["share"], described["ttft"]) == ("slow", 0.25, 2.5)


async def test_it_asks_for_the_admins_key() -> None:
    settings = Settings(keys={"team": "key-of-team"}, admin_key="key-of-admin")
    assert (await ask(House(), settings)).status_code == 401
    assert (await ask(House(), settings, authorization="Bearer key-of-team")).status_code == 401
    assert (await ask(House(), settings, authorization="Bearer key-of-admin")).status_code == 200


@pytest.mark.parametrize("replica", range(3))
async def test_numbers_that_json_has_not_are_none(replica: int) -> None:
    house = House()
    house.pool.replicas["coder"][replica].open_until = float("inf")
    assert (await told(house, replica))["retry_after"] is None


async def test_it_says_whether_each_server_has_what_the_file_says() -> None:
    urls = [f"http://coder-{i}.test/v1" for i in range(3)]
    workers = dict(zip(urls, (Worker("model-of-coder"), Worker("other"), Worker("x", list_body=b"?")), strict=True))
    house = House(upstream=Workers(workers=workers))
    for replica in house.pool.replicas["coder"]:
        replica.probe(True)
    house.served.refresh()
    await house.served.settled()
    told = (await ask(house)).json()["coder"]["replicas"]
    assert [(replica["served"], replica["state"]) for replica in told] == [
        ("ok", "up"), ("model missing: model-of-coder; its server has other", "lacking"), (None, "up")
    ]  # fmt: skip
