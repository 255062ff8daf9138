from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.lora import LOAD_SECONDS, ROUTES_OFF, leftovers, load, unload, unload_leftovers
from gateway.pool import Pool
from gateway.upstreams.base import Address, FixedAddress
from router.experts import ExpertsFile, Timeouts
from router.upstream import Adapter
from tests.fakes.adapters import Worker, Workers
from tests.fakes.memory import FakeReply, SkippingLoop, experts_file

URL = "http://secret-host.test:8123/v1"
HERE = FixedAddress(URL)
SQL = Adapter(name="sql", path="/lora/sql")


def worker(**changes: Any) -> Worker:
    return Worker(**{"folders": {"/lora/sql": 8, "/lora/big": 16}, **changes})


async def loaded(at: Worker, adapter: Adapter = SQL, key: str | None = None, in_place: bool = False) -> str | None:
    return await load(Workers(workers={URL: at}), FixedAddress(URL, key), adapter, in_place)


async def test_an_adapter_is_loaded_once_however_often_it_is_told() -> None:
    at = worker()
    assert [await loaded(at) for _ in range(2)] == [None, None]
    assert at.adapters == {"sql": "/lora/sql"}


async def test_one_that_has_its_name_gives_way_only_when_told_so() -> None:
    at = worker(adapters={"sql": "/lora/old"})
    assert await loaded(at) is None
    assert at.adapters == {"sql": "/lora/old"}
    assert await loaded(at, in_place=True) is None
    assert at.adapters == {"sql": "/lora/sql"}


@pytest.mark.parametrize(("changes", "path", "why"), [
    ({"routes": False}, "/lora/sql", ROUTES_OFF),
    ({"enabled": False}, "/lora/sql", "LoRA is off there; start the worker with --enable-lora"),
    ({}, "/lora/none", "there is no adapter at /lora/none on its machine"),
    ({}, "/lora/big", "LoRA rank 16 is greater than max_lora_rank 8."),
    ({"key": "right"}, "/lora/sql", "it refuses the key"),
    ({"up": False}, "/lora/sql", "it could not be reached"),
    ({"base": "sql"}, "/lora/sql", "The lora adapter 'sql' conflicts with a served base model."),
])  # fmt: skip
async def test_why_a_worker_does_not_load_it_is_told(changes: dict[str, Any], path: str, why: str) -> None:
    at = worker(**changes)
    assert await loaded(at, Adapter(name="sql", path=path), "wrong") == why
    assert at.adapters == {}


class Saying(Workers):
    """Answers every POST with the chunks."""

    def __init__(self, status: int, *chunks: bytes) -> None:
        super().__init__()
        self.said = FakeReply(*chunks, status=status)

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> FakeReply:
        return self.said


@pytest.mark.parametrize(("status", "body", "why"), [
    (500, b"<html>", "it answered with status 500"),
    (302, b"", "it answered with status 302"),
    (404, b'{"detail":"Not Found"}', ROUTES_OFF),
    (405, b"", ROUTES_OFF),
    (400, b'{"error":"no \\u001b[31m at secret-host.test:8123 with k-123"}', "no \ufffd[31m at … with …"),
    (500, b'{"error":{"message":"' + b"x" * 1000 + b'"}}', "x" * 300 + "…"),
    (500, b"[" * 10_000, "it answered with status 500"),
])  # fmt: skip
async def test_a_reason_is_short_and_tells_neither_address_nor_key(status: int, body: bytes, why: str) -> None:
    upstream = Saying(status, body)
    assert await load(upstream, FixedAddress(URL, "k-123"), SQL) == why
    assert upstream.said.closed


async def test_an_answer_without_end_is_not_read_to_it() -> None:
    upstream = Saying(500, *[b"x" * 1024] * 1000)
    assert await load(upstream, HERE, SQL) == "it answered with status 500"
    assert upstream.said.taken < 100
    assert upstream.said.closed


def test_a_worker_that_never_answers_is_given_up() -> None:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        began = runner.get_loop().time()
        assert runner.run(loaded(worker(hung=True))) == "it did not answer in time"
        assert runner.get_loop().time() - began >= LOAD_SECONDS


async def test_unloading_what_is_gone_is_fine_and_what_cannot_be_asked_is_told() -> None:
    at = worker(adapters={"sql": "/lora/sql"})
    upstream = Workers(workers={URL: at})
    assert [await unload(upstream, HERE, "sql") for _ in range(2)] == [None, None]
    assert at.adapters == {}
    at.routes = False
    assert await unload(upstream, HERE, "sql") == ROUTES_OFF
    at.up = False
    assert await unload(upstream, HERE, "sql") == "it could not be reached"


# What is left over when the file is another.

URLS = ["http://a.test/v1", "http://b.test/v1"]


def specialists(urls: list[str] = URLS, **adapters: Any) -> ExpertsFile:
    """An expert for each adapter, and the base; a value is its name, or its name and its path."""
    experts: dict[str, Any] = {"general": {"model": "base", "upstream": {"vllm": urls}}}
    for expert, adapter in adapters.items():
        experts[expert] = {"model": "base", "upstream": {"vllm": urls, "adapter": adapter}}
    return experts_file(experts)


