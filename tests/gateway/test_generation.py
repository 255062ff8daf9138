"""What one experts.yaml leaves to the next: adapters, over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import generation
from gateway.generation import Generation
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.workers.link import Link
from router.experts import parse_experts
from tests.fakes.adapters import Worker, worker_server
from tests.fakes.memory import router_of


@pytest.fixture
def worker() -> Worker:
    return Worker(folders={"/lora/sql": 8, "/lora/math": 8})


@pytest.fixture
def url(worker: Worker) -> Iterator[str]:
    with worker_server(worker) as url:
        yield url


@pytest.fixture(autouse=True)
def _settles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(generation, "LOOK_SECONDS", 0.001)


class House:
    """A gateway's generations, one after the other, by what is written into its file."""

    def __init__(self, folder: Path, url: str) -> None:
        self.settings = Settings(config=folder / "experts.yaml", state=folder, health_interval=3600.0)
        self._url, self._metrics, self._link = url, Metrics(), Link(folder)
        self.all: list[Generation] = []

    def write(self, *adapters: str, **paths: str) -> None:
        """A general expert, and one for each adapter at its usual path, or at the one that is given."""
        at = {"vllm": [self._url]}
        experts: dict[str, Any] = {"general": {"model": "base", "domains": ["general"], "upstream": at}}
        for name, path in (dict.fromkeys(adapters, "") | paths).items():
            adapter = {"name": name, "path": path or f"/lora/{name}"}
            experts[name] = {"model": "base", "domains": ["code"], "upstream": {**at, "adapter": adapter}}
        self.settings.config.write_text(json.dumps({"version": 1, "experts": experts}), "utf-8")

    async def load(self) -> Generation:
        """Serve by what is written."""
        file = parse_experts(self.settings.config.read_text("utf-8"))
        before = self.all[-1] if self.all else None
        new = Generation(self.settings, router_of(file), self._metrics, {}, self._link, before=before)
        await new.start()
        self.all.append(new)
        return new

    async def become(self, *adapters: str, **paths: str) -> Generation:
        self.write(*adapters, **paths)
        return await self.load()


@asynccontextmanager
async def house_at(folder: Path, url: str) -> AsyncIterator[House]:
    house = House(folder, url)
    try:
        yield house
    finally:
        for made in house.all:
            await made.close()


async def test_an_adapter_that_no_file_has_any_more_is_unloaded_and_another_path_takes_its_place(
    worker: Worker, url: str, tmp_path: Path
) -> None:
    async with house_at(tmp_path, url) as house:
        old = await house.become("sql", "math")
        assert worker.adapters == {"sql": "/lora/sql", "math": "/lora/math"}
        await house.become(sql="/lora/math")
        assert worker.told[2:] == ["load sql /lora/math in place"]
        await old.retire()
        assert worker.told[3:] == ["unload math"]


async def test_it_is_not_unloaded_while_a_request_for_it_is_in_flight(worker: Worker, url: str, tmp_path: Path) -> None:
    async with house_at(tmp_path, url) as house:
        old = await house.become("sql")
        place = old.state.pool.take("sql")
        assert place is not None
        await house.become()
        retiring = asyncio.create_task(old.retire())
        await asyncio.sleep(0.05)
        assert worker.adapters == {"sql": "/lora/sql"}
        place.release()
        await retiring
        assert worker.adapters == {}


async def test_one_that_comes_back_before_it_was_unloaded_stays(worker: Worker, url: str, tmp_path: Path) -> None:
    async with house_at(tmp_path, url) as house:
        for adapters in (["sql"], [], ["sql"]):
            await house.become(*adapters)
        for old in house.all[:2]:
            await old.retire()
        assert worker.told == ["load sql /lora/sql"]


async def test_what_a_file_wants_that_nobody_serves_by_yet_stays_and_so_does_all_while_it_cannot_be_read(
    worker: Worker, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house_at(tmp_path, url) as house:
        old = await house.become("sql")
        await house.become()
        house.write("sql")  # and another process was told of it already
        await old.retire()
        assert worker.told == ["load sql /lora/sql"]
        old = await house.load()
        await house.become()
        house.settings.config.write_text("version: 1\nexperts: {", "utf-8")
        await old.retire()
        assert "cannot be read" in caplog.text
        assert worker.told == ["load sql /lora/sql"]


async def test_several_gateways_load_and_unload_at_one_worker(worker: Worker, url: str, tmp_path: Path) -> None:
    folders = [tmp_path / str(i) for i in range(3)]
    for folder in folders:
        folder.mkdir()
    async with house_at(folders[0], url) as a, house_at(folders[1], url) as b, house_at(folders[2], url) as c:
        houses = (a, b, c)
        old = await asyncio.gather(*(house.become("sql", "math") for house in houses))
        new = await asyncio.gather(*(house.become("math") for house in houses))
        await asyncio.gather(*(generation.retire() for generation in old))
        assert worker.adapters == {"math": "/lora/math"}
        assert worker.told.count("unload sql") == 3
        assert [made.state.served.warnings() for made in new] == [[]] * 3