def with_path(name: str) -> dict[str, str]:
    return {"name": name, "path": f"/lora/{name}"}


def left(old: ExpertsFile, new: ExpertsFile, newest: ExpertsFile | None = None) -> list[tuple[str | None, str]]:
    """Address and adapter of what is left over of `old` when `new` serves."""
    pool = Pool(old, {})
    Pool(new, {}, before=pool)
    return [(replica.address.url, replica.model) for replica in leftovers(pool, newest or new)]


def test_an_adapter_that_the_file_has_no_more_is_left_over_at_each_of_its_servers_once() -> None:
    old = specialists(sql=with_path("sql"), sql2=with_path("sql"), math=with_path("math"))
    assert left(old, specialists(math=with_path("math"))) == [(url, "sql") for url in URLS]
    assert left(old, specialists()) == [(url, name) for url in URLS for name in ("sql", "math")]
    assert left(old, old) == []


def test_what_another_expert_wants_there_is_not_and_at_another_server_it_is() -> None:
    old = specialists(sql=with_path("sql"))
    assert left(old, specialists(queries="sql")) == []
    assert left(old, specialists(URLS[:1], queries="sql")) == [(URLS[1], "sql")]


def test_what_has_no_path_was_loaded_by_others_and_is_theirs() -> None:
    assert left(specialists(sql="sql"), specialists()) == []


def test_what_the_file_on_disk_wants_is_not_left_over_though_it_is_not_served_by_yet() -> None:
    old, again = specialists(sql=with_path("sql")), specialists(sql=with_path("sql"))
    assert left(old, specialists(), again) == []
    assert left(old, specialists(), specialists(URLS[:1], sql=with_path("sql"))) == [(URLS[1], "sql")]


def test_what_a_pool_between_still_serves_is_not_left_over_until_it_is_idle() -> None:
    old = Pool(specialists(sql=with_path("sql")), {})
    between = Pool(specialists(sql=with_path("sql")), {}, before=old)
    held = between.take("sql")
    assert held is not None
    newest = Pool(specialists(), {}, before=between)
    assert list(leftovers(old, newest.file)) == []
    held.release()
    assert [r.model for r in leftovers(old, newest.file)] == ["sql", "sql"]


def test_what_the_newest_pool_wants_is_not_left_over_of_one_that_was_idle_when_it_came() -> None:
    old = Pool(specialists(sql=with_path("sql")), {})
    between = Pool(specialists(), {}, before=old)
    Pool(specialists(sql=with_path("sql")), {}, before=between)
    assert list(leftovers(old, specialists())) == []


class Launched:
    """A launched worker's address."""

    url = "http://127.0.0.1:5/v1"
    api_key: str | None = None


def launching(**adapters: Any) -> ExpertsFile:
    experts: dict[str, Any] = {"base": {"upstream": {"launch": {"lora_modules": {"math": "/lora/math"}}}}}
    experts |= {name: {"upstream": {"worker": "base", "adapter": adapter}} for name, adapter in adapters.items()}
    return experts_file(experts)


def test_of_a_launched_worker_what_it_is_started_with_stays() -> None:
    workers = {"base-0": Launched()}
    old = Pool(launching(sql=with_path("sql"), math=with_path("math"), again=with_path("again")), workers)
    newest = Pool(launching(), workers, before=old)
    assert [replica.name for replica in leftovers(old, newest.file)] == ["sql-0", "again-0"]
    assert [replica.name for replica in leftovers(old, launching(other="again"))] == ["sql-0"]


async def test_what_is_left_over_is_unloaded_where_the_server_is_up(caplog: pytest.LogCaptureFixture) -> None:
    workers = {url: worker(adapters={"sql": "/lora/sql", "math": "/lora/math"}) for url in URLS}
    pool = Pool(specialists(sql=with_path("sql")), {})
    newest = Pool(specialists(), {}, before=pool)
    pool.replicas["sql"][1].up = False
    with caplog.at_level("INFO", "moe_gateway"):
        await unload_leftovers(Workers(workers=workers), pool, newest.file)
    assert [at.told for at in workers.values()] == [["unload sql"], []]
    assert [(r.message, r.__dict__["replica"], r.__dict__["adapter"]) for r in caplog.records] == [
        ("adapter unloaded", "sql-0", "sql")
    ]  # fmt: skip


async def test_one_that_cannot_be_unloaded_is_told_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    workers = {url: worker(adapters={"sql": "/lora/sql"}) for url in URLS}
    workers[URLS[0]].routes = False
    pool = Pool(specialists(sql=with_path("sql")), {})
    newest = Pool(specialists(), {}, before=pool)
    with caplog.at_level("WARNING", "moe_gateway"):
        await unload_leftovers(Workers(workers=workers), pool, newest.file)
    assert workers[URLS[1]].adapters == {}
    assert [record.__dict__["why"] for record in caplog.records] == [ROUTES_OFF]
